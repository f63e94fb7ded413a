"""Distilling small students from large teachers, and comparing them."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.api.sources import ImageSource, LabelSource, PathLike, as_volume, check_apart, read_annotated
from napari_unet3d.api.training import DEFAULT_PRESET, TrainingRun, settled_size
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import (
    DistillConfig,
    HoldOutState,
    NetworkConfig,
    NormalizeConfig,
    PredictConfig,
    RunRecord,
    TrainConfig,
)
from napari_unet3d.engine.distillation.comparison import Contender, ModelFigures, compare_models
from napari_unet3d.engine.distillation.distiller import Distiller
from napari_unet3d.engine.distillation.student import DEFAULT_OPERATIONS, parse_share, smaller_network
from napari_unet3d.engine.distillation.teacher import Teacher
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.holdout import HoldOut
from napari_unet3d.engine.learner import load_optimizers
from napari_unet3d.engine.model_file import check_model_output, load_model
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.nonfinite import watched
from napari_unet3d.engine.progress import Event, Inbox
from napari_unet3d.engine.resampled_prediction import working_size
from napari_unet3d.engine.resampled_training import at_voxel_size
from napari_unet3d.engine.resampling import resampled_image
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.training_data import known_labels
from napari_unet3d.engine.volume import NOT_ANNOTATED, AnnotatedVolume

ModelSource: TypeAlias = TrainedModel | PathLike


def distill(
    teachers: ModelSource | Sequence[ModelSource],
    image: ImageSource,
    labels: LabelSource | None = None,
    **options: Any,
) -> TrainedModel:
    """Distil a student from one or more teachers.

    Parameters
    ----------
    teachers, image, labels, **options
        As for `distill_events`.

    Returns
    -------
    TrainedModel
        The best student: highest mean IoU on the held-out slices, or highest agreement with the teachers where none is
        held out.
    """
    run = distill_events(teachers, image, labels, **options)
    for _ in run:
        pass
    return run.model()


def distill_events(
    teachers: ModelSource | Sequence[ModelSource],
    image: ImageSource,
    labels: LabelSource | None = None,
    *,
    also: Sequence[ImageSource] = (),
    network: str | NetworkConfig | None = None,
    network_settings: Mapping[str, Any] | None = None,
    operations: Fraction | float | str | None = None,
    train: TrainConfig | None = None,
    config: DistillConfig | None = None,
    record: RunRecord | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
    out: PathLike | None = None,
    resume: TrainedModel | None = None,
    weights_from: TrainedModel | None = None,
    keep_state: bool = False,
    inbox: Inbox | None = None,
) -> TrainingRun:
    """A distillation, ready to be iterated over; a budget of seconds counts from this call.

    Parameters
    ----------
    teachers
        Trained models or their files, of the same classes, channels and normalisation; of several the mean counts.
    image
        The volume, with the teachers' channels.
    labels
        Sparse annotation of it, if there is any: 0 = not annotated.
    also
        Further images, without annotation.
    network
        The student: a preset's name or a whole configuration. By default (or with `operations`) the program chooses.
    network_settings
        Fields that differ from the preset (``"fast"`` if none is named).
    operations
        Share of the (first) teacher's operations that the student may take, such as ``"1/8"``, which is the default.
    train
        The training; default `TrainConfig()`.
    config
        How the student learns from the teachers; default `DistillConfig()`.
    record
        A recorded distillation to repeat step by step.
    voxel_size, axes
        Instead of what the image files say.
    zero_is_background
        The labels hold no unannotated voxel: every id moves up by one.
    out
        Model file to write, now and then and at the end.
    resume
        A student with training state, to go on exactly where it stood.
    weights_from
        A model whose weights the student begins with, such as the same student trained without a teacher.
    keep_state
        Whether the finished file keeps what resuming needs.
    inbox
        For commands to the running distillation.

    Raises
    ------
    UNet3dError
        If a setting, a file, a teacher or the annotation cannot be used; nothing is written then.
    """
    load_optimizers()
    started = time.monotonic()
    if resume is not None and weights_from is not None:
        raise ConfigError("--resume and --weights-from are both given; give one of them")
    sources = [teachers] if isinstance(teachers, str | os.PathLike | TrainedModel) else list(teachers)
    path = None
    if out is not None:
        path = check_model_output(out)
        check_apart([path], [*sources, image, labels, *also])
    loaded = _teachers(sources)
    volumes, watches = [], []
    annotated, notes = _read(image, labels, voxel_size, axes, zero_is_background)
    for volume in [annotated, *(_read(more, None, voxel_size, axes, False)[0] for more in also)]:
        seen, watch = watched(volume.image)
        volumes.append(AnnotatedVolume(seen, volume.labels))
        watches.append(watch)
    training = train or (resume.recipe.train if resume else TrainConfig())
    if training.normalize == NormalizeConfig():  # the student takes over that of its teachers
        training = training.updated(normalize=loaded[0].model.recipe.train.normalize)
    training, size = settled_size(training, loaded[0].model, volumes[0])
    learnt, inbox, resampled = at_voxel_size(volumes, size, inbox)
    distiller = Distiller(
        learnt,
        loaded,
        _student(loaded[0].model, learnt[0], network, network_settings or {}, operations, resume or weights_from),
        training,
        config or (resume and resume.recipe.distill) or DistillConfig(),
        inbox=inbox,
        start=weights_from,
        resume=resume,
        record=record,
        started_at=started,
    )
    return TrainingRun(distiller, path, keep_state, notes, watches, resampled=resampled)


def _teachers(sources: Sequence[ModelSource]) -> list[Teacher]:
    if not sources:
        raise ConfigError("there is no teacher; give the .safetensors file of a trained model")
    teachers = []
    for number, source in enumerate(sources, start=1):
        if isinstance(source, TrainedModel):
            teachers.append(Teacher("teacher" if len(sources) == 1 else f"teacher {number}", source))
        else:
            teachers.append(Teacher(Path(source).name, load_model(source)))
    return teachers


def _read(
    image: ImageSource,
    labels: LabelSource | None,
    voxel_size: VoxelSize | None,
    axes: str | None,
    zero_is_background: bool,
) -> tuple[AnnotatedVolume, list[str]]:
    if labels is not None:
        return read_annotated(image, labels, voxel_size=voxel_size, axes=axes, zero_is_background=zero_is_background)
    volume = as_volume(image, voxel_size=voxel_size, axes=axes)
    return AnnotatedVolume(volume, np.zeros(volume.shape, np.uint8)), []


def _student(
    teacher: TrainedModel,
    volume: AnnotatedVolume,
    network: str | NetworkConfig | None,
    settings: Mapping[str, Any],
    operations: Fraction | float | str | None,
    origin: TrainedModel | None,
) -> NetworkConfig:
    """The configuration asked for or chosen, with the teacher's classes unless others are given."""
    is_named = network is not None or bool(settings)
    if is_named and operations is not None:
        raise ConfigError(
            f"--operations {operations} lets the program choose the network, but settings of one are given; give one "
            "of them"
        )
    if isinstance(network, NetworkConfig):
        return network.updated(**settings)
    if network is None and operations is None and origin is not None:
        return origin.recipe.network.updated(**settings)
    taught = teacher.recipe.network
    if is_named:
        found = {"in_channels": taught.in_channels, "classes": taught.classes, "head": taught.head}
        return network_config(network or DEFAULT_PRESET, **{**found, **settings})
    share = DEFAULT_OPERATIONS if operations is None else parse_share(str(operations))
    return smaller_network(taught, volume.image.voxel_size, share, volume.image.shape)


