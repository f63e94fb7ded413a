"""When a model is measured during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_VALIDATIONS: Final = 20  # of a budget in steps
_LEAST_STEPS: Final = 5
_SHARE: Final = 0.08  # of the time
_LEAST_SECONDS: Final = 1.0


class ValidationPlan:
    """At the recorded steps of a repeated run, else twenty times in a long budget of steps, else by the clock.

    Parameters
    ----------
    steps
        Budget in steps, if that is the budget.
    recorded
        Steps after which the repeated run was validated.
    """

    def __init__(self, steps: int | None = None, recorded: Sequence[int] | None = None) -> None:
        self._every = max(_LEAST_STEPS, steps // _VALIDATIONS) if steps else None
        self.recorded = recorded
        """As given."""
        self.done: list[int] = []
        """Steps after which the model was validated."""
        self._last = 0.0

    def begin(self, seconds: float) -> None:
        """The first step begins."""
        self._last = seconds

    def is_due(self, step: int, seconds: float, duration: float) -> bool:
        """Whether to validate now, `seconds` after the start, the last validation having taken `duration`."""
        if step == 0 or self.is_done(step):
            return False
        if self.recorded is not None:
            return step in self.recorded
        if self._every is not None:
            return step % self._every == 0
        return seconds - self._last >= self.pause(duration)

    def is_done(self, step: int) -> bool:
        """Whether the model of this step was validated."""
        return bool(self.done) and self.done[-1] == step

    def add(self, step: int, seconds: float) -> None:
        """The model was validated."""
        self.done.append(step)
        self._last = seconds

    def restore(self, done: Sequence[int], recorded: Sequence[int] | None) -> None:
        """Go on where another plan stood."""
        self.done, self.recorded = list(done), recorded

    @staticmethod
    def pause(duration: float) -> float:
        """Seconds between two validations by the clock, so that they take a twelfth of the time at most."""
        return max(_LEAST_SECONDS, duration / _SHARE)

    def step_cost(self, step_seconds: float, duration: float) -> float:
        """Duration of a step with its share of the validations to come."""
        return step_seconds * (1 + duration / self.pause(duration))
