r"""How far a training run has come, and the learning rate that goes with it.

Progress runs from 0 to 1. In each step it grows by a fixed amount, which a budget of seconds plans anew every second
from the time left and the duration of the steps so far. The points where the growth changed (knots) are recorded, so a
run by the clock can be repeated step by step. The learning rate is a trapezoid over progress::

    1.0      ____________
            /            \
    0.0    /              \
           0  warm-up      1 - decay    1

A run with an open end stays on the plateau, until `cool_down` lets progress grow to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

Knot: TypeAlias = tuple[int, float, float]
"""From step s on, progress is p and grows by d a step."""

_REPLAN_SECONDS: Final = 1.0
_EAGER_STEPS: Final = 10
"""The first steps are planned one by one: the very first is often many times slower than the rest."""

_COOL_DOWN_SHARE: Final = 0.25
_COOL_DOWN_STEPS: Final = 20
_OPEN_STEPS: Final = 1000
"""A run with an open end warms up like one of so many steps."""

_FIRST: Final = 1e-3
"""Progress added while warming up, so that the first step already learns."""


class Replay(NamedTuple):
    """A recorded run: its knots and the number of its steps."""

    knots: Sequence[Knot]
    steps: int


class Schedule:
    """Progress of a run, planned by steps, by the clock, by a recorded run or with an open end.

    Parameters
    ----------
    warmup, decay
        Shares of the run in which the learning rate rises and falls.
    steps
        Budget in steps.
    by_clock
        The budget is time: `plan` says how much is left.
    replay
        A run to repeat, instead of a budget.
    """

    def __init__(
        self,
        warmup: float,
        decay: float,
        *,
        steps: int | None = None,
        by_clock: bool = False,
        replay: Replay | None = None,
    ) -> None:
        self._warmup = warmup
        self._decay = decay
        self._replay = replay
        self._by_clock = by_clock and not replay
        self._open = not replay and steps is None and not by_clock
        self._planned_at = float("-inf")
        self.is_cooling = False
        """Whether `cool_down` was called."""
        self.step = 0
        growth = 1 / steps if steps else 0.0 if by_clock else 1 / _OPEN_STEPS
        self.knots: list[Knot] = self._recorded_knots() or [(0, 0.0, growth)]

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
    def is_replay(self) -> bool:
        """Whether a recorded run is repeated."""
        return self._replay is not None

    @property
    def is_done(self) -> bool:
        """Whether the budget is used up, or the recorded run repeated."""
        if self._replay:  # the clock or the owner may have ended it before progress was 1
            return self.step >= self._replay.steps
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
        if self._replay:
            return max(0, self._replay.steps - self.step)
        growth = self.knots[-1][2]
        return None if growth == 0 or self._open else max(0.0, (1 - self.progress) / growth)

    def advance(self) -> None:
        """Count one step."""
        self.step += 1
        self.knots += self._recorded_knots()
        if self._open and self.progress >= self._warmup:
            self._set_growth(0.0)

    def plan(self, now: float, end: float, step_seconds: float) -> None:
        """Fit the growth to the time left, where the budget is time; after the first steps only once a second.

        Parameters
        ----------
        now, end
            Present and last moment, in seconds of any clock.
        step_seconds
            Expected duration of a step, above 0.
        """
        is_due = self.step <= _EAGER_STEPS or now - self._planned_at >= _REPLAN_SECONDS
        if self._by_clock and not self._open and is_due:
            self._planned_at = now
            self._set_growth((1 - self.progress) / max(1.0, (end - now) / step_seconds))

    def cool_down(self) -> None:
        """End a run with an open end: the learning rate falls over a quarter of the steps taken so far."""
        if self._open:
            self._open, self.is_cooling = False, True
            steps = max(_COOL_DOWN_STEPS, round(self.step * _COOL_DOWN_SHARE))
            # without decay there is no fall; the run still ends
            start = min(1 - self._decay, 1 - 1e-3)
            self.knots.append((self.step, start, (1 - start) / steps))

    def extend(self, *, steps: int | None = None, by_clock: bool = False) -> None:
        """Go back to the plateau and plan for a longer run.

        Parameters
        ----------
        steps
            Steps from now on, at least 1.
        by_clock
            The budget from now on is time. Without either, the end is open.
        """
        back = min(self.progress, self._warmup)
        self._replay = None
        self.is_cooling = False
        self._open = steps is None and not by_clock
        self._by_clock = by_clock
        self._planned_at = float("-inf")
        growth = (1 - back) / steps if steps else 0.0 if by_clock else 1 / _OPEN_STEPS
        self.knots.append((self.step, back, growth))

    def to_state(self) -> dict[str, Any]:
        """Where the schedule stands, as plain values."""
        return {
            "step": self.step,
            "knots": self.knots,
            "has_open_end": self._open,
            "is_cooling": self.is_cooling,
            "by_clock": self._by_clock,
            "replay": self._replay and [self._replay.knots, self._replay.steps],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another schedule stood (lists instead of tuples will do)."""
        self.step = state["step"]
        self.knots = _knots(state["knots"])
        self._open, self.is_cooling = state["has_open_end"], state["is_cooling"]
        self._by_clock = state["by_clock"]
        self._replay = Replay(_knots(state["replay"][0]), state["replay"][1]) if state["replay"] else None

    def _recorded_knots(self) -> list[Knot]:
        return [knot for knot in self._replay.knots if knot[0] == self.step] if self._replay else []

    def _set_growth(self, growth: float) -> None:
        if growth != self.knots[-1][2]:
            self.knots.append((self.step, self.progress, growth))


def _knots(values: Sequence[Sequence[float]]) -> list[Knot]:
    return [(int(step), float(progress), float(growth)) for step, progress, growth in values]
