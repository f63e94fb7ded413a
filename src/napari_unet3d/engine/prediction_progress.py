"""Progress of a prediction, and what its owner asks for meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from napari_unet3d.engine.progress import Box, Event, Inbox, Pause, Paused, Predicted, Resume, Stop


class Stopped(Exception):
    """The owner asked to stop."""


def heed(inbox: Inbox | None, clock: TileClock) -> Iterator[Event]:
    """Read the inbox; waits while paused.

    Raises
    ------
    Stopped
        If there is a `Stop`.
    """
    if inbox is None:
        return
    paused = False
    for command in inbox.drain():
        if isinstance(command, Stop):
            raise Stopped
        if isinstance(command, Pause | Resume):
            paused = isinstance(command, Pause)
    if paused:
        yield Paused(clock.done)
    while paused:
        command = inbox.wait()
        if isinstance(command, Stop):
            raise Stopped
        paused = not isinstance(command, Resume)


class TileClock:
    """Counts tiles and voxels, and foretells the end.

    Parameters
    ----------
    box
        The whole of the work.
    """

    def __init__(self, box: Box) -> None:
        self._began = time.monotonic()
        self._voxels_left = _count(box)
        self._voxels_done = 0
        self.done = 0
        self.tiles_left = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def predicted(self, box: Box) -> Predicted:
        """One more tile is done, which made `box` final."""
        self.done += 1
        self.tiles_left -= 1
        self._voxels_done += _count(box)
        self._voxels_left -= _count(box)
        rate = self._voxels_done / max(self.seconds, 1e-9)
        return Predicted(
            done=self.done,
            total=self.done + self.tiles_left,
            seconds_left=self._voxels_left / rate if rate else None,
            box=box,
        )


def _count(box: Box) -> int:
    return math.prod(part.stop - part.start for part in box)
