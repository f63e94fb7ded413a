"""Training on sparse annotation, as a generator of progress events."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final

import numpy as np
import torch

from napari_unet3d.engine.careful_steps import CarefulSteps, too_large
from napari_unet3d.engine.class_weights import class_weights_for
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import HoldOutState, NetworkConfig, Recipe, RunRecord, TrainConfig, Triple
from napari_unet3d.engine.course import Course
from napari_unet3d.engine.device import DTYPES
from napari_unet3d.engine.errors import ConfigError, TrainingError
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.losses import Loss, build_loss
from napari_unet3d.engine.memory_errors import is_out_of_memory
from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.painted_windows import lacking_windows
from napari_unet3d.engine.parallel.group import ALONE, Group, TakeStep
from napari_unet3d.engine.parallel.records import check_repeatable, difference_note
from napari_unet3d.engine.plane_predictor import PlanePredictor, ValidationStopped
from napari_unet3d.engine.progress import (
    Annotate,
    AnnotationTaken,
    Command,
    Event,
    Finished,
    HeldOut,
    Inbox,
    Note,
    Pause,
    Paused,
    Previewed,
    PreviewPlane,
    Resume,
    Started,
    Stepped,
    Stop,
    TrainLonger,
    Validated,
)
from napari_unet3d.engine.run_history import RunHistory
from napari_unet3d.engine.threads import limited_threads
from napari_unet3d.engine.trained_model import TrainedModel, TrainingState
from napari_unet3d.engine.training_data import TrainingData
from napari_unet3d.engine.training_setup import Prepared, prepare_data, residence_note
from napari_unet3d.engine.training_start import TrainingStart, settle
from napari_unet3d.engine.volume import AnnotatedVolume

_TRAINING_RANDOM: Final = 1  # apart from the random numbers that choose the hold-out, which a replay does not draw


class Trainer:
    """Trains one network on one or more annotated volumes.

    Parameters
    ----------
    volumes
        The first decides the voxel size that ``auto`` kernels and strides are chosen for.
    network
        Channels and classes must fit the volumes; see `training_setup.network_for`.
    config
        The training. With `resume`, a budget that differs from that of the resumed run counts from its beginning.
    inbox
        Where commands of the owner arrive.
    start
        A model whose weights to begin with.
    resume
        A model with training state, to go on exactly where it stood.
    record
        A recorded run to repeat step by step.
    named_classes
        Names and colours of label ids; ids without an entry get default ones.
    started_at
        Moment from which a budget of seconds counts (`clock` time); by default that of the call of `fit`.
    clock
        Gives the time in seconds.
    settled
        What the run begins with, where that was settled otherwise than by `training_start.settle`.
    validation_volumes
        Indices of volumes to measure on, of which nothing is learnt: instead of held-out slices of the others.
    hold_out
        What another run on this annotation held out, to be measured on the same.
    group
        The processes that train together, each with a trainer made from the same arguments. The first one's decides,
        tells what happens and has the model; the others' follow it.

    Raises
    ------
    DataError
        If fewer than two classes are annotated or an image is constant.
    ConfigError
        If network and volumes do not fit, or `start` or `resume` do not fit them.
    DeviceError
        If the device is missing.
    """

    def __init__(
        self,
        volumes: Sequence[AnnotatedVolume],
        network: NetworkConfig,
        config: TrainConfig,
        *,
        inbox: Inbox | None = None,
        start: TrainedModel | None = None,
        resume: TrainedModel | None = None,
        record: RunRecord | None = None,
        named_classes: Sequence[ClassInfo] = (),
        started_at: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        settled: TrainingStart | None = None,
        validation_volumes: Sequence[int] = (),
        hold_out: HoldOutState | None = None,
        group: Group = ALONE,
    ) -> None:
        if resume is not None and (resume.state is None or resume.recipe.record is None):
            raise ConfigError(
                "the model to resume holds no training state, so its training was finished; continue from its weights "
                "with --weights-from, or train with --keep-state"
            )
        self._volumes = tuple(volumes)
        self._config = config
        self._inbox = inbox or Inbox()
        self._resume = resume
        self._past = resume.recipe.record if resume else record
        self._hold_out = self._past.hold_out if self._past else hold_out
        self._validation_volumes = tuple(validation_volumes)
        learnt = [volume for i, volume in enumerate(volumes) if i not in self._validation_volumes]
        self._group = group
        if record is not None:
            check_repeatable(record, group.size)
        placed = config if group.device is None else config.updated(device=str(group.device), processes=None)
        self._start = settled or settle(learnt, network, placed, resume or start, self._past, named_classes)
        # a trial on the machine may have found another arithmetic in each process
        self._start = self._start._replace(precision=group.told(self._start.precision))
        self._from_weights = start is not None or bool(self._past and self._past.from_weights)
        self._threads = config.threads or (record.threads if record else None)

        self._clock = clock
        self._course = Course(config, record, clock, started_at)
        self._history = RunHistory(resume.history if resume else None)
        self._previews: dict[tuple[int, int], PreviewPlane] = {}

        self._data: TrainingData
        self._batch_size: int
        self._patch_size: Triple
        self._learner: Learner | None = None
        self._steps: CarefulSteps

    @property
    def step(self) -> int:
        """Steps taken so far, those of a resumed run included."""
        return self._course.step

    # --- the loop -----------------------------------------------------------------------------------------

    def fit(self) -> Iterator[Event]:
        """Train; ends when the budget is used up, by `Stop`, or when nothing improves any more.

        Yields
        ------
        Event
            `Started`, `Preparing` where a teacher is asked first, `HeldOut`, `Stepped` after every step, `Validated`,
            `AnnotationTaken`, `Previewed`, `Paused` and `Note` where there is cause, `Finished` at the end. In
            processes that follow another nothing but that.

        Raises
        ------
        TrainingError
            If the loss stays non-finite even in float32; `model` still gives the best so far.
        DeviceError
            If the device runs out of memory even with one patch in a step.
        """
        with limited_threads(self._threads):
            try:
                for event in self._events() if self._group.leads else self._follow():
                    begun = self._clock()
                    yield event
                    self._course.time.outside(self._clock() - begun)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise too_large(self._start.device) from None

    def _events(self) -> Iterator[Event]:
        state = self._resume.state if self._resume else None
        course = self._course
        course.time.start(already_used=state.values["seconds"] if state else 0.0)
        yield Started(
            str(self._start.device),
            self._start.device_reason,
            self._start.precision,
            torch.get_num_threads(),
            self._group.size,
        )
        yield from (self._history.note(text, "warning") for text in self._start.notes)
        if self._past and (note := difference_note(self._past, self._group.size)):
            yield self._history.note(note)
        learner, steps = yield from self._prepare()
        planes = self._plane_predictor(learner)
        while True:
            yield from self._read_inbox(planes)
            course.has_validation = self._data.has_validation
            is_over = course.is_over
            if course.validation_is_due(is_over):
                yield from self._validate(planes, learner)
                yield from self._read_inbox(planes)  # what the owner said meanwhile
                is_over = course.is_over
            course.notice_standstill()
            if is_over or course.stop_reason:
                break
            yield from self._step(steps)
            yield from self._show_previews(planes)
        self._group.tell(None)
        course.stop(course.end_reason)
        yield Finished(course.stop_reason, self.step, course.time.seconds, self._stage_seconds())

    def _follow(self) -> Iterator[Event]:
        """Do as the first process tells."""
        preparing = self._prepare()
        while True:
            try:
                next(preparing)
            except StopIteration as prepared:
                _, steps = prepared.value
                break
        for order in self._group.orders():
            if isinstance(order, TakeStep):
                steps.take(order.step, order.rate)
            else:
                self._data.annotate(order)
        yield Finished("the first process ended the training")

    def model(self, *, with_state: bool = False) -> TrainedModel:
        """The best model so far: highest IoU on the held-out annotation, or the newest where nothing is held out.

        Parameters
        ----------
        with_state
            Add all that is needed to resume. Right after any event but `Note` that is consistent.

        Raises
        ------
        TrainingError
            Before the first step is prepared.
        """
        if self._learner is None:
            raise TrainingError("there is no model yet: the training was not prepared")
        return TrainedModel(
            network=self._learner.copy_of_average(self._course.best.weights),
            recipe=self._recipe(),
            normalization=self._start.normalization,
            classes=self._start.classes,
            voxel_size=self._volumes[0].image.voxel_size,
            spatial_dims=self._volumes[0].image.spatial_dims,
            history=self._history.history(),
            state=self._to_state(self._learner) if with_state else None,
        )

    # --- before the first step ----------------------------------------------------------------------------

    def _prepare(self) -> Generator[Event, None, tuple[Learner, CarefulSteps]]:
        config, start = self._config, self._start
        network = start.network.to(start.device)
        self._data, self._batch_size, self._patch_size = yield from self._load(network)
        if note := residence_note(self._data.sources, self._start.device):
            yield self._history.note(note)
        yield self._history.note(self._explanation())
        yield self._held_out()
        training = (self._data.hold_out.training_labels(volume) for volume in range(len(self._volumes)))
        if warning := lacking_windows(config, training, self._patch_size, network.description.margin):
            yield self._history.note(warning, "warning")
        weights = class_weights_for(config.class_weights, self._data.class_counts())
        strides = [grid.stride for grid in network.description.output_grids]
        loss = build_loss(config, weights, strides, network.config.head).to(start.device)
        learner = self._build_learner(network, loss)
        rng = np.random.default_rng([config.random_state, _TRAINING_RANDOM])
        past = None if self._resume else self._past
        steps = CarefulSteps(learner, self._data, rng, self._batch_size, past, self._group)
        if self._resume is not None:
            yield from self._go_on(learner, steps, self._resume)
        self._learner, self._steps = learner, steps
        self._course.begin_steps()
        time = self._course.time
        if time.until is not None and time.seconds > time.until / 2:
            yield self._history.note(
                f"reading and preparing took {time.seconds:.0f} of {time.until:.0f} s; for a good model "
                "give it more time",
                "warning",
            )
        return learner, steps

    # what else a run may train on, towards and by: a distillation replaces these

    def _load(self, network: Network) -> Generator[Event, None, Prepared]:
        """What the run works on; yields `Preparing` where that takes long."""
        yield from ()
        return prepare_data(
            self._volumes,
            self._start.label_ids,
            network,
            self._config,
            normalization=self._start.normalization,
            device=self._start.device,
            dtype=DTYPES[self._start.precision],
            rng=np.random.default_rng(self._config.random_state),
            fit_gain=self._start.is_fresh,
            hold_out_state=self._hold_out,
            record=self._past,
            validation_volumes=self._validation_volumes,
            processes=self._group.size,
        )

    def _explanation(self) -> str:
        """What is measured, for people."""
        return self._data.hold_out.explain()

    def _build_learner(self, network: Network, loss: Loss) -> Learner:
        """What learns, `loss` being over annotated voxels."""
        return Learner(network, self._config, loss, self._start.device, self._start.precision, self._group)

    def _plane_predictor(self, learner: Learner) -> PlanePredictor:
        """What previews and validations come from."""
        return PlanePredictor(learner, self._start.network.config, self._data, self._start.label_ids)

    def _recipe(self) -> Recipe:
        """What the model file will say about how the model was made."""
        return Recipe(network=self._start.network.config, train=self._config, record=self._record())

    # --- one step -----------------------------------------------------------------------------------------

    def _step(self, steps: CarefulSteps) -> Iterator[Event]:
        course, rate = self._course, self._course.learning_rate
        self._group.tell(TakeStep(self.step, rate))
        outcome, warnings = steps.take(self.step, rate)
        if outcome is not None:
            course.end_step(outcome.loss)
            self._history.step(self.step, course.time.seconds, outcome.loss, rate)
        yield from (self._history.note(text, "warning") for text in warnings)
        if outcome is not None:
            now, left = course.time.seconds, course.seconds_left
            yield Stepped(self.step, outcome.loss, rate, now, left, loss_terms=outcome.terms)

    # --- validation and previews --------------------------------------------------------------------------

    def _validate(self, planes: PlanePredictor, learner: Learner) -> Iterator[Validated]:
        course = self._course
        with course.time.validation(), self._data.times.measure("validation"):
            try:
                found = planes.scores(lambda: self._inbox.is_stopping)
            except ValidationStopped:  # what was best before is kept
                return
            is_best = course.best.consider(self.step, found.merit, learner.average.network)
        seconds = course.time.seconds
        course.validations.add(self.step, seconds)
        self._history.validation(self.step, seconds, found.scores, found.mean_iou, found.agreement)
        yield Validated(self.step, seconds, found.scores, found.mean_iou, is_best, found.agreement)

    def _show_previews(self, planes: PlanePredictor) -> Iterator[Previewed]:
        asked, self._previews = self._previews, {}
        for plane in asked.values():
            labels = planes.labels(plane.volume, plane.axis, plane.index)
            yield Previewed(self.step, plane.volume, plane.axis, plane.index, labels)

    # --- the owner's wishes -------------------------------------------------------------------------------

    def _read_inbox(self, planes: PlanePredictor) -> Iterator[Event]:
        for command in self._inbox.drain():
            yield from self._obey(command, planes)
        if not self._data.has_annotation and not self._course.stop_reason:
            yield self._history.note("no annotated voxel is left to train on: waiting until some is painted", "warning")
            yield from self._wait(planes)

    def _obey(self, command: Command, planes: PlanePredictor) -> Iterator[Event]:
        if isinstance(command, Annotate):
            before = self._data.hold_out.units
            self._group.tell(command)
            unknown = self._data.annotate(command)
            yield AnnotationTaken(command.volume, command.box, self.step)
            if self._data.hold_out.units != before:
                yield self._held_out()
            if unknown:
                yield self._history.note(
                    f"classes {unknown} were not painted when training began and are left out; stop and train again",
                    "warning",
                )
        elif isinstance(command, PreviewPlane):
            self._previews[command.volume, command.axis] = command
        elif isinstance(command, Stop):
            self._course.stop("stopped")
        elif isinstance(command, Pause):
            yield from self._wait(planes)
        elif isinstance(command, TrainLonger):
            self._course.extend(seconds=command.seconds, steps=command.steps)

    def _wait(self, planes: PlanePredictor) -> Iterator[Event]:
        """Obey commands but take no step, until `Resume`, `Stop`, or annotation where there was none."""
        was_empty = not self._data.has_annotation
        with self._course.time.pause():
            yield Paused(self.step)
            yield from self._show_previews(planes)
            while not self._course.stop_reason and not (was_empty and self._data.has_annotation):
                command = self._inbox.wait()
                if isinstance(command, Resume) and self._data.has_annotation:
                    break
                if not isinstance(command, Pause):
                    yield from self._obey(command, planes)
                yield from self._show_previews(planes)

    def _held_out(self) -> HeldOut:
        return HeldOut(self._data.hold_out.slices, self._data.hold_out.explain())

    # --- records ------------------------------------------------------------------------------------------

    def _stage_seconds(self) -> dict[str, float]:
        """Those of the run that is resumed included."""
        before = self._resume.recipe.record if self._resume else None
        learnt = self._learner.times.seconds if self._learner else {}
        return {
            stage: round(
                (before.stage_seconds.get(stage, 0.0) if before else 0.0) + seconds + learnt.get(stage, 0.0), 3
            )
            for stage, seconds in self._data.times.seconds.items()
        }

    def _record(self) -> RunRecord:
        return RunRecord(
            steps=self.step,
            best_step=self._course.best.step if self._course.best.weights else self.step,
            seconds=self._course.time.seconds,
            device=str(self._start.device),
            processes=self._group.size,
            precision=self._start.precision,
            precision_changes=tuple(self._steps.precision_changes),
            threads=self._threads or torch.get_num_threads(),
            batch_size=self._past.batch_size if self._resume and self._past else self._batch_size,
            batch_size_changes=tuple(self._steps.batch_size_changes),
            patch_halvings=tuple(self._steps.patch_halvings),
            patch_size=self._patch_size,
            schedule=tuple(self._course.schedule.knots),
            validated_steps=tuple(self._course.validations.done),
            label_ids=self._start.label_ids,
            held_out=self._data.hold_out.slices,
            hold_out=self._data.hold_out.to_state(),
            from_weights=self._from_weights,
            stop_reason=self._course.stop_reason,
            stage_seconds=self._stage_seconds(),
        )

    def _to_state(self, learner: Learner) -> TrainingState:
        tensors, learnt = learner.to_state()
        values = {"learner": learnt, "steps": self._steps.to_state(), **self._course.to_state()}
        return TrainingState(tensors, values)

    def _go_on(self, learner: Learner, steps: CarefulSteps, model: TrainedModel) -> Iterator[Note]:
        """Stand where the run stood that left this model; the model's weights are the best so far."""
        assert model.state is not None  # __init__ checked
        tensors, values = model.state.tensors, model.state.values
        learner.restore(tensors, values["learner"])
        self._course.restore(values, model.network, model.recipe.train)
        steps.restore(values["steps"], self.step)
        yield self._history.note(f"going on after step {self.step}")
        if (self.step, self._group.size) in steps.batch_size_changes:
            yield self._history.note(f"going on with {self._group.size} patches in a step, one for each process")
