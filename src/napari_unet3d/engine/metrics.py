"""How well a prediction agrees with the truth: per class, in physical units, over scored voxels only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import ClassScore
from napari_unet3d.engine.surfaces import SurfaceDistance, surface_distance
from napari_unet3d.engine.threshold_iou import threshold_counts, threshold_iou
from napari_unet3d.engine.volume import NOT_ANNOTATED, Volume, checked_labels

_SLAB_VOXELS = 2**20
"""Counting turns labels into 8-byte integers; slabs of this size bound their memory."""


# --- counting ---------------------------------------------------------------------------------------------


def confusion_matrix(
    prediction_ids: NDArray[np.integer],
    truth_ids: NDArray[np.integer],
    label_ids: Sequence[int],
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Voxel counts of every pair of true and predicted class; the matrices of several blocks may be added.

    Parameters
    ----------
    prediction_ids, truth_ids
        Label ids of one shape, any number of axes.
    label_ids
        The K ids to count, each at least 0. Voxels whose truth is none of them are not counted.
    where
        Voxels to count, of the same shape; None for all.

    Returns
    -------
    NDArray[int64]
        K x (K + 1). Row: true class, in the order of `label_ids`. Column: predicted class, the last one for
        every id that is not in `label_ids`. All 0 where nothing is counted.
    """
    classes = len(label_ids)
    table = np.full(max(label_ids, default=-1) + 2, classes, dtype=np.intp)
    table[list(label_ids)] = np.arange(classes)
    truth = table.take(truth_ids, mode="clip")  # the last entry stands for all higher ids
    counted = truth < classes if where is None else (truth < classes) & where
    predicted = table.take(prediction_ids[counted], mode="clip")
    pairs = truth[counted] * (classes + 1) + predicted
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def class_scores(confusion: NDArray[np.int64], label_ids: Sequence[int]) -> tuple[ClassScore, ...]:
    """IoU, Dice, precision and recall of every class.

    Parameters
    ----------
    confusion
        K x (K + 1), from `confusion_matrix`.
    label_ids
        The K ids, in the same order.

    Returns
    -------
    tuple of ClassScore
        Fractions in 0..1. All NaN where a class is in neither truth nor prediction, all 0 where it is in one
        only.
    """
    hits = np.diagonal(confusion)
    truth = confusion.sum(axis=1)
    predicted = confusion[:, :-1].sum(axis=0)
    return tuple(
        _score(label_id, int(hit), int(true), int(guessed))
        for label_id, hit, true, guessed in zip(label_ids, hits, truth, predicted, strict=True)
    )


def _score(label_id: int, hits: int, truth: int, predicted: int) -> ClassScore:
    if truth + predicted == 0:
        return ClassScore(label_id, math.nan, math.nan, math.nan, math.nan)
    return ClassScore(
        class_id=label_id,
        iou=hits / (truth + predicted - hits),
        dice=2 * hits / (truth + predicted),
        precision=hits / max(predicted, 1),
        recall=hits / max(truth, 1),
    )


def mean_foreground_iou(scores: Sequence[ClassScore], background_id: int) -> float:
    """Mean IoU of the structures: of all classes but the background that are in truth or prediction.

    NaN where there is no such class.
    """
    return _mean([score.iou for score in scores if score.class_id != background_id])


