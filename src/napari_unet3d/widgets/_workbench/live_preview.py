"""When a run is asked for the slice in view: at once where it is another one, else now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from qtpy.QtCore import QObject, QTimer

from napari_unet3d.engine.progress import PreviewPlane
from napari_unet3d.widgets._preferences import preferences

_TICK_MS: Final = 200
_SHARE: Final = 0.2
"""Most of the time that previews of a slice that stays in view may take from learning."""


class LivePreview(QObject):
    """Asks for the slice in view as long as a run goes on, one at a time.

    Parameters
    ----------
    parent
        Owns it.
    in_view
        The plane to ask for; None: none now, for example because the view is 3D and keeps the last one.
    is_learning
        Whether the model changes, so that an old preview of the same plane is worth less and less.
    ask
        Sends the question to the run.
    """

    def __init__(
        self,
        parent: QObject,
        *,
        in_view: Callable[[], PreviewPlane | None],
        is_learning: Callable[[], bool],
        ask: Callable[[PreviewPlane], None],
    ) -> None:
        super().__init__(parent)
        self._in_view, self._is_learning, self._ask = in_view, is_learning, ask
        self._asked: PreviewPlane | None = None
        self._asked_at, self._pause_seconds, self._is_waiting = -math.inf, 0.0, False
        self._ticks = QTimer(self)
        self._ticks.setInterval(_TICK_MS)
        self._ticks.timeout.connect(self._tick)

    def start(self) -> None:
        """A run begins, which has been asked nothing yet."""
        self._asked, self._pause_seconds, self._is_waiting = None, 0.0, False
        self._ticks.start()

    def stop(self) -> None:
        """The run is over."""
        self._ticks.stop()

    def answered(self) -> None:
        """A preview came; the longer it took, the later the next one of the same plane."""
        self._is_waiting = False
        took = time.monotonic() - self._asked_at
        self._pause_seconds = max(1 / preferences().preview_rate, took / _SHARE)

    def _tick(self) -> None:
        plane = None if self._is_waiting else self._in_view()
        if plane is None:
            return
        is_stale = self._is_learning() and time.monotonic() - self._asked_at > self._pause_seconds
        if plane != self._asked or is_stale:
            self._asked, self._asked_at, self._is_waiting = plane, time.monotonic(), True
            self._ask(plane)
