"""Slices in the order in which painting them should help most.

Painting a slice is taken to settle what the model is unsure of on it and, less and less, beside it: at the distance d
a share exp(-d / L). A slice is worth the uncertainty that it would settle beyond what is settled already. Slices across
another axis show other sides of the structures, so they do not count against it::

    score(slice)  =  sum over voxels v of  u(v) max(0, exp(-d(v, slice) / L) - exp(-d_a(v) / L))

    u    t h(v) + (1 - t) mean(h); 0 where the voxel is annotated
    h    entropy of the class probabilities, 0 .. 1, times the weight of the class, averaged with the probabilities
    t    n / (n + 2) with n annotated slices: a model that has seen one slice hardly knows what it does not know. 1
         without any, for then the model has learnt from other volumes
    d    distance to the slice, in physical units
    d_a  to the nearest annotated voxel in a slice across the same axis, or in annotation that is no slice
    L    a share of the volume's longest edge

The slice with the highest score comes first and then counts as painted, and so on (the greedy algorithm for facility
location, within 1 - 1/e of the best choice: Nemhauser et al. 1978). So suggestions do not crowd, slices of all axes
compare, and one at the border of the volume, which has neighbours on one side only, must be the more uncertain.
Where the model is sure of everything, h = 1. What was tried is in docs/decisions/suggestions.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.annotation_units import AnnotatedUnit
from napari_unet3d.engine.suggest.cells import CellGrid
from napari_unet3d.engine.suggest.evidence import Evidence

REACH: Final = 0.3
"""L as a share of the volume's longest edge."""

_DOUBT: Final = 2.0
"""Annotated slices from which on what a model is unsure of counts more than where nothing is annotated."""


@dataclass(frozen=True, eq=False)
class RankedSlice:
    """A slice that is worth painting.

    Parameters
    ----------
    axis, index
        Index along an axis (0 = Z, 1 = Y, 2 = X).
    score
        Relative to the best slice, in 0..1.
    centre
        Z Y X voxel of the slice around which painting settles most.
    class_shares
        Share of each class in what the model is unsure of on the slice; all 0 where it is sure.
    """

    axis: int
    index: int
    score: float
    centre: tuple[int, int, int]
    class_shares: NDArray[np.float64]


def ranked_slices(evidence: Evidence, units: Sequence[AnnotatedUnit] = ()) -> Iterator[RankedSlice]:
    """Slices to paint, best first, as long as one is worth it.

    Parameters
    ----------
    evidence
        From a prediction of the volume, or of parts of it: places not looked at count like the nearest ones that were.
    units
        What is annotated, by slices; see `find_units`.

    Yields
    ------
    RankedSlice
        Each at most once, with falling scores; none where everything is annotated.
    """
    grid = evidence.grid
    value = _value(evidence, len(units))
    reach = REACH * max(size * edge for size, edge in zip(grid.volume_shape, grid.voxel_size.zyx, strict=True))
    axes = paintable_axes(grid.volume_shape)
    settled = {axis: _settled(evidence, units, axis, reach) for axis in axes}
    spreads = {axis: _spread(grid, axis, reach) for axis in axes}
    free = [left > 0 for left in evidence.unpainted]
    best = 0.0
    while True:
        gains = {axis: _gains(value, settled[axis], spreads[axis], axis) for axis in axes}
        for axis, gain in gains.items():
            gain[~np.logical_or.reduceat(free[axis], np.arange(0, len(free[axis]), grid.step[axis]))] = 0
        axis = max(axes, key=lambda one: float(gains[one].max()))
        place = int(gains[axis].argmax())
        score = float(gains[axis][place])
        if score <= 0:
            return
        best = best or score
        index = _index_within(evidence, free[axis], axis, place)
        reached = _along(spreads[axis][place], axis)
        centre = _centre(value * np.maximum(reached - settled[axis], 0), grid, axis, index)
        yield RankedSlice(axis, index, score / best, centre, _shares(evidence, axis, index))
        free[axis][index] = False
        settled[axis] = np.maximum(settled[axis], reached)


def paintable_axes(shape: tuple[int, int, int]) -> list[int]:
    """Axes across which a slice of a volume is a plane and not a line; a 2D image has one, Z."""
    return [axis for axis in range(3) if min(shape[:axis] + shape[axis + 1 :]) > 1] or [0]