def _mean(values: Sequence[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def class_volumes(
    labels: NDArray[np.unsignedinteger],
    label_ids: Sequence[int],
    voxel_size: VoxelSize,
    where: NDArray[np.bool_] | None = None,
) -> dict[int, float]:
    """Physical volume of every class: number of voxels times the volume of one.

    Parameters
    ----------
    labels
        Z Y X label ids.
    label_ids
        Ids to measure; a missing one has volume 0.
    voxel_size
        Z Y X edge lengths; the result is in its cubic unit.
    where
        Z Y X, voxels to count; None for all.
    """
    length = max(label_ids, default=0) + 1
    counts = np.zeros(length, dtype=np.int64)
    for slab in _slabs(labels.shape):
        part = labels[slab] if where is None else labels[slab][where[slab]]
        counts += np.bincount(part.ravel(), minlength=length)[:length]
    return {label_id: float(counts[label_id]) * voxel_size.volume for label_id in label_ids}


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    planes = max(1, _SLAB_VOXELS // max(1, math.prod(shape[1:])))
    return (slice(start, start + planes) for start in range(0, shape[0], planes))


# --- everything about two label volumes -------------------------------------------------------------------


@dataclass(frozen=True)
class ClassEvaluation:
    """One class: scores, volumes (cubic unit of the voxel size) in truth and prediction, surface distance."""

    score: ClassScore
    volume_truth: float
    volume_prediction: float
    surface: SurfaceDistance
    threshold_iou: float = math.nan
    """Mean IoU of the probability above .5, .55 ... .95; NaN without probabilities."""


@dataclass(frozen=True)
class Evaluation:
    """Agreement of a prediction with the truth.

    `classes` are ascending by id. `mean_foreground_iou` leaves out the background, which is the lowest id,
    `background_id`. `unit` is that of lengths; volumes are in its cube.
    """

    classes: tuple[ClassEvaluation, ...]
    mean_foreground_iou: float
    background_id: int
    scored_voxels: int
    unit: str
    mean_foreground_threshold_iou: float = math.nan
    """Mean over the structures of `ClassEvaluation.threshold_iou`; NaN without probabilities."""

    @property
    def has_probabilities(self) -> bool:
        """Whether probabilities were evaluated too."""
        return any(not math.isnan(entry.threshold_iou) for entry in self.classes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN and infinity, which JSON has not, become None."""
        return {
            "mean_foreground_iou": _finite(self.mean_foreground_iou),
            "mean_foreground_threshold_iou": _finite(self.mean_foreground_threshold_iou),
            "background_id": self.background_id,
            "scored_voxels": self.scored_voxels,
            "unit": self.unit,
            "classes": [
                _all_finite(
                    {
                        **asdict(entry.score),
                        "threshold_iou": entry.threshold_iou,
                        "volume_truth": entry.volume_truth,
                        "volume_prediction": entry.volume_prediction,
                        "mean_surface_distance": entry.surface.mean,
                        "hausdorff95": entry.surface.hausdorff95,
                    }
                )
                for entry in self.classes
            ],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _all_finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in values.items()}


def evaluate_labels(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    *,
    voxel_size: VoxelSize,
    exclude: NDArray[Any] | None = None,
    probabilities: Volume | None = None,
    probability_ids: Sequence[int] | None = None,
) -> Evaluation:
    """Compare predicted labels with true ones.

    A voxel is *known* where the truth is not 0, and *scored* where it is known and not excluded. IoU, Dice,
    precision and recall are over scored voxels. Volumes are over known voxels, so those of a dense truth are
    whole volumes. Surfaces are those of known voxels, and distances count from scored ones. The classes are
    all ids in either array. A prediction of 0 is wrong whatever class is true.

    Parameters
    ----------
    prediction
        Z Y X (or Y X) label ids, any dtype that holds whole numbers.
    truth
        The same shape; 0 = not known.
    voxel_size
        Z Y X edge lengths.
    exclude
        The same shape: voxels with an id other than 0 are not scored. Give the labels a model was trained on.
    probabilities
        C Z Y X of the same spatial shape, 0..1, read in slabs: for the IoU at thresholds, over scored voxels.
    probability_ids
        Label id of each of their channels. None: the ids in the prediction, or in prediction and truth together,
        in ascending order, whichever are as many as the channels.

    Raises
    ------
    DataError
        If shapes differ, values are not label ids, no voxel is scored, probabilities are none, or it is not clear
        which id a channel of them has.
    """
    predicted = _labels(prediction, "the prediction", truth)
    true = _labels(truth, "the truth", truth)
    known = true != NOT_ANNOTATED
    scored = known
    if exclude is not None:
        scored = known & (_labels(exclude, "the excluded labels", truth) == NOT_ANNOTATED)
    scored_voxels = int(np.count_nonzero(scored))
    if scored_voxels == 0:
        raise DataError(
            "no voxel can be scored: the truth is 0 (not annotated) wherever it is not excluded; if 0 is its "
            "background, use --zero-is-background"
        )
    ids = sorted({int(i) for i in np.union1d(np.unique(predicted), np.unique(true))} - {NOT_ANNOTATED})
    confusion = sum(confusion_matrix(predicted[slab], true[slab], ids, scored[slab]) for slab in _slabs(true.shape))
    scores = class_scores(np.asarray(confusion), ids)
    true_volumes = class_volumes(true, ids, voxel_size, known)
    predicted_volumes = class_volumes(predicted, ids, voxel_size, known)
    at_thresholds: dict[int, float] = {}
    if probabilities is not None:
        channel_ids = probability_ids or _channel_ids(probabilities.channels, predicted, ids)
        # a true class without a channel is found at no threshold
        at_thresholds = {score.class_id: 0.0 for score in scores if not math.isnan(score.iou)}
        at_thresholds |= _threshold_scores(probabilities, channel_ids, true, scored)
    classes = tuple(
        ClassEvaluation(
            score,
            true_volumes[score.class_id],
            predicted_volumes[score.class_id],
            surface_distance(predicted == score.class_id, true == score.class_id, voxel_size, known, scored),
            at_thresholds.get(score.class_id, math.nan),
        )
        for score in scores
    )
    return Evaluation(
        classes,
        mean_foreground_iou(scores, ids[0]),
        ids[0],
        scored_voxels,
        voxel_size.unit,
        _mean([value for label_id, value in at_thresholds.items() if label_id != ids[0]]),
    )


def _channel_ids(channels: int, predicted: NDArray[np.unsignedinteger], ids: Sequence[int]) -> Sequence[int]:
    """The label ids of so many channels of probabilities, as far as labels tell."""
    in_prediction = sorted({int(i) for i in np.unique(predicted)} - {NOT_ANNOTATED})
    for found in (in_prediction, ids):
        if len(found) == channels:
            return found
    raise DataError(
        f"the probabilities have {channels} channels, but the prediction has the ids "
        f"{', '.join(map(str, in_prediction))}; tell the id of each channel with --probability-ids"
    )


def _threshold_scores(
    probabilities: Volume, label_ids: Sequence[int], truth: NDArray[np.unsignedinteger], where: NDArray[np.bool_]
) -> dict[int, float]:
    """Mean IoU over thresholds, by label id."""
    if len(label_ids) != probabilities.channels or len(set(label_ids)) != len(label_ids):
        raise DataError(
            f"the probabilities have {probabilities.channels} channels, but {len(set(label_ids))} ids were given for "
            f"them: {', '.join(map(str, label_ids))}"
        )
    if probabilities.shape != truth.shape:
        raise DataError(
            f"the probabilities have the shape {probabilities.shape}, the truth {truth.shape}; both need the same "
            "Z Y X shape"
        )
    counts = threshold_counts(np.zeros((len(label_ids), 0), np.float32), truth[:0, 0, 0], label_ids)
    for slab in _slabs(truth.shape):
        values = probabilities.read((slab, slice(None), slice(None)), np.float32)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
            raise DataError(
                f"{probabilities.name} holds values outside of 0 to 1; give what predict --probabilities wrote"
            )
        counts += threshold_counts(values, truth[slab], label_ids, where[slab])
    return dict(zip(label_ids, threshold_iou(counts).tolist(), strict=True))


def _labels(values: NDArray[Any], name: str, like: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    """Label ids, Z Y X, of the shape of the truth."""
    if values.shape != like.shape or values.ndim not in (2, 3):
        raise DataError(f"{name} has shape {values.shape}, the truth {like.shape}; both need the same Z Y X shape")
    labels = checked_labels(values, name)
    return labels if labels.ndim == 3 else labels[np.newaxis]
