"""Boxes of an array's indices: one slice with explicit non-negative start and stop for each axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

NdBox: TypeAlias = tuple[slice, ...]


def whole(shape: Sequence[int]) -> NdBox:
    """The box of everything."""
    return tuple(slice(0, n) for n in shape)


def size(box: NdBox) -> int:
    """Number of elements."""
    return math.prod(part.stop - part.start for part in box)


def union(first: NdBox, second: NdBox) -> NdBox:
    """The smallest box that holds both."""
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def merged(boxes: Iterable[NdBox]) -> list[NdBox]:
    """Fewer boxes that hold the same: two become one where that one is no larger than both together.

    Boxes that overlap little, such as crossing slices, stay apart. Takes the square of the number of boxes.
    """
    result: list[NdBox] = []
    for new in boxes:
        box = new
        while (i := _partner(box, result)) is not None:
            box = union(box, result.pop(i))
        result.append(box)
    return result


def _partner(box: NdBox, others: Sequence[NdBox]) -> int | None:
    for i, other in enumerate(others):
        if size(union(box, other)) <= size(box) + size(other):
            return i
    return None


def chained(boxes: Iterable[NdBox], small: int) -> list[NdBox]:
    """Few boxes that hold a row of boxes of which neighbours lie close together, such as the stamps of a brush.

    Neighbours become one box up to `small` elements, and beyond where that one is no larger than both together.
    """
    result: list[NdBox] = []
    for box in boxes:
        if result:
            both = union(result[-1], box)
            if size(both) <= max(small, size(result[-1]) + size(box)):
                result[-1] = both
                continue
        result.append(box)
    return result


def pieces(box: NdBox, limit: int) -> Iterator[NdBox]:
    """`box` cut into pieces of at most `limit` elements, along its first axes, in order."""
    for axis, part in enumerate(box):
        rest = size(box[axis + 1 :])
        if part.stop - part.start == 1:
            continue
        if rest > limit:
            for i in range(part.start, part.stop):
                yield from pieces((*box[:axis], slice(i, i + 1), *box[axis + 1 :]), limit)
            return
        step = max(1, limit // rest)
        for start in range(part.start, part.stop, step):
            yield (*box[:axis], slice(start, min(start + step, part.stop)), *box[axis + 1 :])
        return
    yield box


def around(mask: NDArray[np.bool_], offset: NdBox) -> NdBox | None:
    """The smallest box of the set elements of `mask`, which lies at `offset`; None if none is set."""
    parts: list[slice] = []
    left: Any = mask
    # axes cut one after the other, so each step looks at less
    for axis, outer in enumerate(offset):
        others = tuple(i for i in range(left.ndim) if i != axis)
        found = np.flatnonzero(left.any(axis=others))
        if not found.size:
            return None
        first, stop = int(found[0]), int(found[-1]) + 1
        left = left[(slice(None),) * axis + (slice(first, stop),)]
        parts.append(slice(outer.start + first, outer.start + stop))
    return tuple(parts)