def scratch_events(
    student: TrainedModel,
    image: ImageSource,
    labels: LabelSource,
    *,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
    out: PathLike | None = None,
    inbox: Inbox | None = None,
) -> TrainingRun:
    """The training of a student's network without teachers, to compare it with the student.

    Same random state, same budget (seconds, or as many steps as the student took) and the same held-out slices, none of
    which is learnt from.

    Parameters
    ----------
    student
        A distilled student.
    image, labels, voxel_size, axes, zero_is_background, inbox
        As for `distill_events`; the volume that the student learnt on first.
    out
        Model file to write, now and then and at the end.

    Raises
    ------
    UNet3dError
        If the labels or a file cannot be used.
    """
    load_optimizers()
    started = time.monotonic()
    path = None
    if out is not None:
        path = check_model_output(out)
        check_apart([path], [image, labels])
    volume, notes = _read(image, labels, voxel_size, axes, zero_is_background)
    seen, watch = watched(volume.image)
    recipe, record = student.recipe, student.recipe.record
    config = recipe.train
    if config.seconds is None and record is not None:
        config = config.updated(steps=record.steps, patience=None)
    annotated = AnnotatedVolume(seen, volume.labels)
    volumes, inbox, resampled = at_voxel_size([annotated], working_size(student, seen), inbox)
    trainer = Trainer(
        volumes,
        recipe.network,
        config,
        inbox=inbox,
        named_classes=student.classes,
        started_at=started,
        hold_out=_hold_out_state(student, annotated),
    )
    return TrainingRun(trainer, path, False, notes, [watch], resampled=resampled)


