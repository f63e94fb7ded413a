from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.blocks import (
    Block,
    ConvUnit,
    Upsample,
    activation,
    channel_dropout,
    cut,
    fitting_groups,
    normalization,
    pooling,
    upsampling,
)

PLAIN = UNetConfig(norm="none")


def test_upsampling_repeats_voxels_exactly() -> None:
    for factor in range(1, 17):
        x = torch.arange(40.0).reshape(1, 1, 40, 1, 1)
        for dtype in (torch.float32, torch.bfloat16):
            up = Upsample((factor, 1, 3), "nearest", (0, 0, 0))
            expected = x.repeat_interleave(factor, 2).repeat_interleave(3, 4).to(dtype)
            assert torch.equal(up(x.to(dtype)), expected)


def test_upsampling_interpolates_between_voxel_centres() -> None:
    x = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2)

    # centres at 0.5 and 2.5 of four fine voxels; the outer two have no second neighbour
    assert Upsample((1, 1, 2), "linear", (0, 0, 0))(x).flatten().tolist() == [0, 0.25, 0.75, 1]
    assert Upsample((1, 1, 2), "linear", (0, 0, 1))(x).flatten().tolist() == [0.25, 0.75]
    plane = Upsample((1, 2), "linear", (0, 1))(x[0])
    assert plane.flatten().tolist() == [0.25, 0.75]


def test_transposed_convolution_fills_each_coarse_voxel_once() -> None:
    config = UNetConfig(
        levels=2,
        filters=(2, 1),
        strides=((1, 2, 3),),
        upsampling="transposed",
        up_channels="level",
        up_bias=False,
    )
    up, channels = upsampling(config, 1, 0, (0, 0, 0))
    x = torch.rand(1, 1, 2, 2, 2)

    assert channels == 2
    assert isinstance(up, nn.ConvTranspose3d)
    y = up(x)
    assert y.shape == (1, 2, 2, 4, 6)
    expected = x[0, 0, 1, 1, 0] * up.weight[0, :, 0, 1, 2]  # voxel (1, 3, 2) lies at tap (0, 1, 2) of (1, 1, 0)
    torch.testing.assert_close(y[0, :, 1, 3, 2], expected)


def test_up_norm_activation_follows_a_transposed_convolution_only() -> None:
    config = UNetConfig(levels=2, filters=4, upsampling="transposed", up_norm_activation=True)

    up, _ = upsampling(config, 8, 0, (0, 0, 0))
    assert isinstance(up, ConvUnit)
    assert isinstance(up.norm, nn.BatchNorm3d)
    assert isinstance(upsampling(config.updated(upsampling="nearest"), 8, 0, (0, 0, 0))[0], Upsample)


def test_poolings() -> None:
    x = torch.arange(8.0).reshape(1, 1, 2, 2, 2)

    assert pooling(UNetConfig(pooling="max"), 1, (1, 2, 2))(x).flatten().tolist() == [3, 7]
    assert pooling(UNetConfig(pooling="average"), 1, (2, 2, 1))(x).flatten().tolist() == [3, 4]
    strided = pooling(UNetConfig(pooling="convolution"), 1, (1, 1, 2))
    assert isinstance(strided, nn.Conv3d)
    nn.init.ones_(strided.weight)
    assert strided.bias is not None
    nn.init.zeros_(strided.bias)
    assert strided(x).flatten().tolist() == [1, 5, 9, 13]


@pytest.mark.parametrize(
    ("groups", "channels", "result"), [(8, 16, 8), (8, 12, 6), (8, 4, 4), (8, 7, 7), (4, 7, 1), (3, 1, 1)]
)
def test_groups_are_reduced_to_a_divisor(groups: int, channels: int, result: int) -> None:
    assert fitting_groups(groups, channels) == result


