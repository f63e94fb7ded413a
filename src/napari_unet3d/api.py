"""The headless verbs: what the command line, notebooks and the docks' workers call.

Images and labels are paths or arrays (NumPy, zarr, dask): Z Y X, images also C Z Y X, 2D images Y X.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, PredictConfig, RunRecord, TrainConfig
from napari_unet3d.engine.errors import ConfigError, DataError, FileError, UNet3dError
from napari_unet3d.engine.metrics import Evaluation, evaluate_labels
from napari_unet3d.engine.model_file import check_model_output, load_model, save_model
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.nonfinite import NonFiniteWatch, watched
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Box, Event, Finished, Inbox, Note, Saved, Stepped
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume, LazyArray, Volume, checked_labels, common_label_ids
from napari_unet3d.io.files import open_output, read_labels, read_volume
from napari_unet3d.io.output import OutputWriter

__all__ = [
    "PredictionStopped",
    "TrainingRun",
    "evaluate",
    "load_model",
    "predict",
    "predict_events",
    "read_annotated",
    "train",
    "train_events",
]

PathLike: TypeAlias = str | os.PathLike[str]
ImageSource: TypeAlias = PathLike | Volume | LazyArray | ArrayLike
LabelSource: TypeAlias = PathLike | LazyArray | ArrayLike

_LOGGER = logging.getLogger(__name__)
_SAVE_EVERY: Final = 10.0  # seconds
DEFAULT_PRESET: Final = "fast"


# --- training ---------------------------------------------------------------------------------------------


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
                yield from _found_non_finite(self._watches)
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
        _check_apart([path], [source for pair in [(image, labels), *also] for source in pair])
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
        started_at=started,
    )
    return TrainingRun(trainer, path, keep_state, notes, watches)


def _check_apart(outputs: Sequence[PathLike], inputs: Sequence[Any] = ()) -> None:
    """Make sure that no output is an input, lies in one, or is another output."""
    taken = {Path(source).resolve(): source for source in inputs if isinstance(source, str | os.PathLike)}
    for output in outputs:
        path = Path(output).resolve()
        for place in (path, *path.parents):
            if place in taken:
                raise FileError(f"{output} would overwrite {taken[place]}; choose another output")
        taken[path] = output


def _found_non_finite(watches: list[NonFiniteWatch]) -> Iterator[Note]:
    """A note for each image with NaN or infinite values, once."""
    for watch in [watch for watch in watches if watch.found]:
        watches.remove(watch)
        yield watch.note()


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
    found = {"in_channels": volumes[0].image.channels, "classes": len(common_label_ids(volumes))}
    return network_config(network or DEFAULT_PRESET, **{**found, **settings})


def read_annotated(
    image: ImageSource,
    labels: LabelSource,
    *,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
) -> tuple[AnnotatedVolume, list[str]]:
    """An image and its labels, and what the user should know about how they fit.

    Raises
    ------
    UNet3dError
        If a file cannot be read, or the labels do not fit the image.
    """
    volume = _volume(image, voxel_size=voxel_size, axes=axes)
    warnings: list[str] = []
    if isinstance(labels, str | os.PathLike):
        ids, warnings = read_labels(labels, volume, zero_is_background=zero_is_background)
    else:
        ids = checked_labels(np.asarray(labels), "labels", zero_is_background=zero_is_background)
        ids = ids[np.newaxis] if ids.ndim == 2 else ids
    return AnnotatedVolume(volume, ids), warnings


def _volume(image: ImageSource, *, voxel_size: VoxelSize | None = None, axes: str | None = None) -> Volume:
    if isinstance(image, Volume):
        return image
    if isinstance(image, str | os.PathLike):
        return read_volume(image, axes=axes, voxel_size=voxel_size)
    return Volume.from_array(image, voxel_size)


# --- prediction -------------------------------------------------------------------------------------------


def predict(
    model: TrainedModel | PathLike,
    image: ImageSource,
    *,
    config: PredictConfig | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
) -> NDArray[np.unsignedinteger]:
    """Label ids of an image.

    Parameters
    ----------
    model
        A trained model or its file.
    image
        With the model's channels.
    config
        Settings; default `PredictConfig()`.
    voxel_size, axes
        Instead of what the image file says.

    Returns
    -------
    NDArray
        Z Y X (Y X for a 2D image), uint8, or uint16 where ids exceed 255.

    Raises
    ------
    UNet3dError
        If the model file or image cannot be used, or memory or device are not there.
    """
    model = load_model(model) if isinstance(model, str | os.PathLike) else model
    volume = _volume(image, voxel_size=voxel_size, axes=axes)
    labels = np.zeros(volume.shape, _label_dtype(model))
    for _ in Predictor(model, config).run(volume, PredictionOutputs(labels)):
        pass
    return labels[0] if volume.spatial_dims == 2 else labels


def predict_events(
    model: TrainedModel,
    image: ImageSource,
    out: PathLike | None,
    *,
    probabilities: PathLike | None = None,
    uncertainty: PathLike | None = None,
    config: PredictConfig | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    inbox: Inbox | None = None,
) -> Generator[Event, None, None]:
    """Predict into files, block by block; the files appear at the end, complete, or not at all.

    Parameters
    ----------
    model, image, config, voxel_size, axes
        As for `predict`.
    out, probabilities, uncertainty
        Files for label ids, class probabilities (C Z Y X float32) and uncertainty (Z Y X float32, 0..1).
    inbox
        For `Stop`, `Pause` and `Resume`.

    Raises
    ------
    UNet3dError
        As `predict`, or if a file cannot be written.
    """
    _check_apart([path for path in (out, probabilities, uncertainty) if path is not None], [image])
    volume, watch = watched(_volume(image, voxel_size=voxel_size, axes=axes))
    watches = [watch]
    predictor = Predictor(model, config)
    names = {entry.id: entry.name for entry in model.classes}
    with ExitStack() as files:

        def opened(path: PathLike | None, dtype: Any, channels: int = 0) -> _Blocks | None:
            if path is None:
                return None
            writer = open_output(path, volume.shape, dtype, volume, channels=channels, class_names=names)
            return _Blocks(files.enter_context(writer))

        outputs = PredictionOutputs(
            opened(out, _label_dtype(model)),
            opened(probabilities, np.float32, len(model.classes)),
            opened(uncertainty, np.float32),
        )
        last: Event | None = None
        for event in predictor.run(volume, outputs, inbox):
            if isinstance(event, Finished):
                last = event
                if event.reason == "stopped":
                    raise PredictionStopped
            else:
                yield event
            yield from _found_non_finite(watches)
    if last is not None:
        yield last


class PredictionStopped(Exception):
    """`Stop` arrived in the middle of a prediction into files; nothing was written."""


class _Blocks:
    """Item assignment on an `OutputWriter`."""

    def __init__(self, writer: OutputWriter) -> None:
        self._writer = writer

    def __setitem__(self, index: tuple[slice, ...], block: NDArray[Any], /) -> None:
        z, y, x = index[-3:]
        box: Box = (z, y, x)
        self._writer.write(box, block)


def _label_dtype(model: TrainedModel) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if max(model.label_ids) <= 255 else np.uint16


# --- evaluation -------------------------------------------------------------------------------------------


def evaluate(
    prediction: LabelSource,
    truth: LabelSource,
    *,
    exclude: LabelSource | None = None,
    zero_is_background: bool = False,
    voxel_size: VoxelSize | None = None,
) -> Evaluation:
    """Compare predicted labels with true ones, class by class.

    Parameters
    ----------
    prediction
        Label ids.
    truth
        Label ids of the same shape; its zeros are not scored.
    exclude
        Sparse labels: what is annotated there is not scored, so that only unpainted voxels count.
    zero_is_background
        The truth's 0 is class 1, and every id of it moves up by one.
    voxel_size
        Instead of that of the prediction's file (or 1 pixel for arrays).

    Raises
    ------
    DataError
        If shapes differ, or nothing is left to score.
    FileError
        If a file cannot be read.
    """
    reference = _label_volume(prediction, voxel_size, "the prediction")
    return evaluate_labels(
        checked_labels(reference.read()[0], "the prediction"),
        _ids_like(truth, reference, "the truth", zero_is_background=zero_is_background),
        voxel_size=reference.voxel_size,
        exclude=None if exclude is None else _ids_like(exclude, reference, "the excluded labels"),
    )


def _label_volume(labels: LabelSource, voxel_size: VoxelSize | None, name: str) -> Volume:
    volume = _volume(labels, voxel_size=voxel_size)
    if volume.channels != 1:
        raise DataError(f"{name} has {volume.channels} channels; labels have one")
    return volume


def _ids_like(
    labels: LabelSource, reference: Volume, name: str, *, zero_is_background: bool = False
) -> NDArray[np.unsignedinteger]:
    if isinstance(labels, str | os.PathLike):
        return read_labels(labels, reference, zero_is_background=zero_is_background)[0]
    ids = checked_labels(np.asarray(labels), name, zero_is_background=zero_is_background)
    return ids[np.newaxis] if ids.ndim == 2 else ids
