"""A layer's array as C Z Y X at one time point, reading only what is sliced."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.volume import LazyArray

_Indices: TypeAlias = tuple[slice, ...]


def as_czyx(arrays: Sequence[LazyArray], axes: str, t: int, channels: int) -> LazyArray:
    """`arrays` as one C Z Y X array; a view of a NumPy array where that is possible, else lazy.

    Parameters
    ----------
    arrays
        One array, or several of equal shape that are the channels.
    axes
        One letter of ``TCZYX`` for each axis of an array.
    t
        Time point.
    channels
        How many channels to show; further ones are left out.
    """
    lazy = LayerArray(arrays, axes, t, channels)
    if len(arrays) == 1 and isinstance(arrays[0], np.ndarray) and arrays[0].dtype.isnative:
        return lazy[...]
    return lazy


class LayerArray:
    """C Z Y X view of arrays of any kind in native byte order; takes integers and slices as NumPy does.

    Parameters
    ----------
    arrays, axes, t, channels
        See `as_czyx`.
    """

    def __init__(self, arrays: Sequence[LazyArray], axes: str, t: int, channels: int) -> None:
        self._arrays = tuple(arrays)
        self._axes = axes
        self._t = t
        lengths = dict(zip(axes, arrays[0].shape, strict=True))
        self.shape: tuple[int, ...] = (channels, *(int(lengths.get(axis, 1)) for axis in "ZYX"))
        self.dtype: np.dtype[Any] = np.result_type(*(np.dtype(array.dtype) for array in arrays)).newbyteorder("=")

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        box, inside = _box_and_rest(index, self.shape)
        if len(self._arrays) == 1:
            part = self._read(self._arrays[0], box)
        else:
            planes = [self._read(array, (slice(0, 1), *box[1:])) for array in self._arrays[box[0]]]
            shape = (0, *(part.stop - part.start for part in box[1:]))
            part = np.concatenate([np.empty(shape, self.dtype), *planes])
        result: NDArray[Any] = part[inside]
        return result.astype(self.dtype, copy=False)

    def _read(self, array: LazyArray, box: _Indices) -> NDArray[Any]:
        """Values of one stored array in a C Z Y X box."""
        wanted = dict(zip("CZYX", box, strict=True))
        wanted["T"] = slice(self._t, self._t + 1)
        part = np.asarray(array[tuple(wanted[axis] for axis in self._axes)])
        part = part.transpose([self._axes.index(axis) for axis in "TCZYX" if axis in self._axes])
        # an axis that is not stored has length 1, and is sliced here
        part = part[tuple(slice(None) if axis in self._axes else np.newaxis for axis in "TCZYX")][0]
        values: NDArray[Any] = part[tuple(slice(None) if axis in self._axes else wanted[axis] for axis in "CZYX")]
        return values


def _box_and_rest(index: Any, shape: tuple[int, ...]) -> tuple[_Indices, tuple[int | slice, ...]]:
    """The smallest box that holds what `index` asks for, and the index to take from what the box holds."""
    items = list(index) if isinstance(index, tuple) else [index]
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    items[at : at + 1] = [slice(None)] * (len(shape) - len(items) + (at < len(items)))
    if len(items) != len(shape):
        raise IndexError(f"{len(items)} indices for {len(shape)} axes")
    box: list[slice] = []
    rest: list[int | slice] = []
    for item, length in zip(items, shape, strict=True):
        if isinstance(item, slice):
            asked = range(*item.indices(length))
            first, last = (min(asked[0], asked[-1]), max(asked[0], asked[-1]) + 1) if asked else (0, 0)
            box.append(slice(first, last))
            rest.append(slice(None, None, asked.step))
            continue
        i = operator.index(item)
        if not -length <= i < length:
            raise IndexError(f"index {i} is outside an axis of length {length}")
        box.append(slice(i % length, i % length + 1))
        rest.append(0)
    return tuple(box), tuple(rest)
