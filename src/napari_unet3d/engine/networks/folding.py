"""Batch normalisation folded into the convolutions in front of it: the same predictions with fewer passes."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

from napari_unet3d.engine.networks.blocks import ConvUnit
from napari_unet3d.engine.networks.tile_statistics import TileBatchNorm2d, TileBatchNorm3d


def fold_normalization(network: nn.Module) -> None:
    """Make every normalisation by running statistics a part of its convolution, in place.

    The network then gives the same in evaluation mode, within rounding, and can no longer be trained. Normalisation
    that looks at its input (instance, group, statistics of the tile) stays.
    """
    for unit in network.modules():
        if not isinstance(unit, ConvUnit):
            continue
        conv, norm = unit.conv, unit.norm
        if not isinstance(conv, _ConvNd) or not isinstance(norm, _BatchNorm):
            continue
        if isinstance(norm, TileBatchNorm2d | TileBatchNorm3d):
            continue
        assert norm.running_mean is not None  # as they always are here
        assert norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
            transpose=isinstance(conv, _ConvTransposeNd),
        )
        unit.norm = nn.Identity().train(unit.training)
