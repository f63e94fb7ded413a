"""How much memory the tensors of a network take, layer by layer. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_unet3d.engine.config import NetworkConfig, Triple, UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.networks.layers import DOWN, UP, Layer

_INDEX_BYTES = 8


def kept_for_gradient(
    config: NetworkConfig, layers: Sequence[Layer], sizes: Sequence[Triple], bytes_per_value: int
) -> int:
    """Bytes of the tensors that a step of training keeps for one image.

    Parameters
    ----------
    config
        Of the network.
    layers, sizes
        Its layers, and the Z Y X voxels that leave each.
    bytes_per_value
        4 in float32, 2 in bfloat16.
    """
    keeps_input = config.activation in ("gelu", "silu", "mish")
    full_scale = isinstance(config, UNet3PlusConfig)
    total = 0
    for layer, size in zip(layers, sizes, strict=True):
        voxels = math.prod(size)
        values = voxels * layer.out_channels * bytes_per_value
        if layer.kind in ("convolution", "branch"):
            joined = layer.kind == "branch"  # once more in the concatenation
            total += values * (1 + layer.normalized + keeps_input + joined)
        elif layer.kind == "max pooling":
            total += values + voxels * layer.out_channels * _INDEX_BYTES
        elif layer.kind in ("average pooling", "strided convolution", "head", "side head"):
            total += values
        elif layer.kind in UP:
            skip = 0 if full_scale else config.filters_per_level[layer.level]
            total += values * 2 * layer.normalized
            total += voxels * (layer.out_channels + skip) * bytes_per_value  # what is joined, or convolved next
    return total


def alive_at_once(config: NetworkConfig, layers: Sequence[Layer], sizes: Sequence[Triple]) -> int:
    """Most values that are alive at the same time when predicting one image, its own left out."""
    if isinstance(config, UNet3PlusConfig):
        return _alive_at_full_scale(config, layers, sizes)
    return _alive_in_unet(config, layers, sizes)


def _alive_in_unet(config: UNetConfig, layers: Sequence[Layer], sizes: Sequence[Triple]) -> int:
    filters = config.filters_per_level
    encoder = _encoder_values(config, layers, sizes)
    skips = most = entering = before = 0  # values: waiting skips, the block's input, the layer's input
    for layer, size in zip(layers, sizes, strict=True):
        values = math.prod(size) * layer.out_channels
        if layer.kind == "convolution":
            inputs = entering if before == entering else entering + before
            most = max(most, skips + inputs + values * (1 + layer.normalized + config.residual))
        elif layer.kind in DOWN:
            skips += encoder[layer.level - 1]
            most = max(most, skips + values)
            entering = values
        elif layer.kind in UP:
            joined = values + math.prod(size) * filters[layer.level]
            most = max(most, skips + before + values * (1 + layer.normalized), skips + values + joined)
            skips -= encoder[layer.level]
            entering = values = joined
        before = values
    return most


def _alive_at_full_scale(config: UNet3PlusConfig, layers: Sequence[Layer], sizes: Sequence[Triple]) -> int:
    last = config.levels - 1
    encoder = _encoder_values(config, layers, sizes)
    of_encoder = sum(layer.name.startswith(("features", "encoder.")) for layer in layers)
    most = _alive_in_unet(config.unet, layers[:of_encoder], sizes[:of_encoder])
    levels = sum(encoder)  # what nodes still to come join
    joined = resampled = 0
    for layer, size in zip(layers[of_encoder:], sizes[of_encoder:], strict=True):
        values = math.prod(size) * layer.out_channels
        if layer.kind in ("max pooling", "linear up-sampling"):
            resampled = values
            most = max(most, levels + joined + values)
        elif layer.kind == "branch":
            most = max(most, levels + joined + resampled + values * (1 + layer.normalized))
            joined, resampled = joined + values, 0
        elif layer.kind == "convolution":  # of the concatenation
            most = max(most, levels + 2 * joined, levels + joined + values * (1 + layer.normalized))
            levels += values - (encoder[layer.level] if layer.level < last else 0)
            joined = 0
    return most


def _encoder_values(config: NetworkConfig, layers: Sequence[Layer], sizes: Sequence[Triple]) -> list[int]:
    """Values that leave the encoder block of every level: those of its last convolution."""
    values = [0] * config.levels
    for layer, size in zip(layers, sizes, strict=True):
        if layer.kind == "convolution" and layer.name.startswith("encoder."):
            values[layer.level] = math.prod(size) * layer.out_channels
    return values
