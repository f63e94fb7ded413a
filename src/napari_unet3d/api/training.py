"""Training a network on painted volumes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from napari_unet3d.api.sources import ImageSource, LabelSource, PathLike, check_apart, found_non_finite, read_annotated
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import NetworkConfig, RunRecord, TrainConfig
from napari_unet3d.engine.errors import ConfigError, FileError, UNet3dError
from napari_unet3d.engine.model_file import check_model_output, save_model
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.nonfinite import NonFiniteWatch, watched
from napari_unet3d.engine.progress import Event, Finished, Inbox, Note, Saved, Stepped
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
    """

    def __init__(
        self,
        trainer: Trainer,
        out: Path | None,
        keep_state: bool,
        notes: Sequence[str],
        watches: Sequence[NonFiniteWatch],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._out = out
        self._keep_state = keep_state
        self._notes = notes
        self._watches = list(watches)
        self._clock = clock
        self._tried_at = clock()
        self._step = 0

    def __iter__(self) -> Generator[Event, None, None]:
        yield from (Note(text, "warning") for text in self._notes)
        finished = Finished("")
        try:
            for event in self._trainer.fit():
                if isinstance(event, Finished):
                    finished = event
                    continue
                if isinstance(event, Stepped):
                    self._step = event.step
                yield event
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
    started = time.monotonic()
    path = None
    if out is not None:
        path = check_model_output(out)
        check_apart([path], [source for pair in [(image, labels), *also] for source in pair])
    if resume is not None and weights_from is not None:
        raise ConfigError("--resume and --weights-from are both given; give one of them")
    volumes, notes, watches = [], [], []
    for pair in [(image, labels), *also]:
        volume, warnings = read_annotated(
            *pair, voxel_size=voxel_size, axes=axes, zero_is_background=zero_is_background
        )
        seen, watch = watched(volume.image)
        volumes.append(AnnotatedVolume(seen, volume.labels))
        watches.append(watch)
        notes += warnings
    origin = resume or weights_from
    trainer = Trainer(
        volumes,
        _settled_network(network, network_settings or {}, volumes, origin),
        config or (resume.recipe.train if resume else TrainConfig()),
        inbox=inbox,
        start=weights_from,
        resume=resume,
        record=record,
        named_classes=named_classes,
        started_at=started,
    )
    return TrainingRun(trainer, path, keep_state, notes, watches)


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
