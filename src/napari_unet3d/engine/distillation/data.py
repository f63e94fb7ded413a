"""What a distiller draws batches from: patches around annotation and anywhere, with what the teachers say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_unet3d.engine.augment.resample import sample
from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.distillation.patches import AnywherePatches, full_patch_size
from napari_unet3d.engine.distillation.soft_targets import SoftTarget
from napari_unet3d.engine.training_data import Batch, Placed, TrainingData, patches_with_random_numbers, stacked


class DistillationData(TrainingData):
    """Training data with soft targets.

    The student sees patches with changed grey values, the teachers saw the image as it is; flips and deformations move
    both alike.

    Parameters
    ----------
    *parts
        As of `TrainingData`.
    targets
        What the teachers say about each volume.
    labelled_share
        Share of the batches drawn around annotation.
    config
        The training.
    """

    def __init__(self, *parts: Any, targets: Sequence[SoftTarget], labelled_share: float, config: TrainConfig) -> None:
        super().__init__(*parts)
        self.targets = targets
        self._labelled_share = labelled_share
        sampler, network = self._sampler, describe(self._network)
        shapes = [source.shape for source in self.sources]
        extent = [max(shape[axis] for shape in shapes) for axis in range(3)]
        size = full_patch_size(network, config, sampler.shapes, self._voxels[0].relative, extent)
        self._anywhere = AnywherePatches(shapes, size, network.margin)

    def batch(self, rng: np.random.Generator, size: int, share: slice = slice(None)) -> Batch:
        """Draw patches of one shape, all around annotation or all anywhere; `share` as of `TrainingData.batch`."""
        is_labelled = rng.random() < self._labelled_share and bool(self._sampler.shares)
        patches = (self._sampler if is_labelled else self._anywhere).draw_batch(rng, size)
        own = patches_with_random_numbers(patches, rng)[share]
        placed = [self._place(patch, numbers) for patch, numbers in own]
        drawn = [self._patch(place, numbers) for place, (_, numbers) in zip(placed, own, strict=True)]
        inputs, labels = zip(*drawn, strict=True)
        soft = torch.stack([self._scores(place) for place in placed])
        return Batch(stacked(inputs), self._table[torch.stack(labels).long()], soft)

    def _scores(self, placed: Placed) -> Tensor:
        """C Z Y X scores of a patch."""
        volume, box, inside, warp = placed
        scores, _ = sample(self.targets[volume].read(box), self._labels_in(volume, box), inside, warp)
        return scores

    @property
    def has_annotation(self) -> bool:
        """Whether there is a voxel to learn on: always, for the teachers know them all."""
        return True

    @property
    def has_validation(self) -> bool:
        """Whether anything can be measured: always, for agreement needs no annotation."""
        return True
