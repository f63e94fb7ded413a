"""Labels read a slab at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import LazyArray

_SLAB_VOXELS: Final = 2**24
_LARGEST_ID: Final = 2**32 - 1


def slabs(labels: LazyArray, spatial_dims: int) -> Iterator[tuple[int, slice, NDArray[Any]]]:
    """Time point, range of Z and values (Z Y X) of one slab after the other.

    Parameters
    ----------
    labels
        Y X, Z Y X, T Y X or T Z Y X; NumPy or lazy.
    spatial_dims
        2 or 3; another axis in front is time.
    """
    depth, height, width = (1, *labels.shape)[-3:] if spatial_dims == 3 else (1, *labels.shape[-2:])
    thickness = max(1, _SLAB_VOXELS // max(1, height * width))
    has_time = len(labels.shape) > spatial_dims
    for time_point in range(labels.shape[0] if has_time else 1):
        for start in range(0, depth, thickness):
            z = slice(start, min(start + thickness, depth))
            index = ((time_point,) if has_time else ()) + ((z,) if spatial_dims == 3 else ())
            yield time_point, z, np.asarray(labels[index or ...]).reshape(-1, height, width)


def id_type(labels: LazyArray, spatial_dims: int, name: str) -> np.dtype[Any]:
    """The type that the ids are stored in: uint8, uint16 or uint32; uint8 and uint16 stay as they are.

    Raises
    ------
    DataError
        If the values are no integers, negative or above 4294967295.
    """
    given: np.dtype[Any] = np.dtype(labels.dtype)
    if given in (np.uint8, np.uint16):
        return given
    if given.kind not in "biu":
        raise DataError(f"{name} holds {given}; labels need whole numbers of at least 0")
    low = high = 0
    for _, _, block in slabs(labels, spatial_dims):
        low, high = min(low, int(block.min(initial=0))), max(high, int(block.max(initial=0)))
    if low < 0:
        raise DataError(f"{name} holds the negative id {low}; labels need ids of at least 0")
    if high > _LARGEST_ID:
        raise DataError(f"{name} holds the id {high}; label ids go up to {_LARGEST_ID}")
    return np.min_scalar_type(high)
