"""NumPy ``.npy`` files: an array and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.io._axes import check_length, given_axes
from napari_unet3d.io._stored import StoredArray


def read_npy(path: Path, axes: str | None = None) -> StoredArray:
    """A memory-mapped NumPy file: Y X, Z Y X or C Z Y X unless `axes` names other letters.

    Raises
    ------
    DataError
        If there are fewer than two or more than four axes and none are named.
    """
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return StoredArray(array, array_axes(array.shape, axes, path.name), source={"format": "npy"})


def array_axes(shape: tuple[int, ...], axes: str | None, name: str) -> str:
    """Letters of an array that names no axes itself: the given ones, else the last of C Z Y X."""
    if axes is not None:
        letters = given_axes(axes)
        check_length(letters, shape, name)
        return letters
    if len(shape) not in (2, 3, 4):
        raise DataError(
            f"{name} has shape {tuple(shape)}; needed: Y X, Z Y X or C Z Y X, or names with --axes, "
            "for example --axes TCZYX"
        )
    return "CZYX"[-len(shape) :]


def create_npy(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A new memory-mapped file of zeros."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
