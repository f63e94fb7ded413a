"""A U-Net in two or three dimensions (Ronneberger et al. 2015; Çiçek et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.blocks import (
    Block,
    channel_dropout,
    convolution,
    cut,
    pooling,
    upsampling,
)
from napari_unet3d.engine.networks.geometry import axis_geometries
from napari_unet3d.engine.networks.initialization import initialize
from napari_unet3d.engine.networks.outputs import NetworkOutputs


class UNet(nn.Module):
    """Encoder, decoder and head of a configured U-Net.

    ``forward`` takes B C Z Y X (two-dimensional networks: B C Y X) with C = ``config.first_channels`` and a
    legal size (see `engine.describe`), and gives logits B K Z Y X with K = ``config.classes``.

    Parameters
    ----------
    config
        Everything about it; ``auto`` kernels and strides count as isotropic.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        filters = config.filters_per_level
        side_levels = range(1, config.levels - 1) if config.deep_supervision else range(0)
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head = convolution(config, filters[0], config.classes, bias=True)
        self.side_heads = nn.ModuleList(
            convolution(config, filters[level], config.classes, bias=True) for level in side_levels
        )
        initialize(self, config)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.encoder(x)  # level l: B F_l Z/S_l Y/S_l X/S_l, finest first; S_l = product of strides
        decoded = self.decoder(levels)  # the same shapes, without the coarsest level
        logits: Tensor = self.head(decoded[0])  # B K Z Y X
        return logits

    def outputs(self, x: Tensor) -> NetworkOutputs:
        """Logits of every head, finest first, each at the resolution of its level.

        A single element without deep supervision. `Description.output_grids` says which input voxels the
        voxels of each element cover.
        """
        decoded = self.decoder(self.encoder(x))
        heads = [self.head, *self.side_heads]
        return NetworkOutputs([head(level) for head, level in zip(heads, decoded, strict=False)])


class Encoder(nn.Module):
    """The contracting path: B C Z Y X -> what leaves the block of every level, finest first."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        filters = config.filters_per_level
        kernels = config.kernel_per_level
        dropouts = config.encoder_dropout_per_level
        pool_dropout = config.dropout_place == "after_pooling_and_concatenation"
        channels = config.first_channels
        self.stem: nn.Module = nn.Identity()
        if config.extra_block:
            self.stem = Block(config, _encoder_channels(config, channels, 0), kernels[0])
            channels = filters[0]
        self.downs = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for level in range(config.levels):
            if level:
                dropout = channel_dropout(config, dropouts[level - 1] if pool_dropout else 0.0)
                pool = pooling(config, channels, config.stride_per_level[level - 1])
                self.downs.append(nn.Sequential(pool, dropout))
            planned = _encoder_channels(config, channels, level)
            self.blocks.append(Block(config, planned, kernels[level], dropouts[level]))
            channels = filters[level]

    def forward(self, x: Tensor) -> list[Tensor]:
        first, *blocks = self.blocks
        levels: list[Tensor] = [first(self.stem(x))]  # B F_0 Z Y X
        for down, block in zip(self.downs, blocks, strict=True):
            levels.append(block(down(levels[-1])))  # B F_l Z/S_l Y/S_l X/S_l
        return levels


class Decoder(nn.Module):
    """The expanding path: tensors of all levels -> what leaves the block of every level but the coarsest.

    A network of one level has no decoder; its encoder's tensor is handed on.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        filters = config.filters_per_level
        geometry = axis_geometries(config)[3 - config.dimensions :]
        join_dropout = config.dropout_place == "after_pooling_and_concatenation"
        self._up_first = config.concatenation == "up_first"
        self._margins = [tuple(axis.skip_crop(level) for axis in geometry) for level in range(config.levels - 1)]
        self.ups = nn.ModuleList()
        self.dropouts = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for level in range(config.levels - 1):
            z, y, x = (axis.lost_in_upsampling[level] for axis in axis_geometries(config))
            up, channels = upsampling(config, filters[level + 1], level, (z, y, x))
            dropout = config.decoder_dropout_per_level[level]
            planned = [channels + filters[level]] + [filters[level]] * config.convolutions_per_level[level]
            self.ups.append(up)
            self.dropouts.append(channel_dropout(config, dropout if join_dropout else 0.0))
            self.blocks.append(Block(config, planned, config.kernel_per_level[level], dropout))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Empties `levels`, so that a skip is freed once it is used."""
        x = levels.pop()  # B F_last Z/S_last ...
        decoded: list[Tensor] = []
        for level in reversed(range(len(self.blocks))):
            # no names for the parts: each is freed as soon as the next one exists
            x = self._join(levels.pop(), self.ups[level](x), level)  # B F_up+F_l Z/S_l Y/S_l X/S_l
            x = self.dropouts[level](x)
            x = self.blocks[level](x)  # B F_l Z/S_l Y/S_l X/S_l
            decoded.insert(0, x)
        return decoded or [x]

    def _join(self, skip: Tensor, up: Tensor, level: int) -> Tensor:
        skip = cut(skip, self._margins[level])  # B F_l, the size of up
        return torch.cat([up, skip] if self._up_first else [skip, up], dim=1)


def _encoder_channels(config: UNetConfig, channels: int, level: int) -> list[int]:
    """Channels before the first and after every convolution of an encoder block."""
    filters = config.filters_per_level[level]
    inner = max(1, filters // 2) if config.double_before_pooling else filters
    return [channels] + [inner] * (config.convolutions_per_level[level] - 1) + [filters]
