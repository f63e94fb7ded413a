"""Images and labels on a grid of another voxel size.

Both grids begin at the same corner of the volume and have the same directions::

    image     |  0  |  1  |  2  |  3  |  4  |      edge e, n voxels
    resampled |    0    |    1    |    2    |      edge t, about n e / t voxels

so the middle of voxel i lies at (i + 1/2) t / e - 1/2, counted in voxels of the image. Grey values and probabilities
are interpolated linearly, with a triangle as wide as the larger of the two edges on each side, so that nothing is
skipped where voxels become larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import NOT_ANNOTATED, AnnotatedVolume, LazyArray, Volume

_SAME: Final = 1e-3
"""Voxel sizes that differ by less, relatively, are taken for equal."""


@dataclass(frozen=True)
class AxisMap:
    """Places along one axis of a grid, on another grid.

    Parameters
    ----------
    length
        Voxels of the grid that is read.
    new_length
        Voxels of the grid that is asked for.
    ratio
        Edge of a voxel asked for, in voxels that are read.
    """

    length: int
    new_length: int
    ratio: float

    @property
    def inverse(self) -> AxisMap:
        """The way back."""
        return AxisMap(self.new_length, self.length, 1 / self.ratio)

    def place(self, index: float) -> float:
        """Where the middle of a voxel of the new grid lies, in voxels that are read."""
        return (index + 0.5) * self.ratio - 0.5

    def nearest(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        """Voxels that are read in which the middles of new ones lie."""
        # a middle right between two voxels belongs to the first
        found = np.ceil((indices + 0.5) * self.ratio - 1 - 1e-9).astype(np.intp)
        inside: NDArray[np.intp] = np.clip(found, 0, self.length - 1)
        return inside

    def cover(self, part: slice) -> slice:
        """Voxels that are read which a range of new ones touches."""
        start = math.floor(part.start * self.ratio + 1e-9)
        stop = math.ceil(part.stop * self.ratio - 1e-9)
        if part.stop == self.new_length:  # the grids may end half a voxel apart
            stop = self.length
        start = min(max(0, start), self.length - 1)
        return slice(start, max(start + 1, min(self.length, stop)))

    def weights(self, part: slice) -> tuple[slice, NDArray[np.float32]]:
        """What a range of new voxels is made of: the voxels to read, and new x read weights whose rows sum to 1."""
        half = max(1.0, self.ratio)
        middles = (np.arange(part.start, part.stop) + 0.5) * self.ratio - 0.5
        start = max(0, math.floor(middles[0] - half) + 1)
        stop = min(self.length, math.ceil(middles[-1] + half))
        read = slice(min(start, self.length - 1), max(stop, 1))
        matrix = 1 - np.abs(np.arange(read.start, read.stop) - middles[:, np.newaxis]) / half
        np.maximum(matrix, 0, out=matrix)
        matrix /= matrix.sum(1, keepdims=True)
        return read, matrix.astype(np.float32)


@dataclass(frozen=True)
class Resampling:
    """The grid of an image and one of another voxel size.

    Parameters
    ----------
    axes
        From the image to the new grid, Z Y X.
    """

    axes: tuple[AxisMap, AxisMap, AxisMap]

    @classmethod
    def between(cls, shape: Sequence[int], size: VoxelSize, target: VoxelSize) -> Resampling:
        """From a volume of this Z Y X shape and voxel size to another voxel size in the same unit."""
        ratios = [new / old for new, old in zip(target.zyx, size.zyx, strict=True)]
        z, y, x = (AxisMap(n, max(1, math.floor(n / r + 0.5)), r) for n, r in zip(shape, ratios, strict=True))
        return cls((z, y, x))

    @property
    def shape(self) -> Triple:
        """Z Y X of the image."""
        z, y, x = (axis.length for axis in self.axes)
        return (z, y, x)

    @property
    def new_shape(self) -> Triple:
        """Z Y X of the new grid."""
        z, y, x = (axis.new_length for axis in self.axes)
        return (z, y, x)

    @property
    def inverse(self) -> Resampling:
        """From the new grid to that of the image."""
        z, y, x = (axis.inverse for axis in self.axes)
        return Resampling((z, y, x))

    def cover(self, box: Box) -> Box:
        """Voxels of the image that a box of the new grid touches."""
        z, y, x = (axis.cover(part) for axis, part in zip(self.axes, box, strict=True))
        return (z, y, x)

    def needed(self, box: Box) -> Box:
        """Voxels of the image that a box of the new grid is interpolated from."""
        z, y, x = (axis.weights(part)[0] for axis, part in zip(self.axes, box, strict=True))
        return (z, y, x)

    def interpolated(self, read: Callable[[Box], NDArray[Any]], box: Box) -> NDArray[Any]:
        """Values of a box of the new grid.

        Parameters
        ----------
        read
            Gives C Z Y X values of a box of the image. NaN and infinite ones do not count; where only such are
            near, the result is NaN.
        box
            Z Y X, inside the new grid.

        Returns
        -------
        ndarray
            C Z Y X, float32 (float64 for integers that it cannot hold).
        """
        z, y, x = (axis.weights(part) for axis, part in zip(self.axes, box, strict=True))
        block = read((z[0], y[0], x[0]))
        values = block.astype(np.promote_types(block.dtype, np.float32))
        matrices = (z[1], y[1], x[1])
        if block.dtype.kind == "f" and not (is_finite := np.isfinite(values)).all():
            share = _applied(matrices, is_finite.astype(np.float32))
            values = _applied(matrices, np.where(is_finite, values, 0))
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.asarray(np.where(share > 0.5, values / share, np.nan).astype(values.dtype))
        return _applied(matrices, values)

    def labels(self, painted: NDArray[np.unsignedinteger], box: Box | None = None) -> NDArray[np.unsignedinteger]:
        """Sparse labels on the new grid.

        Where voxels become smaller each takes the label it lies in. Where they become larger each takes what most of
        the annotated voxels in it say (of equally many the lowest id), so that a thin painted slice is not lost.

        Parameters
        ----------
        painted
            Z Y X label ids of the image; 0 = not annotated.
        box
            Only this part of the new grid; by default all of it.
        """
        box = box or (slice(0, self.new_shape[0]), slice(0, self.new_shape[1]), slice(0, self.new_shape[2]))
        shape = tuple(part.stop - part.start for part in box)
        firsts = []
        for i, (axis, part) in enumerate(zip(self.axes, box, strict=True)):
            if axis.ratio <= 1:
                painted = painted.take(axis.nearest(np.arange(part.start, part.stop)), axis=i)
                firsts.append(0)
            else:
                read = axis.cover(part)
                painted = painted.take(np.arange(read.start, read.stop), axis=i)
                firsts.append(read.start)
        if all(axis.ratio <= 1 for axis in self.axes):
            return painted
        places = np.nonzero(painted != NOT_ANNOTATED)
        ids = painted[places]
        found = [
            place if axis.ratio <= 1 else axis.inverse.nearest(place + first) - part.start
            for place, axis, first, part in zip(places, self.axes, firsts, box, strict=True)
        ]
        inside = np.logical_and.reduce([(place >= 0) & (place < n) for place, n in zip(found, shape, strict=True)])
        ids, flat = ids[inside], np.ravel_multi_index([place[inside] for place in found], shape)
        result = np.zeros(math.prod(shape), painted.dtype)
        most = np.zeros(result.size, np.int64)
        for label_id in np.unique(ids):
            cells, counts = np.unique(flat[ids == label_id], return_counts=True)
            is_more = counts > most[cells]
            result[cells[is_more]] = label_id
            most[cells[is_more]] = counts[is_more]
        return result.reshape(shape)

    def labels_back(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Z Y X label ids of the new grid on that of the image: each voxel takes the label it lies in."""
        for i, axis in enumerate(self.axes):
            labels = labels.take(axis.inverse.nearest(np.arange(axis.length)), axis=i)
        return labels


