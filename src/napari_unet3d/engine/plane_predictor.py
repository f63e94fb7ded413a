"""Single planes as the network in training would label them: for previews and for validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet3d.engine.config import NetworkConfig
from napari_unet3d.engine.heads import class_logits
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.engine.planes import predict_plane
from napari_unet3d.engine.progress import ClassScore
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.training_data import TrainingData


class ValidationStopped(Exception):
    """The owner asked for an end before all held-out planes were looked at."""


class PlaneScores(NamedTuple):
    """What a validation found."""

    scores: tuple[ClassScore, ...]
    """Agreement with the held-out annotation, of each class."""
    mean_iou: float
    """Mean IoU of the structures; NaN where none is held out."""
    merit: float
    """What the best model is chosen by."""
    agreement: float | None = None
    """Share of voxels labelled as by a teacher; None without one."""


class PlanePredictor:
    """Labels planes with the averaged weights of a learner.

    Parameters
    ----------
    learner
        Asked anew for each plane.
    network
        Its configuration.
    data
        The volumes, and what is held out of them.
    label_ids
        Label id of each class.
    """

    def __init__(self, learner: Learner, network: NetworkConfig, data: TrainingData, label_ids: Sequence[int]) -> None:
        self._learner = learner
        self._footprint = Footprint.of(network)
        self._head = network.head
        self._data = data
        self._ids = np.asarray(label_ids, dtype=np.uint8 if max(label_ids) < 256 else np.uint16)

    def labels(self, volume: int, axis: int, index: int) -> NDArray[np.unsignedinteger]:
        """Label ids of a plane, of its shape; axis 0 is Z."""
        with torch.inference_mode():
            source = self._data.sources[volume]
            logits = predict_plane(self._learner.logits, source, self._footprint, axis, index)  # K rows columns
        found: NDArray[np.unsignedinteger] = self._ids[class_logits(logits, self._head).argmax(0).numpy()]
        return found

    def scores(self, is_stopping: Callable[[], bool] = lambda: False) -> PlaneScores:
        """Agreement with all held-out annotation; the best model is that with the highest mean IoU.

        Parameters
        ----------
        is_stopping
            Asked before each plane.

        Raises
        ------
        ValidationStopped
            If `is_stopping` says so.
        """
        ids = self._ids.tolist()
        confusion = np.zeros((len(ids), len(ids) + 1), dtype=np.int64)
        for volume, axis, index, truth in self._data.held_out_planes():
            if is_stopping():
                raise ValidationStopped
            confusion += confusion_matrix(self.labels(volume, axis, index), truth, ids)
        scores = class_scores(confusion, ids)
        mean = mean_foreground_iou(scores, ids[0])
        return PlaneScores(scores, mean, merit=mean)
