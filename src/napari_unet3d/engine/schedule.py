"""How far a training run has come, and the learning rate that goes with it.

Progress runs from 0 to 1. In each step it grows by a fixed amount, which a budget of seconds plans anew every second from the time
left and the duration of the steps so far. The points where the growth changed (knots) are recorded, so a run by the
clock can be repeated step by step. The learning rate is a trapezoid over progress::

    1.0      ____________
            /            \\
    0.0    /              \\
           0  warm-up      1 - decay    1

A run with an open end stays on the plateau, until `cool_down` lets progress grow to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

Knot: TypeAlias = tuple[int, float, float]
"""From step s on, progress is p and grows by d a step."""

_REPLAN_SECONDS: Final = 1.0
_COOL_DOWN_SHARE: Final = 0.25
_COOL_DOWN_STEPS: Final = 20
_OPEN_STEPS: Final = 1000
"""A run with an open end warms up like one of so many steps."""

_FIRST: Final = 1e-3
"""Progress added while warming up, so that the first step already learns."""


class Schedule:
    """Progress of a run, planned by steps, by the clock, by recorded knots or with an open end.

    Parameters
    ----------
    warmup, decay
        Shares of the run in which the learning rate rises and falls.
    steps
        Budget in steps.
    by_clock
        The budget is time: `plan` says how much is left.
    knots
        Recorded knots to repeat, instead of a budget.
    """

    def __init__(
        self,
        warmup: float,
        decay: float,
        *,
        steps: int | None = None,
        by_clock: bool = False,
        knots: Sequence[Knot] = (),
    ) -> None:
        self._warmup = warmup
        self._decay = decay
        self._replayed = tuple(knots)
        self._by_clock = by_clock and not knots
        self._open = not knots and steps is None and not by_clock
        self._planned_at = float("-inf")
        self.step = 0
        growth = 1 / steps if steps else 0.0 if by_clock else 1 / _OPEN_STEPS
        self.knots: list[Knot] = [self._replayed[0] if knots else (0, 0.0, growth)]

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        start, progress, growth = self.knots[-1]
        return progress + growth * (self.step - start)

    @property
    def has_open_end(self) -> bool:
        """Whether only `cool_down` brings the run to its end."""
        return self._open

    @property
    def is_done(self) -> bool:
        """Whether the budget is used up."""
        return self.progress >= 1 - 1e-9

    @property
    def factor(self) -> float:
        """Learning rate of the next step relative to the highest, 0..1."""
        rising = (self.progress + _FIRST) / self._warmup if self._warmup else 1.0
        falling = (1 - self.progress) / self._decay if self._decay else 1.0
        return max(0.0, min(1.0, rising, falling))

    @property
    def steps_left(self) -> float | None:
        """Steps to the end at the present growth; None with an open end or before the first plan."""
        growth = self.knots[-1][2]
        return None if growth == 0 or self._open else max(0.0, (1 - self.progress) / growth)

    def advance(self) -> None:
        """Count one step."""
        self.step += 1
        self.knots += [knot for knot in self._replayed[1:] if knot[0] == self.step]
        if self._open and self.progress >= self._warmup:
            self._set_growth(0.0)

    def plan(self, now: float, end: float, step_seconds: float) -> None:
        """Fit the growth to the time left; does nothing unless the budget is time, nor within a second of the last plan.

        Parameters
        ----------
        now, end
            Present and last moment, in seconds of any clock.
        step_seconds
            Expected duration of a step.
        """
        if self._by_clock and now - self._planned_at >= _REPLAN_SECONDS:
            self._planned_at = now
            self._set_growth((1 - self.progress) / max(1.0, (end - now) / step_seconds))

    def cool_down(self) -> None:
        """End a run with an open end: the learning rate falls over a quarter of the steps taken so far."""
        if self._open:
            self._open = False
            steps = max(_COOL_DOWN_STEPS, round(self.step * _COOL_DOWN_SHARE))
            self.knots.append((self.step, 1 - self._decay, self._decay / steps))

    def extend(self, *, steps: int | None = None, by_clock: bool = False) -> None:
        """Go back to the plateau and plan for a longer run.

        Parameters
        ----------
        steps
            Further steps.
        by_clock
            The further budget is time. Without either, the end is open.
        """
        back = min(self.progress, self._warmup)
        self._open = steps is None and not by_clock
        self._by_clock = by_clock
        self._planned_at = float("-inf")
        self.knots.append((self.step, back, (1 - back) / steps if steps else 0.0))

    def restore(self, step: int, knots: Sequence[Knot], has_open_end: bool) -> None:
        """Go on where another schedule stood."""
        self.step = step
        self.knots = list(knots)
        self._open = has_open_end

    def _set_growth(self, growth: float) -> None:
        if growth != self.knots[-1][2]:
            self.knots.append((self.step, self.progress, growth))
