"""Views that reorder, or scale, a stored array without reading it."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.volume import LazyArray
from napari_unet3d.io._axes import DROPPED
from napari_unet3d.io._guard import reading


def as_czyx(array: LazyArray, axes: str, path: Path) -> LazyArray:
    """The array as C Z Y X; a NumPy view for NumPy arrays and memory maps, else a lazy one.

    Parameters
    ----------
    array
        Any array.
    axes
        For each of its axes C, Z, Y, X or `DROPPED` (see `settle_axes`).
    path
        Its file, for the message of a failing read.
    """
    if not isinstance(array, np.ndarray):
        return AxesView(array, axes, path)
    kept = axes.replace(DROPPED, "")
    part = array[tuple(0 if axis == DROPPED else slice(None) for axis in axes)]
    part = part.transpose([kept.index(axis) for axis in "CZYX" if axis in kept])
    return part[tuple(slice(None) if axis in kept else np.newaxis for axis in "CZYX")]


class AxesView:
    """A lazy array as C Z Y X: missing axes have length 1; reads only what is sliced.

    Indices are integers and slices of positive step.

    Parameters
    ----------
    array
        Stored array; must take one slice, or 0, for each axis.
    axes
        For each stored axis C, Z, Y, X or `DROPPED`.
    path
        Its file, for the message of a failing read.
    """

    def __init__(self, array: LazyArray, axes: str, path: Path) -> None:
        self._array = array
        self._axes = axes
        self._path = path
        lengths = dict(zip(axes, array.shape, strict=True))
        self._shape = tuple(int(lengths.get(axis, 1)) for axis in "CZYX")

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._array.dtype)
        return dtype

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        full = self._full_index(index)
        # integers become slices of length 1, so that every axis is there to be reordered
        wanted = {axis: i if isinstance(i, slice) else slice(i, i + 1) for axis, i in zip("CZYX", full, strict=True)}
        stored = tuple(0 if axis == DROPPED else wanted[axis] for axis in self._axes)
        with reading(self._path):
            part = np.asarray(self._array[stored])
        part = np.asarray(as_czyx(part, self._axes.replace(DROPPED, ""), self._path))
        return part[
            tuple(
                (i if axis not in self._axes else slice(None)) if isinstance(i, slice) else 0
                for axis, i in zip("CZYX", full, strict=True)
            )
        ]

    def _full_index(self, index: Any) -> list[int | slice]:
        items = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in items:
            at = items.index(Ellipsis)
            items[at : at + 1] = [slice(None)] * (5 - len(items))
        items += [slice(None)] * (4 - len(items))
        if len(items) > 4:
            raise IndexError(f"{len(items)} indices for the axes C Z Y X")
        full: list[int | slice] = []
        for item, length in zip(items, self._shape, strict=True):
            if isinstance(item, slice):
                full.append(slice(*item.indices(length)))
                continue
            i = operator.index(item)
            if not -length <= i < length:
                raise IndexError(f"index {i} is outside an axis of length {length}")
            full.append(i % length)
        return full


class ScaledArray:
    """``stored * slope + intercept``, worked out for what is sliced.

    Parameters
    ----------
    array
        Stored values.
    slope, intercept
        As in the file; the result is float32 for stored types of up to 16 bits, else float64.
    """

    def __init__(self, array: NDArray[Any], slope: float, intercept: float) -> None:
        self._array = array
        self._slope = slope
        self._intercept = intercept
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if array.dtype.itemsize <= 2 else np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        scaled = np.asarray(self._array[index], dtype=np.float64) * self._slope + self._intercept
        return scaled.astype(self.dtype)