# --- steps ------------------------------------------------------------------------------------------------


def _value(evidence: Evidence, annotated_slices: int) -> NDArray[np.float32]:
    """Z Y X cells: the uncertainty u in each; the number of voxels left to paint where there is none at all."""
    left = evidence.grid.voxels() - evidence.annotated
    if not evidence.mass.any():
        return left
    known = evidence.seen > 0
    density = evidence.mass / np.maximum(evidence.seen, 1)
    if not known.all():
        nearest = ndimage.distance_transform_edt(
            ~known, evidence.grid.edges, return_distances=False, return_indices=True
        )
        density = density[tuple(nearest)]
    found = density * np.where(left > 0, evidence.grid.voxels(), 0)
    trust = annotated_slices / (annotated_slices + _DOUBT) if annotated_slices else 1.0
    everywhere = left * (found.sum(dtype=np.float64) / max(left.sum(dtype=np.float64), 1))
    return np.asarray(trust * found + (1 - trust) * everywhere, np.float32)


def _settled(evidence: Evidence, units: Sequence[AnnotatedUnit], axis: int, reach: float) -> NDArray[np.float32]:
    """Z Y X cells: the share that is settled already for slices across an axis, in 0..1."""
    annotated = evidence.annotated > 0
    own = np.zeros(annotated.shape, bool)
    for unit in units:
        if unit.axis in (axis, None):
            sides = zip(unit.start, unit.stop, evidence.grid.step, strict=True)
            cells = tuple(slice(start // step, (stop - 1) // step + 1) for start, stop, step in sides)
            own[cells] |= annotated[cells]
    return _nearness(own, evidence.grid, reach)


def _nearness(cells: NDArray[np.bool_], grid: CellGrid, reach: float) -> NDArray[np.float32]:
    """Z Y X cells: about 1 in `cells`, falling with the distance to them; 0 everywhere where there are none."""
    if not cells.any():
        return np.zeros(cells.shape, np.float32)
    distance = ndimage.distance_transform_edt(~cells, grid.edges)
    # what is left to paint in an annotated cell lies beside its annotation
    distance = np.maximum(distance, min(grid.edges) / 4)
    return np.asarray(np.exp(distance / -reach), np.float32)


def _spread(grid: CellGrid, axis: int, reach: float) -> NDArray[np.float32]:
    """Cells x cells along an axis: what a slice in one settles in the other, in 0..1."""
    places = grid.positions(axis)
    return np.exp(-np.abs(places[:, None] - places) / reach).astype(np.float32)


def _gains(
    value: NDArray[np.float32], settled: NDArray[np.float32], spread: NDArray[np.float32], axis: int
) -> NDArray[np.float64]:
    """For each place along an axis, the uncertainty that a slice there settles beyond what is settled."""
    return np.array([np.vdot(value, np.maximum(_along(reached, axis) - settled, 0)) for reached in spread], np.float64)


def _index_within(evidence: Evidence, free: NDArray[np.bool_], axis: int, place: int) -> int:
    """The plane of a cell to paint: of those that are free the most uncertain one."""
    step = evidence.grid.step[axis]
    planes = slice(place * step, min((place + 1) * step, len(free)))
    density = evidence.class_mass[axis][:, planes].sum(axis=0) / np.maximum(evidence.plane_seen[axis][planes], 1)
    return planes.start + int(np.where(free[planes], density, -1).argmax())


def _centre(gain: NDArray[np.float32], grid: CellGrid, axis: int, index: int) -> tuple[int, int, int]:
    """Z Y X voxel in the middle of the cell of a slice that gains most."""
    place = index // grid.step[axis]
    here = np.take(gain, [place], axis=axis)
    cell = [int(part) for part in np.unravel_index(int(here.argmax()), here.shape)]
    cell[axis] = place
    steps = zip(cell, grid.step, grid.volume_shape, strict=True)
    middle = [min(part * step + step // 2, size - 1) for part, step, size in steps]
    middle[axis] = index
    return (middle[0], middle[1], middle[2])


def _shares(evidence: Evidence, axis: int, index: int) -> NDArray[np.float64]:
    mass = evidence.class_mass[axis][:, index]
    return mass / max(float(mass.sum()), np.finfo(float).tiny)


def _along(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """One value for each place along an axis, to be combined with Z Y X cells."""
    return values.reshape([-1 if one == axis else 1 for one in range(3)])