class Comparison:
    """A comparison: iterate over its events, then take its `figures`.

    Attributes
    ----------
    figures
        One entry for each model, in their order; fewer before the end and after `Stop`.
    """

    def __init__(self, events: Generator[Event, None, tuple[ModelFigures, ...]]) -> None:
        self._events = events
        self.figures: tuple[ModelFigures, ...] = ()

    def __iter__(self) -> Generator[Event, None, None]:
        self.figures = yield from self._events


def compare(
    models: Mapping[str, ModelSource],
    image: ImageSource,
    labels: LabelSource | None = None,
    **options: Any,
) -> tuple[ModelFigures, ...]:
    """What several models give and cost on one volume, side by side.

    Parameters
    ----------
    models, image, labels, **options
        As for `compare_events`.
    """
    comparison = compare_events(models, image, labels, **options)
    for _ in comparison:
        pass
    return comparison.figures


def compare_events(
    models: Mapping[str, ModelSource],
    image: ImageSource,
    labels: LabelSource | None = None,
    *,
    truth: LabelSource | None = None,
    config: PredictConfig | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
    into: Mapping[str, NDArray[np.unsignedinteger]] | None = None,
    inbox: Inbox | None = None,
) -> Comparison:
    """A comparison of models, ready to be iterated over.

    Parameters
    ----------
    models
        Models or their files by the names to show; agreement is with the first, and what the last one (a student) was
        not trained on is held out.
    image
        The volume.
    labels
        Its sparse annotation, from which the held-out slices are taken.
    truth
        True labels with the ids of the models, 0 where not known; voxels annotated in `labels` are not scored.
    config
        Settings of the prediction; default `PredictConfig()`.
    voxel_size, axes
        Instead of what the image file says.
    zero_is_background
        Labels and truth hold no unannotated voxel: every id moves up by one.
    into
        Z Y X arrays that receive the labels of the models of these names.
    inbox
        For `Stop`, `Pause` and `Resume`.

    Raises
    ------
    UNet3dError
        If a file cannot be used, or models, image and labels do not fit each other.
    """
    contenders = [_contender(name, source, (into or {}).get(name)) for name, source in models.items()]
    if not contenders:
        raise ConfigError("there is no model to compare")
    annotated, _ = _read(image, labels, voxel_size, axes, zero_is_background)
    true = None if truth is None else _read(annotated.image, truth, None, None, zero_is_background)[0].labels
    return Comparison(
        compare_models(
            contenders,
            annotated.image,
            held_out=_held_out(contenders[-1].model, annotated),
            truth=true,
            painted=annotated.labels,
            config=config,
            inbox=inbox,
        )
    )


def _contender(name: str, source: ModelSource, labels: NDArray[np.unsignedinteger] | None) -> Contender:
    if isinstance(source, TrainedModel):
        return Contender(name, source, labels=labels)
    return Contender(name, load_model(source), os.path.getsize(source), labels)


def _held_out(model: TrainedModel, volume: AnnotatedVolume) -> NDArray[np.unsignedinteger] | None:
    """Annotation that the model was measured on, if it was trained on this annotation."""
    hold_out = _hold_out(model, volume)
    if hold_out is None:
        return None
    held_out = hold_out.validation_labels(0)
    size = working_size(model, volume.image)
    if size is None:
        return held_out
    measured = resampled_image(volume.image, size)[1].labels_back(held_out) != NOT_ANNOTATED
    return np.where(measured, volume.labels, NOT_ANNOTATED).astype(volume.labels.dtype)


def _hold_out_state(model: TrainedModel, volume: AnnotatedVolume) -> HoldOutState | None:
    hold_out = _hold_out(model, volume)
    return None if hold_out is None else hold_out.to_state()


def _hold_out(model: TrainedModel, volume: AnnotatedVolume) -> HoldOut | None:
    record = model.recipe.record
    if record is None or record.hold_out is None:
        return None
    labels = volume.labels
    size = working_size(model, volume.image)
    if size is not None:  # it was chosen there
        labels = resampled_image(volume.image, size)[1].labels(labels)
    hold_out = HoldOut.from_state(record.hold_out, [known_labels(labels, model.label_ids)])
    return hold_out if hold_out.is_of_these_labels else None
