"""The proof: teachers and students side by side on one volume."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.device import choose_device
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.engine.peak_memory import PeakMemory
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Box, ClassScore, Event, Finished, Inbox, Started
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import NOT_ANNOTATED, Volume

_MOST_RUNS: Final = 3
_ENOUGH_SECONDS: Final = 3.0
"""A model that took longer is not measured again."""

_WARM_UP: Final = 32
"""Side in voxels of what is predicted first, so that what happens once in a program is not measured."""


class Contender(NamedTuple):
    """A model to compare."""

    name: str
    model: TrainedModel
    file_bytes: int | None = None
    labels: NDArray[np.unsignedinteger] | None = None
    """Z Y X array that receives its labels, if they are wanted."""


@dataclass(frozen=True)
class Scored:
    """IoU of each class and mean IoU of the structures, both in 0..1 or NaN, over `voxels` voxels."""

    classes: tuple[ClassScore, ...]
    mean_iou: float
    voxels: int


@dataclass(frozen=True)
class ModelFigures:
    """What one model costs and gives on one volume.

    Attributes
    ----------
    held_out
        On annotated slices that neither teacher nor student was trained on; None without any.
    truth
        On the truth, painted voxels left out; None without one.
    agreement
        Share of voxels, 0..1, labelled as by the first model.
    parameters
        Trainable values.
    operations
        Multiplications with an addition in the convolutions, for the volume in one piece.
    file_bytes
        Size of the model file; None where there is none.
    seconds
        From the image to its labels, reading and normalising included; loading the model and warming up are not. Of
        small volumes the fastest of up to three times, because the first one is slower.
    memory_bytes
        Most memory that took, see `PeakMemory`.
    """

    name: str
    held_out: Scored | None
    truth: Scored | None
    agreement: float
    parameters: int
    operations: int
    file_bytes: int | None
    seconds: float
    memory_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN, which JSON has not, becomes None."""
        values: dict[str, Any] = _plain(asdict(self))
        return values


def compare_models(
    contenders: Sequence[Contender],
    image: Volume,
    *,
    held_out: NDArray[np.unsignedinteger] | None = None,
    truth: NDArray[np.unsignedinteger] | None = None,
    painted: NDArray[np.unsignedinteger] | None = None,
    config: PredictConfig | None = None,
    inbox: Inbox | None = None,
) -> Generator[Event, None, tuple[ModelFigures, ...]]:
    """Let each model label the volume, measuring time and memory.

    Parameters
    ----------
    contenders
        At least one; agreement is with the first.
    image
        The volume.
    held_out
        Z Y X label ids to score on, 0 elsewhere.
    truth
        Z Y X true label ids; 0 = not known.
    painted
        Z Y X; what is annotated here is left out of the score against `truth`.
    config
        Settings of the prediction.
    inbox
        Heeds `Stop`, `Pause` and `Resume`; paused time is counted.

    Yields
    ------
    Event
        `Predicted`, counting the tiles of the present model, and `Note`.

    Returns
    -------
    tuple of ModelFigures
        In the order of `contenders`; fewer after `Stop`.

    Raises
    ------
    ConfigError
        If models label different classes.
    DataError
        If shapes differ, or the image does not fit a model.
    """
    ids = contenders[0].model.label_ids
    for other in contenders[1:]:
        if other.model.label_ids != ids:
            raise ConfigError(
                f"{contenders[0].name} has the classes {ids}, {other.name} has {other.model.label_ids}; "
                "compare models of the same classes"
            )
    for name, labels in (("the held-out labels", held_out), ("the truth", truth), ("the labels", painted)):
        if labels is not None and labels.shape != image.shape:
            raise DataError(f"{name}: shape {labels.shape} but {image.name} has {image.shape} (Z Y X)")
    if truth is not None and painted is not None:
        truth = np.where(painted == NOT_ANNOTATED, truth, NOT_ANNOTATED)
    figures: list[ModelFigures] = []
    reference: NDArray[np.unsignedinteger] | None = None
    for name, model, file_bytes, wanted in contenders:
        measured = yield from _measured(model, image, config or PredictConfig(), wanted, inbox)
        if measured is None:
            break
        labels, seconds, memory = measured
        reference = labels if reference is None else reference
        facts = describe(model.recipe.network)
        size = facts.legal_shape([n + 2 * margin for n, margin in zip(image.shape, facts.margin, strict=True)])
        figures.append(
            ModelFigures(
                name=name,
                held_out=_scored(labels, held_out, ids),
                truth=_scored(labels, truth, ids),
                agreement=float(np.mean(labels == reference)),
                parameters=facts.parameters,
                operations=facts.operations(size),
                file_bytes=file_bytes,
                seconds=seconds,
                memory_bytes=memory,
            )
        )
    return tuple(figures)


def _measured(
    model: TrainedModel,
    image: Volume,
    config: PredictConfig,
    labels: NDArray[np.unsignedinteger] | None,
    inbox: Inbox | None,
) -> Generator[Event, None, tuple[NDArray[np.unsignedinteger], float, int] | None]:
    """Labels, seconds and bytes; None after `Stop`."""
    predictor = Predictor(model, config)
    if labels is None:
        labels = np.zeros(image.shape, np.uint8 if max(model.label_ids) <= 255 else np.uint16)
    z, y, x = (slice(0, min(_WARM_UP, length)) for length in image.shape)
    first: Box = (z, y, x)
    for _ in predictor.run(image, PredictionOutputs(labels), box=first):
        pass
    memory, fastest, total = 0, math.inf, 0.0
    for number in range(_MOST_RUNS):
        begun = time.perf_counter()
        watch = PeakMemory(choose_device(config.device).device) if number == 0 else nullcontext()  # it takes time
        with watch as peak:
            for event in predictor.run(image, PredictionOutputs(labels), inbox):
                if isinstance(event, Finished):
                    if event.reason == "stopped":
                        return None
                elif not isinstance(event, Started):
                    yield event
        seconds = time.perf_counter() - begun
        fastest, total = min(fastest, seconds), total + seconds
        memory = peak.bytes if peak is not None else memory
        if total > _ENOUGH_SECONDS:
            break
    return labels, fastest, memory


def _scored(
    labels: NDArray[np.unsignedinteger], truth: NDArray[np.unsignedinteger] | None, ids: Sequence[int]
) -> Scored | None:
    if truth is None or not truth.any():
        return None
    confusion = confusion_matrix(labels, truth, ids)
    scores = class_scores(confusion, ids)
    return Scored(scores, mean_foreground_iou(scores, ids[0]), int(confusion.sum()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