def test_batch_normalisation_takes_epsilon_and_momentum() -> None:
    layer = normalization(UNetConfig(norm="batch", norm_epsilon=0.5, norm_momentum=0.25), 1)
    x = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 1, 2)

    y = layer(x)

    torch.testing.assert_close(y.flatten(), torch.tensor([-1.0, 1.0]) / 1.5**0.5)
    assert isinstance(layer, nn.BatchNorm3d)
    assert layer.running_mean is not None
    assert layer.running_mean.item() == 0.5
    two = normalization(UNetConfig(dimensions=2, norm="batch"), 1)
    assert isinstance(two, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", F.relu),
        ("leaky_relu", lambda x: F.leaky_relu(x, 0.2)),
        ("elu", F.elu),
        ("gelu", F.gelu),
        ("silu", F.silu),
        ("mish", F.mish),
        ("tanh", torch.tanh),
    ],
)
def test_activations_and_their_gradients(name: str, function: object) -> None:
    assert callable(function)
    layer = activation(PLAIN.updated(activation=name, negative_slope=0.2))
    first, second = (torch.linspace(-2, 2, 9).requires_grad_() for _ in range(2))

    ours, theirs = layer(first * 1), function(second)
    ours.sum().backward()
    theirs.sum().backward()

    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(first.grad, second.grad)


def test_dropout_drops_whole_channels_in_training_only() -> None:
    torch.manual_seed(0)
    layer = channel_dropout(PLAIN, 0.5)
    x = torch.ones(1, 64, 2, 2, 2)

    y = layer(x)

    per_channel = y.flatten(2)[0]
    assert ((per_channel == 0).all(1) | (per_channel == 2).all(1)).all()
    assert 10 < int((per_channel[:, 0] == 0).sum()) < 54
    assert torch.equal(layer.eval()(x), x)
    assert isinstance(channel_dropout(PLAIN.updated(dimensions=2), 0.5), nn.Dropout2d)
    assert isinstance(channel_dropout(PLAIN, 0.0), nn.Identity)


@pytest.mark.parametrize("place", ["between_convolutions", "after_block", "after_pooling_and_concatenation"])
def test_place_of_dropout_in_a_block(place: str) -> None:
    block = Block(PLAIN.updated(dropout_place=place, convolutions=3), [1, 32, 32, 32], (1, 1, 1), 0.5)
    for unit in block.units:
        assert isinstance(unit, ConvUnit)
        unit.conv = nn.Identity()  # what comes in, comes out
    x = torch.ones(1, 32, 1, 1, 1)

    torch.manual_seed(0)
    trained = block(x).unique().tolist()

    expected = {
        "between_convolutions": [0, 4],  # twice kept: doubled twice
        "after_block": [0, 2],
        "after_pooling_and_concatenation": [1],
    }
    assert trained == expected[place]
    assert torch.equal(block.eval()(x), x)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_residual_block_adds_its_input_before_the_last_non_linearity(padding: str) -> None:
    config = PLAIN.updated(residual=True, padding=padding)
    block = Block(config, [2, 3, 2], (1, 3, 3))
    last = block.units[1]
    assert isinstance(last, ConvUnit)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 3, 6, 6)

    y = block(x)

    inside = x if padding == "same" else cut(x, (0, 2, 2))  # two convolutions, a voxel each
    assert isinstance(block.projection, nn.Identity)
    torch.testing.assert_close(y, F.relu(inside))


def test_residual_block_projects_where_channels_differ() -> None:
    block = Block(PLAIN.updated(residual=True), [2, 4], (3, 3, 3))

    assert isinstance(block.projection, nn.Conv3d)
    assert block.projection.weight.shape == (4, 2, 1, 1, 1)


def test_cut_takes_the_same_from_both_ends() -> None:
    x = torch.arange(5 * 4).reshape(1, 1, 5, 4)

    assert cut(x, (1, 0)).tolist() == x[:, :, 1:4].tolist()
    assert cut(x, (0, 0)) is x
