"""A model as one graph: from grey values to logits, normalisation and fixed features included.

Shapes: B C Z Y X; B C Y X for networks that see every plane by itself (`is_planar`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d.engine.config import NetworkConfig, Triple
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.normalize import Normalization
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.trained_model import TrainedModel

INPUT: Final = "grey"
OUTPUT: Final = "logits"
_FLOAT32: Final = np.finfo(np.float32)


def is_planar(network: NetworkConfig) -> bool:
    """Whether planes across Z go through a network one by one, so that its graph need not know of volumes."""
    return network.dimensions == 2 and network.neighbours == 0 and network.plane_axis == "z"


def space_axes(network: NetworkConfig) -> range:
    """Spatial axes (0 = Z) of what its graph takes."""
    return range(1 if is_planar(network) else 0, 3)


class GreyNetwork(nn.Module):
    """Normalisation and network in one.

    ``forward``: float32 grey values B C Z Y X (B C Y X) of a legal size -> logits B K Z' Y' X' (B K Y' X').
    NaN and infinite grey values count as the channel's fill value. What the logits mean is told in `engine.heads`.

    Parameters
    ----------
    model
        Its network is used as it is, not copied.
    """

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.network = model.network
        self.offset: Tensor
        self.factor: Tensor
        self.low: Tensor
        self.high: Tensor
        self.fill: Tensor
        ones = (1,) * len(space_axes(model.recipe.network))
        for name in ("offset", "factor", "low", "high", "fill"):
            values = [getattr(channel, name) for channel in model.normalization.channels]
            limited = np.clip(values, _FLOAT32.min, _FLOAT32.max).astype(np.float32)
            self.register_buffer(name, torch.from_numpy(limited).reshape(-1, *ones))

    def forward(self, grey: Tensor) -> Tensor:
        known = torch.where(torch.isfinite(grey), grey, self.fill)
        limited = torch.minimum(torch.maximum(known, self.low), self.high)
        logits: Tensor = self.network((limited - self.offset) * self.factor)
        return logits


class GreyValues:
    """In place of a normalisation, for networks that bring their own: float32 grey values as they are."""

    def apply(self, values: NDArray[Any], /) -> NDArray[np.float32]:
        """C Z Y X values of any real dtype as float32; what float32 cannot hold becomes its limit, NaN stays."""
        if values.dtype.kind == "f" and values.dtype.itemsize > 4:
            values = np.where(np.isfinite(values), np.clip(values, _FLOAT32.min, _FLOAT32.max), values)
        return values.astype(np.float32)


def folded(network: NetworkConfig, volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """B C Z Y X as the exported network of that configuration takes it: planar ones take planes B*Z C Y X."""
    if not is_planar(network):
        return volume
    return np.ascontiguousarray(volume.swapaxes(1, 2).reshape(-1, volume.shape[1], *volume.shape[3:]))


def unfolded(network: NetworkConfig, output: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """What the exported network gave for `batch` volumes, as B K Z Y X."""
    if not is_planar(network):
        return output
    planes = output.reshape(batch, -1, *output.shape[1:])  # B Z K Y X
    return planes.swapaxes(1, 2)


# --- sizes ------------------------------------------------------------------------------------------------


def legal_sizes(network: NetworkConfig) -> tuple[Triple, Triple]:
    """Smallest legal input (Z Y X), and the step from each legal size to the next."""
    facts = describe(network)
    return facts.legal_shape((1, 1, 1)), facts.total_stride


def dynamic_shapes(network: NetworkConfig) -> tuple[Tensor, dict[int, Any]]:
    """An example input for tracing, and which of its axes may have which sizes.

    No two axes of the example have the same size, and none has one voxel, so that nothing is taken for equal.
    """
    from torch.export import Dim

    smallest, step = legal_sizes(network)
    sizes = [2, network.in_channels]
    axes: dict[int, Any] = {0: Dim("batch")}
    for axis in space_axes(network):
        count: Any = Dim(f"n{'zyx'[axis]}")
        rest = smallest[axis] - step[axis]
        scaled = step[axis] * count if step[axis] > 1 else count
        axes[len(sizes)] = scaled + rest if rest else scaled
        sizes.append(step[axis] * (axis + 3) + rest)
    return torch.zeros(sizes), axes


# --- samples ----------------------------------------------------------------------------------------------


def sample_shape(network: NetworkConfig) -> Triple:
    """Z Y X of a small legal input whose output still has voxels when the halo is dropped."""
    footprint = Footprint.of(network)
    wanted = [halo * 2 + step for halo, step in zip(footprint.wanted_halo, footprint.stride, strict=True)]
    depth = 1 if is_planar(network) else 16
    z, y, x = (max(least, size) for least, size in zip((depth, 32, 32), wanted, strict=True))
    return describe(network).legal_shape((z, y, x))


def synthetic_grey(normalization: Normalization, shape: Sequence[int]) -> NDArray[np.float64]:
    """C Z Y X waves and noise over the range of grey values that the model was trained on, always the same."""
    random = np.random.default_rng(0)
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    wave = np.prod([np.cos(math.tau * values / 17 + axis) for axis, values in enumerate(axes)], axis=0)
    channels = []
    for channel in normalization.channels:
        values = channel.offset + (0.6 * wave + random.normal(0, 0.2, wave.shape)) / channel.factor
        channels.append(np.clip(values, channel.low, channel.high))
    return np.stack(channels)
