"""Whether the training loss still falls: what ends an open run in which nothing is held out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

_STEPS: Final = 50
_LEAST_GAIN: Final = 0.01


class LossPlateau:
    """Compares the mean loss of every 50 steps with the lowest such mean so far."""

    def __init__(self) -> None:
        self.stale = 0
        """How many means in a row were not at least one percent below the lowest before."""
        self._lowest = math.inf
        self._sum = 0.0
        self._count = 0

    def add(self, loss: float) -> None:
        """Take in the loss of one step; a non-finite one says nothing."""
        if not math.isfinite(loss):
            return
        self._sum += loss
        self._count += 1
        if self._count == _STEPS:
            mean = self._sum / _STEPS
            self.stale = 0 if mean < self._lowest * (1 - _LEAST_GAIN) else self.stale + 1
            self._lowest = min(self._lowest, mean)
            self._sum, self._count = 0.0, 0

    def to_state(self) -> dict[str, Any]:
        """Plain values."""
        lowest = self._lowest if math.isfinite(self._lowest) else None
        return {"stale": self.stale, "lowest": lowest, "sum": self._sum, "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another one stood."""
        self.stale, self._sum, self._count = state["stale"], state["sum"], state["count"]
        self._lowest = math.inf if state["lowest"] is None else state["lowest"]
