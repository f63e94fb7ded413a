"""Distillation, as a generator of progress events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial

import numpy as np

from napari_unet3d.engine.config import (
    NO_AUGMENTATION,
    DistillConfig,
    HoldOutState,
    NetworkConfig,
    Recipe,
    RunRecord,
    TrainConfig,
)
from napari_unet3d.engine.device import DTYPES
from napari_unet3d.engine.distillation.agreement import StudentPlanes
from napari_unet3d.engine.distillation.data import DistillationData
from napari_unet3d.engine.distillation.learner import DistillationLearner
from napari_unet3d.engine.distillation.soft_targets import SoftTarget, open_targets
from napari_unet3d.engine.distillation.start import settle_student
from napari_unet3d.engine.distillation.teacher import Teacher, TeacherEnsemble, check_teachers
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.holdout import HoldOut
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.losses import Loss
from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.patch_shapes import PATCH_VOXELS
from napari_unet3d.engine.plane_predictor import PlanePredictor
from napari_unet3d.engine.progress import Event, Inbox, Stop
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.training_data import known_labels
from napari_unet3d.engine.training_setup import Prepared, prepare_data
from napari_unet3d.engine.volume import AnnotatedVolume


class Distiller(Trainer):
    """Trains a student on what teachers say about whole volumes, and on their annotation where there is any.

    Everything about a training holds for it: events, commands, budget, schedule, hold-out, resuming. Besides, a
    validation tells the agreement with the teachers, and a step its soft and its hard term.

    Parameters
    ----------
    volumes
        Images with sparse labels; labels without any annotation will do.
    teachers
        One or more that agree, see `check_teachers`; their models are never changed. The student takes over classes and
        normalisation.
    student
        Its channels and classes must fit the teachers.
    config
        The training, as of `Trainer`.
    distill
        How the student learns from the teachers.
    inbox, start, resume, record, started_at, clock
        As of `Trainer`; resuming needs the same teachers. `start` is a model of the student's network, such as one that
        was trained without teachers.

    Raises
    ------
    ConfigError
        If the teachers do not fit each other, the annotation or the student, or nothing is left to learn from.
    DataError
        If an image does not fit the teachers.
    DeviceError
        If the device is missing.
    """

    def __init__(
        self,
        volumes: Sequence[AnnotatedVolume],
        teachers: Sequence[Teacher],
        student: NetworkConfig,
        config: TrainConfig,
        distill: DistillConfig,
        *,
        inbox: Inbox | None = None,
        start: TrainedModel | None = None,
        resume: TrainedModel | None = None,
        record: RunRecord | None = None,
        started_at: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_teachers(teachers, volumes)
        if config.processes not in (None, 1) or config.compile:
            raise ConfigError(
                "a distillation runs in one process, and not compiled; leave train.processes and train.compile away"
            )
        self._teachers = tuple(teachers)
        self._distill = distill
        self._is_annotated = any(volume.labels.any() for volume in volumes)
        if distill.alpha == 0 and not self._is_annotated:
            raise ConfigError("distill.alpha = 0 listens to the annotation alone, and there is none; raise it")
        self._records = tuple(teacher.record() for teacher in teachers)
        past = resume.recipe.record if resume else record
        if past is not None and {t.fingerprint for t in past.teachers} != {t.fingerprint for t in self._records}:
            names = ", ".join(teacher.name for teacher in past.teachers) or "no teacher"
            raise ConfigError(f"the recorded run learnt from {names}, with other weights; give the same teachers")
        settled = settle_student(volumes, teachers[0], student, config, distill, resume or start, past)
        config = config.updated(normalize=teachers[0].model.recipe.train.normalize)
        super().__init__(
            volumes,
            settled.network.config,
            config,
            inbox=inbox,
            start=start,
            resume=resume,
            record=record,
            started_at=started_at,
            clock=clock,
            settled=settled,
        )
        self._targets: list[SoftTarget] = []

    # --- what is learnt on, towards and by ----------------------------------------------------------------

    def _load(self, network: Network) -> Generator[Event, None, Prepared]:
        start, config = self._start, self._config
        if not self._distill.augmented:
            config = config.updated(augment=NO_AUGMENTATION)
        self._targets = yield from self._ask_teachers()
        return prepare_data(
            self._volumes,
            start.label_ids,
            network,
            config,
            normalization=start.normalization,
            device=start.device,
            dtype=DTYPES[start.precision],
            rng=np.random.default_rng(config.random_state),
            fit_gain=start.is_fresh,
            hold_out_state=self._hold_out or self._teachers_hold_out(),
            record=self._past,
            make_data=partial(
                DistillationData,
                targets=self._targets,
                labelled_share=self._distill.labelled_patches,
                config=config,
            ),
        )

    def _ask_teachers(self) -> Generator[Event, None, list[SoftTarget]]:
        config, start = self._config, self._start
        ensemble = TeacherEnsemble(
            [teacher.model for teacher in self._teachers], self._distill, config.device, config.precision
        )
        patch = PATCH_VOXELS if config.patch_size == "auto" else math.prod(config.patch_size)
        batch = config.batch_size if isinstance(config.batch_size, int) else 1
        return (
            yield from open_targets(
                ensemble,
                [volume.image for volume in self._volumes],
                self._distill,
                start.device,
                seconds_left=lambda: self._course.time.seconds_left,
                planned_voxels=None if config.steps is None else config.steps * batch * patch,
                is_stopped=self._was_stopped,
                clock=self._clock,
            )
        )

    def _was_stopped(self) -> bool:
        """Look for `Stop` before the first step, leaving all other commands for later."""
        for command in list(self._inbox.drain()):
            if isinstance(command, Stop):
                self._course.stop("stopped")
            else:
                self._inbox.put(command)
        return bool(self._course.stop_reason)

    def _teachers_hold_out(self) -> HoldOutState | None:
        """What the first teacher was measured on, if it was trained on this annotation: then neither has seen it."""
        record = self._teachers[0].model.recipe.record
        if record is None or record.hold_out is None:
            return None
        labels = [known_labels(volume.labels, self._start.label_ids) for volume in self._volumes]
        hold_out = HoldOut.from_state(record.hold_out, labels)
        return record.hold_out if hold_out.is_of_these_labels else None

    def _explanation(self) -> str:
        if self._is_annotated:
            return super()._explanation()
        return "nothing is annotated: the student learns from the teachers alone, and agreement with them is measured"

    def _build_learner(self, network: Network, loss: Loss) -> Learner:
        start = self._start
        return DistillationLearner(network, self._config, loss, start.device, start.precision, self._distill)

    def _plane_predictor(self, learner: Learner) -> PlanePredictor:
        network = self._start.network.config
        assert isinstance(self._data, DistillationData)  # of `_load`
        return StudentPlanes(learner, network, self._data, self._start.label_ids)

    # --- records ------------------------------------------------------------------------------------------

    def _recipe(self) -> Recipe:
        return super()._recipe().model_copy(update={"distill": self._distill})

    def _record(self) -> RunRecord:
        return super()._record().model_copy(update={"teachers": self._records})
