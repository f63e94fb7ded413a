"""Which planes of a volume were painted in, as slices or strokes, told from the annotated voxels alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

THIN: Final = 3
"""Annotation at most so many voxels thick along an axis lies flat along it."""

_PAINTED: Final = 8  # bits 0..2 of a voxel's code say along which axes it is thin


def painted_planes(annotated: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """For each axis, which of its planes are painted slices.

    1. *Solid* annotation is set aside as three-dimensional: voxels within 4 of the middle of a painted cube
       of 3 voxels with bars of 5 voxels through it along every axis. A slice, or two that cross, contain
       none.
    2. Each other voxel votes for the planes it may have been painted in: the plane across each axis along
       which its run of annotated voxels is at most `THIN` long. A voxel inside a crossing slice has a long
       run, so it does not vote for that slice's planes.
    3. The plane with the most votes is taken and its voxels are done with, and so on (greedy set cover), as
       long as at least half of what is left in a plane votes for it.
    4. Planes whose voxels all lie in other planes taken are dropped again.

    Parameters
    ----------
    annotated
        Z Y X.

    Returns
    -------
    list of ndarray
        For Z, Y and X one flag for each plane; voxels in no flagged plane are parts of something
        three-dimensional.
    """
    code = _votes(annotated)
    flat = np.flatnonzero(code)
    values = code.ravel()[flat]
    votes, painted = [], []
    for axis, places in enumerate(np.unravel_index(flat, code.shape)):
        votes.append(np.bincount(places[(values >> axis) & 1 != 0], minlength=code.shape[axis]))
        painted.append(np.bincount(places, minlength=code.shape[axis]))

    left = code.copy()
    taken: list[tuple[int, int]] = []
    while (best := _most_voted(votes, painted)) is not None:
        axis, index = best
        plane = left[along(axis, index)]
        others = [other for other in range(3) if other != axis]
        for position, other in enumerate(others):
            votes[other] -= (plane >> other & 1).sum(axis=1 - position, dtype=np.intp)
            painted[other] -= (plane != 0).sum(axis=1 - position, dtype=np.intp)
        votes[axis][index] = painted[axis][index] = 0
        left[along(axis, index)] = 0
        taken.append(best)
    return _without_redundant(taken, code)


def _votes(annotated: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Per voxel: 0 where solid or not annotated, else `_PAINTED` and a bit for each axis it is thin along."""
    code = np.where(annotated & ~_solid(annotated), np.uint8(_PAINTED), np.uint8(0))
    for axis in range(3):
        starts = _shrunk(annotated, axis, 0, THIN)
        thick = _spread(starts, axis, 0, THIN)
        code |= (annotated & ~thick & (code != 0)).view(np.uint8) << np.uint8(axis)
    return code


def _solid(annotated: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Annotated voxels near the middle of something thick along all three axes."""
    cubes = annotated
    for axis in range(3):
        cubes = _shrunk(cubes, axis, 1, 1)
    if not cubes.any():
        return cubes
    # crossing slices hold no cube; the bars keep a few neighbouring slices from counting as solid
    for axis in range(3):
        cubes &= _shrunk(annotated, axis, 2, 2)
    for axis in range(3):
        cubes = _spread(cubes, axis, 4, 4)
    return annotated & cubes


def _shrunk(mask: NDArray[np.bool_], axis: int, before: int, after: int) -> NDArray[np.bool_]:
    """Voxels set together with the `before` and `after` next ones along `axis`; outside counts as not set."""
    result = np.zeros_like(mask)
    count = mask.shape[axis] - before - after
    if count > 0:
        inner = result[along(axis, slice(before, before + count))]
        inner[...] = True
        for shift in range(before + after + 1):
            inner &= mask[along(axis, slice(shift, shift + count))]
    return result


def _spread(mask: NDArray[np.bool_], axis: int, before: int, after: int) -> NDArray[np.bool_]:
    """Voxels that are set or within `before` ahead of, or `after` behind, a set one along `axis`."""
    result = mask.copy()
    size = mask.shape[axis]
    for shift in range(1, min(after, size - 1) + 1):
        result[along(axis, slice(shift, None))] |= mask[along(axis, slice(None, size - shift))]
    for shift in range(1, min(before, size - 1) + 1):
        result[along(axis, slice(None, size - shift))] |= mask[along(axis, slice(shift, None))]
    return result


def _most_voted(votes: Sequence[NDArray[np.intp]], painted: Sequence[NDArray[np.intp]]) -> tuple[int, int] | None:
    """Axis and index of the plane with the most votes among those that half of their voxels vote for."""
    best, place = 0, None
    for axis in range(3):
        eligible = np.where(2 * votes[axis] >= painted[axis], votes[axis], 0)
        index = int(eligible.argmax())
        if eligible[index] > best:
            best, place = int(eligible[index]), (axis, index)
    return place


def _without_redundant(taken: Sequence[tuple[int, int]], code: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    """Planes as one flag for each index, less those whose annotation lies in other planes altogether."""
    chosen = [np.zeros(n, dtype=bool) for n in code.shape]
    for axis, index in taken:
        chosen[axis][index] = True
    for axis, index in taken:
        first, second = (chosen[other] for other in range(3) if other != axis)
        own = code[along(axis, index)][~first][:, ~second]
        chosen[axis][index] = own.any()
    return chosen


def along(axis: int, index: int | slice | NDArray[np.bool_]) -> Any:
    """Index of one plane, a range or some planes along `axis`, for any array."""
    return (slice(None),) * axis + (index,)
