"""Distilling a small model from large ones on the open image, and comparing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_unet3d.engine.config import DistillConfig, TrainConfig
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import (
    Command,
    Note,
    Pause,
    Paused,
    Predicted,
    Preparing,
    Previewed,
    PreviewPlane,
    Resume,
    Stepped,
    TrainLonger,
    Validated,
)
from napari_unet3d.widgets._layers.annotation import annotation_problem, spatial_view
from napari_unet3d.widgets._layers.image import choose_image
from napari_unet3d.widgets._layers.prediction import add_prediction, refresh, show_plane
from napari_unet3d.widgets._layers.view import visible_plane
from napari_unet3d.widgets._session import Phase, Progress
from napari_unet3d.widgets._workbench.brief_job import start_brief_job
from napari_unet3d.widgets._workbench.compared_layers import contestants, show_labels
from napari_unet3d.widgets._workbench.distill_curves import AgreementPoint, DistillCurves, TermPoint
from napari_unet3d.widgets._workbench.distill_tasks import (
    Compared,
    CompareTask,
    DistillResult,
    DistillTask,
    Staged,
    StudentChoice,
    TeacherChoice,
)
from napari_unet3d.widgets._workbench.fitting import fit_problem
from napari_unet3d.widgets._workbench.live_preview import LivePreview
from napari_unet3d.widgets._workbench.times import clock_text
from napari_unet3d.widgets._workers import Ended, Job, LoadTask, SaveTask, Work

if TYPE_CHECKING:
    from napari_unet3d.engine.distillation.comparison import ModelFigures
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.widgets._layers.image import ImageChoice
    from napari_unet3d.widgets._workbench.bench import Workbench

_MODEL_FILES: Final = ".safetensors"


class Distilling(QObject):
    """Runs one distillation or comparison at a time. Docks show it; it lives as long as the workbench.

    Parameters
    ----------
    bench
        Has the session, the viewer and the chosen layers.
    """

    changed = Signal()
    """Anything but the curves is another."""
    curves_changed = Signal()
    """The curves grew, or began anew."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session
        self._job: Job | None = None
        self._t = 0
        self._image: ImageChoice | None = None
        self._learnt_from: tuple[TeacherChoice, ...] = ()
        self._was_stopped = False
        self.teachers: tuple[TeacherChoice, ...] = ()
        """Chosen teachers; empty: the present model of the session."""
        self.student_choice = StudentChoice()
        self.train_config = TrainConfig(seconds=60)
        self.config = DistillConfig()
        self.with_annotation = True
        """Whether the student learns on the annotation too, where there is any."""
        self.with_scratch = False
        """Whether the same student is trained without a teacher, to compare."""
        self.unlabelled: tuple[Any, ...] = ()
        """Further image layers."""
        self.truth: Any = None
        """Labels layer with true labels, or None."""
        self.shows_preview = True
        self.phase = Phase.IDLE
        self.is_comparing = False
        self.progress = Progress()
        self.message = ""
        self.is_warning = False
        self.curves = DistillCurves()
        self.student: TrainedModel | None = None
        self.scratch: TrainedModel | None = None
        self.figures: tuple[ModelFigures, ...] = ()
        """Teachers first, the student last; empty before a comparison."""
        self.meanings: dict[str, str] = {}
        """What the names in the figures stand for."""
        self.preview_layer: Any = None
        self.teacher_layer: Any = None
        """Labels layers of the last comparison, or None."""
        self.student_layer: Any = None
        self._live = LivePreview(
            self,
            in_view=self._in_view,
            is_learning=lambda: self.phase is Phase.TRAINING,
            ask=self._send,
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            Preparing: self._on_preparing,
            Note: self._on_note,
            Stepped: self._on_stepped,
            Validated: self._on_validated,
            Previewed: self._on_previewed,
            Paused: self._on_paused,
            Staged: self._on_staged,
            Predicted: self._on_predicted,
        }

    # --- what is chosen -----------------------------------------------------------------------------------

    @property
    def effective_teachers(self) -> tuple[TeacherChoice, ...]:
        """The chosen teachers, or the present model of the session."""
        model = self._session.model
        if self.teachers or model is None:
            return self.teachers
        return (TeacherChoice(self._session.model_origin or "present model", model),)

    def add_present_model(self) -> None:
        """Choose the present model of the session as a teacher."""
        model = self._session.model
        if model is None:
            self.tell("train a model (Train dock) or load a model file first", warning=True)
        elif all(teacher.model is not model for teacher in self.teachers):
            self._add_teacher(self._session.model_origin or "present model", model)

    def add_teacher_file(self, path: Path) -> None:
        """Read a model file and choose it as a teacher."""
        self.tell(f"reading {path.name}")
        start_brief_job(self, self, LoadTask(path), lambda model: self._add_teacher(path.name, model))

    def _add_teacher(self, name: str, model: TrainedModel) -> None:
        names = {teacher.name for teacher in self.teachers}
        number = 2
        unique = name
        while unique in names:
            unique, number = f"{name} ({number})", number + 1
        self.teachers = (*self.teachers, TeacherChoice(unique, model))
        self.tell("")

    def remove_teacher(self, number: int) -> None:
        """Take a teacher away again."""
        self.teachers = self.teachers[:number] + self.teachers[number + 1 :]
        self.changed.emit()

    def problem(self) -> str:
        """Why distilling cannot start, as a sentence that says what to do; empty if it can."""
        if self.phase.is_running:
            return "a distillation is running"
        if self.is_comparing:
            return "models are being compared; wait or click Stop"
        if self._session.phase not in (Phase.IDLE, Phase.PAUSED):
            return "training is running: stop or pause it first"
        return self._fit_problem()

    def _fit_problem(self) -> str:
        teachers, image = self.effective_teachers, self._bench.image
        if not teachers:
            return "choose a teacher: train a model (Train dock), or add a model file"
        if image is None:
            return self._bench.image_problem or "open an image first"
        return next((problem for teacher in teachers if (problem := fit_problem(teacher.model, image))), "")

    def comparing_problem(self) -> str:
        """Why nothing can be compared, with what to do; empty if it can."""
        if self.phase.is_running:
            return "a distillation is running"
        if self.is_comparing:
            return "models are being compared"
        if self.student is None:
            return "distil a student first"
        return self._fit_problem()

    # --- what the user can do -----------------------------------------------------------------------------

    def start(self) -> None:
        """Distil a new student."""
        self._begin(self.train_config)

    def go_on(self) -> None:
        """Let the student learn further for the chosen budget: where its run stood, or else from its weights."""
        student, config = self.student, self.train_config
        if student is None:
            self.tell("distil a student first", warning=True)
            return
        record = student.recipe.record
        is_same = self.effective_teachers == self._learnt_from and self._bench.image is self._image
        if student.state is None or record is None or not is_same:
            self._begin(config, weights_from=student)
            return
        if config.seconds is not None:  # the budget of a resumed run counts from its beginning
            config = config.updated(seconds=student.state.values["seconds"] + config.seconds)
        elif config.steps is not None:
            config = config.updated(steps=record.steps + config.steps)
        self._begin(config, resume=student)

    def train_longer(self) -> None:
        """Give the run that is going on the chosen budget again, from now on."""
        self._send(TrainLonger(seconds=self.train_config.seconds, steps=self.train_config.steps))

    def pause(self) -> None:
        """Wait after the present step."""
        self._send(Pause())

    def resume(self) -> None:
        """Go on after a pause."""
        self._send(Resume())
        if self.phase is Phase.PAUSED:
            self._set(phase=Phase.TRAINING)

    def stop(self) -> None:
        """End after the present step and keep the best student; a comparison is broken off."""
        if self._job is None:
            return
        self._was_stopped = True
        if self.phase.is_running:
            self.phase = Phase.STOPPING
        self.progress = self.progress._replace(text="stopping; the best student is kept")
        self._job.stop()
        self.changed.emit()

    def use_student(self) -> None:
        """Make the student the present model: the Predict dock applies it, the Train dock trains it further."""
        if self.student is None:
            return
        if self._session.phase.is_running:
            self.tell("training is running: stop it first", warning=True)
            return
        if not self.teachers:  # the student must not become its own teacher
            self.teachers = self.effective_teachers
        self._session.model = self.student
        self._session.model_origin = self._origin()
        self._bench.training.follow_model(is_of_this_image=False)
        self.tell("the student is the present model now: apply it in the Predict dock")

    def save_student(self, path: Path) -> None:
        """Write the student to a model file."""
        if self.student is None:
            self.tell("distil a student first", warning=True)
            return
        path = path if path.suffix == _MODEL_FILES else path.with_name(path.name + _MODEL_FILES)
        start_brief_job(self, self, SaveTask(self.student, path), lambda done: self.tell(f"saved {done}"))

    def flip(self) -> None:
        """Show the teacher's labels instead of the student's, or the other way round."""
        first, second = self.layers
        if first is None or second is None:
            self.tell("compare first: that makes the layers of teacher and student", warning=True)
            return
        shows_student = bool(second.visible)
        second.visible, first.visible = not shows_student, shows_student
        self.changed.emit()

    @property
    def layers(self) -> tuple[Any, Any]:
        """Layers of teacher and student from the last comparison; None for those that are gone."""
        open_layers = self._bench.viewer.layers
        first, second = (
            layer if layer is not None and layer in open_layers else None
            for layer in (self.teacher_layer, self.student_layer)
        )
        return first, second

    def tell(self, message: str, *, warning: bool = False) -> None:
        """Show a sentence to the user."""
        self.message, self.is_warning = message, warning
        self.changed.emit()

    # --- the run ------------------------------------------------------------------------------------------

    def _begin(self, config: TrainConfig, **origin: Any) -> None:
        problem = self.problem()
        if problem:
            self.tell(problem, warning=True)
            return
        bench = self._bench
        image = bench.image
        assert image is not None  # problem() looked
        try:
            also = tuple(choose_image([layer]).volume(0) for layer in self._open(self.unlabelled))
            self._t = bench.time_in_view()
            labels = self._labels(image) if self.with_annotation else None
        except UNet3dError as error:
            self.tell(str(error), warning=True)
            return
        if "resume" not in origin:
            self.curves = DistillCurves()
            self.curves_changed.emit()
        self._image, self._learnt_from = image, self.effective_teachers
        config = config.updated(device=self._session.train_config.device)
        work = DistillTask(
            self._learnt_from,
            self.student_choice,
            config,
            self.config,
            image.volume(self._t),
            labels,
            also,
            with_scratch=self.with_scratch,
            kept=bench.keeping.folder,
            **origin,
        )
        self._was_stopped = False
        self.message = ""
        self.progress = Progress(None, "loading PyTorch and reading the image")
        self._run(work, self._on_ended)
        self._set(phase=Phase.PREPARING)
        self._live.start()

    def _labels(self, image: ImageChoice) -> NDArray[np.unsignedinteger] | None:
        """What is painted at the time point in view; None where nothing is."""
        bench = self._bench
        if bench.annotation is None or annotation_problem(bench.annotation, image):
            return None
        bench.take_strokes()
        watch = bench.watch
        if watch is None or self._t not in watch.annotated_time_points:
            return None
        return watch.handed_out(self._t)

    def _open(self, layers: Sequence[Any]) -> list[Any]:
        return [layer for layer in layers if layer in self._bench.viewer.layers]

    def _run(self, work: Work, on_ended: Callable[[Ended], None]) -> None:
        self._job = Job(work, self)
        self._job.happened.connect(self._on_event)
        self._job.ended.connect(on_ended)
        self._job.start()

    def _send(self, command: Command) -> None:
        if self._job is not None:
            self._job.send(command)

    def _set(self, *, phase: Phase) -> None:
        self.phase = phase
        self.changed.emit()

    def _in_view(self) -> PreviewPlane | None:
        """The slice to preview: of the image and the time point that the student learns on."""
        image = self._bench.image
        if image is None or image is not self._image or not self.shows_preview:
            return None
        if self.phase not in (Phase.TRAINING, Phase.PAUSED):
            return None
        plane = visible_plane(self._bench.viewer, image)
        return None if plane is None or plane.t != self._t else PreviewPlane(0, plane.axis, plane.index)

    # --- what the run tells -------------------------------------------------------------------------------

    def _on_event(self, event: Any) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _tell_progress(self, fraction: float | None, text: str) -> None:
        if self._was_stopped:
            text = self.progress.text
        self.progress = Progress(fraction, text)
        self.changed.emit()

    def _on_preparing(self, event: Preparing) -> None:
        what = "the teacher looks at the volume" if event.stage == "teacher" else event.stage
        self._tell_progress(event.fraction, f"preparing: {what}")

    def _on_note(self, event: Note) -> None:
        self.tell(event.text, warning=event.level == "warning")

    def _on_stepped(self, event: Stepped) -> None:
        if self.phase in (Phase.PREPARING, Phase.PAUSED):
            self.phase = Phase.TRAINING
        terms = event.loss_terms
        soft, hard = terms.get("soft", math.nan), terms.get("hard", math.nan)
        self.curves.losses.append(TermPoint(event.step, event.seconds, event.loss, soft, hard))
        self.curves_changed.emit()
        self._tell_progress(*_step_progress(event))

    def _on_staged(self, event: Staged) -> None:
        if isinstance(event.event, Stepped):
            fraction, text = _step_progress(event.event)
            self._tell_progress(fraction, f"without teacher: {text}")
        elif isinstance(event.event, Paused):
            self._on_paused(event.event)

    def _on_validated(self, event: Validated) -> None:
        agreement = math.nan if event.agreement is None else event.agreement
        point = AgreementPoint(event.step, event.seconds, agreement, event.mean_iou, event.is_best)
        self.curves.agreements.append(point)
        self.curves_changed.emit()

    def _on_previewed(self, event: Previewed) -> None:
        self._live.answered()
        image, viewer = self._bench.image, self._bench.viewer
        if image is None or image is not self._image or not self.shows_preview or not self._learnt_from:
            return
        if self.preview_layer is None or self.preview_layer not in viewer.layers:
            classes = self._learnt_from[0].model.classes
            self.preview_layer = add_prediction(viewer, image, classes, "student preview")
        show_plane(self.preview_layer, image, event.axis, event.index, event.labels, self._t)
        refresh(self.preview_layer)

    def _on_paused(self, event: Paused) -> None:
        if self.phase is not Phase.STOPPING:
            self._set(phase=Phase.PAUSED)

    def _on_predicted(self, event: Predicted) -> None:
        self._tell_progress(event.done / event.total, f"comparing: {event.done} of {event.total} blocks")

    def _on_ended(self, ended: Ended) -> None:
        self._live.stop()
        self._forget_job()
        result = ended.result if isinstance(ended.result, DistillResult) else DistillResult(ended.result)
        self.phase = Phase.IDLE
        if result.student is not None:
            self.student = result.student
            self.scratch = result.scratch
            self.figures = ()
            self.progress = Progress(1.0, self.curves.summary)
        else:
            self.progress = Progress(0.0, "")
        if ended.error:
            self.tell(ended.error, warning=True)
        self.changed.emit()
        if result.student is not None and not ended.error and not self._was_stopped:
            self.compare()

    def _forget_job(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.deleteLater()

    def _origin(self) -> str:
        names = ", ".join(teacher.name for teacher in self._learnt_from)
        return f"distilled from {names}"

    # --- the comparison -----------------------------------------------------------------------------------

    def compare(self) -> None:
        """Let all models label the volume; the labels of the first teacher and of the student become layers."""
        problem = self.comparing_problem()
        if problem:
            self.tell(problem, warning=True)
            return
        bench = self._bench
        image, student = bench.image, self.student
        assert image is not None  # comparing_problem() looked
        assert student is not None
        teachers = self._learnt_from or self.effective_teachers
        models, self.meanings = contestants(teachers, self.scratch, student, self._origin())
        self._t = bench.time_in_view()
        try:
            truth = None
            if self.truth is not None and self.truth in bench.viewer.layers:
                truth = np.asarray(spatial_view(self.truth, image, self._t))
            task = CompareTask(models, image.volume(self._t), self._labels(image), truth, self._session.predict_config)
        except UNet3dError as error:
            self.tell(str(error), warning=True)
            return
        self._image, self.is_comparing, self._was_stopped = image, True, False
        self.progress = Progress(None, "comparing")
        self._run(task, self._on_compared)
        self.changed.emit()

    def _on_compared(self, ended: Ended) -> None:
        self._forget_job()
        self.is_comparing = False
        self.progress = Progress(1.0, self.curves.summary)
        if ended.error:
            self.tell(ended.error, warning=True)
        elif isinstance(ended.result, Compared):
            self.figures = ended.result.figures
            self._show_layers(ended.result)
        self.changed.emit()

    def _show_layers(self, found: Compared) -> None:
        bench = self._bench
        image = bench.image
        if image is None or image is not self._image or self.student is None:
            return
        if self.preview_layer is not None and self.preview_layer in bench.viewer.layers:
            self.preview_layer.visible = False
        self.teacher_layer, self.student_layer = show_labels(
            bench.viewer, image, self.student.classes, found, self.meanings, self._t, self.layers
        )


def _step_progress(event: Stepped) -> tuple[float | None, str]:
    left = event.seconds_left
    fraction = None if left is None else event.seconds / max(event.seconds + left, 1e-9)
    ending = "until it stops improving" if left is None else f"{clock_text(left)} left"
    return fraction, f"step {event.step}, loss {event.loss:.3f}, {clock_text(event.seconds)}, {ending}"
