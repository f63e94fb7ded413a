"""The best weights so far, by the score on the held-out annotation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class BestModel:
    """Keeps a copy of the weights with the highest score; of equal ones the latest.

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
        """Keep the network's weights if the score is the best so far; says whether it is."""
        score = -math.inf if math.isnan(score) else score
        if score < self._score:
            self.stale += 1
            return False
        # an equal score may be an accident of few voxels, but no reason to go on for ever
        self.stale = 0 if score > self._score else self.stale + 1
        self.weights = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
        self.step, self._score = step, score
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
