"""Sparse labels taken apart into the pieces a person painted: slices on any axis, strokes and 3D blobs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.painted_planes import THIN, along, painted_planes
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import NOT_ANNOTATED

NEXT_DOOR: Final = 2
"""Parallel slices at most so many planes apart are neighbours (fewer where the margin is smaller)."""

DEFAULT_MARGIN: Final[Triple] = (8, 8, 8)
"""Z Y X voxels between annotation that counts as separate, for cubic voxels."""

_CONTEXT: Final = 2 * THIN + 2
_MOST_CELLS_PER_AXIS: Final = 5
_MARGINS_PER_CELL: Final = 4


@dataclass(frozen=True)
class AnnotatedUnit:
    """A region whose annotation belongs together; all annotated voxels inside are the unit's.

    Parameters
    ----------
    volume
        Index of the volume.
    axis
        0, 1 or 2 (Z, Y, X) for one slice, or a few neighbouring ones, flat along that axis: the region then
        spans the volume along the other axes. None for a 3D piece.
    start, stop
        Z Y X, the region's first voxel and the one past its last.
    """

    volume: int
    axis: int | None
    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def box(self) -> Box:
        """The region as Z Y X slices."""
        z, y, x = (slice(first, last) for first, last in zip(self.start, self.stop, strict=True))
        return (z, y, x)

    def meets(self, other: AnnotatedUnit) -> bool:
        """Whether both are of the same volume and orientation and share voxels."""
        return (self.volume, self.axis) == (other.volume, other.axis) and all(
            a < d and c < b for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def within(self, other: AnnotatedUnit) -> bool:
        """Whether it is of the same volume and orientation as `other` and lies inside it."""
        return (self.volume, self.axis) == (other.volume, other.axis) and all(
            c <= a and b <= d for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )


def next_door(margin: Triple, axis: int) -> int:
    """How many planes apart parallel slices along `axis` still are neighbours."""
    return max(1, min(NEXT_DOOR, margin[axis]))


def find_units(
    labels: NDArray[np.unsignedinteger],
    margin: Triple = DEFAULT_MARGIN,
    *,
    volume: int = 0,
    near: Box | None = None,
) -> tuple[AnnotatedUnit, ...]:
    """Take the annotation of a volume apart; every annotated voxel lies in at least one unit.

    Painted planes are told apart first, see `painted_planes`; crossing slices keep the crossing both. Planes
    of one axis at most `next_door` apart form one slice unit, for they look alike; runs longer than two units
    need to be are cut, so that many neighbouring slices can still be divided.

    What lies in no painted plane is three-dimensional: pieces further apart than about `margin` are units of
    their own, and pieces longer than several margins are cut into cells (a densely labelled volume gives up
    to 125).

    A volume with at most `THIN` planes along an axis (a 2D image) has only pieces.

    Parameters
    ----------
    labels
        Z Y X, uint8 or uint16; 0 = not annotated.
    margin
        Z Y X voxels, each at least 1.
    volume
        Index of the volume, for the units.
    near
        Look only at this part and its surroundings, and give only units that meet it.

    Returns
    -------
    tuple of AnnotatedUnit
        Slices along Z, along Y, along X, then pieces, each in ascending order; empty without annotation.
    """
    region = grown(near, (_CONTEXT,) * 3, labels.shape) if near else _whole(labels.shape)
    annotated = labels[region] != NOT_ANNOTATED
    bounds = _bounding_box(annotated)
    if bounds is None:
        return ()
    annotated = annotated[bounds]
    origin = [outer.start + inner.start for outer, inner in zip(region, bounds, strict=True)]

    flat = min(labels.shape) > THIN
    planes = painted_planes(annotated) if flat else [np.zeros(n, dtype=bool) for n in annotated.shape]
    units = [
        AnnotatedUnit(volume, axis, *slab(labels.shape, axis, origin[axis] + first, origin[axis] + last))
        for axis in range(3)
        for first, last in _runs(np.flatnonzero(planes[axis]), next_door(margin, axis))
    ]
    for axis in range(3):
        annotated[along(axis, planes[axis])] = False
    for z, y, x in _pieces(annotated, margin):
        start = (z.start + origin[0], y.start + origin[1], x.start + origin[2])
        stop = (z.stop + origin[0], y.stop + origin[1], x.stop + origin[2])
        units.append(AnnotatedUnit(volume, None, start, stop))
    return tuple(unit for unit in units if near is None or share(unit.box, near))


def unseen(
    units: Iterable[AnnotatedUnit], seen: Sequence[AnnotatedUnit], labels: NDArray[np.unsignedinteger]
) -> tuple[AnnotatedUnit, ...]:
    """Those `units` that meet none of `seen` and hold annotation that lies in none of them.

    Parameters
    ----------
    units, seen
        Units of the volume with these labels.
    labels
        Z Y X.
    """
    return tuple(
        unit
        for unit in units
        if not any(unit.meets(other) for other in seen)
        and outside(unit.box, (other.box for other in seen if other.volume == unit.volume), labels).any()
    )


def outside(box: Box, boxes: Iterable[Box], labels: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """Annotated voxels of `box` that lie in none of `boxes`; bool, the shape of `box`."""
    left: NDArray[np.bool_] = labels[box] != NOT_ANNOTATED
    for other in boxes:
        if share(box, other):
            left[shifted(other, box)] = False
    return left


def share(one: Box, other: Box) -> bool:
    """Whether two boxes have voxels in common."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def shifted(box: Box, frame: Box) -> Box:
    """`box` in voxels counted from the start of `frame`, cut at that start."""
    z, y, x = (slice(max(b.start - f.start, 0), max(b.stop - f.start, 0)) for b, f in zip(box, frame, strict=True))
    return (z, y, x)


