"""Training on sparse annotation, as a generator of progress events."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from napari_unet3d.engine import checkpoint
from napari_unet3d.engine.class_weights import class_weights_for
from napari_unet3d.engine.config import NetworkConfig, Recipe, RunRecord, TrainConfig
from napari_unet3d.engine.device import DTYPES, autocast, choose_device, choose_precision, memory_format
from napari_unet3d.engine.errors import ConfigError, DeviceError, TrainingError
from napari_unet3d.engine.losses import LossValue, build_loss
from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.engine.networks.build import Network, build_network
from napari_unet3d.engine.normalize import fit_normalization
from napari_unet3d.engine.planes import predict_plane
from napari_unet3d.engine.progress import (
    Annotate,
    Command,
    Event,
    Finished,
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
from napari_unet3d.engine.schedule import Schedule
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.trained_model import (
    History,
    StepRecord,
    TrainedModel,
    TrainingState,
    ValidationRecord,
    default_classes,
)
from napari_unet3d.engine.training_data import Batch, TrainingData
from napari_unet3d.engine.training_setup import network_for, prepare_data
from napari_unet3d.engine.volume import AnnotatedVolume, common_label_ids

_LARGEST_GRADIENT: Final = 1.0
_VALIDATIONS: Final = 20  # of a budget in steps
_VALIDATION_SHARE: Final = 0.08  # of the time
_PATIENCE: Final = 10  # validations, where nothing else ends the run
_STEPS_PER_CHECK: Final = 50  # of an open run without held-out slices
_BAD_STEPS: Final = 5  # in a row that give up a precision
_CURVE_SECONDS: Final = 0.5  # between two points of the recorded loss curve


class Trainer:
    """Trains one network on one or more annotated volumes.

    Parameters
    ----------
    volumes
        The first decides the voxel size that ``auto`` kernels and strides are chosen for.
    network
        Channels and classes must fit the volumes; see `training_setup.network_for`.
    config
        The training.
    inbox
        Where commands of the owner arrive.
    start
        A model whose weights to begin with.
    resume
        A model with training state, to go on exactly where it stood.
    record
        A recorded run to repeat step by step.
    started_at
        Moment from which a budget of seconds counts (`clock` time); by default that of the call of `fit`.
    clock
        Gives the time in seconds.

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
        started_at: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if resume is not None and resume.state is None:
            raise ConfigError(
                "the model to resume holds no training state, so its training was finished; continue from its weights "
                "with --weights-from, or train with --keep-state"
            )
        self._volumes = tuple(volumes)
        self._inbox = inbox or Inbox()
        self._clock = clock
        self._started_at = started_at
        self._config = config
        self._resume = resume
        self._record = record
        self._origin = resume or start

        self._ids = self._origin.label_ids if self._origin else common_label_ids(volumes)
        common_label_ids(volumes)  # refuses too little annotation for a given model too
        self._classes = self._origin.classes if self._origin else default_classes(self._ids)
        self._network_config = network_for(volumes, network, self._ids)
        self._choice = choose_device(config.device)
        self._device = self._choice.device
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        asked = record.precision if record else config.precision
        self._precision: str = choose_precision(asked, self._device)
        self._normalization = (
            self._origin.normalization
            if self._origin
            else fit_normalization([volume.image for volume in volumes], config.normalize)
        )
        self._rng = np.random.default_rng(config.random_state)
        self._network = self._new_network()
        self._schedule = Schedule(
            config.warmup,
            config.decay,
            steps=config.steps,
            by_clock=config.seconds is not None,
            knots=record.schedule if record else (),
        )
        self._until = config.seconds
        self._data: TrainingData | None = None
        self._batch_size = 1
        self._best: dict[str, Tensor] | None = None
        self._best_step = 0
        self._best_score = -math.inf
        self._since_best = 0
        self._validated: list[int] = []
        self._last_validation = 0.0
        self._validation_seconds = 0.0
        self._step_seconds = 0.0
        self._bad_steps = 0
        self._stop_reason = ""
        self._previews: dict[tuple[int, int], PreviewPlane] = {}
        self._curve: list[StepRecord] = []
        self._recent: list[float] = []
        self._open_losses: deque[float] = deque(maxlen=_PATIENCE)
        self._scores: list[ValidationRecord] = []
        self._notes: list[str] = []

    # --- the loop -----------------------------------------------------------------------------------------

    def fit(self) -> Iterator[Event]:
        """Train; ends when the budget is used up, by `Stop`, or when nothing improves any more.

        Yields
        ------
        Event
            `Started`, `Preparing` while features are computed, `Stepped` after every step, `Validated`, `Previewed`,
            `Paused` and `Note` where there is cause, `Finished` at the end.

        Raises
        ------
        TrainingError
            If the loss stays non-finite even in float32; `model` still gives the best so far.
        DeviceError
            If the device runs out of memory even with one patch in a step.
        """
        if self._started_at is None:
            self._started_at = self._clock()
        yield Started(str(self._device), self._choice.reason, self._precision, torch.get_num_threads())
        yield from self._prepare()
        yield from self._read_inbox()  # a finished run may be told to go on
        while not self._is_over():
            begun = self._clock()
            yield from self._read_inbox()
            if self._stop_reason:
                break
            yield from self._step()
            yield from self._show_previews()
            if self._validation_is_due():
                yield self._validate()
            self._plan(self._clock() - begun)
        if (
            self._data is not None
            and self._data.has_validation
            and self._schedule.step not in self._validated
        ):
            yield self._validate()
        reason = self._stop_reason or "the budget is used up"
        self._stop_reason = reason
        yield Finished(reason, self._schedule.step, self._seconds())

    def model(self, *, with_state: bool = False) -> TrainedModel:
        """The best model so far: highest IoU on the held-out annotation, or the newest where nothing is held out.

        Parameters
        ----------
        with_state
            Add all that is needed to resume.
        """
        network = copy.deepcopy(self._network).float().cpu()
        weights = self._best or self._average.module.state_dict()
        network.body.load_state_dict(weights)
        return TrainedModel(
            network=network.eval().requires_grad_(False),
            recipe=Recipe(network=self._network_config, train=self._config, record=self._make_record()),
            normalization=self._normalization,
            classes=self._classes,
            voxel_size=self._volumes[0].image.voxel_size,
            spatial_dims=self._volumes[0].image.spatial_dims,
            history=History(
                steps=tuple(self._curve), validations=tuple(self._scores), notes=tuple(self._notes)
            ),
            state=self._pack() if with_state else None,
        )

    # --- before the first step ----------------------------------------------------------------------------

    def _new_network(self) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.random_state)
            network = build_network(self._network_config)
        if self._origin is not None:
            own, given = network.state_dict(), self._origin.network.state_dict()
            if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
                raise ConfigError(
                    "the weights of the given model do not fit the network; use its own configuration "
                    "(--config with the recipe that info MODEL --recipe writes), or leave --preset and --set away"
                )
            network.load_state_dict(given)
        return network

    def _prepare(self) -> Iterator[Event]:
        torch.manual_seed(self._config.random_state)
        network = self._network.to(self._device)
        state = self._resume.state if self._resume else None
        prepared = yield from prepare_data(
            self._volumes,
            self._ids,
            network,
            self._config,
            normalization=self._normalization,
            device=self._device,
            dtype=DTYPES[self._precision],
            rng=self._rng,
            fit_gain=self._origin is None,
            hold_out_state=state.values["hold_out"] if state else None,
            record=self._record,
        )
        self._data, self._batch_size, self._patch_size = prepared
        self._tell(self._data.hold_out.explain())
        yield Note(self._notes[-1])
        self._footprint = Footprint.of(self._network_config)
        network.body.to(memory_format=memory_format(self._network_config.dimensions))
        self._average = AveragedModel(network.body, avg_fn=self._averaged, use_buffers=True)
        self._average.eval()
        self._optimizer = _build_optimizer(network.body, self._config)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._precision == "float16")
        weights = class_weights_for(self._config.class_weights, self._data.class_counts())
        self._loss = build_loss(self._config, weights).to(self._device)
        if state is not None:
            self._unpack(state)
        network.body.train()

    # --- one step -----------------------------------------------------------------------------------------

    def _step(self) -> Iterator[Event]:
        rate = self._config.learning_rate * self._schedule.factor
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        try:
            loss = self._learn(self._data.batch(self._rng, self._batch_size))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            yield from self._use_less_memory(error)
            return
        value = float(loss.total.detach())
        if math.isfinite(value):
            self._bad_steps = 0
            self._average.update_parameters(self._network.body)
        else:
            self._bad_steps += 1
            if self._bad_steps >= _BAD_STEPS:
                yield from self._fall_back()
        self._schedule.advance()
        self._note_loss(value, rate)
        terms = {name: float(term.detach()) for name, term in loss.terms.items()}
        yield Stepped(
            self._schedule.step, value, rate, self._seconds(), self._seconds_left(), loss_terms=terms
        )

    def _learn(self, batch: Batch) -> LossValue:
        """Forward, backward, update; a step with a non-finite loss or gradient changes nothing."""
        network, optimizer, scaler = self._network, self._optimizer, self._scaler
        outputs = self._outputs_of(batch.input)  # each B K Z Y X
        loss: LossValue = self._loss(outputs, batch.target)
        optimizer.zero_grad()
        if not torch.isfinite(loss.total):
            return loss
        scaler.scale(loss.total).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(network.body.parameters(), _LARGEST_GRADIENT)
        if self._scaler.is_enabled() or torch.isfinite(norm):
            scaler.step(optimizer)
            scaler.update()
            return loss
        return LossValue(loss.total.detach() * math.nan, loss.terms)

    def _outputs_of(self, values: Tensor) -> list[Tensor]:
        """Logits of every head for B F Z Y X input; outside of mixed precision that must be float32."""
        with autocast(self._device, self._precision):
            return self._network.outputs_of(values.float() if self._precision == "float32" else values)

    def _averaged(self, average: Tensor, newest: Tensor, count: Tensor | int) -> Tensor:
        """Moving average of the weights; its memory grows with the run, so that early weights are soon forgotten."""
        if not average.is_floating_point():
            return newest
        decay = min(self._config.average_decay, (1 + int(count)) / (10 + int(count)))
        return torch.lerp(average, newest, 1 - decay)

    def _fall_back(self) -> Iterator[Event]:
        if self._precision == "float32":
            raise TrainingError(
                f"the loss was not finite in {_BAD_STEPS} steps in a row; lower train.learning_rate "
                f"(now {self._config.learning_rate:g}) and train again"
            )
        yield self._tell(f"the loss was not finite in {self._precision}: going on in float32", "warning")
        self._precision = "float32"
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=False)
        self._bad_steps = 0
        # what was averaged is finite; what was learnt since may not be
        self._network.body.load_state_dict(self._average.module.state_dict())
        self._optimizer = _build_optimizer(self._network.body, self._config)

    def _use_less_memory(self, error: Exception) -> Iterator[Event]:
        if not _is_out_of_memory(error):
            raise error
        if self._batch_size == 1:
            raise DeviceError(
                f"{self._device} ran out of memory with one patch of {self._patch_size} voxels; give a smaller "
                "train.patch_size, fewer network.filters, or --device cpu"
            ) from None
        self._batch_size //= 2
        self._optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        yield self._tell(f"out of memory: going on with {self._batch_size} patches in a step", "warning")

    # --- validation and previews --------------------------------------------------------------------------

    def _validation_is_due(self) -> bool:
        step = self._schedule.step
        if not self._data.has_validation:
            return self._schedule.has_open_end and step % _STEPS_PER_CHECK == 0 and self._check_open_run()
        if self._record is not None:
            return step in self._record.validated_steps
        if self._config.steps is not None:
            return step % max(1, self._config.steps // _VALIDATIONS) == 0
        pause = max(1.0, self._validation_seconds / _VALIDATION_SHARE)
        return self._seconds() - self._last_validation >= pause

    def _validate(self) -> Event:
        begun = self._clock()
        confusion = np.zeros((len(self._ids), len(self._ids) + 1), dtype=np.int64)
        for volume, axis, index, labels in self._data.held_out_planes():
            confusion += confusion_matrix(self._predicted(volume, axis, index), labels, self._ids)
        scores = class_scores(confusion, self._ids)
        mean = mean_foreground_iou(scores, self._ids[0])
        is_best = not mean < self._best_score  # later is better where equal
        if is_best:
            self._best = {k: v.detach().cpu().clone() for k, v in self._average.module.state_dict().items()}
            self._best_step, self._best_score = self._schedule.step, mean
        self._since_best = 0 if is_best else self._since_best + 1
        self._check_patience(self._since_best)
        self._validated.append(self._schedule.step)
        self._scores.append(
            ValidationRecord(
                step=self._schedule.step,
                seconds=self._seconds(),
                iou=tuple(_finite(score.iou) for score in scores),
                dice=tuple(_finite(score.dice) for score in scores),
                mean_iou=_finite(mean),
            )
        )
        self._last_validation = self._seconds()
        self._validation_seconds = self._clock() - begun
        return Validated(self._schedule.step, self._seconds(), scores, mean, is_best)

    def _check_open_run(self) -> bool:
        """Without held-out slices an open run ends when the loss stops falling; never a reason to validate."""
        recent = self._recent_loss()
        stale = len(self._open_losses) == _PATIENCE and recent >= max(self._open_losses) * 0.98
        self._open_losses.append(recent)
        if stale:
            self._check_patience(math.inf)
        return False

    def _check_patience(self, stale: float) -> None:
        patience = self._config.patience or (_PATIENCE if self._schedule.has_open_end else math.inf)
        if stale < patience:
            return
        if self._schedule.has_open_end:
            self._schedule.cool_down()
        elif self._config.patience:
            self._stop_reason = f"no improvement in {self._config.patience} validations"

    def _show_previews(self) -> Iterator[Event]:
        asked, self._previews = self._previews, {}
        for plane in asked.values():
            labels = self._predicted(plane.volume, plane.axis, plane.index)
            yield Previewed(self._schedule.step, plane.volume, plane.axis, plane.index, labels)

    def _predicted(self, volume: int, axis: int, index: int) -> np.ndarray[Any, np.dtype[np.unsignedinteger]]:
        """Label ids of one plane, by the averaged weights."""
        body = self._network.body
        self._network.body = self._average.module
        try:
            with torch.inference_mode():
                logits = predict_plane(
                    lambda values: self._outputs_of(values)[0],
                    self._data.sources[volume],
                    self._footprint,
                    axis,
                    index,
                )
        finally:
            self._network.body = body
        indices = logits.argmax(0) if len(logits) > 1 else (logits[0] > 0).long()
        ids = np.asarray(self._ids, dtype=np.uint8 if max(self._ids) < 256 else np.uint16)
        return ids[indices.numpy()]

    # --- the owner's wishes -------------------------------------------------------------------------------

    def _read_inbox(self) -> Iterator[Event]:
        for command in self._inbox.drain():
            yield from self._obey(command)

    def _obey(self, command: Command) -> Iterator[Event]:
        if isinstance(command, Annotate):
            unknown = self._data.annotate(command)
            if unknown:
                yield self._tell(
                    f"classes {unknown} were not painted when training began and are left out; stop and train again",
                    "warning",
                )
        elif isinstance(command, PreviewPlane):
            self._previews[command.volume, command.axis] = command
        elif isinstance(command, Stop):
            self._stop_reason = "stopped"
        elif isinstance(command, Pause):
            yield from self._pause()
        elif isinstance(command, TrainLonger):
            self._extend(command)

    def _pause(self) -> Iterator[Event]:
        begun = self._clock()
        yield Paused(self._schedule.step)
        while not self._stop_reason:
            command = self._inbox.wait()
            if isinstance(command, Resume):
                break
            yield from self._obey(command)
            yield from self._show_previews()
        self._started_at = self._begin + self._clock() - begun

    def _extend(self, command: TrainLonger) -> None:
        if command.seconds is not None:
            self._until = self._seconds() + command.seconds
        self._schedule.extend(steps=command.steps, by_clock=command.seconds is not None)
        self._since_best = 0

    # --- time ---------------------------------------------------------------------------------------------

    @property
    def _begin(self) -> float:
        return self._clock() if self._started_at is None else self._started_at

    def _seconds(self) -> float:
        return self._clock() - self._begin

    def _plan(self, step_seconds: float) -> None:
        self._step_seconds += (step_seconds - self._step_seconds) * (0.1 if self._step_seconds else 1.0)
        if self._until is not None:
            self._schedule.plan(self._seconds(), self._until - self._reserve(), self._step_seconds)

    def _reserve(self) -> float:
        """Seconds kept back for the last validation and for writing the model."""
        return self._validation_seconds + 0.5 + 0.01 * (self._until or 0)

    def _seconds_left(self) -> float | None:
        if self._until is not None and not self._schedule.has_open_end:
            return max(0.0, self._until - self._seconds())
        steps = self._schedule.steps_left
        return None if steps is None else steps * self._step_seconds

    def _is_over(self) -> bool:
        if self._stop_reason or self._schedule.is_done:
            return True
        if self._record is not None:  # the clock may have ended it before the schedule did
            return self._schedule.step >= self._record.steps
        if self._until is None:
            return False
        return (
            self._seconds() + self._step_seconds > self._until - self._reserve() and self._schedule.step > 0
        )

    # --- records ------------------------------------------------------------------------------------------

    def _tell(self, text: str, level: str = "info") -> Note:
        self._notes.append(text)
        return Note(text, "warning" if level == "warning" else "info")

    def _note_loss(self, loss: float, rate: float) -> None:
        self._recent.append(loss)
        now = self._seconds()
        if not self._curve or now - self._curve[-1].seconds >= _CURVE_SECONDS:
            mean = self._recent_loss()
            if math.isfinite(mean):
                self._curve.append(
                    StepRecord(step=self._schedule.step, seconds=now, loss=mean, learning_rate=rate)
                )
                self._recent.clear()

    def _recent_loss(self) -> float:
        finite = [loss for loss in self._recent if math.isfinite(loss)]
        if finite:
            return sum(finite) / len(finite)
        return self._curve[-1].loss if self._curve else math.nan

    def _make_record(self) -> RunRecord:
        return RunRecord(
            steps=self._schedule.step,
            best_step=self._best_step if self._best else self._schedule.step,
            seconds=self._seconds(),
            device=str(self._device),
            precision=self._precision,
            threads=torch.get_num_threads(),
            batch_size=self._batch_size,
            patch_size=self._patch_size,
            schedule=tuple(self._schedule.knots),
            validated_steps=tuple(self._validated),
            held_out=self._data.hold_out.slices if self._data else (),
            stop_reason=self._stop_reason,
        )

    def _pack(self) -> TrainingState:
        tensors = checkpoint.pack_module("weights", self._network.body)
        tensors |= checkpoint.pack_module("average", self._average)
        tensors |= checkpoint.pack_optimizer(self._optimizer)
        tensors["torch_rng"] = torch.get_rng_state()
        values = {
            "rng": checkpoint.pack_generator(self._rng),
            "step": self._schedule.step,
            "knots": self._schedule.knots,
            "has_open_end": self._schedule.has_open_end,
            "seconds": self._seconds(),
            "best_step": self._best_step,
            "best_score": _finite(self._best_score),
            "since_best": self._since_best,
            "validated": self._validated,
            "precision": self._precision,
            "hold_out": self._data.hold_out.to_state(),
        }
        return TrainingState(tensors, values)

    def _unpack(self, state: TrainingState) -> None:
        """Go on where another trainer stood; `model` weights of the file are the best so far."""
        values = state.values
        checkpoint.unpack_module("weights", state.tensors, self._network.body)
        checkpoint.unpack_module("average", state.tensors, self._average)
        checkpoint.unpack_optimizer(state.tensors, self._optimizer)
        torch.set_rng_state(state.tensors["torch_rng"])
        self._rng = checkpoint.unpack_generator(values["rng"])
        knots = [(int(s), float(p), float(g)) for s, p, g in values["knots"]]
        self._schedule.restore(values["step"], knots, values["has_open_end"])
        self._started_at = self._begin - values["seconds"]
        self._best_step = values["best_step"]
        self._since_best = values["since_best"]
        self._validated = list(values["validated"])
        self._precision = values["precision"]
        if values["best_score"] is not None:
            self._best_score = values["best_score"]
            self._best = {
                name: value.clone() for name, value in self._resume.network.body.state_dict().items()
            }
        history = self._resume.history
        self._curve, self._scores = list(history.steps), list(history.validations)


def _build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters, rate, decay = module.parameters(), config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, rate, momentum=config.momentum, weight_decay=decay, nesterov=config.momentum > 0
        )
    family = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return family(parameters, rate, betas=(config.momentum, 0.999), weight_decay=decay)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
