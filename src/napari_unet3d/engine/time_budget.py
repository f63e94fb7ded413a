"""The wall time of a training run: what is used, what is left, how long a step takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_RECENT: Final = 0.1  # weight of the newest step in the mean duration
_RESERVE_SECONDS: Final = 0.5
_RESERVE_SHARE: Final = 0.01
_MOST_OUTSIDE: Final = 0.1  # of the budget
_LEAST_STEP: Final = 1e-6


class TimeBudget:
    """A clock that stands still in pauses, with or without an end.

    Parameters
    ----------
    clock
        Gives the time in seconds.
    until
        Seconds from the start to the end; None without one.
    started_at
        Clock time of the start; by default that of the call of `start`.
    """

    def __init__(self, clock: Callable[[], float], until: float | None = None, started_at: float | None = None) -> None:
        self._clock = clock
        self._begin = started_at
        self.until = until
        self.validation_seconds = 0.0
        """Duration of the newest validation."""
        self._outside = 0.0
        self._step_begin = 0.0
        self._step_seconds = 0.0
        self._steps = 0

    def start(self, already_used: float = 0.0) -> None:
        """Begin to count, unless the start was given; `already_used` seconds of an earlier part count too."""
        self._begin = (self._clock() if self._begin is None else self._begin) - already_used

    @property
    def seconds(self) -> float:
        """Since the start, without pauses; 0 before it."""
        return 0.0 if self._begin is None else self._clock() - self._begin

    def extend(self, seconds: float | None) -> None:
        """End so many seconds from now; None: no end."""
        self.until = None if seconds is None else self.seconds + seconds

    # --- measuring ----------------------------------------------------------------------------------------

    @contextmanager
    def pause(self) -> Iterator[None]:
        """The clock stands still."""
        begun = self._clock()
        try:
            yield
        finally:
            waited = self._clock() - begun
            self._begin = (self._begin or 0.0) + waited
            self._step_begin += waited

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Measure a validation; it is no part of a step."""
        begun = self._clock()
        yield
        self.validation_seconds = self._clock() - begun
        self._step_begin += self.validation_seconds

    def outside(self, seconds: float) -> None:
        """The owner took so long between two events, perhaps to save: expect it once more at the end."""
        self._outside = max(self._outside, min(seconds, _MOST_OUTSIDE * (self.until or 0.0)))

    def begin_steps(self) -> None:
        """The first step begins now."""
        self._step_begin = self._clock()

    def end_step(self) -> None:
        """A step is done, and the next begins now. The first, often slow, is forgotten with the second."""
        now = self._clock()
        newest = max(_LEAST_STEP, now - self._step_begin)
        self._step_begin = now
        self._steps += 1
        weight = 1.0 if self._steps <= 2 else max(_RECENT, 1 / (self._steps - 1))
        self._step_seconds += (newest - self._step_seconds) * weight

    # --- planning -----------------------------------------------------------------------------------------

    @property
    def step_seconds(self) -> float:
        """Recent mean duration of a step; 0 before the first."""
        return self._step_seconds

    @property
    def end(self) -> float | None:
        """Second after which no step may end: before the last validation and the saving."""
        if self.until is None:
            return None
        reserve = self.validation_seconds + self._outside + _RESERVE_SECONDS + _RESERVE_SHARE * self.until
        return self.until - reserve

    @property
    def seconds_left(self) -> float | None:
        """To the end; None without one."""
        return None if self.until is None else max(0.0, self.until - self.seconds)

    @property
    def is_used_up(self) -> bool:
        """Whether another step would end too late."""
        end = self.end
        return end is not None and self.seconds + self._step_seconds > end
