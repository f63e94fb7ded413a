"""The layers of a U-Net, from its configuration alone. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from napari_unet3d.engine.config import Triple, UNetConfig

Kind: TypeAlias = Literal[
    "features",
    "convolution",
    "branch",
    "projection",
    "max pooling",
    "average pooling",
    "strided convolution",
    "nearest up-sampling",
    "linear up-sampling",
    "transposed convolution",
    "head",
    "side head",
    "classifier",
]

DOWN: Final[tuple[Kind, ...]] = ("max pooling", "average pooling", "strided convolution")
"""Layers that lead to the next coarser level."""

UP: Final[tuple[Kind, ...]] = ("nearest up-sampling", "linear up-sampling", "transposed convolution")
"""Layers that lead to the next finer level."""

_POINT: Final = (1, 1, 1)


@dataclass(frozen=True)
class Layer:
    """One layer with the normalisation that follows it.

    `name` is its path in the body of the built network, `level` the resolution level of its output (0 is
    the finest), `parameters` counts trainable values, `running_statistics` the values that batch
    normalisation gathers.
    """

    name: str
    level: int
    kind: Kind
    in_channels: int
    out_channels: int
    kernel: Triple = _POINT
    stride: Triple = _POINT
    parameters: int = 0
    running_statistics: int = 0
    normalized: bool = False


def unet_layers(config: UNetConfig) -> Iterator[Layer]:
    """Layers of the network that `build_network` would build, in the order of the computation."""
    filters = config.filters_per_level
    yield from encoder_layers(config)
    channels = filters[-1]
    for level in reversed(range(config.levels - 1)):
        up = _upsampling(config, f"decoder.ups.{level}", level, channels)
        yield up
        joined = up.out_channels + filters[level]
        yield from _block(config, f"decoder.blocks.{level}", level, joined, encoder=False)
        channels = filters[level]
        if level and config.deep_supervision:
            yield head_layer(f"side_heads.{level - 1}", level, "side head", channels, config.classes)
    yield head_layer("head", 0, "head", filters[0], config.classes)


def encoder_layers(config: UNetConfig) -> Iterator[Layer]:
    """Fixed features and the contracting path."""
    filters = config.filters_per_level
    channels = config.first_channels
    if config.features != "none":
        yield Layer("features", 0, "features", config.in_channels, config.body_channels)
    if config.extra_block:
        yield from _block(config, "encoder.stem", 0, channels, encoder=True)
        channels = filters[0]
    for level in range(config.levels):
        if level:
            stride = config.stride_per_level[level - 1]
            yield _pooling(config, f"encoder.downs.{level - 1}", level, channels, stride)
        yield from _block(config, f"encoder.blocks.{level}", level, channels, encoder=True)
        channels = filters[level]


def _block(config: UNetConfig, name: str, level: int, channels: int, *, encoder: bool) -> Iterator[Layer]:
    filters, kernel = config.filters_per_level[level], config.kernel_per_level[level]
    last = config.convolutions_per_level[level] - 1
    halved = max(1, filters // 2) if encoder and config.double_before_pooling else filters
    entering = channels
    for index in range(last + 1):
        after = filters if index == last else halved
        yield convolution_layer(config, f"{name}.units.{index}", level, "convolution", channels, after, kernel)
        channels = after
    if config.residual and entering != filters:
        parameters = entering * filters + filters * config.bias
        yield Layer(f"{name}.projection", level, "projection", entering, filters, parameters=parameters)


def convolution_layer(
    config: UNetConfig, name: str, level: int, kind: Kind, before: int, after: int, kernel: Triple
) -> Layer:
    """A convolution with its bias and the normalisation that follows it."""
    stride = kernel if kind == "transposed convolution" else _POINT
    bias = config.up_bias if kind == "transposed convolution" else config.bias
    normalized = config.norm != "none" and (kind != "transposed convolution" or config.up_norm_activation)
    return Layer(
        name,
        level,
        kind,
        before,
        after,
        kernel,
        stride,
        parameters=before * after * math.prod(kernel) + after * bias + 2 * after * normalized,
        running_statistics=2 * after if normalized and config.has_batch_statistics else 0,
        normalized=normalized,
    )


def _pooling(config: UNetConfig, name: str, level: int, channels: int, stride: Triple) -> Layer:
    if config.pooling == "convolution":
        parameters = channels * channels * math.prod(stride) + channels * config.bias
        return Layer(name, level, "strided convolution", channels, channels, stride, stride, parameters)
    kind: Kind = "max pooling" if config.pooling == "max" else "average pooling"
    return Layer(name, level, kind, channels, channels, stride, stride)


def _upsampling(config: UNetConfig, name: str, level: int, channels: int) -> Layer:
    stride = config.stride_per_level[level]
    if config.upsampling == "transposed":
        after = config.filters_per_level[level] if config.up_channels == "level" else channels
        return convolution_layer(config, name, level, "transposed convolution", channels, after, stride)
    kind: Kind = "nearest up-sampling" if config.upsampling == "nearest" else "linear up-sampling"
    return Layer(name, level, kind, channels, channels, stride=stride)


def head_layer(name: str, level: int, kind: Kind, before: int, after: int, kernel: Triple = _POINT) -> Layer:
    """A convolution with a bias and nothing behind it."""
    return Layer(name, level, kind, before, after, kernel, parameters=(before * math.prod(kernel) + 1) * after)
