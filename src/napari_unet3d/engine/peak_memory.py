"""How much memory a piece of work took at most."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import psutil
import torch

_EVERY_SECONDS: Final = 0.005


class PeakMemory:
    """Highest memory inside a ``with`` block, beyond what was in use before.

    On CUDA it is what PyTorch allocated there. Elsewhere it is the resident memory of this process, looked at 200 times
    a second: parts that live shorter may be missed, and what another thread takes meanwhile is counted.

    Parameters
    ----------
    device
        Where the work is done.

    Attributes
    ----------
    bytes
        So far, at least 0.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0
        self._device = device
        self._process = psutil.Process()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self._before = 0

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            _give_back()
            self._before = self._process.memory_info().rss
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before
            return
        self._look()
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)


def _give_back() -> None:
    """Hand memory that is free inside the process back to the system, so that using it again is seen (glibc only)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
