"""One of the processes that a program started to train: ``python -m napari_unet3d.engine.parallel.worker``.

It reads its task and then commands from standard input, and writes events to standard output. Where its input ends, the
program that started it is gone, and so it ends too.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.parallel.group import ProcessGroup
from napari_unet3d.engine.parallel.task import Failed, Task
from napari_unet3d.engine.progress import Event, Finished, Inbox, Paused, Stepped
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer

_SNAPSHOT_EVERY: Final = 5.0  # seconds
_SNAPSHOT_PAUSE: Final = 20  # times as long as writing one takes

Send = Callable[[Event | Failed], None]


class Snapshots:
    """Keeps a model file up to date with a training, at its first step, every few seconds and at its end.

    Parameters
    ----------
    trainer
        The training.
    path
        The model file.
    """

    def __init__(self, trainer: Trainer, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._trainer = trainer
        self._path = path
        self._clock = clock
        self._due = clock()

    def look(self, event: Event) -> None:
        """Write the file if it is time."""
        is_due = isinstance(event, Stepped) and self._clock() >= self._due
        if is_due or isinstance(event, Paused | Finished):
            self.write()

    def write(self) -> None:
        """Write the file, if there is something to write."""
        if self._trainer.step == 0:
            return
        begun = self._clock()
        save_model(self._trainer.model(with_state=True), self._path)
        now = self._clock()
        self._due = now + max(_SNAPSHOT_EVERY, _SNAPSHOT_PAUSE * (now - begun))


def take_part(task: Task, inbox: Inbox, send: Send) -> None:
    """Train with the other processes; the first tells what happens.

    Raises
    ------
    UNet3dError
        As `Trainer`, and where another process is gone.
    """
    torch.set_num_threads(task.threads)
    group = ProcessGroup(task.rank, task.size, torch.device(task.device), task.meeting_point)
    trainer = Trainer(
        [volume.open() for volume in task.volumes],
        task.network,
        task.config,
        inbox=inbox,
        start=_model(task.start),
        resume=_model(task.resume),
        group=group,
        **task.options,
    )
    snapshots = Snapshots(trainer, task.snapshot)
    try:
        for event in trainer.fit():
            if group.leads:
                snapshots.look(event)
                send(event)
    except Exception:
        if group.leads:
            snapshots.write()
        raise
    group.close()


def _model(path: Path | None) -> TrainedModel | None:
    return None if path is None else load_model(path)


def _receive(commands: BinaryIO, inbox: Inbox) -> None:
    try:
        while True:
            inbox.put(pickle.load(commands))
    except Exception:  # the input ended, perhaps in the middle of a command
        os._exit(1)


def main() -> None:
    """Do the task that comes on standard input."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get among the events

    def send(message: Any) -> None:
        pickle.dump(message, events)
        events.flush()

    inbox = Inbox()
    try:
        task = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_receive, args=(sys.stdin.buffer, inbox), daemon=True).start()
        take_part(task, inbox, send)
    except BrokenPipeError:
        code = 1
    except UNet3dError as error:
        send(Failed(type(error).__name__, str(error)))
        code = 1
    except Exception as error:
        traceback.print_exc()
        send(Failed(type(error).__name__, f"{type(error).__name__}: {error}"))
        code = 1
    else:
        code = 0
    events.close()
    os._exit(code)  # not to wait for the thread that reads, nor for other processes


if __name__ == "__main__":
    main()
