from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.unet import UNet

CONFIG = UNetConfig(levels=2, filters=(48, 64), in_channels=24, upsampling="transposed", up_channels="level", strides=2)


def weights(config: UNetConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a convolution 48 -> 64 before a non-linearity, a transposed one 64 -> 48 and the head 48 -> 40."""
    torch.manual_seed(0)
    net = UNet(config.updated(classes=40))
    state = net.state_dict()
    return (
        state["encoder.blocks.1.units.0.conv.weight"],
        state["decoder.ups.0.weight"],
        state["head.weight"],
    )


@pytest.mark.parametrize(
    ("changes", "deviations"),
    [
        ({}, (math.sqrt(2 / (48 * 27)), 1 / math.sqrt(64), 1 / math.sqrt(48))),
        (
            {"activation": "leaky_relu", "negative_slope": 0.5},
            (math.sqrt(2 / 1.25 / (48 * 27)), 1 / math.sqrt(64), 1 / math.sqrt(48)),
        ),
        (
            {"initialization": "xavier"},
            (math.sqrt(2 / (112 * 27)), math.sqrt(2 / (64 + 48 * 8)), math.sqrt(2 / 88)),
        ),
        # a normal distribution cut at two deviations keeps 0.8796 of its deviation
        ({"initialization": "truncated_normal"}, (0.08796, 0.08796, 0.08796)),
        # uniform within 1 / sqrt(inputs), where PyTorch counts 48 x 8 inputs of a transposed convolution
        (
            {"initialization": "framework"},
            (1 / math.sqrt(3 * 48 * 27), 1 / math.sqrt(3 * 48 * 8), 1 / math.sqrt(3 * 48)),
        ),
    ],
)
def test_weights_have_the_intended_deviation(
    changes: dict[str, object], deviations: tuple[float, float, float]
) -> None:
    for weight, deviation in zip(weights(CONFIG.updated(**changes)), deviations, strict=True):
        assert weight.std().item() == pytest.approx(deviation, rel=0.06)
        assert abs(weight.mean().item()) < 0.1 * deviation


def test_truncated_normal_stays_within_two_deviations() -> None:
    for weight in weights(CONFIG.updated(initialization="truncated_normal")):
        assert weight.abs().max() <= 0.2


@pytest.mark.parametrize("kind", ["kaiming", "xavier", "truncated_normal"])
def test_biases_start_at_zero(kind: str) -> None:
    net = UNet(CONFIG.updated(initialization=kind))

    biases = [m.bias for m in net.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d) and m.bias is not None]
    assert len(biases) == 8
    assert all((bias == 0).all() for bias in biases)


def test_kaiming_keeps_the_size_of_the_signal_through_a_deep_stack() -> None:
    torch.manual_seed(0)
    net = UNet(UNetConfig(levels=1, filters=64, convolutions=10, norm="none", in_channels=8))

    y = net(torch.randn(1, 8, 16, 16, 16))[..., 6:10, 6:10, 6:10]

    assert 0.2 < y.std().item() < 3
