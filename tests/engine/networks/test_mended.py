from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.blocks import normalization
from napari_unet3d.engine.networks.mended import Conv3d, GroupNorm, MaxPool


@pytest.mark.parametrize("channels", [1, 16])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 5, 5), (7, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("zyx", [(1, 8, 8), (2, 8, 8), (3, 8, 8), (4, 1, 2), (8, 8, 8)])
def test_thin_volumes_are_convolved_rightly_in_bfloat16(
    channels: int, kernel: tuple[int, int, int], zyx: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    padding = tuple(size // 2 for size in kernel)
    layer = Conv3d(channels, 8, kernel, padding=padding, bias=False)  # type: ignore[arg-type]
    layer.weight.data = layer.weight.data.bfloat16().float()
    image = torch.rand(2, channels, *zyx).bfloat16().float()
    gradient = torch.randn(2, 8, *zyx).bfloat16().float()

    def results(*, autocast: bool) -> list[Tensor]:
        layer.zero_grad()
        x = image.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            y = layer(x)
        y.backward(gradient.to(y.dtype))
        assert x.grad is not None
        assert layer.weight.grad is not None
        return [y.detach().float(), x.grad.clone(), layer.weight.grad.clone()]

    for rounded, exact in zip(results(autocast=True), results(autocast=False), strict=True):
        torch.testing.assert_close(rounded, exact, rtol=0, atol=0.02 * exact.abs().max().item())


def test_max_pooling_keeps_the_precision_and_the_memory_layout() -> None:
    x = torch.rand(1, 4, 4, 4, 4).to(torch.bfloat16, memory_format=torch.channels_last_3d)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = MaxPool((2, 2, 2))(x)

    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(y.float(), F.max_pool3d(x.float(), 2))


def normalized_by_hand(x: Tensor, groups: int, epsilon: float) -> Tensor:
    """Zero mean and unit variance over each group, in float64."""
    grouped = x.double().reshape(x.shape[0], groups, -1)
    mean = grouped.mean(-1, keepdim=True)
    variance = (grouped - mean).square().mean(-1, keepdim=True)
    return ((grouped - mean) / (variance + epsilon).sqrt()).reshape(x.shape)


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_group_and_instance_normalisation_bear_a_large_mean(norm: str, layout: torch.memory_format) -> None:
    config = UNetConfig().updated(norm=norm, norm_groups=4, norm_epsilon=1e-3)
    layer = normalization(config, 8)
    x = (100 + torch.randn(2, 8, 3, 5, 7)).to(memory_format=layout).requires_grad_()

    y = layer(x)
    y.square().sum().backward()

    expected = normalized_by_hand(x.detach(), 8 if norm == "instance" else 4, 1e-3)
    torch.testing.assert_close(y.detach().double(), expected, atol=1e-3, rtol=0)
    assert y.is_contiguous(memory_format=layout)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_normalisation_of_a_single_value_gives_the_bias() -> None:
    layer = GroupNorm(2, 2)
    nn.init.constant_(layer.bias, 3.0)

    assert layer(torch.rand(1, 2, 1, 1, 1)).flatten().tolist() == pytest.approx([3, 3], abs=1e-5)
