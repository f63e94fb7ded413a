"""UNet3+ in two or three dimensions (Huang et al. 2020, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet3d.engine.config import Triple, UNet3PlusConfig
from napari_unet3d.engine.networks.blocks import (
    ConvUnit,
    activation,
    convolution,
    normalization,
    pooling,
    upsampling_by,
)
from napari_unet3d.engine.networks.full_scale import joined_channels, stride_between
from napari_unet3d.engine.networks.guidance import Guidance, guided
from napari_unet3d.engine.networks.initialization import initialize
from napari_unet3d.engine.networks.outputs import NetworkOutputs
from napari_unet3d.engine.networks.unet import Encoder


class UNet3Plus(nn.Module):
    """Encoder, full-scale decoder and heads of a configured UNet3+.

    ``forward`` takes B C Z Y X (two-dimensional networks: B C Y X) with C = ``config.first_channels`` and sizes
    that are multiples of the total stride, and gives logits B K Z Y X with K = ``config.classes``.

    Parameters
    ----------
    config
        Everything about it; ``auto`` kernels and strides count as isotropic.
    """

    def __init__(self, config: UNet3PlusConfig) -> None:
        super().__init__()
        kernels, width, classes = config.kernel_per_level, config.decoder_filters, config.classes
        self.config = config
        self.encoder = Encoder(config.unet)
        self.guidance = Guidance(config) if config.guidance else None
        self.decoder = FullScaleDecoder(config)
        self.head = convolution(config.unet, width, classes, kernels[0], bias=True)
        entering = [*[width] * (config.levels - 2), config.filters_per_level[-1]] if config.deep_supervision else []
        self.side_heads = nn.ModuleList(
            convolution(config.unet, channels, classes, kernel, bias=True)
            for channels, kernel in zip(entering, kernels[1:], strict=False)
        )
        initialize(self, config.unet)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.encoder(x)  # level l: B F_l Z/S_l Y/S_l X/S_l, finest first; S_l = product of strides
        presence = self._presence(levels[-1])
        logits: Tensor = self.head(self.decoder(levels)[0])  # B K Z Y X
        return self._guided(logits, presence)

    def outputs(self, x: Tensor) -> NetworkOutputs:
        """Logits of every head, finest first, all interpolated to the size of the image, and the presence.

        A single element of logits without deep supervision; with it one for every level, the bottleneck last.
        """
        levels = self.encoder(x)
        presence = self._presence(levels[-1])
        finest, *coarser = self.decoder(levels)  # finest: B L*F Z Y X
        logits = [self.head(finest)]
        logits += [
            _interpolated(head(level), x.shape[2:]) for head, level in zip(self.side_heads, coarser, strict=False)
        ]
        return NetworkOutputs([self._guided(output, presence) for output in logits], presence)

    def _presence(self, bottleneck: Tensor) -> Tensor | None:
        return None if self.guidance is None else self.guidance(bottleneck)  # B max(2, K) Z/S_last ...

    def _guided(self, logits: Tensor, presence: Tensor | None) -> Tensor:
        if presence is None:
            return logits
        is_sigmoid = self.config.classes == 1 or self.config.head == "sigmoid"
        return guided(logits, presence, is_sigmoid=is_sigmoid)


class FullScaleDecoder(nn.Module):
    """Tensors that leave the encoder -> those that leave the decoder, and the bottleneck; finest first."""

    def __init__(self, config: UNet3PlusConfig) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(Node(config, level) for level in range(config.levels - 1))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Empties `levels`, so that a skip is freed once no finer node needs it."""
        decoded = [levels.pop()]  # B F_last Z/S_last ...
        for node in reversed(self.nodes):
            joined = node([*levels, *decoded])  # B L*F Z/S_l Y/S_l X/S_l
            levels.pop()
            decoded.insert(0, joined)
        return decoded


class Node(nn.Module):
    """One level of the decoder: all levels brought to its size and joined."""

    def __init__(self, config: UNet3PlusConfig, node: int) -> None:
        super().__init__()
        kernel, branch = config.kernel_per_level[node], config.filters_per_branch
        entering = joined_channels(config, node)
        self.resamplings = nn.ModuleList(_resampling(config, node, level) for level in range(config.levels))
        self.branches = nn.ModuleList(_unit(config, channels, branch, kernel) for channels in entering)
        self.fusion = _unit(config, config.decoder_filters, config.decoder_filters, kernel)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        parts = zip(levels, self.resamplings, self.branches, strict=True)
        # no name for the list: its parts are freed as soon as they are joined
        joined = torch.cat([branch(resample(level)) for level, resample, branch in parts], dim=1)
        result: Tensor = self.fusion(joined)  # B L*F Z/S_l Y/S_l X/S_l
        return result


def _unit(config: UNet3PlusConfig, before: int, after: int, kernel: Triple) -> ConvUnit:
    unet = config.unet
    return ConvUnit(convolution(unet, before, after, kernel), normalization(unet, after), activation(unet))


def _resampling(config: UNet3PlusConfig, node: int, level: int) -> nn.Module:
    """What brings a level to the size of a node of the decoder."""
    finer, coarser = sorted((node, level))
    stride = stride_between(config, finer, coarser)
    if level == node:
        return nn.Identity()
    if level < node:
        return pooling(config.unet, config.filters_per_level[level], stride)
    return upsampling_by(config.unet, stride)


def _interpolated(logits: Tensor, size: Sequence[int]) -> Tensor:
    mode = "trilinear" if logits.ndim == 5 else "bilinear"
    return F.interpolate(logits, list(size), mode=mode)
