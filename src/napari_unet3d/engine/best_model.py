"""The best weights so far, by the score on the held-out annotation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor, nn

NOISE: Final = 0.02
"""Scores on a few slices that differ by less do not tell which weights are better elsewhere."""


class BestModel:
    """Keeps a copy of the latest weights whose score is the highest so far, within `NOISE`.

    A NaN score (no structure in what is held out) says nothing: it is lower than any other.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] | None = None
        """On the CPU; None before the first score."""
        self.step = 0
        self.stale = 0
        """How many scores in a row were no better."""
        self._score = -math.inf

    def consider(self, step: int, score: float, network: nn.Module) -> bool:
        """Keep the network's weights if the score is as good as the best so far; says whether it is."""
        score = -math.inf if math.isnan(score) else score
        self.stale = 0 if score > self._score else self.stale + 1
        if score < self._score - NOISE:
            return False
        # the more it has learnt the better, other things being equal
        self.weights = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
        self.step, self._score = step, max(score, self._score)
        return True

    def to_state(self) -> dict[str, Any]:
        """Plain values; the weights are those of the model file."""
        score = self._score if math.isfinite(self._score) else None
        return {"step": self.step, "score": score, "stale": self.stale, "is_kept": self.weights is not None}

    def restore(self, state: Mapping[str, Any], network: nn.Module) -> None:
        """Go on where another one stood; `network` holds the best weights."""
        self.step, self.stale = state["step"], state["stale"]
        self._score = -math.inf if state["score"] is None else state["score"]
        if state["is_kept"]:
            self.weights = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
