"""Connected pieces of each label, counted plane by plane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from skimage import measure

_label: Any = measure.label  # carries no type hints


def count_pieces(planes: Iterable[NDArray[np.integer[Any]]]) -> Counter[int]:
    """Number of connected pieces of each label id in a volume.

    Voxels that share a face and an id are connected. One plane and the one before it are in memory.

    Parameters
    ----------
    planes
        Y X planes of label ids, in order, all of one shape; 0 is not counted.

    Returns
    -------
    Counter
        Pieces of each id; empty without a plane or an id.
    """
    pieces: Counter[int] = Counter()
    above: NDArray[Any] | None = None  # groups of the plane before, 0 for none
    above_ids = np.zeros(1, np.int64)  # the id of each group
    for plane in planes:
        parts: NDArray[Any] = _label(plane, background=0, connectivity=1)
        count = int(parts.max(initial=0))
        ids = np.zeros(count + 1, np.int64)
        ids[parts.ravel()] = plane.ravel()
        # groups that touch this plane become one with the parts they touch; every other part is a new piece
        offset = len(above_ids)
        total = offset + count
        links = np.zeros((2, 0), np.int64)
        if above is not None:
            touching = (above > 0) & (parts > 0) & (above_ids[above] == ids[parts])
            pairs = np.unique(above[touching].astype(np.int64) * total + parts[touching] + (offset - 1))
            links = np.stack(np.divmod(pairs, total))
        graph = sparse.coo_array((np.ones(links.shape[1], bool), (links[0], links[1])), shape=(total, total))
        _, joined = connected_components(graph, directed=False)
        before, now = joined[1:offset], joined[offset:]
        pieces.update(_ids_of_groups(np.concatenate([before, now]), np.concatenate([above_ids[1:], ids[1:]])))
        pieces.subtract(above_ids[1:].tolist())
        groups, members = np.unique(now, return_inverse=True)
        above_ids = np.zeros(len(groups) + 1, np.int64)
        above_ids[1 + members] = ids[1:]
        above = np.concatenate([[0], members + 1])[parts]
    return +pieces


def _ids_of_groups(groups: NDArray[Any], ids: NDArray[np.int64]) -> list[int]:
    """The id of each distinct group."""
    _, first = np.unique(groups, return_index=True)
    found: list[int] = ids[first].tolist()
    return found
