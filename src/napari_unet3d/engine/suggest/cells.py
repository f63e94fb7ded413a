"""A coarse grid over a volume, so that maps of it stay small however large the volume is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.progress import Box

MOST_CELLS: Final = 64
"""Largest number of cells along an axis; a map of float32 then takes at most 1 MB."""


@dataclass(frozen=True)
class CellGrid:
    """Blocks of `step` voxels, the last ones cut at the border of the volume.

    Parameters
    ----------
    volume_shape
        Z Y X voxels.
    voxel_size
        Z Y X edge lengths.
    step
        Z Y X voxels of a cell.
    """

    volume_shape: tuple[int, int, int]
    voxel_size: VoxelSize
    step: tuple[int, int, int]

    @classmethod
    def over(cls, volume_shape: tuple[int, int, int], voxel_size: VoxelSize, most: int = MOST_CELLS) -> CellGrid:
        """The finest grid with at most `most` cells along each axis; a small volume has one for each voxel."""
        z, y, x = (math.ceil(size / most) for size in volume_shape)
        return cls(volume_shape, voxel_size, (z, y, x))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Z Y X cells."""
        z, y, x = (math.ceil(size / step) for size, step in zip(self.volume_shape, self.step, strict=True))
        return (z, y, x)

    @property
    def edges(self) -> tuple[float, float, float]:
        """Z Y X edge lengths of a whole cell, in the unit of the voxel size."""
        z, y, x = (step * edge for step, edge in zip(self.step, self.voxel_size.zyx, strict=True))
        return (z, y, x)

    def voxels(self) -> NDArray[np.float32]:
        """Z Y X cells: number of voxels in each."""
        z, y, x = (self._widths(axis).astype(np.float32) for axis in range(3))
        return z[:, None, None] * y[:, None] * x

    def positions(self, axis: int) -> NDArray[np.float64]:
        """Middles of the cells along an axis, in the unit of the voxel size, from the volume's outer face."""
        first = np.arange(self.shape[axis]) * self.step[axis]
        return (first + self._widths(axis) / 2) * self.voxel_size.zyx[axis]

    def rows(self) -> Iterator[Box]:
        """The volume cut into boxes one cell thick along Z."""
        for start in range(0, self.volume_shape[0], self.step[0]):
            stop = min(start + self.step[0], self.volume_shape[0])
            yield (slice(start, stop), slice(0, self.volume_shape[1]), slice(0, self.volume_shape[2]))

    def sums(self, values: NDArray[Any], box: Box) -> tuple[Box, NDArray[np.float32]]:
        """Voxel values of a box summed by cell.

        Parameters
        ----------
        values
            Z Y X, the shape of `box`.
        box
            Part of the volume, not empty.

        Returns
        -------
        Box
            Z Y X, the cells that the box meets.
        ndarray
            float32, their sums.
        """
        cells: list[slice] = []
        for axis, (part, step) in enumerate(zip(box, self.step, strict=True)):
            cells.append(slice(part.start // step, (part.stop - 1) // step + 1))
            starts = np.arange(cells[-1].start, cells[-1].stop) * step - part.start
            values = np.add.reduceat(values, np.maximum(starts, 0), axis=axis, dtype=np.float32)
        return (cells[0], cells[1], cells[2]), values

    def _widths(self, axis: int) -> NDArray[np.intp]:
        size, step = self.volume_shape[axis], self.step[axis]
        return np.diff([*range(0, size, step), size])
