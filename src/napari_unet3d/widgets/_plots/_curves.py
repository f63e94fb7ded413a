"""The points of one panel, thinned out as they become many. Imports no Qt."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

Abscissa = Literal["steps", "seconds"]
"""What runs along the horizontal axis."""

MOST_POINTS: Final = 2000
"""Points kept of a curve; a dock is a few hundred pixels wide."""

_SMOOTHING: Final = 0.95
"""Weight of what went before in the smoothed curve."""


class CurveStyle(NamedTuple):
    """How a curve is called and drawn."""

    key: str
    """Under which its values arrive."""
    name: str
    """Shown in the legend."""
    colour: str = ""
    """``#rrggbb``; empty: chosen from the theme."""


class CurvePoint(NamedTuple):
    """Values of several curves at one moment."""

    step: int
    seconds: float
    values: Mapping[str, float | None]
    """By the key of the curve; None or NaN where there is none."""


class Curve:
    """Points of one curve, in the order of time.

    Once there are more than `most` points, neighbours are averaged in pairs, and later points are averaged in
    groups as large: old and new parts of the curve stay equally dense.

    Parameters
    ----------
    most
        Points kept.
    """

    def __init__(self, most: int = MOST_POINTS) -> None:
        self._most = most
        self.steps: list[float] = []
        self.seconds: list[float] = []
        self.values: list[float] = []
        self.smoothed: list[float] = []
        self._group: list[tuple[float, float, float, float]] = []
        self._group_size = 1
        self._sum = 0.0
        self._weight = 0.0

    def __len__(self) -> int:
        return len(self.values)

    def add(self, step: float, seconds: float, value: float | None) -> None:
        """Add a point; no value and values that are not finite leave the curve as it is."""
        if value is None or not math.isfinite(value):
            return
        # the weights of a short past do not add up to one: divide by their sum
        self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * value
        self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        self._group.append((step, seconds, value, self._sum / self._weight))
        if len(self._group) < self._group_size:
            return
        for column, entries in zip(self._columns, zip(*self._group, strict=True), strict=True):
            column.append(sum(entries) / len(entries))
        self._group.clear()
        if len(self) > self._most:
            self._halve()

    def along(self, abscissa: Abscissa) -> list[float]:
        """Horizontal positions."""
        return self.steps if abscissa == "steps" else self.seconds

    @property
    def _columns(self) -> tuple[list[float], ...]:
        return (self.steps, self.seconds, self.values, self.smoothed)

    def _halve(self) -> None:
        for column in self._columns:
            even = len(column) - len(column) % 2
            column[:] = [(one + two) / 2 for one, two in zip(column[:even:2], column[1:even:2], strict=True)]
        self._group_size *= 2


def nearest(positions: Sequence[float], at: float) -> int | None:
    """Index of the position next to `at`, of ascending ones; None if there are none."""
    if not positions:
        return None
    after = bisect.bisect_left(positions, at)
    around = range(max(0, after - 1), min(len(positions), after + 1))
    return min(around, key=lambda index: abs(positions[index] - at))