def grown(box: Box, reach: Sequence[int], shape: Sequence[int]) -> Box:
    """`box` wider by `reach` voxels at each side, cut at the border of a volume of this shape."""
    z, y, x = (
        slice(max(side.start - r, 0), min(side.stop + r, int(n))) for side, r, n in zip(box, reach, shape, strict=True)
    )
    return (z, y, x)


# --- neighbouring planes ----------------------------------------------------------------------------------


def _runs(indices: NDArray[np.intp], gap: int) -> list[tuple[int, int]]:
    """Start and stop of neighbouring planes taken together, long runs cut to no less than ``2 gap + 1``."""
    if not indices.size:
        return []
    runs: list[tuple[int, int]] = []
    for run in np.split(indices, np.flatnonzero(np.diff(indices) > gap) + 1):
        runs += _parts(int(run[0]), int(run[-1]) + 1, (int(run[-1]) + 1 - int(run[0])) // (2 * gap + 1))
    return runs


def _parts(start: int, stop: int, count: int) -> list[tuple[int, int]]:
    edges = np.linspace(start, stop, max(count, 1) + 1).round().astype(int).tolist()
    return list(itertools.pairwise(edges))


# --- pieces -----------------------------------------------------------------------------------------------


def _pieces(mask: NDArray[np.bool_], margin: Triple) -> list[Box]:
    """Disjoint boxes around pieces of `mask`, large ones cut into cells, of which empty ones are left out."""
    if not mask.any():
        return []
    coarse = mask
    for axis in range(3):
        coarse = np.logical_or.reduceat(coarse, np.arange(0, mask.shape[axis], margin[axis]), axis=axis)
    boxes: list[Any] = []
    touching = np.ones((3, 3, 3), dtype=bool)
    while True:
        # boxes around pieces of an odd form can meet: fill them and look again until they do not
        found: list[Any] = ndimage.find_objects(ndimage.label(coarse, touching)[0])
        if len(found) == len(boxes) and found == boxes:
            break
        boxes = found
        for box in boxes:
            coarse[box] = True
    cells: list[Box] = []
    for box in boxes:
        wide = tuple(slice(s.start * m, s.stop * m) for s, m in zip(box, margin, strict=True))
        tight = _bounding_box(mask[wide])
        if tight is None:
            continue
        sides = [
            _parts(
                w.start + t.start,
                w.start + t.stop,
                min((t.stop - t.start) // (_MARGINS_PER_CELL * m), _MOST_CELLS_PER_AXIS),
            )
            for w, t, m in zip(wide, tight, margin, strict=True)
        ]
        cells += [
            cell
            for z in sides[0]
            for y in sides[1]
            for x in sides[2]
            if mask[cell := (slice(*z), slice(*y), slice(*x))].any()
        ]
    return cells


# --- boxes ------------------------------------------------------------------------------------------------


def slab(shape: Sequence[int], axis: int, first: int, last: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Start and stop of the planes `first` to `last` - 1 along an axis of a volume of this shape."""
    start, stop = [0, 0, 0], list(shape)
    start[axis], stop[axis] = first, last
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _whole(shape: Sequence[int]) -> Box:
    z, y, x = (slice(0, int(n)) for n in shape)
    return (z, y, x)


def _bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    sides = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not used.size:
            return None
        sides.append(slice(int(used[0]), int(used[-1]) + 1))
    return (sides[0], sides[1], sides[2])
