"""What a distillation does in its thread: learn from teachers, learn without them, compare."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.config import DistillConfig, PredictConfig, TrainConfig
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Event, Preparing
from napari_unet3d.engine.volume import Volume
from napari_unet3d.widgets._kept import KeptFolder, kept_file
from napari_unet3d.widgets._workers import Emit, Interrupted, WorkerInbox

if TYPE_CHECKING:
    from napari_unet3d.api import TrainingRun
    from napari_unet3d.engine.distillation.comparison import ModelFigures
    from napari_unet3d.engine.trained_model import TrainedModel


class TeacherChoice(NamedTuple):
    """A model to learn from."""

    name: str
    model: TrainedModel


class StudentChoice(NamedTuple):
    """The network to distil into: a share of the teacher's operations, or a preset with its settings."""

    operations: str | None = "1/8"
    preset: str | None = None
    settings: dict[str, Any] | None = None


@dataclass(frozen=True)
class Staged:
    """An event of the run without teachers."""

    event: Event


@dataclass(frozen=True, eq=False)
class DistillResult:
    """What came of it; either is None where the run was stopped before its first step."""

    student: TrainedModel | None
    scratch: TrainedModel | None = None


@dataclass(frozen=True, eq=False)
class DistillTask:
    """A distillation, and the training of the same student without teachers where that is wanted.

    Parameters
    ----------
    teachers, student, train, config
        From whom, into what, and how.
    image, labels
        The volume and its sparse annotation (Z Y X, 0 = not annotated; copied by the work), None without any.
    also
        Further images without annotation.
    resume, weights_from
        A student to go on with.
    with_scratch
        Whether to train the student without teachers, too.
    kept
        The image's autosave folder, into which the best student goes; None: nowhere.
    """

    teachers: tuple[TeacherChoice, ...]
    student: StudentChoice
    train: TrainConfig
    config: DistillConfig
    image: Volume
    labels: NDArray[np.unsignedinteger] | None
    also: tuple[Volume, ...] = ()
    resume: TrainedModel | None = None
    weights_from: TrainedModel | None = None
    with_scratch: bool = False
    kept: KeptFolder | None = None

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> DistillResult:
        """Distil; gives the best student with the state that going on needs."""
        from napari_unet3d import api

        if inbox.is_stopping:
            return DistillResult(None)
        labels = None if self.labels is None else self.labels.copy()
        is_continued = self.resume is not None or self.weights_from is not None
        chosen = StudentChoice(None) if is_continued else self.student
        run = api.distill_events(
            [teacher.model for teacher in self.teachers],
            self.image,
            labels,
            also=self.also,
            network=chosen.preset,
            network_settings=chosen.settings,
            operations=chosen.operations,
            train=self.train,
            config=self.config,
            out=kept_file(self.kept, lambda folder: folder.student_path, "student", emit),
            resume=self.resume,
            weights_from=self.weights_from,
            keep_state=True,
            inbox=inbox,
        )
        student = _followed(run, emit, inbox)
        if student is None or labels is None or not self.with_scratch or inbox.is_stopping:
            return DistillResult(student)
        scratch_run = api.scratch_events(student, self.image, labels, inbox=inbox)
        try:
            return DistillResult(student, _followed(scratch_run, lambda event: emit(Staged(event)), inbox))
        except Interrupted as error:
            raise Interrupted(DistillResult(student, error.result), error.cause) from error


def _followed(run: TrainingRun, emit: Emit, inbox: WorkerInbox) -> TrainedModel | None:
    """The best model of a run, with its state; None where it was stopped before the first step."""
    try:
        for event in run:
            emit(event)
            if isinstance(event, Preparing) and inbox.is_stopping:
                return None
        return run.model(with_state=True)
    except Exception as error:  # whatever went wrong, the best student so far is not lost
        raise Interrupted(_model_so_far(run), error) from error


def _model_so_far(run: TrainingRun) -> TrainedModel | None:
    try:
        return run.model()
    except UNet3dError:
        return None


@dataclass(frozen=True, eq=False)
class Compared:
    """Figures of models side by side, and their labels of the volume (Z Y X) by name."""

    figures: tuple[ModelFigures, ...]
    labels: dict[str, NDArray[np.unsignedinteger]]


@dataclass(frozen=True, eq=False)
class CompareTask:
    """Models to compare on a volume.

    Parameters
    ----------
    models
        By the names to show, a teacher first, the student last.
    image, labels, truth
        The volume, its annotation and its true labels (Z Y X, 0 = not known); None where there are none.
    config
        Of the prediction.
    """

    models: dict[str, TrainedModel]
    image: Volume
    labels: NDArray[np.unsignedinteger] | None
    truth: NDArray[np.unsignedinteger] | None
    config: PredictConfig

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> Compared | None:
        """Compare; None where it was stopped."""
        from napari_unet3d import api
        from napari_unet3d.engine.model_file import save_model

        ids = next(iter(self.models.values())).label_ids
        dtype = np.uint8 if max(ids) <= 255 else np.uint16
        into: dict[str, NDArray[np.unsignedinteger]] = {name: np.zeros(self.image.shape, dtype) for name in self.models}
        with tempfile.TemporaryDirectory() as folder:  # what a model takes as a file
            files = {}
            for number, (name, model) in enumerate(self.models.items()):
                if inbox.is_stopping:
                    return None
                files[name] = save_model(_without_state(model), Path(folder) / f"{number}.safetensors")
            comparison = api.compare_events(
                files,
                self.image,
                None if self.labels is None else self.labels.copy(),
                truth=self.truth,
                config=self.config,
                into=into,
                inbox=inbox,
            )
            for event in comparison:
                emit(event)
        if len(comparison.figures) < len(self.models):
            return None
        return Compared(comparison.figures, into)


def _without_state(model: TrainedModel) -> TrainedModel:
    return dataclasses.replace(model, state=None)
