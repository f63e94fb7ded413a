"""Which annotated slices are held out to measure the model, and what is left to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.annotation_units import (
    DEFAULT_MARGIN,
    AnnotatedUnit,
    find_units,
    grown,
    next_door,
    share,
    shifted,
    slab,
    unseen,
)
from napari_unet3d.engine.axes import SPATIAL_AXES, VoxelSize
from napari_unet3d.engine.config import HoldOutState, Triple, UnitState
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import NOT_ANNOTATED

__all__ = ["MIN_UNITS_TO_HOLD_OUT", "AnnotatedUnit", "HoldOut", "HoldOutState", "find_units", "margin_for"]

MIN_UNITS_TO_HOLD_OUT: Final = 5
"""With fewer annotated slices or pieces, all of them are needed for training."""

_IDS: Final = 65536
_LEAST_LEFT: Final = 0.25  # share of each class's voxels that stays in training
_MOST_MEASURED: Final = 24  # planes of a volume that is held out whole: a validation should not take minutes
_NAMED: Final = 3


def margin_for(voxel_size: VoxelSize) -> Triple:
    """Z Y X voxels of a margin as long along every axis as `DEFAULT_MARGIN` is along the finest."""
    z, y, x = (max(1, round(voxels / edge)) for voxels, edge in zip(DEFAULT_MARGIN, voxel_size.relative, strict=True))
    return (z, y, x)


@dataclass(frozen=True, eq=False)
class HoldOut:
    """The annotation divided into a part to train on, a part to measure on, and a margin for neither.

    Made by `choose`; goes on with `extended` when annotation is added; kept in a file by `to_state`.

    Parameters
    ----------
    labels
        For each volume Z Y X, uint8 or uint16, 0 = not annotated. Referred to, not copied: paint into these
        arrays, then call `extended`.
    fraction
        Share of the units to hold out, 0..1.
    margin
        Z Y X voxels around training annotation that crosses a held-out slice; they are not scored.
    units
        The held-out units. One that spans a volume holds it out whole, later annotation included.
    seen
        All regions that were decided on, `units` among them.
    count
        How many units were met so far.
    """

    labels: tuple[NDArray[np.unsignedinteger], ...]
    fraction: float
    margin: Triple
    units: tuple[AnnotatedUnit, ...] = ()
    seen: tuple[AnnotatedUnit, ...] = ()
    count: int = 0

    @classmethod
    def choose(
        cls,
        labels: Sequence[NDArray[np.unsignedinteger]],
        fraction: float,
        rng: np.random.Generator,
        margin: Triple = DEFAULT_MARGIN,
        volumes: Sequence[int] = (),
    ) -> HoldOut:
        """Hold out about `fraction` of the annotated units, none with fewer than `MIN_UNITS_TO_HOLD_OUT`.

        Units are drawn in turn from the volumes and axes, those first that show a structure (a class other
        than the lowest), and slices between others before the first and the last of an axis. A unit is passed
        over where a class would lose more than three quarters of its voxels in training, or where nothing
        would be left to score.

        Parameters
        ----------
        labels
            For each volume Z Y X, uint8 or uint16, 0 = not annotated.
        fraction
            0..1; 0 holds nothing out.
        rng
            Draws the units.
        margin
            Z Y X voxels, each at least 1.
        volumes
            Indices of volumes to hold out whole. `fraction` is then of the slices of the others.
        """
        found = [
            unit for i, values in enumerate(labels) if i not in volumes for unit in find_units(values, margin, volume=i)
        ]
        held = tuple(_whole_volume(i, labels[i]) for i in volumes)
        start = cls(tuple(labels), fraction, margin, units=held, seen=tuple(found), count=len(found))
        shuffled = [found[i] for i in rng.permutation(len(found))]
        return start._with_more(start._in_turn(shuffled))

    def extended(self, changed: Sequence[tuple[int, Box]] | None = None) -> HoldOut:
        """The same choice after annotation was added, with as many of the added units held out as are due.

        A unit is new where it meets no region decided on before, so strokes on a held-out slice stay held out
        and strokes next to a slice that is trained on are trained on. Which of the new ones is held out
        follows from the count alone: with ``fraction`` .2 each fifth.

        Parameters
        ----------
        changed
            Volume and box of each change; by default everything is looked through.
        """
        places: list[tuple[int, Box | None]] = (
            [(i, None) for i in range(len(self.labels))] if changed is None else list(changed)
        )
        result = self
        for volume, box in places:
            if volume not in self.whole_volumes:
                result = result._extended_in(volume, box)
        return result

    def _extended_in(self, volume: int, box: Box | None) -> HoldOut:
        labels = self.labels[volume]
        found = find_units(labels, self.margin, volume=volume, near=box)
        new = unseen(found, self.seen, labels)
        # slices next to known ones widen what is known, so that a later neighbour is not new either
        wider = [
            unit
            for unit in found
            if any(unit.meets(other) for other in self.seen) and not any(unit.within(other) for other in self.seen)
        ]
        result = replace(self, seen=(*self.seen, *wider))
        for unit in new:
            result = replace(result, seen=(*result.seen, unit), count=result.count + 1)
            result = result._with_more([unit])
        return result

    @property
    def is_of_these_labels(self) -> bool:
        """Whether `seen` is exactly what is annotated: false for a choice made from other labels."""
        if any(unit.volume >= len(self.labels) for unit in (*self.units, *self.seen)):
            return False
        found = (
            find_units(labels, self.margin, volume=i)
            for i, labels in enumerate(self.labels)
            if i not in self.whole_volumes
        )
        return {unit for units in found for unit in units} == set(self.seen)

    @property
    def due(self) -> int:
        """How many units should be held out of those met so far."""
        if self.fraction <= 0 or self.count < MIN_UNITS_TO_HOLD_OUT:
            return 0
        return max(1, int(self.count * self.fraction + 0.5))

    @property
    def whole_volumes(self) -> tuple[int, ...]:
        """Indices of the volumes that are held out whole."""
        return tuple(unit.volume for unit in self.units if self._is_whole(unit))

    @property
    def measured_units(self) -> tuple[AnnotatedUnit, ...]:
        """The held-out units to predict for a score.

        Of a volume that is held out whole these are single annotated planes: those painted along their axes, those
        across Z where its annotation is three-dimensional, and an even selection where there are many.
        """
        return tuple(
            part for unit in self.units for part in (self._planes_of(unit) if self._is_whole(unit) else [unit])
        )

    @property
    def slices(self) -> tuple[tuple[int, int, int], ...]:
        """Held-out annotated slices: volume, axis (0 = Z), index; pieces that are no slices are left out.

        Of a volume that is held out whole those that are measured on, see `measured_units`.
        """
        return tuple(
            (unit.volume, unit.axis, index)
            for unit in self.measured_units
            if unit.axis is not None
            for index in range(unit.start[unit.axis], unit.stop[unit.axis])
            if self.labels[unit.volume].take(index, axis=unit.axis).any()
        )

    def training_labels(self, volume: int, box: Box | None = None) -> NDArray[np.unsignedinteger]:
        """What may be trained on: a copy of the labels, Z Y X, with 0 in all held-out units.

        Parameters
        ----------
        volume
            Index of the volume.
        box
            Only this part; by default all of it.
        """
        values = self.labels[volume]
        whole: Box = (slice(0, values.shape[0]), slice(0, values.shape[1]), slice(0, values.shape[2]))
        box = box or whole
        result = values[box].copy()
        for unit in self.units:
            if unit.volume == volume and share(unit.box, box):
                result[shifted(unit.box, box)] = NOT_ANNOTATED
        return result

    def validation_labels(self, volume: int) -> NDArray[np.unsignedinteger]:
        """What is scored: the labels of held-out units, Z Y X, 0 elsewhere and near training annotation.

        Near means within `margin` along each axis; across a slice only within `next_door` planes, for a
        parallel slice further away is no closer than most of the volume is to some slice.
        """
        result = np.zeros_like(self.labels[volume])
        for unit in self.units:
            if unit.volume == volume:
                scored = self._scored(unit)
                result[unit.box][scored] = self.labels[volume][unit.box][scored]
        return result

    def explain(self) -> str:
        """One sentence on what is held out and what the score then means."""
        found = f"{self.count} annotated slice{'s or pieces' if self.count != 1 else ''} found"
        if self.whole_volumes:
            held = len(self.whole_volumes)
            return (
                f"{held} of {len(self.labels)} volumes {'are' if held > 1 else 'is'} held out: the score shown is "
                f"measured on {len(self.measured_units)} slices there, for the model trained without them, which is "
                "the model you get"
            )
        if self.fraction <= 0:
            return f"{found}, none held out (validation = 0): all are trained on and no score is shown"
        one_in = f"one in {1 / self.fraction:.3g}"
        if self.units:
            return (
                f"{found}, {len(self.units)} held out ({self._names()}; {one_in} of later ones): the score "
                "shown is measured there, for the model trained without them, which is the model you get"
            )
        if self.count < MIN_UNITS_TO_HOLD_OUT:
            return (
                f"{found}, none held out: from {MIN_UNITS_TO_HOLD_OUT} on, {one_in} is held out and the "
                "score shown is for the model trained without it; until then all are trained on, unscored"
            )
        return (
            f"{found}, none held out: each is needed for training or lies too close to the others; paint all "
            "classes on one more slice, away from these, to see a score"
        )

    def to_state(self) -> HoldOutState:
        """The choice as plain tuples and numbers, without the labels."""
        return (
            self.fraction,
            self.margin,
            self.count,
            tuple(map(_unit_state, self.units)),
            tuple(map(_unit_state, self.seen)),
        )

    @classmethod
    def from_state(cls, state: HoldOutState, labels: Sequence[NDArray[np.unsignedinteger]]) -> HoldOut:
        """The choice that `to_state` gave (lists instead of tuples will do), for the same volumes."""
        fraction, margin, count, units, seen = state
        return cls(
            tuple(labels),
            fraction,
            (margin[0], margin[1], margin[2]),
            tuple(map(_unit_of, units)),
            tuple(map(_unit_of, seen)),
            count,
        )

    # --- the choice ---------------------------------------------------------------------------------------

    def _with_more(self, candidates: Sequence[AnnotatedUnit]) -> HoldOut:
        """With those `candidates` held out, in their order, that are due and can be spared."""
        held = sum(not self._is_whole(unit) for unit in self.units)
        if held >= self.due:
            return self
        result = self
        totals = _class_counts(self.labels)
        left = _class_counts([self.training_labels(i) for i in range(len(self.labels))])
        for unit in candidates:
            if held >= self.due:
                break
            after = left - _class_counts([result.training_labels(unit.volume, unit.box)])
            more = replace(result, units=(*result.units, unit))
            if np.all(after >= _LEAST_LEFT * totals) and more._scored(unit).any():
                result, left, held = more, after, held + 1
        return result

    def _in_turn(self, units: Sequence[AnnotatedUnit]) -> list[AnnotatedUnit]:
        """`units` ordered so that each volume and axis gets its share, those with a structure first.

        Slices between others come before those at the ends: without an end slice the network would have to
        extrapolate, and the score there would be that of an extrapolation, which little of the volume asks for.
        """
        groups: dict[tuple[int, int | None], list[AnnotatedUnit]] = {}
        for unit in units:
            groups.setdefault((unit.volume, unit.axis), []).append(unit)
        # the first id in use; 0 when there is none, and then there is no unit either
        background = int(np.argmax(_class_counts(self.labels) > 0))
        places: list[tuple[float, AnnotatedUnit]] = []
        for group in groups.values():
            ends = _ends(group)
            group.sort(key=lambda unit: (not (self.labels[unit.volume][unit.box] > background).any(), unit in ends))
            places += [((i + 0.5) / len(group), unit) for i, unit in enumerate(group)]
        return [unit for _, unit in sorted(places, key=lambda place: place[0])]

    def _is_whole(self, unit: AnnotatedUnit) -> bool:
        # a small volume can be a single piece, which was met and counted
        return unit not in self.seen and unit == _whole_volume(unit.volume, self.labels[unit.volume])

    def _planes_of(self, whole: AnnotatedUnit) -> list[AnnotatedUnit]:
        labels, shape = self.labels[whole.volume], whole.stop
        planes = set()
        for unit in find_units(labels, self.margin, volume=whole.volume):
            axis = unit.axis or 0
            planes |= {(axis, i) for i in range(unit.start[axis], unit.stop[axis]) if labels.take(i, axis=axis).any()}
        ordered = sorted(planes)
        chosen = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _MOST_MEASURED)).round().astype(int))
        places = (ordered[i] for i in chosen)
        return [AnnotatedUnit(whole.volume, axis, *slab(shape, axis, index, index + 1)) for axis, index in places]

    def _scored(self, unit: AnnotatedUnit) -> NDArray[np.bool_]:
        """Annotated voxels of a held-out unit that are not near training annotation; the shape of its box."""
        labels = self.labels[unit.volume]
        reach = list(self.margin)
        if unit.axis is not None:
            reach[unit.axis] = next_door(self.margin, unit.axis)
        around = grown(unit.box, reach, labels.shape)
        trained = (self.training_labels(unit.volume, around) != NOT_ANNOTATED).view(np.uint8)
        if not trained.any():  # as in a volume that is held out whole, where the filter would take long
            annotated: NDArray[np.bool_] = labels[unit.box] != NOT_ANNOTATED
            return annotated
        near = ndimage.maximum_filter(trained, size=[2 * r + 1 for r in reach], mode="constant", cval=0)
        scored: NDArray[np.bool_] = (labels[unit.box] != NOT_ANNOTATED) & (near[shifted(unit.box, around)] == 0)
        return scored

    def _names(self) -> str:
        names = [
            f"{SPATIAL_AXES[axis]} {index}" + (f" of volume {volume + 1}" if len(self.labels) > 1 else "")
            for volume, axis, index in self.slices
        ]
        pieces = sum(unit.axis is None for unit in self.units)
        if len(names) > _NAMED + 1:
            names = [*names[:_NAMED], f"{len(names) - _NAMED} more"]
        if pieces:
            names.append(f"{pieces} piece{'s' * (pieces != 1)}")
        return ", ".join(names)


def _class_counts(volumes: Sequence[NDArray[np.unsignedinteger]]) -> NDArray[np.intp]:
    """Voxels of every id from 1 on (entry 0 stays 0), plane by plane to bound the memory."""
    counts = np.zeros(_IDS, dtype=np.intp)
    for labels in volumes:
        for plane in labels:
            painted = plane[plane != NOT_ANNOTATED]
            if painted.size:
                found = np.bincount(painted)
                counts[: found.size] += found
    return counts


def _whole_volume(volume: int, labels: NDArray[np.unsignedinteger]) -> AnnotatedUnit:
    z, y, x = labels.shape
    return AnnotatedUnit(volume, None, (0, 0, 0), (z, y, x))


def _ends(units: Sequence[AnnotatedUnit]) -> tuple[AnnotatedUnit, ...]:
    """The first and the last of parallel slices (of loose pieces, along Z)."""
    along = [unit.start[unit.axis or 0] for unit in units]
    return tuple(unit for unit, start in zip(units, along, strict=True) if start in (min(along), max(along)))


def _unit_state(unit: AnnotatedUnit) -> UnitState:
    return (unit.volume, -1 if unit.axis is None else unit.axis, *unit.start, *unit.stop)


def _unit_of(state: UnitState) -> AnnotatedUnit:
    volume, axis, z0, y0, x0, z1, y1, x1 = state
    return AnnotatedUnit(volume, None if axis < 0 else axis, (z0, y0, x0), (z1, y1, x1))
