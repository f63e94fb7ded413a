from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.unet import UNet


def unet(**settings: Any) -> UNet:
    return UNet(UNetConfig(**{"levels": 3, "filters": 4, **settings}))


def reference_forward(net: UNet, x: Tensor) -> Tensor:
    """The figure of Çiçek 2016 spelled out for three levels, transposed convolutions and batch statistics."""
    state = net.state_dict()

    def conv(x: Tensor, name: str) -> Tensor:
        x = F.conv3d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"])
        x = F.batch_norm(
            x,
            state[f"{name}.norm.running_mean"],
            state[f"{name}.norm.running_var"],
            state[f"{name}.norm.weight"],
            state[f"{name}.norm.bias"],
        )
        return x.relu()

    def block(x: Tensor, name: str) -> Tensor:
        return conv(conv(x, f"{name}.units.0"), f"{name}.units.1")

    def up(x: Tensor, skip: Tensor, name: str) -> Tensor:
        x = F.conv_transpose3d(x, state[f"{name}.weight"], stride=2)
        first = [(s - u) // 2 for s, u in zip(skip.shape[2:], x.shape[2:], strict=True)]
        skip = skip[
            :,
            :,
            first[0] : first[0] + x.shape[2],
            first[1] : first[1] + x.shape[3],
            first[2] : first[2] + x.shape[4],
        ]
        return torch.cat([skip, x], 1)

    level0 = block(x, "encoder.blocks.0")
    level1 = block(F.max_pool3d(level0, 2), "encoder.blocks.1")
    level2 = block(F.max_pool3d(level1, 2), "encoder.blocks.2")
    level1 = block(up(level2, level1, "decoder.ups.1"), "decoder.blocks.1")
    level0 = block(up(level1, level0, "decoder.ups.0"), "decoder.blocks.0")
    return F.conv3d(level0, state["head.weight"], state["head.bias"])


def test_valid_network_equals_the_figure_spelled_out() -> None:
    torch.manual_seed(0)
    net = unet(
        padding="valid",
        upsampling="transposed",
        up_bias=False,
        double_before_pooling=True,
        kernel=3,
        in_channels=2,
        classes=3,
    )
    x = torch.randn(2, 2, 44, 48, 52)
    with torch.no_grad():
        net(x)  # running statistics that differ from 0 and 1
        net.eval()
        torch.testing.assert_close(net(x), reference_forward(net, x))


def test_lists_of_kernels_are_honoured() -> None:
    net = unet(kernel=(7, (1, 5, 3), 3), upsampling="transposed", strides=(2, (1, 2, 2)))
    state = net.state_dict()

    def sizes(name: str) -> tuple[int, ...]:
        return tuple(state[name].shape[2:])

    assert sizes("encoder.blocks.0.units.0.conv.weight") == (7, 7, 7)
    assert sizes("encoder.blocks.1.units.1.conv.weight") == (1, 5, 3)
    assert sizes("encoder.blocks.2.units.0.conv.weight") == (3, 3, 3)
    assert sizes("decoder.blocks.1.units.0.conv.weight") == (1, 5, 3)
    assert sizes("decoder.blocks.0.units.0.conv.weight") == (7, 7, 7)
    assert sizes("decoder.ups.1.weight") == (1, 2, 2)
    assert sizes("decoder.ups.0.weight") == (2, 2, 2)


def test_convolutions_and_filters_of_every_level() -> None:
    net = unet(filters=(3, 5, 7), convolutions=(1, 3, 2), double_before_pooling=True, extra_block=True)

    def channels(block: nn.Module) -> list[int]:
        convs = [module for module in block.modules() if isinstance(module, nn.Conv3d)]
        return [convs[0].in_channels, *(conv.out_channels for conv in convs)]

    assert channels(net.encoder.stem) == [1, 3]
    assert [channels(block) for block in net.encoder.blocks] == [[3, 3], [3, 2, 2, 5], [5, 3, 7]]
    assert [channels(block) for block in net.decoder.blocks] == [[8, 3], [12, 5, 5, 5]]


@pytest.mark.parametrize("order", ["skip_first", "up_first"])
def test_order_of_the_concatenation(order: str) -> None:
    net = unet(levels=2, filters=(3, 5), concatenation=order)
    seen: dict[str, Tensor] = {}
    net.encoder.blocks[0].register_forward_hook(lambda _m, _i, y: seen.__setitem__("skip", y))
    net.decoder.ups[0].register_forward_hook(lambda _m, _i, y: seen.__setitem__("up", y))
    net.decoder.blocks[0].register_forward_pre_hook(lambda _m, x: seen.__setitem__("joined", x[0]))

    net(torch.rand(1, 1, 4, 4, 4))

    parts = ["skip", "up"] if order == "skip_first" else ["up", "skip"]
    assert torch.equal(seen["joined"], torch.cat([seen[part] for part in parts], 1))


def test_deep_supervision_gives_logits_at_every_level_of_the_decoder() -> None:
    net = unet(levels=4, strides=((1, 2, 2), 2, 2), deep_supervision=True, classes=3)
    x = torch.rand(2, 1, 4, 16, 24)

    outputs = net.outputs(x).logits

    assert [tuple(output.shape) for output in outputs] == [
        (2, 3, 4, 16, 24),
        (2, 3, 4, 8, 12),
        (2, 3, 2, 4, 6),
    ]
    net.eval()
    assert torch.equal(net(x), net.outputs(x).logits[0])
    assert len(unet(levels=4).outputs(torch.rand(1, 1, 8, 8, 16)).logits) == 1
    assert len(unet(levels=2, deep_supervision=True).outputs(torch.rand(1, 1, 2, 2, 4)).logits) == 1


def test_a_single_level_is_a_plain_stack_of_convolutions() -> None:
    net = unet(levels=1, classes=2, deep_supervision=True)

    assert net(torch.rand(1, 1, 1, 3, 5)).shape == (1, 2, 1, 3, 5)


@pytest.mark.parametrize("place", ["between_convolutions", "after_block", "after_pooling_and_concatenation"])
def test_dropout_acts_in_training_only(place: str) -> None:
    torch.manual_seed(0)
    net = unet(dropout=(0.0, 0.5, 0.0), decoder_dropout=0.0, dropout_place=place, norm="none")
    x = torch.rand(1, 1, 8, 8, 8)

    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("place", "active"),
    [
        ("between_convolutions", {"encoder.blocks.2.between": 0.3, "decoder.blocks.1.between": 0.5}),
        ("after_block", {"encoder.blocks.2.after": 0.3, "decoder.blocks.1.after": 0.5}),
        ("after_pooling_and_concatenation", {"encoder.downs.0.1": 0.1, "decoder.dropouts.1": 0.5}),
    ],
)
def test_dropout_of_every_level_and_place(place: str, active: dict[str, float]) -> None:
    first = 0.1 if place == "after_pooling_and_concatenation" else 0.0
    net = unet(dropout=(first, 0.0, 0.3), decoder_dropout=(0.0, 0.5), dropout_place=place)

    found = {name: m.p for name, m in net.named_modules() if isinstance(m, nn.Dropout3d)}
    assert found == active


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
@pytest.mark.parametrize("upsampling", ["nearest", "linear", "transposed"])
def test_bfloat16_and_channels_last_from_end_to_end(norm: str, upsampling: str) -> None:
    torch.manual_seed(0)
    net = unet(norm=norm, upsampling=upsampling, filters=8).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    x = torch.rand(1, 1, 8, 16, 16).to(memory_format=torch.channels_last_3d)
    reordered: list[str] = []
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _m, _i, y, name=name: (
                    None if y.is_contiguous(memory_format=torch.channels_last_3d) else reordered.append(name)
                )
            )

    exact = net(x)
    reordered.clear()  # PyTorch itself gives up the layout in float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(x)
    logits.float().square().mean().backward()

    assert logits.dtype == torch.bfloat16
    assert reordered == []
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_weights_are_reproducible_and_bias_is_optional() -> None:
    torch.manual_seed(1)
    first = unet(bias=False)
    torch.manual_seed(1)
    second = unet(bias=False)

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    biased = [name for name, m in first.named_modules() if isinstance(m, nn.Conv3d) and m.bias is not None]
    assert biased == ["head"]
