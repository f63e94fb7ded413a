"""Noticing NaN and infinite grey values while an image is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.progress import Note
from napari_unet3d.engine.volume import LazyArray, Volume


class NonFiniteWatch:
    """View of a lazy array that notices NaN and infinite values in what is read of it.

    Parameters
    ----------
    array
        Of any shape and real dtype; only floating-point values are looked at.
    name
        For the note, usually the file name.

    Attributes
    ----------
    found
        Whether there was one so far.
    """

    def __init__(self, array: LazyArray, name: str) -> None:
        self._name = name
        self._array = array
        self._is_float = np.dtype(array.dtype).kind == "f"
        self.found = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    @property
    def dtype(self) -> Any:
        return self._array.dtype

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        part = np.asarray(self._array[index])
        if self._is_float and not self.found:
            self.found = not np.isfinite(part).all()
        return part

    def note(self) -> Note:
        """What to tell the user once there was such a value."""
        return Note(
            f"{self._name} holds NaN or infinite values; each counts as the median grey value of its channel "
            "in the training images",
            "warning",
        )


def watched(image: Volume) -> tuple[Volume, NonFiniteWatch]:
    """The image with a watch on what is read of it."""
    watch = NonFiniteWatch(image.data, image.name)
    return replace(image, data=watch), watch
