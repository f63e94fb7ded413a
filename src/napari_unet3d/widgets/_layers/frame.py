"""How Z, Y, X and time lie in the data of a labels layer that belongs to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import Box
from napari_unet3d.widgets._layers.boxes import NdBox
from napari_unet3d.widgets._layers.geometry import new_axes, new_shape
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari.layers import Image, Labels

SINGLE: Final = "1"
"""Letter of an axis of length 1 that stands for nothing."""


@dataclass(frozen=True)
class Frame:
    """The axes of one array of labels.

    Parameters
    ----------
    axes
        For each axis T, Z, Y, X or `SINGLE`.
    shape
        Length of each axis.
    """

    axes: str
    shape: tuple[int, ...]

    @classmethod
    def new(cls, choice: ImageChoice, *, with_time: bool = True) -> Frame:
        """Of a layer to be made from the image."""
        axes, shape = new_axes(choice, with_time=with_time), new_shape(choice, with_time=with_time)
        unwanted = "C" if with_time else "TC"
        return cls("".join(SINGLE if axis in unwanted else axis for axis in axes), shape)

    @classmethod
    def of(cls, labels: Labels | Image | NDArray[Any], choice: ImageChoice, *, any_time: bool = False) -> Frame:
        """Of an existing layer or array.

        Its spatial axes come in the order of the image's; further axes of length 1 are allowed in front.
        Time is optional where the image has one time point, or with `any_time`.

        Raises
        ------
        DataError
            If the shape is not that of the image.
        """
        shape = _shape_of(labels)
        stretched = cls.new(choice)
        plain = cls(*_joined((axis, n) for axis, n in zip(stretched.axes, stretched.shape, strict=True) if axis != "1"))
        timeless = cls(*_joined((axis, n) for axis, n in zip(plain.axes, plain.shape, strict=True) if axis != "T"))
        flat = cls.new(choice, with_time=False)
        for frame in (stretched, plain, *([timeless, flat] if any_time or choice.time_points == 1 else [])):
            extra = len(shape) - len(frame.shape)
            if extra >= 0 and shape == (1,) * extra + frame.shape:
                return cls(SINGLE * extra + frame.axes, shape)
        needed = " ".join(plain.axes)
        raise DataError(
            f"{_name_of(labels)} has shape {shape} but {choice.name!r} needs {plain.shape} ({needed}); "
            "paint on a new annotation layer made for this image"
        )

    @property
    def time_points(self) -> int:
        """Length of the T axis; 1 without one."""
        return self.shape[self.axes.index("T")] if "T" in self.axes else 1

    def view(self, array: NDArray[Any], t: int = 0) -> NDArray[Any]:
        """Z Y X view of `array` (of this frame's shape) at a time point."""
        part = array[tuple({"T": t, SINGLE: 0}.get(axis, slice(None)) for axis in self.axes)]
        return self.to_zyx(part)

    def to_zyx(self, part: NDArray[Any]) -> NDArray[Any]:
        """Z Y X view of what an index without T and single axes took; a missing Z gets length 1."""
        letters = [axis for axis in self.axes if axis in "ZYX"]
        part = part.transpose([letters.index(axis) for axis in "ZYX" if axis in letters])
        return part if "Z" in letters else part[np.newaxis]

    def from_zyx(self, block: NDArray[Any]) -> NDArray[Any]:
        """View of `block` (Z Y X, not empty) with the axes of this frame; T and single axes have length 1."""
        return self.from_tzyx(block[np.newaxis])

    def from_tzyx(self, blocks: NDArray[Any]) -> NDArray[Any]:
        """View of `blocks` (T Z Y X, not empty) with the axes of this frame; single axes have length 1."""
        kept = "".join(axis for axis in "TZYX" if axis in self.axes)
        part = blocks[tuple(slice(None) if axis in kept else 0 for axis in "TZYX")]
        part = part.transpose([kept.index(axis) for axis in self.axes if axis in kept])
        return part[tuple(slice(None) if axis in kept else np.newaxis for axis in self.axes)]

    def region(self, box: Box, t: int = 0) -> NdBox:
        """Index of a Z Y X box at a time point."""
        parts = dict(zip("ZYX", box, strict=True))
        parts |= {"T": slice(t, t + 1), SINGLE: slice(0, 1)}
        return tuple(parts[axis] for axis in self.axes)

    def plane(self, axis: int, index: int, t: int = 0) -> NdBox:
        """Index of one plane: `index` along `axis` (0 = Z, 1 = Y, 2 = X) at a time point.

        Raises
        ------
        IndexError
            If there is no such plane.
        """
        lengths = dict(zip(self.axes, self.shape, strict=True))
        box = [slice(0, lengths.get(letter, 1)) for letter in "ZYX"]
        if not (0 <= index < box[axis].stop and ("T" not in self.axes or 0 <= t < self.time_points)):
            raise IndexError(f"no plane {index} along axis {axis} at time {t} in {self.shape} ({self.axes})")
        box[axis] = slice(index, index + 1)
        return self.region((box[0], box[1], box[2]), t)

    def box_of(self, region: NdBox) -> tuple[int, Box]:
        """Time point and Z Y X box of a region of one time point."""
        parts = dict(zip(self.axes, region, strict=True))
        z, y, x = (parts.get(letter, slice(0, 1)) for letter in "ZYX")
        return (parts["T"].start if "T" in parts else 0), (z, y, x)


def _joined(pairs: Any) -> tuple[str, tuple[int, ...]]:
    pairs = list(pairs)
    return "".join(axis for axis, _ in pairs), tuple(n for _, n in pairs)


def _shape_of(labels: Any) -> tuple[int, ...]:
    shape: Sequence[int] = getattr(labels, "data", labels).shape if hasattr(labels, "unique_id") else labels.shape
    return tuple(int(n) for n in shape)


def _name_of(labels: Any) -> str:
    return repr(labels.name) if hasattr(labels, "unique_id") else "the array of labels"
