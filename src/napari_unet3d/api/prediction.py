"""Applying a model to an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.api.exporting import open_model
from napari_unet3d.api.sources import ImageSource, PathLike, as_volume, check_apart, found_non_finite
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.nonfinite import watched
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Box, Event, Finished, Inbox
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.runtime import ExportedModel
from napari_unet3d.io.files import open_output
from napari_unet3d.io.output import OutputWriter


def predict(
    model: TrainedModel | ExportedModel | PathLike,
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
        A trained or exported model, or its file. An exported one runs on the CPU, in float32.
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
    model = open_model(model) if isinstance(model, str | os.PathLike) else model
    volume = as_volume(image, voxel_size=voxel_size, axes=axes)
    labels = np.zeros(volume.shape, _label_dtype(model))
    for _ in Predictor(model, _settings(model, config)).run(volume, PredictionOutputs(labels)):
        pass
    return labels[0] if volume.spatial_dims == 2 else labels


def predict_events(
    model: TrainedModel | ExportedModel,
    image: ImageSource,
    out: PathLike | None,
    *,
    probabilities: PathLike | None = None,
    uncertainty: PathLike | None = None,
    config: PredictConfig | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    inbox: Inbox | None = None,
    counts: Counter[int] | None = None,
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
    counts
        Receives the number of voxels of each label id in `out`.

    Raises
    ------
    UNet3dError
        As `predict`, or if a file cannot be written.
    """
    check_apart([path for path in (out, probabilities, uncertainty) if path is not None], [image])
    volume, watch = watched(as_volume(image, voxel_size=voxel_size, axes=axes))
    watches = [watch]
    predictor = Predictor(model, _settings(model, config))
    names = {entry.id: entry.name for entry in model.classes}
    with ExitStack() as files:

        def opened(
            path: PathLike | None, dtype: Any, channels: int = 0, counts: Counter[int] | None = None
        ) -> _Blocks | None:
            if path is None:
                return None
            writer = open_output(path, volume.shape, dtype, volume, channels=channels, class_names=names)
            return _Blocks(files.enter_context(writer), counts)

        outputs = PredictionOutputs(
            opened(out, _label_dtype(model), counts=counts),
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
            yield from found_non_finite(watches)
    if last is not None:
        yield last


class PredictionStopped(Exception):
    """`Stop` arrived in the middle of a prediction into files; nothing was written."""


class _Blocks:
    """Item assignment on an `OutputWriter`; counts values where that is wanted."""

    def __init__(self, writer: OutputWriter, counts: Counter[int] | None = None) -> None:
        self._writer = writer
        self._counts = counts

    def __setitem__(self, index: tuple[slice, ...], block: NDArray[Any], /) -> None:
        z, y, x = index[-3:]
        box: Box = (z, y, x)
        self._writer.write(box, block)
        if self._counts is not None:
            values, times = np.unique(block, return_counts=True)
            self._counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))


def _settings(model: TrainedModel | ExportedModel, config: PredictConfig | None) -> PredictConfig:
    """The settings, with the only device and arithmetic that an exported model has."""
    config = config or PredictConfig()
    if isinstance(model, TrainedModel):
        return config
    for name, given, only in (("device", config.device, "cpu"), ("precision", config.precision, "float32")):
        if given not in ("auto", only):
            raise ConfigError(
                f"{name} = {given!r} is not for exported models, which run in {only}; leave --{name} away, or predict "
                "with the .safetensors model"
            )
    return config.model_copy(update={"device": "cpu", "precision": "float32"})


def _label_dtype(model: TrainedModel | ExportedModel) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if max(model.label_ids) <= 255 else np.uint16
