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
from napari_unet3d.engine.volume import NOT_ANNOTATED, checked_labels

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
    values = [s.iou for s in scores if s.class_id != background_id and not math.isnan(s.iou)]
    return sum(values) / len(values) if values else math.nan


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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN and infinity, which JSON has not, become None."""
        return {
            "mean_foreground_iou": _finite(self.mean_foreground_iou),
            "background_id": self.background_id,
            "scored_voxels": self.scored_voxels,
            "unit": self.unit,
            "classes": [
                _all_finite(
                    {
                        **asdict(entry.score),
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

    Raises
    ------
    DataError
        If shapes differ, values are not label ids, or no voxel is scored.
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
    classes = tuple(
        ClassEvaluation(
            score,
            true_volumes[score.class_id],
            predicted_volumes[score.class_id],
            surface_distance(predicted == score.class_id, true == score.class_id, voxel_size, known, scored),
        )
        for score in scores
    )
    return Evaluation(classes, mean_foreground_iou(scores, ids[0]), ids[0], scored_voxels, voxel_size.unit)


def _labels(values: NDArray[Any], name: str, like: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    """Label ids, Z Y X, of the shape of the truth."""
    if values.shape != like.shape or values.ndim not in (2, 3):
        raise DataError(f"{name} has shape {values.shape}, the truth {like.shape}; both need the same Z Y X shape")
    labels = checked_labels(values, name)
    return labels if labels.ndim == 3 else labels[np.newaxis]
