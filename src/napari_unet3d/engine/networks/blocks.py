"""The parts a U-Net is put together from, in two and three dimensions.

Tensors are B C Z Y X (in two dimensions B C Y X). Kernels, strides and margins are always given as Z Y X
triples; a two-dimensional part leaves the Z entry out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet3d.engine.config import Triple, UNetConfig
from napari_unet3d.engine.networks.mended import Conv3d, GroupNorm, MaxPool
from napari_unet3d.engine.networks.renormalization import BatchRenorm2d, BatchRenorm3d
from napari_unet3d.engine.networks.tile_statistics import TileBatchNorm2d, TileBatchNorm3d

POINT: Triple = (1, 1, 1)
"""Kernel that sees a single voxel."""


def convolution(
    config: UNetConfig,
    in_channels: int,
    out_channels: int,
    kernel: Triple = POINT,
    stride: Triple = POINT,
    *,
    bias: bool | None = None,
) -> nn.Module:
    """A convolution, padded as the configuration says where it does not stride."""
    padded = config.padding == "same" and stride == POINT
    conv = Conv3d if config.dimensions == 3 else nn.Conv2d
    return conv(
        in_channels,
        out_channels,
        _spatial(kernel, config),
        _spatial(stride, config),
        _spatial([size // 2 if padded else 0 for size in kernel], config),
        bias=config.bias if bias is None else bias,
    )


def normalization(config: UNetConfig, channels: int) -> nn.Module:
    """The configured normalisation of `channels` channels."""
    if config.norm == "none":
        return nn.Identity()
    if config.norm == "batch":
        settings = (channels, config.norm_epsilon, config.norm_momentum)
        if config.norm_statistics == "batch":
            return TileBatchNorm3d(*settings) if config.dimensions == 3 else TileBatchNorm2d(*settings)
        return nn.BatchNorm3d(*settings) if config.dimensions == 3 else nn.BatchNorm2d(*settings)
    if config.norm == "batch_renorm":
        settings = (channels, config.norm_epsilon, config.norm_momentum)
        return BatchRenorm3d(*settings) if config.dimensions == 3 else BatchRenorm2d(*settings)
    groups = channels if config.norm == "instance" else fitting_groups(config.norm_groups, channels)
    return GroupNorm(groups, channels, config.norm_epsilon)


def activation(config: UNetConfig) -> nn.Module:
    """The configured non-linearity, in place where its gradient needs the result only."""
    match config.activation:
        case "relu":
            return nn.ReLU(inplace=True)
        case "leaky_relu":
            return nn.LeakyReLU(config.negative_slope, inplace=True)
        case "elu":
            return nn.ELU(inplace=True)
        case "gelu":
            return nn.GELU()
        case "silu":
            return nn.SiLU()
        case "mish":
            return nn.Mish()
        case "tanh":
            return nn.Tanh()


def channel_dropout(config: UNetConfig, share: float) -> nn.Module:
    """Dropout of whole channels: neighbours are too alike for dropping single voxels to teach anything."""
    if share == 0:
        return nn.Identity()
    return nn.Dropout3d(share) if config.dimensions == 3 else nn.Dropout2d(share)


def pooling(config: UNetConfig, channels: int, stride: Triple) -> nn.Module:
    """What brings a level to the next: B C Z Y X -> B C Z/sz Y/sy X/sx."""
    match config.pooling:
        case "max":
            return MaxPool(_spatial(stride, config))
        case "average":
            average = nn.AvgPool3d if config.dimensions == 3 else nn.AvgPool2d
            return average(_spatial(stride, config))
        case "convolution":
            return convolution(config, channels, channels, kernel=stride, stride=stride)


def upsampling(config: UNetConfig, in_channels: int, level: int, lost: Sequence[int]) -> tuple[nn.Module, int]:
    """What brings the decoder to `level`, and the channels it gives: B C Z Y X -> B C' Z*sz Y*sy X*sx.

    `lost` voxels are cut from each side afterwards, where interpolation had one neighbour only.
    """
    stride = config.stride_per_level[level]
    if config.upsampling != "transposed":
        return upsampling_by(config, stride, lost), in_channels
    channels = config.filters_per_level[level] if config.up_channels == "level" else in_channels
    conv = nn.ConvTranspose3d if config.dimensions == 3 else nn.ConvTranspose2d
    factors = _spatial(stride, config)
    transposed = conv(in_channels, channels, factors, factors, bias=config.up_bias)
    if not config.up_norm_activation:
        return transposed, channels
    return ConvUnit(transposed, normalization(config, channels), activation(config)), channels


def upsampling_by(config: UNetConfig, stride: Triple, lost: Sequence[int] = (0, 0, 0)) -> Upsample:
    """Repetition or interpolation, as configured: B C Z Y X -> B C Z*sz Y*sy X*sx, less `lost` at each side."""
    mode: Literal["nearest", "linear"] = "nearest" if config.upsampling == "nearest" else "linear"
    return Upsample(_spatial(stride, config), mode, _spatial(lost, config))


def fitting_groups(groups: int, channels: int) -> int:
    """The largest number of groups, at most `groups`, that divides `channels`."""
    return next(count for count in range(min(groups, channels), 0, -1) if channels % count == 0)


def cut(x: Tensor, margin: Sequence[int]) -> Tensor:
    """`x` without `margin` voxels at both ends of each spatial axis; a view."""
    for axis, voxels in enumerate(margin, start=2):
        if voxels:
            x = x.narrow(axis, voxels, x.shape[axis] - 2 * voxels)
    return x


def _spatial(triple: Sequence[int], config: UNetConfig) -> Any:
    """The part of a Z Y X triple that counts; typed loosely, as PyTorch asks for a known length."""
    return tuple(triple) if config.dimensions == 3 else tuple(triple[1:])


class ConvUnit(nn.Module):
    """Convolution, normalisation, non-linearity; a shortcut is added in front of the non-linearity."""

    def __init__(self, conv: nn.Module, norm: nn.Module, nonlinearity: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.activation = nonlinearity

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        y: Tensor = self.norm(self.conv(x))  # B C_out Z Y X
        if shortcut is not None:
            y = y + shortcut
        result: Tensor = self.activation(y)
        return result


class Block(nn.Module):
    """Convolutions at one resolution: B C_in Z Y X -> B C_out Z Y X, or smaller if they are valid.

    Parameters
    ----------
    config
        Kind of convolution, normalisation, non-linearity, shortcut.
    channels
        Channels before the first and after every convolution.
    kernel
        Z Y X size of all convolutions.
    dropout
        Share of channels dropped, where `config.dropout_place` lies inside a block.
    """

    def __init__(self, config: UNetConfig, channels: Sequence[int], kernel: Triple, dropout: float = 0.0) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            ConvUnit(convolution(config, before, after, kernel), normalization(config, after), activation(config))
            for before, after in pairwise(channels)
        )
        place = config.dropout_place
        self.between = channel_dropout(config, dropout if place == "between_convolutions" else 0.0)
        self.after = channel_dropout(config, dropout if place == "after_block" else 0.0)
        self.projection: nn.Module | None = None
        if config.residual:
            same = channels[0] == channels[-1]
            self.projection = nn.Identity() if same else convolution(config, channels[0], channels[-1])
        lost = len(self.units) if config.padding == "valid" else 0
        self._margin = tuple(lost * (size // 2) for size in _spatial(kernel, config))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = None if self.projection is None else self.projection(cut(x, self._margin))  # B C_out Z Y X
        *first, last = self.units
        for unit in first:
            x = self.between(unit(x))  # B C_i Z Y X
        result: Tensor = self.after(last(x, shortcut))  # B C_out Z Y X
        return result


class Upsample(nn.Module):
    """Voxels repeated or interpolated linearly between their centres (``align_corners=False``).

    Of the exact ways to repeat voxels, `interpolate` is the fastest in both directions, in float32 and
    bfloat16 and in both memory layouts; the alternatives (expand and reshape, repeat_interleave) lose their
    time in the gradient.
    """

    def __init__(self, factors: Sequence[int], mode: Literal["nearest", "linear"], lost: Sequence[int]) -> None:
        super().__init__()
        self._factors = [float(factor) for factor in factors]
        self._lost = tuple(lost)
        linear = "trilinear" if len(factors) == 3 else "bilinear"
        self._mode = linear if mode == "linear" else "nearest"

    def forward(self, x: Tensor) -> Tensor:
        return cut(F.interpolate(x, scale_factor=self._factors, mode=self._mode), self._lost)
