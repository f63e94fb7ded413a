"""Where training patches are drawn: around annotated voxels, classes balanced, flat where slices are flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.annotation_units import (
    DEFAULT_MARGIN,
    AnnotatedUnit,
    find_units,
    outside,
    share,
)
from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.patch_shapes import Orientation
from napari_unet3d.engine.progress import Box

MOST_VOXELS: Final = 2_000_000
"""Annotated voxels of one volume that can be drawn; of more, an even selection."""

_EDGE: Final = 8  # the drawn voxel keeps an eighth of the patch's side away from its border


@dataclass(frozen=True)
class Patch:
    """A crop to train on.

    Parameters
    ----------
    volume
        Index of the volume.
    centre
        Z Y X position of the middle in voxel indices (voxel i has its middle at i); where a side is even it
        lies between two voxels, so that the crop starts on a voxel.
    size
        Z Y X voxels. A part may lie outside the volume where that is smaller than the patch.
    axis
        Axis along which the patch is thin; None for a cube.
    label_id
        Class of the annotated voxel that the patch was drawn for.
    """

    volume: int
    centre: tuple[float, float, float]
    size: Triple
    axis: Orientation
    label_id: int

    @property
    def start(self) -> tuple[int, int, int]:
        """Z Y X index of the first voxel; negative outside the volume."""
        z, y, x = (round(c - (n - 1) / 2) for c, n in zip(self.centre, self.size, strict=True))
        return (z, y, x)


class PatchSampler:
    """Draws patches around annotated voxels.

    For a batch, a class and a unit (slice or piece) that shows it are drawn first: they give the batch's
    orientation. Then for each patch a class among those of this orientation, a unit with the class, a voxel
    of the class in the unit, and a shift of the patch that leaves this voxel anywhere but at the border of
    the patch. Classes and units are each drawn half uniformly, half in proportion to their annotated voxels:
    rare classes and small corrections are seen often, and large slices still count for more.

    The sampler keeps the label arrays it is given and changes them in `update_box`.

    Parameters
    ----------
    labels
        For each volume Z Y X, uint8 or uint16, 0 = not annotated: the labels to train on, held-out ones
        removed.
    label_ids
        Ids of the classes; other ids are never drawn.
    shapes
        Z Y X patch size for units along each axis and for 3D pieces, see `patch_shapes`.
    border
        Z Y X voxels at each side of a patch that a network without padding gives no output for; the drawn
        voxel lies further in.
    margin
        As in `find_units`.

    Raises
    ------
    DataError
        When a patch is drawn and no voxel is annotated.
    """

    def __init__(
        self,
        labels: Sequence[NDArray[np.unsignedinteger]],
        label_ids: Sequence[int],
        *,
        shapes: Mapping[Orientation, Triple],
        border: tuple[int, int, int] = (0, 0, 0),
        beyond: tuple[int, int, int] = (0, 0, 0),
        margin: Triple = DEFAULT_MARGIN,
    ) -> None:
        self.labels = list(labels)
        self._ids = tuple(label_ids)
        self._border = border
        self._beyond = beyond
        self._margin = margin
        self._volumes = [_VolumeVoxels(values, self._ids, volume, margin) for volume, values in enumerate(self.labels)]
        self.shapes = shapes
        self._fresh: list[tuple[AnnotatedUnit, NDArray[np.intp]]] = []
        self._tables = self._tabulate()

    @property
    def shares(self) -> Mapping[Orientation, float]:
        """Share of the annotated units of each orientation, summing to 1; empty without annotation."""
        total = sum(len(table.units) for table in self._tables.values())
        return {axis: len(table.units) / total for axis, table in self._tables.items()}

    def draw(self, rng: np.random.Generator) -> Patch:
        """One patch; see the class."""
        return self.draw_batch(rng, 1)[0]

    def draw_batch(self, rng: np.random.Generator, count: int) -> list[Patch]:
        """`count` patches of one size and orientation, the volumes mixed.

        After `update_box` the first patch of a batch is one on the new annotation, once for each changed
        unit.

        Raises
        ------
        DataError
            If no voxel is annotated.
        """
        if not self._tables:
            raise DataError("no voxel is left to train on: paint at least two classes, or lower train.validation")
        patches: list[Patch] = []
        if self._fresh:
            unit, voxels = self._fresh.pop(0)
            axis = unit.axis
            patches.append(self._around(rng, unit, int(rng.choice(voxels))))
        else:
            axis = self._draw_orientation(rng)
        table = self._tables[axis]
        while len(patches) < count:
            class_index = _draw_mixed(rng, table.voxels.sum(axis=0))
            unit = table.units[_draw_mixed(rng, table.voxels[:, class_index])]
            voxels = self._volumes[unit.volume].voxels[unit][class_index]
            patches.append(self._around(rng, unit, int(voxels[rng.integers(voxels.size)])))
        return patches

    def update(self, volume: int, labels: NDArray[np.unsignedinteger]) -> None:
        """Take over all labels of a volume, Z Y X of the same shape; the array is kept."""
        self.labels[volume] = labels
        self._volumes[volume] = _VolumeVoxels(labels, self._ids, volume, self._margin)
        self._fresh = [(unit, voxels) for unit, voxels in self._fresh if unit.volume != volume]
        self._tables = self._tabulate()

    def update_box(self, volume: int, box: Box, labels: NDArray[np.unsignedinteger]) -> None:
        """Take over the labels inside a box, Z Y X of its shape, into the array that the sampler keeps."""
        values = self.labels[volume]
        new = (labels != values[box]) & np.isin(labels, self._ids)
        values[box] = labels
        changed = self._volumes[volume].rescan(box)
        self._fresh = [
            (unit, voxels) for unit, voxels in self._fresh if not share(unit.box, box) or unit.volume != volume
        ]
        if new.any():
            # the unit that holds most of the new voxels is the one that was painted in
            places = [index + side.start for index, side in zip(np.nonzero(new), box, strict=True)]
            unit, held = max(
                ((unit, _inside(places, unit.box)) for unit in changed),
                key=lambda pair: np.count_nonzero(pair[1]),
            )
            self._fresh.append((unit, np.ravel_multi_index([index[held] for index in places], values.shape)))
        self._tables = self._tabulate()

    def _tabulate(self) -> dict[Orientation, _Table]:
        rows: dict[Orientation, list[tuple[AnnotatedUnit, NDArray[np.intp]]]] = {}
        for volume in self._volumes:
            for unit, counts in volume.counts.items():
                if counts.any():
                    rows.setdefault(unit.axis, []).append((unit, counts))
        return {
            axis: _Table([unit for unit, _ in row], np.stack([counts for _, counts in row]))
            for axis, row in rows.items()
        }

    def _draw_orientation(self, rng: np.random.Generator) -> Orientation:
        axes = [axis for axis, table in self._tables.items() for _ in table.units]
        voxels = np.concatenate([table.voxels for table in self._tables.values()])
        class_index = _draw_mixed(rng, voxels.sum(axis=0))
        return axes[_draw_mixed(rng, voxels[:, class_index])]

    def _around(self, rng: np.random.Generator, unit: AnnotatedUnit, voxel: int) -> Patch:
        labels = self.labels[unit.volume]
        size = self.shapes[unit.axis]
        place = np.unravel_index(voxel, labels.shape)
        centre = centre_near(rng, [int(position) for position in place], labels.shape, size, self._border, self._beyond)
        return Patch(unit.volume, centre, size, unit.axis, int(labels.flat[voxel]))


def centre_near(
    rng: np.random.Generator,
    voxel: Sequence[int],
    shape: Sequence[int],
    size: Triple,
    border: Sequence[int],
    beyond: Sequence[int] = (0, 0, 0),
) -> tuple[float, float, float]:
    """Centre of a patch that shows a voxel anywhere but near its border, and little of what is beyond the volume.

    Parameters
    ----------
    voxel, shape
        Z Y X of the voxel and of the volume.
    size, border
        Z Y X of the patch, and what of it a network without padding gives no output for.
    beyond
        Z Y X voxels around the volume that a patch may show in addition, as in prediction.
    """
    centre = []
    for position, extent, n, lost, more in zip(voxel, shape, size, border, beyond, strict=True):
        edge = lost + (n - 2 * lost) // _EDGE
        start = position - int(rng.integers(edge, n - edge))
        is_held = extent + lost - n < -lost  # the patch shows the volume from end to end
        outside = lost + more
        start = (extent - n) // 2 if is_held else min(max(start, -outside), extent + outside - n)
        centre.append(start + (n - 1) / 2)
    return (centre[0], centre[1], centre[2])


@dataclass(frozen=True, eq=False)
class _Table:
    """Units of one orientation and their annotated voxels, units x classes."""

    units: list[AnnotatedUnit]
    voxels: NDArray[np.intp]


class _VolumeVoxels:
    """Annotated voxels of one volume by unit and class, as flat indices; crossings are in both."""

    def __init__(
        self, labels: NDArray[np.unsignedinteger], label_ids: Sequence[int], volume: int, margin: Triple
    ) -> None:
        self._labels = labels
        self._ids = label_ids
        self._volume = volume
        self._margin = margin
        self._every = max(1, -(-int(np.count_nonzero(labels)) // MOST_VOXELS))
        self.voxels: dict[AnnotatedUnit, list[NDArray[np.intp]]] = {}
        self.counts: dict[AnnotatedUnit, NDArray[np.intp]] = {}
        for unit in find_units(labels, margin, volume=volume):
            self._scan(unit)

    def rescan(self, box: Box) -> list[AnnotatedUnit]:
        """Look again where labels changed inside `box`; gives the units that meet it."""
        boxes = [unit.box for unit in self.voxels]
        found = find_units(self._labels, self._margin, volume=self._volume, near=box)
        for unit in found:
            if outside(unit.box, boxes, self._labels).any():
                for smaller in [known for known in self.voxels if known.within(unit)]:
                    del self.voxels[smaller], self.counts[smaller]
                self.voxels[unit] = []
        changed = [unit for unit in self.voxels if share(unit.box, box)]
        for unit in changed:
            self._scan(unit)
        if sum(voxels.size for row in self.voxels.values() for voxels in row) > MOST_VOXELS:
            self._every *= 2
            for unit in self.voxels:
                self._scan(unit)
        return changed

    def _scan(self, unit: AnnotatedUnit) -> None:
        inside = self._labels[unit.box]
        z, y, x = np.nonzero(inside)
        ids = inside[z, y, x]
        _, rows, columns = self._labels.shape
        first = (unit.start[0] * rows + unit.start[1]) * columns + unit.start[2]
        flat = (z * rows + y) * columns + x + first
        by_class = [flat[ids == label_id] for label_id in self._ids]
        self.counts[unit] = np.array([voxels.size for voxels in by_class], dtype=np.intp)
        self.voxels[unit] = [voxels[:: self._every] for voxels in by_class]


def _draw_mixed(rng: np.random.Generator, counts: NDArray[np.intp]) -> int:
    """Draw an index with a count above 0, half uniformly and half in proportion to the counts."""
    present = counts > 0
    weights = 0.5 * present / present.sum() + 0.5 * counts / counts.sum()
    return int(rng.choice(counts.size, p=weights / weights.sum()))


def _inside(places: Sequence[NDArray[np.intp]], box: Box) -> NDArray[np.bool_]:
    result = np.ones(places[0].shape, dtype=bool)
    for index, side in zip(places, box, strict=True):
        result &= (index >= side.start) & (index < side.stop)
    return result
