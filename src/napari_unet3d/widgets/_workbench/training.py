"""Training on what is painted, while it is painted: strokes go to the run, previews and scores come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QObject

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import (
    Annotate,
    Command,
    Event,
    HeldOut,
    Note,
    Pause,
    Paused,
    Preparing,
    Previewed,
    PreviewPlane,
    Resume,
    Started,
    Stepped,
    TrainLonger,
    Validated,
)
from napari_unet3d.widgets._layers.annotation import annotation_problem
from napari_unet3d.widgets._layers.strokes import Change
from napari_unet3d.widgets._layers.view import Plane, visible_plane
from napari_unet3d.widgets._session import Curves, Phase, Point, Progress
from napari_unet3d.widgets._training_task import TrainedOn, TrainingTask
from napari_unet3d.widgets._workbench.continuing import (
    Continuation,
    continuation,
    continuing_problem,
    joining_note,
)
from napari_unet3d.widgets._workbench.live_preview import LivePreview
from napari_unet3d.widgets._workbench.repeating import Run
from napari_unet3d.widgets._workbench.speed import measured_rate
from napari_unet3d.widgets._workbench.times import clock_text
from napari_unet3d.widgets._workers import Ended, Job

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench

_ANSWERING: Final = (Phase.TRAINING, Phase.PAUSED)
_NOTICED_SECONDS: Final = 0.5
"""A step that takes longer keeps somebody who clicked Stop waiting."""


class TrainingRunner(QObject):
    """Runs one training at a time.

    Parameters
    ----------
    bench
        Has the session, the viewer and the chosen layers.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session
        self._job: Job | None = None
        self._times: tuple[int, ...] = ()
        self._run: Run | None = None
        self._key: tuple[str | int, ...] = ()
        self._trained_on: tuple[str | int, ...] | None = None
        self._known_ids: frozenset[int] = frozenset()
        self._is_joined = False
        self._moments: list[float] = []
        self.last_run: Run | None = None
        """What the session's model was trained on; None for a model that was loaded."""
        self._stepped_at = self._step_seconds = 0.0
        self.preview_layer: Any = None
        """Labels layer with the newest previews, or None."""
        self._live = LivePreview(
            self,
            in_view=self._in_view,
            is_learning=lambda: self._session.phase is Phase.TRAINING,
            ask=self._send,
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            Started: self._on_started,
            Preparing: self._on_preparing,
            HeldOut: self._on_held_out,
            Note: self._on_note,
            Stepped: self._on_stepped,
            Validated: self._on_validated,
            Previewed: self._on_previewed,
            Paused: self._on_paused,
            TrainedOn: self._on_trained_on,
        }

    # --- what the user can do -----------------------------------------------------------------------------

    def problem(self) -> str:
        """Why training cannot start, as a sentence that says what to do; empty if it can."""
        bench = self._bench
        if self._session.phase.is_running:
            return "training is running"
        if bench.image is None:
            return bench.image_problem or "open an image first"
        if bench.annotation is None:
            return "make an annotation layer and paint a few slices first"
        problem = annotation_problem(bench.annotation, bench.image) or bench.check.problem() or bench.further.problem()
        return problem or bench.painting_problem()

    def start(self) -> None:
        """Train a new network on what is painted now and will be painted."""
        self._begin()

    def go_on(self) -> None:
        """Train the present model further for the chosen budget, on what is painted now and will be painted."""
        model, bench = self._session.model, self._bench
        if bench.watch is not None:
            bench.look_for_strokes()
        problem = continuing_problem(model, bench.image)
        if problem or model is None:
            self._session.tell(problem, warning=True)
            return
        times = bench.watch.annotated_time_points if bench.watch is not None else ()
        is_same_run = bench.image is not None and self._trained_on == (*bench.image.key, *times, *bench.further.key)
        how = continuation(model, self._session.train_config, bench.painted_ids, is_same_run=is_same_run)
        self._begin(how)

    def continuing_problem(self) -> str:
        """Why the present model cannot be trained further, with what to do; empty if it can."""
        return continuing_problem(self._session.model, self._bench.image)

    def train_longer(self) -> None:
        """Give the run that is going on the chosen budget again, from now on."""
        config = self._session.train_config
        self._send(TrainLonger(seconds=config.seconds, steps=config.steps))

    def pause(self) -> None:
        """Wait after the present step."""
        self._send(Pause())

    def resume(self) -> None:
        """Go on after a pause."""
        self._send(Resume())
        if self._session.phase is Phase.PAUSED:
            self._session.phase = Phase.TRAINING

    def stop(self) -> None:
        """End after the present step and keep the best model."""
        self._is_joined = False
        self._finish()

    def _finish(self) -> None:
        if self._job is not None:
            is_preparing = self._session.phase is Phase.PREPARING
            self._session.phase = Phase.STOPPING
            self._session.training_progress = self._session.training_progress._replace(text=self._end(is_preparing))
            self._job.stop()

    def _end(self, is_preparing: bool) -> str:
        """What there is still to wait for after a click on Stop."""
        if is_preparing:
            return "stopping before the first step"
        if self._step_seconds < _NOTICED_SECONDS:
            return "stopping; the best model is kept"
        return f"finishing the step, about {clock_text(math.ceil(self._step_seconds))}; the best model is kept"

    def follow_model(self, *, is_of_this_image: bool) -> None:
        """The session's model is another one; it may have been trained on the chosen image and its annotation."""
        image = self._bench.image
        self._trained_on = (*image.key, 0) if is_of_this_image and image and image.time_points == 1 else None
        self.last_run = None

    def forget_run_on(self, layer: Any) -> None:
        """An image layer is gone: what was trained on it does not keep it in memory."""
        if self._trained_on is not None and str(layer.unique_id) in self._trained_on:
            self.last_run = self._trained_on = None
            if self._job is None:
                self._run = None

    # --- the run ------------------------------------------------------------------------------------------

    def _begin(self, how: Continuation | None = None) -> None:
        session, bench = self._session, self._bench
        if bench.watch is not None:
            bench.look_for_strokes()
        problem = self.problem()
        if problem:
            session.tell(problem, warning=True)
            return
        image = bench.image
        assert image is not None  # problem() looked
        try:
            watch = bench.strokes()
            self._times = watch.annotated_time_points
            volumes = tuple((image.volume(t), watch.handed_out(t)) for t in self._times)
            further = tuple(entry.pair() for entry in bench.further.entries)
        except UNet3dError as error:
            session.tell(str(error), warning=True)
            return
        how = how or Continuation(session.train_config)
        if how.resume is None:
            session.curves = Curves()
            session.curves_version += 1
        session.held_out = ()
        session.phase = Phase.PREPARING
        session.training_progress = Progress(None, "loading PyTorch and reading the image")
        session.tell("")
        work = TrainingTask(
            (*volumes, *further),
            session.network_preset,
            session.network_settings,
            how.config,
            session.classes,
            resume=how.resume,
            weights_from=how.weights_from,
            kept=bench.keeping.folder,
            left_out=bench.deleted_ids,
            measured=bench.further.measured_count,
        )
        images = [(volume, image.source_path if image.time_points == 1 else None) for volume, _ in volumes]
        paths = [entry.image.source_path for entry in bench.further.entries]
        images += [(volume, path) for (volume, _), path in zip(further, paths, strict=True)]
        is_resumed = how.resume is not None
        self._run = Run(
            tuple(images),
            is_resumed,
            self.last_run if is_resumed else None,
            how.weights_from is not None,
            measured=bench.further.measured_count,
        )
        self._key = (*image.key, *self._times, *bench.further.key)
        started_from = how.resume or how.weights_from
        self._known_ids = bench.painted_ids | set(started_from.label_ids if started_from else ())
        self._is_joined = False
        self._moments = []
        self._stepped_at = self._step_seconds = 0.0
        self._job = Job(work, self)
        self._job.happened.connect(self._on_event)
        self._job.ended.connect(self._on_ended)
        self._job.start()
        self._live.start()

    def _send(self, command: Command) -> None:
        if self._job is not None:
            self._job.send(command)

    def _in_view(self) -> PreviewPlane | None:
        """The slice to preview: of an annotated time point; a 3D view keeps the last one."""
        bench = self._bench
        if bench.image is None or not bench.shows_preview or self._session.phase not in _ANSWERING:
            return None
        plane = visible_plane(bench.viewer, bench.image)
        if plane is None or plane.t not in self._times:
            return None
        return PreviewPlane(self._times.index(plane.t), plane.axis, plane.index)

    def take_over(self, changes: Sequence[Change]) -> None:
        """Hand new strokes to the run that is going on, if there is one."""
        if self._job is None:
            return
        if self._run is not None:
            self._run.has_new_strokes = True
        painted = {int(i) for change in changes for i in np.unique(change.labels) if i}
        new = painted - self._known_ids - self._bench.deleted_ids
        if new and self._session.phase is not Phase.STOPPING:
            self._known_ids |= new
            self._is_joined = True
            self._session.tell(joining_note(new, self._session.classes))
        for change in changes:
            if change.t in self._times:
                self._send(Annotate(self._times.index(change.t), change.box, change.labels))
            else:
                self._session.tell(
                    f"strokes at time point {change.t} are trained on from the next click on Train", warning=True
                )

    # --- what the run tells -------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _on_trained_on(self, event: TrainedOn) -> None:
        if self._run is not None:
            self._run.annotation = event

    def _on_started(self, event: Started) -> None:
        threads = f", {event.threads} thread{'s' * (event.threads != 1)}" if event.device == "cpu" else ""
        shared = f", {event.processes} processes" if event.processes > 1 else ""
        self._session.device = f"{event.device}{threads}{shared}, {event.precision}: {event.device_reason}"

    def _on_preparing(self, event: Preparing) -> None:
        self._session.training_progress = Progress(event.fraction, f"preparing: {event.stage}")

    def _on_held_out(self, event: HeldOut) -> None:
        self._session.held_out = event.slices
        here = [place for place in event.slices if place[0] < len(self._times)]  # the others lie in further volumes
        self._bench.show_held_out([Plane(axis, index, self._times[volume]) for volume, axis, index in here])

    def _on_note(self, event: Note) -> None:
        self._session.tell(event.text, warning=event.level == "warning")

    def _on_stepped(self, event: Stepped) -> None:
        session = self._session
        if session.phase in (Phase.PREPARING, Phase.PAUSED):
            session.phase = Phase.TRAINING
        self._step_seconds, self._stepped_at = max(0.0, event.seconds - self._stepped_at), event.seconds
        left = event.seconds_left
        fraction = None if left is None else event.seconds / max(event.seconds + left, 1e-9)
        ending = "until it stops improving" if left is None else f"{clock_text(left)} left"
        text = f"step {event.step}, loss {event.loss:.3f}, {clock_text(event.seconds)}, {ending}"
        is_stopping = session.phase is Phase.STOPPING
        session.training_progress = Progress(fraction, session.training_progress.text if is_stopping else text)
        self._moments.append(event.seconds)
        session.curves.losses.append((event.step, event.seconds, event.loss))
        session.curves_version += 1
        if (
            self._is_joined and session.phase is Phase.TRAINING
        ):  # the network has no output for the class: go on with one
            self._finish()

    def _on_validated(self, event: Validated) -> None:
        iou = {score.class_id: score.iou for score in event.scores}
        self._session.curves.validations.append(Point(event.step, event.seconds, event.mean_iou, iou))
        self._session.curves_version += 1

    def _on_previewed(self, event: Previewed) -> None:
        self._live.answered()
        self._bench.show_preview(Plane(event.axis, event.index, self._times[event.volume]), event.labels)

    def _on_paused(self, event: Paused) -> None:
        if self._session.phase is not Phase.STOPPING:
            self._session.phase = Phase.PAUSED

    def _on_ended(self, ended: Ended) -> None:
        session = self._session
        self._live.stop()
        self._job = None
        session.phase = Phase.IDLE
        if ended.result is not None:
            session.model = ended.result
            self.last_run, self._trained_on = self._run, self._key
            recipe = ended.result.recipe
            record = recipe.record
            session.machine_rate = measured_rate(recipe.network, record, self._moments) or session.machine_rate
            session.model_origin = f"trained on {self._bench.image_name}, {record.steps} steps"
            session.training_progress = Progress(1.0, self._summary())
        else:
            session.training_progress = Progress(0.0, "")
        if ended.error:
            session.tell(ended.error, warning=True)
        elif self._is_joined and ended.result is not None:
            self.go_on()

    def _summary(self) -> str:
        points = self._session.curves.validations
        best = max((point.mean_iou for point in points if not math.isnan(point.mean_iou)), default=math.nan)
        if math.isnan(best):
            return "done; no slice was held out, so there is no score: look at the result"
        return f"done; IoU on held-out slices {best:.3f}"
