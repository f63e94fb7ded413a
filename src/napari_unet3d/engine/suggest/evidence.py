"""What a prediction says about where it is unsure, gathered block by block into small maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.suggest.cells import CellGrid
from napari_unet3d.engine.uncertainty import entropy
from napari_unet3d.engine.volume import NOT_ANNOTATED


class Evidence:
    """Sums over the voxels that nobody annotated; can be given to a predictor as the output of probabilities.

    Only a block at a time is held: the maps take memory for cells and planes, not for voxels.

    Parameters
    ----------
    labels
        Z Y X label ids of the whole volume, 0 = not annotated. Read, never changed.
    grid
        Over the volume.
    class_weights
        K, one for each class, at least 0.
    head
        Where the probabilities come from. Those of a sigmoid head are divided by their sum before the weights of the
        classes are averaged with them.

    Attributes
    ----------
    annotated
        Z Y X cells, float32: number of annotated voxels.
    unpainted
        For Z, Y and X: number of voxels that are not annotated, plane by plane.
    mass
        Z Y X cells, float32: sum of entropy (0..1) times the expected weight of the voxel's class.
    seen
        Z Y X cells, float32: number of voxels looked at.
    class_mass
        For Z, Y and X: K x planes; the part of each class in `mass`, plane by plane.
    plane_seen
        For Z, Y and X: number of voxels looked at, plane by plane.
    """

    def __init__(
        self,
        labels: NDArray[np.unsignedinteger],
        grid: CellGrid,
        class_weights: NDArray[np.float64],
        head: Head = "softmax",
    ) -> None:
        self.grid = grid
        self._head = head
        self._labels = labels
        self._weights = class_weights.astype(np.float32)
        self.annotated = np.zeros(grid.shape, np.float32)
        self.unpainted = [np.zeros(size) for size in labels.shape]
        self.mass = np.zeros(grid.shape, np.float32)
        self.seen = np.zeros(grid.shape, np.float32)
        self.class_mass = [np.zeros((len(class_weights), size)) for size in labels.shape]
        self.plane_seen = [np.zeros(size) for size in labels.shape]
        for box in grid.rows():
            left = labels[box] == NOT_ANNOTATED
            _add_cells(self.annotated, grid, ~left, box)
            _add_planes(self.unpainted, left, box)

    def __setitem__(self, index: tuple[slice, ...], probabilities: NDArray[np.float32], /) -> None:
        """Take in K Z Y X probabilities of the box ``index[-3:]``; each voxel of the volume at most once."""
        z, y, x = index[-3:]
        box: Box = (z, y, x)
        unsure = entropy(torch.from_numpy(probabilities), 0, self._head).numpy() * (self._labels[box] == NOT_ANNOTATED)
        if self._head == "sigmoid":
            unsure = unsure / probabilities.sum(axis=0)
        total = np.zeros(unsure.shape, np.float32)
        for k, (weight, share) in enumerate(zip(self._weights, probabilities, strict=True)):
            mass = weight * share * unsure
            total += mass
            _add_planes([planes[k] for planes in self.class_mass], mass, box)
        _add_cells(self.mass, self.grid, total, box)
        looked_at = np.ones(unsure.shape, np.float32)
        _add_cells(self.seen, self.grid, looked_at, box)
        _add_planes(self.plane_seen, looked_at, box)


def _add_cells(cells: NDArray[np.float32], grid: CellGrid, values: NDArray[Any], box: Box) -> None:
    met, sums = grid.sums(values, box)
    cells[met] += sums


def _add_planes(planes: list[NDArray[np.float64]], values: NDArray[Any], box: Box) -> None:
    for axis, part in enumerate(box):
        others = tuple(other for other in range(3) if other != axis)
        planes[axis][part] += values.sum(axis=others, dtype=np.float64)