def _applied(matrices: Sequence[NDArray[np.float32]], values: NDArray[Any]) -> NDArray[Any]:
    """C Z Y X values with a new x old matrix applied along each spatial axis, those that shrink first."""
    for i in sorted(range(3), key=lambda i: matrices[i].shape[0] / matrices[i].shape[1]):
        matrix = matrices[i].astype(values.dtype, copy=False)
        values = np.moveaxis(np.tensordot(matrix, values, axes=(1, i + 1)), 0, i + 1)
    return np.ascontiguousarray(values)


class ResampledArray:
    """An image on another grid, computed when and where it is sliced: C Z Y X.

    Parameters
    ----------
    image
        The image.
    resampling
        From its grid to the new one.
    """

    def __init__(self, image: Volume, resampling: Resampling) -> None:
        self._image = image
        self._resampling = resampling

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._image.channels, *self._resampling.new_shape)

    @property
    def dtype(self) -> Any:
        return np.promote_types(self._image.data.dtype, np.float32)

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        given = list(index) if isinstance(index, tuple) else [index]
        channels, *rest = given + [slice(None)] * (4 - len(given))
        spans = [part.indices(n) for part, n in zip(rest, self._resampling.new_shape, strict=True)]
        z, y, x = (slice(start, stop) for start, stop, _ in spans)
        return self._resampling.interpolated(self._image.read, (z, y, x))[channels]


# --- volumes ----------------------------------------------------------------------------------------------


def target_size(asked: VoxelSize, image: Volume) -> VoxelSize | None:
    """The voxel size to bring an image to, in the image's unit; None where it has it already.

    Parameters
    ----------
    asked
        Edge lengths; in pixels they count in the unit of the image.
    image
        Of a 2D image the thickness of its plane stays.

    Raises
    ------
    DataError
        If a length is asked for but the image's voxels have none.
    """
    size = image.voxel_size
    if size.unit == "pixel" != asked.unit:
        raise DataError(
            f"{image.name} has no voxel size, so it cannot be resampled to {asked}; give its own with --voxel-size"
        )
    wanted = asked.to(size.unit)
    if image.spatial_dims == 2:
        wanted = replace(wanted, z=size.z)
    return None if np.allclose(wanted.zyx, size.zyx, rtol=_SAME, atol=0) else wanted


def resampled_image(image: Volume, target: VoxelSize) -> tuple[Volume, Resampling]:
    """An image on the grid of another voxel size (in its unit); read and computed where it is sliced."""
    resampling = Resampling.between(image.shape, image.voxel_size, target)
    data: LazyArray = ResampledArray(image, resampling)
    return replace(image, data=data, voxel_size=target, affine=_affine(image, resampling), source={}), resampling


def resampled_volume(volume: AnnotatedVolume, target: VoxelSize) -> tuple[AnnotatedVolume, Resampling]:
    """An image and its labels on the grid of another voxel size (in the image's unit)."""
    image, resampling = resampled_image(volume.image, target)
    return AnnotatedVolume(image, resampling.labels(volume.labels)), resampling


def _affine(image: Volume, resampling: Resampling) -> NDArray[np.float64] | None:
    if image.affine is None:
        return None
    step = np.diag([*(axis.ratio for axis in resampling.axes), 1.0])
    step[:3, 3] = [axis.place(0) for axis in resampling.axes]
    affine: NDArray[np.float64] = image.affine @ step
    return affine
