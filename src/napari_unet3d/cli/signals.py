"""Ctrl-C and SIGTERM: the first asks the engine to stop, the second ends the program."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from napari_unet3d.engine.progress import Inbox, Stop

INTERRUPTED: Final = 130
"""Exit code."""

_STDERR: Final = 2


class StopRequest:
    """Whether, and how often, the user asked to stop."""

    def __init__(self) -> None:
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0


@contextmanager
def stop_on_signal(inbox: Inbox, promise: str) -> Iterator[StopRequest]:
    """Turn the first signal into a `Stop` in the inbox and the second into `KeyboardInterrupt`.

    Parameters
    ----------
    inbox
        Of the running generator.
    promise
        What happens now, told on stderr at the first signal.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        request.count += 1
        if request.count > 1:
            raise KeyboardInterrupt
        inbox.put(Stop())
        # not print: the signal may have come in the middle of one
        with suppress(OSError):
            os.write(_STDERR, f"{promise}; once more to quit at once\n".encode())

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
