"""How the weights of a network start."""

from __future__ import annotations

import math

from torch import Tensor, nn

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.blocks import ConvUnit

TRUNCATED_DEVIATION = 0.1
"""Standard deviation, before truncation at twice its size, of ``truncated_normal``."""

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialize(network: nn.Module, config: UNetConfig) -> None:
    """Draw all convolution weights anew as ``config.initialization`` says, and set their biases to 0.

    ``kaiming``: He et al. 2015, eq. 10 and (leaky_relu) eq. 15; ``xavier``: Glorot and Bengio 2010, eq. 12.
    """
    if config.initialization == "framework":
        return
    slope = config.negative_slope if config.activation == "leaky_relu" else 0.0
    rectified = {id(unit.conv) for unit in network.modules() if isinstance(unit, ConvUnit)}
    for module in network.modules():
        if not isinstance(module, _CONVOLUTIONS):
            continue
        weight: Tensor = module.weight
        inputs, outputs = _fans(module)
        match config.initialization:
            case "kaiming":
                gain = math.sqrt(2 / (1 + slope**2)) if id(module) in rectified else 1.0
                nn.init.normal_(weight, std=gain / math.sqrt(inputs))
            case "xavier":
                nn.init.normal_(weight, std=math.sqrt(2 / (inputs + outputs)))
            case "truncated_normal":
                limit = 2 * TRUNCATED_DEVIATION
                nn.init.trunc_normal_(weight, std=TRUNCATED_DEVIATION, a=-limit, b=limit)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _fans(module: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> tuple[int, int]:
    """Values that a voxel of the output depends on, and values that a voxel of the input acts on."""
    taps = math.prod(module.kernel_size)
    steps = math.prod(module.stride)
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        return module.in_channels * taps // steps, module.out_channels * taps
    return module.in_channels * taps, module.out_channels * taps // steps
