"""Where the time of a training goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

STAGES: Final = ("data", "augmentation", "forward", "backward", "validation")
"""Drawing and reading patches; deforming them and changing grey values; network and loss; gradients and update;
predicting what is held out."""


class StageTimes:
    """Seconds spent in each stage.

    On a graphics card work is only begun and waited for later: what is still under way counts where it is waited for,
    at the ends of the forward and the backward pass.

    Parameters
    ----------
    clock
        Gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        """By name of the stage."""

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what happens inside, whether it fails or not."""
        begun = self._clock()
        try:
            yield
        finally:
            self.seconds[stage] += self._clock() - begun
