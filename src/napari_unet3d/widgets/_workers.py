"""Long actions in threads of their own: they emit engine events, obey an inbox, and never touch layers or widgets.

A function worker runs the engine's generator, because a RuntimeError in a generator worker would be swallowed.
Events wait in a queue that a timer empties on the GUI thread, so that many events never flood it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os
import queue
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal
from superqt.utils import create_worker

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import PredictConfig, TrainConfig
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Box, Command, Event, Finished, Inbox, Note, Predicted, Preparing, Stop
from napari_unet3d.engine.volume import LazyArray, Volume
from napari_unet3d.widgets._kept import KeptFolder

if TYPE_CHECKING:
    from napari_unet3d.api import TrainingRun
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
        self._was_stopped = False

    @property
    def is_stopping(self) -> bool:
        """Whether the work should end, for work that does not empty the inbox yet."""
        return self._was_stopped or self.is_aborted()

    def put(self, command: Command) -> None:
        self._was_stopped = self._was_stopped or isinstance(command, Stop)
        super().put(command)

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


@dataclass(frozen=True)
class TrainedOn:
    """The annotation with which a training began, for each volume: a packed copy, and a digest of it."""

    packed: tuple[bytes, ...]
    digest: str


# --- what is done -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """A training to run.

    Parameters
    ----------
    volumes
        Image and painted labels (Z Y X; 0 = not annotated) of each annotated volume; labels are copied by the work.
    preset, settings
        The network.
    config
        The training.
    classes
        Names and colours.
    out
        Model file that is kept up to date during the run; None: nowhere.
    resume
        A model with training state to go on with; preset and settings then do not matter.
    weights_from
        A model whose weights to begin with.
    kept
        Folder for the model file where `out` is not given; None: nowhere.
    """

    volumes: tuple[tuple[Volume, NDArray[np.unsignedinteger]], ...]
    preset: str
    settings: dict[str, Any]
    config: TrainConfig
    classes: tuple[ClassInfo, ...] = ()
    out: Path | None = None
    resume: TrainedModel | None = None
    weights_from: TrainedModel | None = None
    kept: KeptFolder | None = None

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> TrainedModel | None:
        """Train; gives the best model, with the state that going on needs, or None if stopped before the first step."""
        from napari_unet3d import api

        if inbox.is_stopping:
            return None
        out = self.out or self._kept_model(emit)
        pairs = [(image, labels.copy()) for image, labels in self.volumes]
        emit(_trained_on([labels for _, labels in pairs], self.classes))
        weights_from = self._with_new_classes([labels for _, labels in pairs], emit)
        continued = self.resume or weights_from
        run = api.train_events(
            *pairs[0],
            also=pairs[1:],
            network=None if continued else self.preset,
            network_settings=None if continued else self.settings,
            config=self.config,
            out=out,
            resume=self.resume,
            weights_from=weights_from,
            keep_state=True,
            named_classes=self.classes,
            inbox=inbox,
        )
        try:
            for event in run:
                emit(event)
                if isinstance(event, Preparing) and inbox.is_stopping:
                    return None
        except Exception as error:  # whatever went wrong, the best model so far is not lost
            raise Interrupted(_model_so_far(run), error) from error
        return run.model(with_state=True)

    def _with_new_classes(self, labels: Sequence[NDArray[np.unsignedinteger]], emit: Emit) -> TrainedModel | None:
        """The model to begin with, with outputs for painted classes that it does not know."""
        model = self.weights_from
        if model is None:
            return None
        painted = {int(i) for volume in labels for i in np.unique(volume) if i}
        new = painted - set(model.label_ids)
        if not new:
            return model
        from napari_unet3d.engine.classes import default_classes
        from napari_unet3d.engine.new_classes import with_classes

        ids = sorted({*model.label_ids, *new})
        given = {entry.id: entry for entry in (*default_classes(ids), *model.classes, *self.classes)}
        names = ", ".join(f"'{given[label_id].name}'" for label_id in sorted(new))
        emit(Note(f"new to the model: {names}; what it has learnt is kept, and it gets an output for each"))
        return with_classes(model, [given[label_id] for label_id in ids], self.config.random_state)

    def _kept_model(self, emit: Emit) -> Path | None:
        """The model file in the folder, which is made; None, with a note, where that cannot be."""
        if self.kept is None:
            return None
        try:
            folder = self.kept.get()
            folder.make()
            if self.resume is None:
                folder.put_model_aside()
        except UNet3dError as error:
            emit(Note(f"the model is not saved automatically: {error}; training goes on", "warning"))
            return None
        return folder.model_path


def _trained_on(labels: Sequence[NDArray[np.unsignedinteger]], classes: Sequence[ClassInfo]) -> TrainedOn:
    from napari_unet3d.io.annotation_file import pack_annotation

    packed = tuple(pack_annotation(volume, classes)[0] for volume in labels)
    digest = hashlib.sha256()
    for content in packed:  # the runs alone, for an archive also holds the time of its making
        with np.load(io.BytesIO(content)) as runs:
            digest.update(runs["ids"].tobytes() + runs["lengths"].tobytes())
    return TrainedOn(packed, digest.hexdigest())


def _model_so_far(run: TrainingRun) -> TrainedModel | None:
    try:
        return run.model()
    except UNet3dError:
        return None


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
