"""Long actions in threads of their own: they emit engine events, obey an inbox, and never touch layers or widgets.

A function worker runs the engine's generator, because a RuntimeError in a generator worker would be swallowed.
Events wait in a queue that a timer empties on the GUI thread, so that many events never flood it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal
from superqt.utils import create_worker

from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Box, Command, Event, Finished, Inbox, Predicted, Stop
from napari_unet3d.engine.volume import LazyArray, Volume

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.io._stored import TimeAxis

_LOGGER = logging.getLogger(__name__)
_DRAIN_MS: Final = 50
_LOOK_FOR_END_SECONDS: Final = 0.1


class WorkerInbox(Inbox):
    """An inbox whose reader is told to stop as soon as the application wants to end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted: Callable[[], bool] = lambda: False

    @property
    def is_stopping(self) -> bool:
        """Whether the work should end; also where the application does."""
        return super().is_stopping or self.is_aborted()

    def drain(self) -> Iterator[Command]:
        yield from super().drain()
        if self.is_aborted():
            yield Stop()

    def wait(self) -> Command:
        """The next command; `Stop` where the application ends."""
        while not self.is_aborted():
            try:
                return self._queue.get(timeout=_LOOK_FOR_END_SECONDS)
            except queue.Empty:
                continue
        return Stop()


Emit = Callable[[Any], None]
Work = Callable[[Emit, WorkerInbox], Any]


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    result: Any
    """What the work returned; after an error what it has nevertheless, or None."""
    error: str = ""
    """One sentence for the user; empty: none."""
    details: str = ""
    """The traceback of an unexpected error."""


class Interrupted(Exception):
    """A work ended by an error, with a result nevertheless."""

    def __init__(self, result: Any, cause: Exception) -> None:
        super().__init__(str(cause))
        self.result = result
        self.cause = cause


class Job(QObject):
    """One long action. `happened` and `ended` are emitted on the GUI thread, `ended` last and exactly once.

    Parameters
    ----------
    work
        Called in a thread with a function that emits events and with the inbox.
    parent
        Owner in the sense of Qt.
    """

    happened = Signal(object)
    ended = Signal(object)

    def __init__(self, work: Work, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.inbox = WorkerInbox()
        self._events: queue.SimpleQueue[Event | Ended] = queue.SimpleQueue()
        self._timer = QTimer(self)
        self._timer.setInterval(_DRAIN_MS)
        self._timer.timeout.connect(self._drain)
        # OpenMP threads that spin between two steps would starve the GUI thread; torch reads this when it is loaded
        if "torch" not in sys.modules:
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._worker: Any = create_worker(_run, work, self._events.put, self.inbox, _ignore_errors=True)
        worker = weakref.ref(self._worker)  # no cycle
        self.inbox.is_aborted = lambda: (alive := worker()) is None or alive.abort_requested

    @property
    def is_running(self) -> bool:
        """Whether the thread is at work."""
        return bool(self._worker.is_running)

    def start(self) -> None:
        """Begin."""
        self._timer.start()
        self._worker.start()

    def send(self, command: Command) -> None:
        """Leave a command for the work."""
        self.inbox.put(command)

    def stop(self) -> None:
        """Ask the work to end after the present step, keeping what it has."""
        self.inbox.put(Stop())

    def abandon(self) -> None:
        """Ask the work to end, and hear nothing more of it: for a window that closes."""
        self._timer.stop()
        self.stop()

    def _drain(self) -> None:
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return
            if isinstance(event, Ended):
                self._timer.stop()
                self.ended.emit(event)
                return
            self.happened.emit(event)


def _run(work: Work, put: Callable[[Event | Ended], None], inbox: WorkerInbox) -> None:
    """Do the work; whatever happens, the last thing put is how it ended."""
    result = None
    try:
        try:
            result = work(put, inbox)
        except Interrupted as interrupted:
            result = interrupted.result
            raise interrupted.cause from None
        ended = Ended(result)
    except UNet3dError as error:
        ended = Ended(result, str(error))
    except MemoryError:
        ended = Ended(result, "the computer's memory is full; close other programs or use a smaller network")
    except Exception as error:  # a traceback in front of a user is a bug: it goes into the details
        _LOGGER.exception("a job failed")
        ended = Ended(result, f"unexpected error: {type(error).__name__}: {error}", traceback.format_exc())
    put(ended)


# --- what is done -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VolumePrediction:
    """An image and the arrays its prediction is written into, tile by tile.

    Parameters
    ----------
    image
        To be read.
    labels
        Z Y X.
    probabilities
        C Z Y X float32, or None.
    uncertainty
        Z Y X float32, or None.
    """

    image: Volume
    labels: NDArray[np.unsignedinteger]
    probabilities: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class PredictionTask:
    """A model applied to volumes, one after the other.

    Parameters
    ----------
    model, config, volumes
        What to apply, how, and to what.
    start_at
        Axis (0 = Z) and index of the plane to do first.
    box
        Part of each volume to predict; None for all.
    """

    model: TrainedModel
    config: PredictConfig
    volumes: tuple[VolumePrediction, ...]
    start_at: tuple[int, int] | None = None
    box: Box | None = None

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> None:
        """Predict; ends early where the owner stops it."""
        from napari_unet3d.engine.prediction_io import PredictionOutputs
        from napari_unet3d.engine.predictor import Predictor

        predictor = Predictor(self.model, self.config)
        for number, volume in enumerate(self.volumes):
            outputs = PredictionOutputs(volume.labels, volume.probabilities, volume.uncertainty)
            for event in predictor.run(volume.image, outputs, inbox, start_at=self.start_at, box=self.box):
                emit(self._among_all(event, number))
                if isinstance(event, Finished) and event.reason == "stopped":
                    return

    def _among_all(self, event: Event, number: int) -> Event:
        """Progress within one volume as progress within all of them."""
        if not isinstance(event, Predicted) or len(self.volumes) == 1:
            return event
        done = number * event.total + event.done
        return dataclasses.replace(event, done=done, total=len(self.volumes) * event.total, seconds_left=None)


@dataclass(frozen=True)
class LoadTask:
    """A model file to read."""

    path: Path

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> TrainedModel:
        """Read it."""
        from napari_unet3d.engine.model_file import load_model

        return load_model(self.path)


@dataclass(frozen=True, eq=False)
class SaveTask:
    """A model to write."""

    model: TrainedModel
    path: Path

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> Path:
        """Write it."""
        from napari_unet3d.engine.model_file import save_model

        save_model(self.model, self.path)
        return self.path


@dataclass(frozen=True, eq=False)
class LabelExportTask:
    """Labels to write with the geometry of their image."""

    labels: LazyArray
    image: Volume
    class_names: dict[int, str]
    path: Path
    background_as_zero: bool
    time: TimeAxis | None = None

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> Path:
        """Write them."""
        from napari_unet3d.io.label_export import export_labels

        return export_labels(
            self.labels,
            self.path,
            self.image,
            classes=self.class_names,
            background_as_zero=self.background_as_zero,
            time=self.time,
        )
