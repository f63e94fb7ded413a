"""Training a network on painted volumes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from napari_unet3d.api.sources import ImageSource, LabelSource, PathLike, check_apart, found_non_finite, read_pairs
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import NetworkConfig, RunRecord, TrainConfig
from napari_unet3d.engine.errors import ConfigError, FileError, UNet3dError
from napari_unet3d.engine.learner import load_optimizers
from napari_unet3d.engine.model_file import check_model_output, save_model
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.nonfinite import NonFiniteWatch, watched
from napari_unet3d.engine.pair_checks import PairFacts, check_pairs
from napari_unet3d.engine.parallel.owner import ParallelTrainer
from napari_unet3d.engine.parallel.start import make_trainer
from napari_unet3d.engine.progress import Event, Finished, Inbox, Note, Saved, Stepped
from napari_unet3d.engine.resampled_training import ResampledVolumes, at_voxel_size, in_unit_of, text_of
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume, common_label_ids

_LOGGER = logging.getLogger(__name__)
_SAVE_EVERY: Final = 10.0  # seconds
DEFAULT_PRESET: Final = "fast"


class TrainingRun:
    """One training run: iterate over its events, then (or meanwhile) take its `model`.

    With a file to write to, the file is rewritten at least every 15 s with all that resuming needs, so that a killed
    process loses no more than that.

    Attributes
    ----------
    pairs
        What was found in the volumes, in their order; those to measure on come last.
    """

    def __init__(
        self,
        trainer: Trainer | ParallelTrainer,
        out: Path | None,
        keep_state: bool,
        notes: Sequence[str | Note],
        watches: Sequence[NonFiniteWatch],
        clock: Callable[[], float] = time.monotonic,
        pairs: Sequence[PairFacts] = (),
        resampled: ResampledVolumes | None = None,
    ) -> None:
        self.pairs = tuple(pairs)
        self._resampled = resampled
        self._trainer = trainer
        self._out = out
        self._keep_state = keep_state
        self._notes = notes
        self._watches = list(watches)
        self._clock = clock
        self._tried_at = clock()
        self._step = 0

    def __iter__(self) -> Generator[Event, None, None]:
        yield from (note if isinstance(note, Note) else Note(note, "warning") for note in self._notes)
        finished = Finished("")
        try:
            for event in self._trainer.fit():
                if isinstance(event, Finished):
                    finished = event
                    continue
                if isinstance(event, Stepped):
                    self._step = event.step
                yield self._resampled.event(event) if self._resampled else event
                yield from found_non_finite(self._watches)
                if isinstance(event, Stepped):
                    yield from self._save_now_and_then()
        except BaseException:  # closed by the owner, interrupted or failed: the best model so far is never lost
            self._rescue()
            raise
        yield from self._save(with_state=self._keep_state or finished.reason == "stopped")
        yield finished

    def model(self, *, with_state: bool = False) -> TrainedModel:
        """The best model so far; `with_state` adds what resuming needs."""
        return self._trainer.model(with_state=with_state)

    def _save(self, *, with_state: bool) -> Iterator[Saved]:
        if self._out and self._step:
            save_model(self.model(with_state=with_state), self._out)
            yield Saved(self._out, self._step)

    def _save_now_and_then(self) -> Iterator[Event]:
        if self._clock() - self._tried_at < _SAVE_EVERY:
            return
        self._tried_at = self._clock()
        try:
            yield from self._save(with_state=True)
        except FileError as error:  # there may be room again at the end
            yield Note(f"{error}; training goes on", "warning")

    def _rescue(self) -> None:
        try:
            for _ in self._save(with_state=True):
                pass
        except UNet3dError as error:  # the first error is the one to report
            _LOGGER.warning("the model was not saved: %s", error)


def train(
    image: ImageSource,
    labels: LabelSource,
    *,
    network: str | NetworkConfig | None = None,
    config: TrainConfig | None = None,
    voxel_size: VoxelSize | None = None,
    **options: Any,
) -> TrainedModel:
    """Train a network on a painted volume.

    Parameters
    ----------
    image, labels, network, config, voxel_size, **options
        As for `train_events`.

    Returns
    -------
    TrainedModel
        The best model: highest mean IoU on the held-out slices, or the last where none is held out.
    """
    run = train_events(image, labels, network=network, config=config, voxel_size=voxel_size, **options)
    for _ in run:
        pass
    return run.model()


def train_events(
    image: ImageSource,
    labels: LabelSource,
    *,
    also: Sequence[tuple[ImageSource, LabelSource]] = (),
    validate_on: Sequence[tuple[ImageSource, LabelSource]] = (),
    network: str | NetworkConfig | None = None,
    network_settings: Mapping[str, Any] | None = None,
    config: TrainConfig | None = None,
    record: RunRecord | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
    out: PathLike | None = None,
    resume: TrainedModel | None = None,
    weights_from: TrainedModel | None = None,
    keep_state: bool = False,
    named_classes: Sequence[ClassInfo] = (),
    inbox: Inbox | None = None,
) -> TrainingRun:
    """A training run, ready to be iterated over; a budget of seconds counts from this call.

    Parameters
    ----------
    image, labels
        The painted volume. Labels are whole numbers: 0 = not annotated, 1 = background by convention, 2 and up =
        structures; gaps are fine.
    also
        Further painted volumes, with the same channels.
    validate_on
        Painted volumes to measure on instead of held-out slices of the others; nothing is learnt from them.
    network
        A preset's name (default ``"fast"``, or the network of the model to continue from) or a whole configuration.
    network_settings
        Fields that differ from the preset.
    config
        The training; default `TrainConfig()`.
    record
        A recorded run to repeat step by step.
    voxel_size, axes
        Instead of what the image file says.
    zero_is_background
        The labels hold no unannotated voxel: every id moves up by one.
    out
        Model file to write, now and then and at the end.
    resume
        A model with training state, to go on exactly where it stood.
    weights_from
        A model whose weights to begin with.
    keep_state
        Whether the finished file keeps what resuming needs.
    named_classes
        Names and colours of label ids; ids without an entry get default ones.
    inbox
        For commands to the running training.

    Raises
    ------
    UNet3dError
        If a setting, a file or the annotation cannot be used; nothing is written then.
    """
    load_optimizers()
    started = time.monotonic()
    path = None
    if out is not None:
        path = check_model_output(out)
        check_apart([path], [source for pair in [(image, labels), *also, *validate_on] for source in pair])
    for source in (source for source, _ in validate_on):
        if isinstance(source, str | os.PathLike) and any(
            _is_same_file(source, other) for other, _ in [(image, labels), *also]
        ):
            raise ConfigError(f"{source} is both trained on and validated on; a score there would say nothing")
    if resume is not None and weights_from is not None:
        raise ConfigError("--resume and --weights-from are both given; give one of them")
    origin = resume or weights_from
    config = config or (resume.recipe.train if resume else TrainConfig())
    learnt = [(image, labels), *also]
    found, notes = read_pairs(
        [*learnt, *validate_on], voxel_size=voxel_size, axes=axes, zero_is_background=zero_is_background
    )
    config, size = settled_size(config, origin, found[0])
    measured = tuple(range(len(learnt), len(found)))
    pairs, warnings = check_pairs(found, measured, is_resampled=size is not None)
    seen = [watched(volume.image) for volume in found]
    volumes = [AnnotatedVolume(image, volume.labels) for (image, _), volume in zip(seen, found, strict=True)]
    told: list[str | Note] = [*notes, *warnings]
    brought, inbox, resampled = at_voxel_size(volumes, size, inbox)
    if resampled is not None and resampled.changed:
        told.append(Note(f"training on images resampled to {size}; numbers of slices below count there"))
    trainer = make_trainer(
        brought,
        _settled_network(network, network_settings or {}, brought[: len(learnt)], origin),
        config,
        inbox=inbox,
        start=weights_from,
        resume=resume,
        record=record,
        named_classes=named_classes,
        started_at=started,
        validation_volumes=measured,
    )
    watches = [watch for _, watch in seen]
    return TrainingRun(trainer, path, keep_state, told, watches, pairs=pairs, resampled=resampled)


def _is_same_file(path: PathLike, other: ImageSource) -> bool:
    return isinstance(other, str | os.PathLike) and Path(path).resolve() == Path(other).resolve()


def settled_size(
    config: TrainConfig, origin: TrainedModel | None, first: AnnotatedVolume
) -> tuple[TrainConfig, VoxelSize | None]:
    """The training with the voxel size that a model to go on with works at, or with the unit of the one asked for.

    Raises
    ------
    ConfigError
        If another voxel size is asked for than that of the model.
    """
    asked = config.normalize.size
    if origin is None:
        size = None if asked is None else in_unit_of(asked, first.image.voxel_size)
    else:
        known = origin.recipe.train.normalize.size
        size = origin.voxel_size if known else None
        if asked is not None and (known is None or in_unit_of(asked, known) != known):
            works = "the voxels of its images" if size is None else str(size)
            raise ConfigError(
                f"train.normalize.voxel_size = {config.normalize.voxel_size} but the model to go on with works at "
                f"{works}; leave it away"
            )
    normalize = config.normalize.updated(voxel_size=None if size is None else text_of(size))
    return config.updated(normalize=normalize), size


def _settled_network(
    network: str | NetworkConfig | None,
    settings: Mapping[str, Any],
    volumes: Sequence[AnnotatedVolume],
    origin: TrainedModel | None,
) -> NetworkConfig:
    """The configuration asked for, with channels and classes from the data unless they are given."""
    if network is None and origin is not None:
        return origin.recipe.network.updated(**settings)
    if isinstance(network, NetworkConfig):
        return network.updated(**settings)
    ids = len(common_label_ids(volumes))
    found = {"in_channels": volumes[0].image.channels, "classes": ids}
    config = network_config(network or DEFAULT_PRESET, **{**found, **settings})
    if config.head == "sigmoid" and "classes" not in settings:
        return config.updated(classes=max(1, ids - 1))  # the background has no channel
    return config
