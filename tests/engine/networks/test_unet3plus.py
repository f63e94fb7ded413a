from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_unet3d.engine.config import UNet3PlusConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.build import build_network, padded_to_legal
from napari_unet3d.engine.networks.unet3plus import UNet3Plus

CONFIG = UNet3PlusConfig(levels=4, filters=(2, 3, 5, 4), branch_filters=3, classes=3, deep_supervision=True)


def spelled_out(net: UNet3Plus, x: Tensor) -> list[Tensor]:
    """The decoder of Huang et al. 2020, figure 1, for four levels and running statistics; heads finest first."""
    state = net.state_dict()
    flat = x.ndim == 4
    conv, pool = (F.conv2d, F.max_pool2d) if flat else (F.conv3d, F.max_pool3d)
    mode = "bilinear" if flat else "trilinear"

    def head(x: Tensor, name: str) -> Tensor:
        return conv(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def unit(x: Tensor, name: str) -> Tensor:
        norm = [state[f"{name}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(head(x, f"{name}.conv"), *norm).relu()

    def up(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)

    def node(index: int, *levels: Tensor) -> Tensor:
        parts = [unit(level, f"decoder.nodes.{index}.branches.{i}") for i, level in enumerate(levels)]
        return unit(torch.cat(parts, 1), f"decoder.nodes.{index}.fusion")

    encoder = []
    for level in range(4):
        x = pool(x, 2) if level else x
        x = unit(unit(x, f"encoder.blocks.{level}.units.0"), f"encoder.blocks.{level}.units.1")
        encoder.append(x)
    e1, e2, e3, e4 = encoder
    d3 = node(2, pool(e1, 4), pool(e2, 2), e3, up(e4, 2))
    d2 = node(1, pool(e1, 2), e2, up(d3, 2), up(e4, 4))
    d1 = node(0, e1, up(d2, 2), up(d3, 4), up(e4, 8))
    sides = [up(head(x, f"side_heads.{i}"), 2 ** (i + 1)) for i, x in enumerate((d2, d3, e4))]
    return [head(d1, "head"), *sides]


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 8)])
def test_the_figure_spelled_out_gives_the_same(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = UNet3Plus(CONFIG.updated(dimensions=len(size), in_channels=2))
    x = torch.randn(2, 2, *size)
    with torch.no_grad():
        net(x)  # running statistics that differ from 0 and 1
        net.eval()
        outputs = net.outputs(x)
        for output, expected in zip(outputs.logits, spelled_out(net, x), strict=True):
            torch.testing.assert_close(output, expected)
        assert outputs.presence is None
        torch.testing.assert_close(net(x), outputs.logits[0])


def test_without_deep_supervision_there_is_one_output() -> None:
    net = UNet3Plus(CONFIG.updated(deep_supervision=False))

    assert [output.shape for output in net.outputs(torch.rand(1, 1, 8, 8, 16)).logits] == [(1, 3, 8, 8, 16)]


@pytest.mark.parametrize(("classes", "channels"), [(1, 2), (2, 2), (3, 3)])
def test_guidance_gives_presence_logits_on_the_coarsest_level(classes: int, channels: int) -> None:
    net = UNet3Plus(CONFIG.updated(guidance=True, classes=classes))

    presence = net.outputs(torch.rand(2, 1, 8, 16, 8)).presence

    assert presence is not None
    assert presence.shape == (2, channels, 1, 2, 1)


@pytest.mark.parametrize("classes", [1, 3])
def test_every_weight_gets_a_gradient_from_the_voxels_alone(classes: int) -> None:
    """That of the guidance module, too, which a decision by argmax would cut off."""
    torch.manual_seed(0)
    guided = CONFIG.updated(guidance=True, guidance_dropout=0.0, classes=classes)
    net = UNet3Plus(guided.updated(norm="none", activation="leaky_relu"))

    outputs = net.outputs(torch.rand(1, 1, 8, 8, 8)).logits
    torch.stack([output.square().mean() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]

    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_neighbouring_planes_are_channels_in_the_order_of_z(depth: int) -> None:
    torch.manual_seed(0)
    config = UNet3PlusConfig(levels=2, filters=3, dimensions=2, guidance=True, in_channels=2)
    beside = build_network(config.updated(neighbours=1)).eval()
    channels = build_network(config.updated(in_channels=6)).eval()
    channels.load_state_dict(beside.state_dict())
    volume = torch.rand(2, 2, depth, 4, 6)

    with torch.no_grad():
        logits = beside(volume)
        outputs = beside.all_outputs_of(beside.inputs(volume))

    assert outputs.presence is not None
    assert outputs.presence.shape == (2, 2, depth, 2, 3)
    for z in range(depth):
        below, above = volume[:, :, max(0, z - 1)], volume[:, :, min(depth - 1, z + 1)]
        with torch.no_grad():
            expected = channels(torch.cat([below, volume[:, :, z], above], 1))
        torch.testing.assert_close(logits[:, :, z], expected)


def test_neighbours_are_for_flat_networks() -> None:
    with pytest.raises(ConfigError, match="neighbours = 1 needs dimensions = 2"):
        UNet3PlusConfig().updated(neighbours=1)


@pytest.mark.parametrize("zyx", [(1, 1, 1), (5, 17, 33)])
def test_any_size_is_padded_and_cropped(zyx: tuple[int, ...]) -> None:
    config = UNet3PlusConfig(filters=2, guidance=True)

    padded, crop = padded_to_legal(config, torch.rand(1, 1, *zyx))

    assert all(size % 16 == 0 for size in padded.shape[2:])
    with torch.no_grad():
        assert build_network(config).eval()(padded)[crop].shape == (1, 2, *zyx)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": (4, 8)}, "filters has 2 entries but levels = 5 needs 5"),
        ({"strides": (2,)}, "strides has 1 entries but levels = 5 needs 4"),
        ({"kernel": 2}, "kernel has the even size 2"),
        ({"levels": 1}, "levels = 1"),
        ({"padding": "valid"}, "unknown setting"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNet3PlusConfig().updated(**changes)
