"""Batch normalisation as the 3D U-Net paper predicts with it: by the statistics of the batch at hand.

Çiçek et al. 2016 (section 2) train with one tile in a batch, and find that the current statistics work better for
prediction than the gathered ones. Running statistics are gathered all the same, so that a model can be used
either way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TileBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of B C Y X by the statistics of the input, in training and in evaluation alike."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else _normalized(self, x)


class TileBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation of B C Z Y X by the statistics of the input, in training and in evaluation alike."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else _normalized(self, x)


def _normalized(layer: nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor) -> Tensor:
    # not F.batch_norm, which refuses a single value for each channel; such a value becomes the bias
    fast = torch.backends.cudnn.enabled
    return torch.batch_norm(x, layer.weight, layer.bias, None, None, True, 0.0, layer.eps, fast)
