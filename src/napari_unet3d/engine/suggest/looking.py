"""Looking a volume over for slices to paint next, as a generator of progress events."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.annotation_units import find_units
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Box, Event, Finished, Inbox, Note, Predicted, Started
from napari_unet3d.engine.suggest.cells import CellGrid
from napari_unet3d.engine.suggest.evidence import Evidence
from napari_unet3d.engine.suggest.ranking import ranked_slices
from napari_unet3d.engine.suggest.suggestion import Situation, Suggestion
from napari_unet3d.engine.tiling import whole
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import AnnotatedVolume

MOST_VOXELS: Final = 64_000_000
"""Larger volumes are looked at in samples."""

_BLOCK: Final = 128
_LEAST_PAINTED: Final = 0.01


def suggest_slices(
    model: TrainedModel,
    volume: AnnotatedVolume,
    *,
    count: int = 5,
    classes: Collection[int] | None = None,
    config: PredictConfig | None = None,
    inbox: Inbox | None = None,
    most_voxels: int = MOST_VOXELS,
) -> Generator[Event, None, tuple[Suggestion, ...]]:
    """Predict a volume and tell which slices to paint next; see `ranking` for how they are scored.

    Parameters
    ----------
    model
        As far as it is trained.
    volume
        The image and what is annotated so far, also nothing.
    count
        Most suggestions, at least 1.
    classes
        Label ids of the model that matter; None for all.
    config
        Of the prediction.
    inbox
        Heeds `Stop`, `Pause` and `Resume` between two tiles.
    most_voxels
        In a volume with more, evenly spread blocks with about so many in total are predicted.

    Yields
    ------
    Event
        As `Predictor.run`.

    Returns
    -------
    tuple of Suggestion
        Best first; fewer than `count` where there is less to paint, empty where all is annotated or after `Stop`.

    Raises
    ------
    ConfigError
        If `count` is less than 1, or `classes` names none of the model's.
    UNet3dError
        As `Predictor`.
    """
    if count < 1:
        raise ConfigError(f"count = {count}; at least 1 slice can be asked for")
    iou = held_out_iou(model)
    weights = class_weights(model.label_ids, volume.labels, iou, classes)
    image = volume.image
    grid = CellGrid.over(image.shape, image.voxel_size)
    evidence = Evidence(volume.labels, grid, weights, model.recipe.network.head)
    finished = yield from _look(Predictor(model, config), volume, evidence, inbox, most_voxels)
    if finished.reason == "stopped":
        yield finished
        return ()
    units = find_units(volume.labels)
    situation = Situation(model.classes, iou, units, image.voxel_size)
    found = tuple(situation.suggestion(ranked) for ranked in itertools.islice(ranked_slices(evidence, units), count))
    yield finished
    return found


def held_out_iou(model: TrainedModel) -> dict[int, float]:
    """IoU by class index in the last validation, as far as it was measured."""
    if not model.history.validations:
        return {}
    return {k: iou for k, iou in enumerate(model.history.validations[-1].iou) if iou is not None}


def class_weights(
    label_ids: Sequence[int],
    labels: NDArray[np.unsignedinteger],
    iou: Mapping[int, float],
    classes: Collection[int] | None = None,
) -> NDArray[np.float64]:
    """How much the uncertainty of each class counts: ``(2 - IoU) / sqrt(painted share)``, divided by the mean.

    Parameters
    ----------
    label_ids
        The K ids of the model.
    labels
        Z Y X; what is painted, 0 = not annotated. A class's share counts as 1 % at least.
    iou
        IoU on held-out slices by class index, 0.5 where it is not known.
    classes
        Ids that matter, the others weigh 0; None for all.

    Raises
    ------
    ConfigError
        If `classes` holds an id that the model does not know, or none.
    """
    wanted = set(label_ids) if classes is None else set(classes)
    if not wanted or wanted - set(label_ids):
        known = ", ".join(map(str, label_ids))
        raise ConfigError(f"classes {sorted(wanted)} must be some of the model's label ids {known}")
    counts = sum((np.bincount(plane.ravel(), minlength=max(label_ids) + 1) for plane in labels), start=np.zeros(1))
    painted = counts[list(label_ids)]
    shares = painted / max(painted.sum(), 1)
    weights = np.array([2 - iou.get(k, 0.5) for k in range(len(label_ids))])
    weights /= np.sqrt(np.maximum(shares, _LEAST_PAINTED))
    weights[[label_id not in wanted for label_id in label_ids]] = 0
    return np.asarray(weights / weights[weights > 0].mean())


def sample_boxes(shape: tuple[int, int, int], most_voxels: int) -> list[Box]:
    """Blocks of a volume that hold about `most_voxels` in total, spread so that each axis is covered evenly.

    Every n-th diagonal of the grid of blocks is taken; a volume that is small enough is one box.
    """
    voxels = math.prod(shape)
    if voxels <= most_voxels:
        return [whole(shape)]
    every = math.ceil(voxels / most_voxels)
    spans = [[slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)] for size in shape]
    return [
        (z, y, x)
        for k, z in enumerate(spans[0])
        for j, y in enumerate(spans[1])
        for i, x in enumerate(spans[2])
        if (k + j + i) % every == 0
    ]


def _look(
    predictor: Predictor, volume: AnnotatedVolume, evidence: Evidence, inbox: Inbox | None, most_voxels: int
) -> Generator[Event, None, Finished]:
    """Gather evidence; several boxes look like one prediction with a tile for each."""
    began = time.monotonic()
    boxes = sample_boxes(volume.image.shape, most_voxels)
    if len(boxes) > 1:
        share = sum(math.prod(part.stop - part.start for part in box) for box in boxes) / volume.labels.size
        yield Note(f"the volume is large: looking at {share:.0%} of it, in {len(boxes)} blocks")
    finished = Finished("done")
    for done, box in enumerate(boxes, 1):
        for event in predictor.run(volume.image, PredictionOutputs(probabilities=evidence), inbox, box=box):
            if isinstance(event, Finished):
                finished = event
            elif isinstance(event, Started):
                if done == 1:
                    yield event
            elif not isinstance(event, Predicted) or len(boxes) == 1:
                yield event
        if finished.reason == "stopped":
            break
        if len(boxes) > 1:
            left = (time.monotonic() - began) / done * (len(boxes) - done)
            yield Predicted(done, len(boxes), left, box)
    return replace(finished, seconds=time.monotonic() - began)
