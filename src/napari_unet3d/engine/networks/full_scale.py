"""Layers and reach of a UNet3+, from its configuration alone. Needs no torch.

Every node of the decoder joins all levels at its own resolution; here node 1 of four levels::

    encoder 0 ── max pooling 2 ────── conv ┐
    encoder 1 ─────────────────────── conv ├─ concatenation ── conv ── decoder 1
    decoder 2 ── interpolation 2 ──── conv │
    encoder 3 ── interpolation 4 ──── conv ┘  (the bottleneck stands for its decoder)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from napari_unet3d.engine.config import Triple, UNet3PlusConfig
from napari_unet3d.engine.networks.geometry import AxisGeometry
from napari_unet3d.engine.networks.layers import Layer, convolution_layer, encoder_layers, head_layer

# --- layers -----------------------------------------------------------------------------------------------


def joined_channels(config: UNet3PlusConfig, node: int) -> tuple[int, ...]:
    """Channels of all levels as they enter a node of the decoder, finest level first."""
    encoder, last = config.filters_per_level, config.levels - 1
    return tuple(
        encoder[level] if level <= node or level == last else config.decoder_filters for level in range(config.levels)
    )


def stride_between(config: UNet3PlusConfig, finer: int, coarser: int) -> Triple:
    """Z Y X voxels of a level to one voxel of a coarser one."""
    steps = config.stride_per_level[finer:coarser]
    z, y, x = (math.prod(step[axis] for step in steps) for axis in range(3))
    return (z, y, x)


def unet3plus_layers(config: UNet3PlusConfig) -> Iterator[Layer]:
    """Layers of the network that `build_network` would build, in the order of the computation."""
    unet, last = config.unet, config.levels - 1
    yield from encoder_layers(unet)
    if config.guidance:
        bottleneck, channels = config.filters_per_level[-1], max(2, config.classes)
        yield head_layer("guidance.classifier", last, "classifier", bottleneck, channels)
    for node in reversed(range(last)):
        kernel = config.kernel_per_level[node]
        for level, channels in enumerate(joined_channels(config, node)):
            if level != node:
                yield _resampling(config, node, level, channels)
            name = f"decoder.nodes.{node}.branches.{level}"
            yield convolution_layer(unet, name, node, "branch", channels, config.filters_per_branch, kernel)
        width = config.decoder_filters
        yield convolution_layer(unet, f"decoder.nodes.{node}.fusion", node, "convolution", width, width, kernel)
    if config.deep_supervision:
        for level in range(1, config.levels):
            channels = config.filters_per_level[-1] if level == last else config.decoder_filters
            kernel = config.kernel_per_level[level]
            yield head_layer(f"side_heads.{level - 1}", level, "side head", channels, config.classes, kernel)
    yield head_layer("head", 0, "head", config.decoder_filters, config.classes, config.kernel_per_level[0])


def _resampling(config: UNet3PlusConfig, node: int, level: int, channels: int) -> Layer:
    finer, coarser = sorted((node, level))
    return Layer(
        f"decoder.nodes.{node}.resamplings.{level}",
        node,
        "max pooling" if level < node else "linear up-sampling",
        channels,
        channels,
        stride=stride_between(config, finer, coarser),
    )


# --- reach ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullScaleGeometry(AxisGeometry):
    """A UNet3+ along one axis: padded, interpolating, its decoder radii being those of single convolutions."""

    def _sources(self, level: int, low: int, high: int) -> tuple[int, int]:
        """First and last voxel of the input that decide voxels `low` to `high` of the output (level 0)."""
        last = len(self.strides)
        decoder, encoder = _Reaches(), _Reaches()
        head = self.decoder_radii[level]
        decoder.widen(level, low - head, high + head)
        for node, radius in enumerate(self.decoder_radii):
            first, end = decoder[node]
            first, end = first - 2 * radius, end + 2 * radius  # fusion and branch
            for finer in range(node + 1):
                stride = math.prod(self.strides[finer:node])
                encoder.widen(finer, first * stride, end * stride + stride - 1)
            for coarser in range(node + 1, last + 1):
                reach = self._before_upsampling(math.prod(self.strides[node:coarser]), first, end)
                (encoder if coarser == last else decoder).widen(coarser, *reach)
        for deeper in range(last, 0, -1):
            first, end = encoder[deeper]
            radius, stride = self.encoder_radii[deeper], self.strides[deeper - 1]
            encoder.widen(deeper - 1, (first - radius) * stride, (end + radius) * stride + stride - 1)
        first, end = encoder[0]
        return first - self.encoder_radii[0], end + self.encoder_radii[0]


class _Reaches(dict[int, tuple[int, int]]):
    """For each level the voxels, first to last, that are needed of it."""

    def widen(self, level: int, low: int, high: int) -> None:
        first, last = self.get(level, (low, high))
        self[level] = (min(first, low), max(last, high))


def full_scale_geometries(
    config: UNet3PlusConfig, feature_radius: tuple[int, int, int] = (0, 0, 0)
) -> tuple[FullScaleGeometry, FullScaleGeometry, FullScaleGeometry]:
    """Geometry of a UNet3+ along Z, Y and X; in two dimensions across the planes, along rows and along columns."""

    def along(axis: int) -> FullScaleGeometry:
        radii = [kernel[axis] // 2 for kernel in config.kernel_per_level]
        counts = config.convolutions_per_level
        stem = config.neighbours if axis == 0 else 0
        blocks = [count * radius for count, radius in zip(counts, radii, strict=True)]
        return FullScaleGeometry(
            strides=tuple(stride[axis] for stride in config.stride_per_level),
            encoder_radii=(stem + blocks[0], *blocks[1:]),
            decoder_radii=tuple(radii[:-1]),
            linear=True,
            feature_radius=feature_radius[axis],
        )

    return along(0), along(1), along(2)
