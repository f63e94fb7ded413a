"""Where napari says that labels were painted.

The ``paint`` event of a Labels layer carries a list of atoms whose form is not documented: named tuples with a
``slice_key`` (a bounding box) from napari 0.8 on, and ``(indices, old values, new values)`` before and from
``data_setitem``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_unet3d.widgets._layers.boxes import NdBox


def box_of_atom(atom: Any, shape: Sequence[int]) -> NdBox | None:
    """The box an atom changed in data of `shape`; None if its form is unknown."""
    key = getattr(atom, "slice_key", None)
    if key is None and isinstance(atom, tuple) and len(atom) == 3:
        key = atom[0]
    if not isinstance(key, tuple) or len(key) != len(shape):
        return None
    parts = [_extent(item, n) for item, n in zip(key, shape, strict=True)]
    found = tuple(part for part in parts if part is not None)
    return found if len(found) == len(parts) else None


def _extent(item: Any, length: int) -> slice | None:
    """First and last index that an index along one axis takes; None if it takes none or is no index."""
    if isinstance(item, slice):
        taken = range(*item.indices(length))
        return slice(min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1) if taken else None
    places = np.asarray(item)
    if places.dtype.kind not in "iu" or not places.size:
        return None
    places = np.where(places < 0, places + length, places) if places.min() < 0 else places
    first, last = int(places.min()), int(places.max())
    return slice(first, last + 1) if first >= 0 and last < length else None
