"""How tiles lie along one axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TileSpan:
    """One tile along one axis."""

    read: slice
    kept: slice
    offset: int  # of `kept` in the output of the network
    ramp: NDArray[np.float32]


@dataclass(frozen=True)
class TileAxis:
    """The layout of tiles along one axis; sizes in voxels."""

    size: int  # of the volume
    low: int  # the part to cover: low to high
    high: int
    output: int  # of one tile
    shrink: int
    stride: int
    halo: int
    overlap: float

    @property
    def step(self) -> int:
        """Largest distance between the starts of neighbours; below 1 where the halo leaves nothing."""
        if self.output >= self.size:
            return self.stride  # one tile: no halo to drop
        free = self.output - 2 * self.halo
        shared = max(0, min(round(self.overlap * free), free - self.stride))
        return (free - shared) // self.stride * self.stride

    @property
    def first_and_last(self) -> tuple[int, int]:
        """Where the outputs of the outermost tiles start."""
        latest = round_up(max(0, self.size - self.output), self.stride)
        first = min(max(0, self.low - self.halo) // self.stride * self.stride, latest)
        last = min(max(first, round_up(self.high + self.halo - self.output, self.stride)), latest)
        return first, last

    @property
    def count(self) -> int:
        """Number of tiles."""
        first, last = self.first_and_last
        return 1 - (first - last) // self.step

    def spans(self) -> list[TileSpan]:
        """The tiles, evenly spread, which start on multiples of the stride."""
        first, last = self.first_and_last
        count, strides = self.count, (last - first) // self.stride
        starts = [first + k * strides // max(1, count - 1) * self.stride for k in range(count)]
        if self.overlap > 0:
            begins = [self.low, *(max(self.low, start + self.halo) for start in starts[1:])]
            ends = [*(min(self.high, start + self.output - self.halo) for start in starts[:-1]), self.high]
        else:
            cuts = [(left + self.output + right) // 2 for left, right in itertools.pairwise(starts)]
            begins, ends = [self.low, *cuts], [*cuts, self.high]
        margin = self.shrink // 2
        return [
            TileSpan(
                read=slice(start - margin, start - margin + self.output + self.shrink),
                kept=slice(begin, end),
                offset=begin - start,
                ramp=ramp,
            )
            for start, begin, end, ramp in zip(starts, begins, ends, _ramps(begins, ends), strict=True)
        ]


def _ramps(begins: Sequence[int], ends: Sequence[int]) -> list[NDArray[np.float32]]:
    """Weights of overlapping intervals: linear where neighbours meet, summing to 1 in every voxel."""
    low, last = begins[0], len(begins) - 1
    total = np.zeros(ends[-1] - low)
    weights = []
    for k, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        weight = np.ones(end - begin)
        if k > 0 and (shared := ends[k - 1] - begin) > 0:
            rising = (np.arange(end - begin) + 0.5) / shared
            weight = np.minimum(weight, rising)
        if k < last and (shared := end - begins[k + 1]) > 0:
            falling = (np.arange(end - begin)[::-1] + 0.5) / shared
            weight = np.minimum(weight, falling)
        weights.append(weight)
        total[begin - low : end - low] += weight
    return [
        (weight / total[begin - low : end - low]).astype(np.float32)
        for weight, begin, end in zip(weights, begins, ends, strict=True)
    ]


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is at least `value`."""
    return -(-value // multiple) * multiple
