"""Processes that train, started and ended together: commands go to the first, messages come from all."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

from napari_unet3d.engine.parallel.task import Task
from napari_unet3d.engine.progress import Command

_WORKER: Final = "napari_unet3d.engine.parallel.worker"
_LOOPBACK: Final = {"linux": "lo", "darwin": "lo0"}


@dataclass(frozen=True)
class Ended:
    """A process ended, with an exit code (negative: by a signal), having written `last_line` to its log."""

    code: int
    last_line: str = ""

    def explain(self) -> str:
        """How, for a sentence about the process."""
        if self.code < 0:
            with suppress(ValueError):
                name = signal.Signals(-self.code).name
                hint = ": perhaps memory ran out" if name == "SIGKILL" else ""
                return f"was ended by {name}{hint}"
        detail = f": {self.last_line}" if self.last_line else ""
        return f"ended with code {self.code}{detail}"


class Message(NamedTuple):
    """What a process tells; the last one is `Ended`."""

    rank: int
    content: Any


class Crew(AbstractContextManager["Crew"]):
    """The processes of one training; leaving the block ends those that are left.

    They have a session of their own, so that Ctrl-C in a terminal reaches the program that owns them and not them.

    Parameters
    ----------
    tasks
        One for each process.
    folder
        For their logs.
    """

    def __init__(self, tasks: Sequence[Task], folder: Path) -> None:
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        """From all processes."""
        self._tasks = tasks
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        try:
            for task in self._tasks:
                self._start(task)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def command(self, command: Command) -> None:
        """Hand a command to the first process; it does not matter where that has ended."""
        _send(self._processes[0].stdin, command)

    def last_words(self, running: int, until: float) -> list[Message]:
        """What the processes still tell until so many have ended, or until a moment of `time.monotonic`."""
        found: list[Message] = []
        while running and (left := until - time.monotonic()) > 0:
            try:
                found.append(self.messages.get(timeout=left))
            except queue.Empty:
                break
            running -= isinstance(found[-1].content, Ended)
        return found

    def _start(self, task: Task) -> None:
        log = self._folder / f"process-{task.rank}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        self._processes.append(process)
        thread = threading.Thread(target=self._read, args=(task.rank, process, log), daemon=True)
        thread.start()
        self._threads.append(thread)
        _send(process.stdin, task)

    def _read(self, rank: int, process: subprocess.Popen[bytes], log: Path) -> None:
        assert process.stdout is not None  # a pipe was asked for
        with suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                self.messages.put(Message(rank, pickle.load(process.stdout)))
        self.messages.put(Message(rank, Ended(process.wait(), _last_line(log))))

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()


def _environment() -> dict[str, str]:
    """Processes of one machine talk through its loopback, whatever networks there are."""
    loopback = _LOOPBACK.get(sys.platform)
    defaults = {"GLOO_SOCKET_IFNAME": loopback} if loopback else {}
    return {**defaults, "TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ}


def _send(pipe: IO[bytes] | None, content: Any) -> None:
    assert pipe is not None  # was asked for
    with suppress(OSError, ValueError):  # it has ended; its last message says why
        pickle.dump(content, pipe)
        pipe.flush()


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""
    return ""
