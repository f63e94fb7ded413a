"""How often a student labels a voxel as its teacher does, on a few planes while it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.config import NetworkConfig, Triple
from napari_unet3d.engine.distillation.data import DistillationData
from napari_unet3d.engine.distillation.scores import class_indices, score_channels
from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.engine.plane_predictor import PlanePredictor, PlaneScores
from napari_unet3d.engine.planes import whole_plane
from napari_unet3d.engine.training_data import PlaneKey

_PLANES: Final = 6
_THINNEST: Final = 16
"""Along an axis with fewer voxels no further planes are looked at across."""


def looked_at(shapes: Sequence[Triple]) -> list[PlaneKey]:
    """About six planes to compare on, spread over the volumes and axes."""
    keys = []
    each = -(-_PLANES // len(shapes))
    for volume, shape in enumerate(shapes[:_PLANES]):
        axes = [axis for axis in range(3) if shape[axis] >= _THINNEST and min(shape) >= _THINNEST] or [0]
        for number in range(each):
            axis = axes[number % len(axes)]
            index = int((number + 0.5) / each * shape[axis])
            keys.append((volume, axis, index))
    return list(dict.fromkeys(keys))


class StudentPlanes(PlanePredictor):
    """Planes of a student, scored on held-out annotation and against the teachers.

    The best student is that with the highest mean IoU on the held-out annotation; where none is held out, with the
    highest mean IoU of the structures as the teachers see them.
    """

    def __init__(
        self, learner: Learner, network: NetworkConfig, data: DistillationData, label_ids: Sequence[int]
    ) -> None:
        super().__init__(learner, network, data, label_ids)
        self._targets = data.targets
        self._keys = looked_at([source.shape for source in data.sources])
        self._taught: dict[PlaneKey, NDArray[np.unsignedinteger]] = {}
        self._head: Head = network.head
        self._channels = score_channels(network)

    def scores(self, is_stopping: Callable[[], bool] = lambda: False) -> PlaneScores:
        """Agreement with all held-out annotation, and with the teachers."""
        found = super().scores(is_stopping)
        ids = self._ids.tolist()
        confusion = np.zeros((len(ids), len(ids) + 1), dtype=np.int64)
        for key in self._keys:
            confusion += confusion_matrix(self.labels(*key), self._teacher_labels(key), ids)
        agreement = float(np.diagonal(confusion).sum() / confusion.sum())
        merit = found.mean_iou
        if np.isnan(merit):
            merit = mean_foreground_iou(class_scores(confusion, ids), ids[0])
        return found._replace(merit=agreement if np.isnan(merit) else merit, agreement=agreement)

    def _teacher_labels(self, key: PlaneKey) -> NDArray[np.unsignedinteger]:
        if key not in self._taught:
            volume, axis, index = key
            box = whole_plane(self._data.sources[volume].shape, axis, index)
            scores = self._targets[volume].read(box)[..., : self._channels]
            self._taught[key] = self._ids[class_indices(scores, self._head).cpu().numpy()].squeeze(axis)
        return self._taught[key]
