from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.filters import ScaleSpace
from napari_unet3d.engine.networks.build import build_network, padded_to_legal
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.tiling import Footprint

PADDED = UNetConfig(levels=3, filters=2, strides=(2, (1, 2, 2)))
VALID = UNetConfig(levels=2, filters=2, padding="valid", kernel=3)
FLAT = UNetConfig(levels=2, filters=3, dimensions=2)


@pytest.mark.parametrize("features", ["none", "scale_space"])
def test_a_flat_network_treats_every_plane_by_itself(features: str) -> None:
    network = build_network(FLAT.updated(features=features, in_channels=2, classes=3)).eval()
    volume = torch.rand(2, 2, 3, 8, 10)

    with torch.no_grad():
        logits = network(volume)
        planes = torch.stack([network(volume[:, :, z]) for z in range(3)], 2)

    assert logits.shape == (2, 3, 3, 8, 10)
    torch.testing.assert_close(logits, planes)


def test_a_flat_network_equals_a_volume_network_of_flat_kernels() -> None:
    flat = build_network(FLAT).eval()
    deep = build_network(FLAT.updated(dimensions=3, kernel=((1, 3, 3),) * 2, strides=((1, 2, 2),))).eval()
    weights = {name: w[:, :, None] if w.ndim == 4 else w for name, w in flat.state_dict().items()}
    deep.load_state_dict(weights)
    plane = torch.rand(1, 1, 1, 8, 8)

    with torch.no_grad():
        torch.testing.assert_close(flat(plane), deep(plane))
        torch.testing.assert_close(flat(plane[:, :, 0]), deep(plane)[:, :, 0])


def test_outputs_of_a_flat_network_are_volumes() -> None:
    network = build_network(FLAT.updated(levels=3, deep_supervision=True))

    shapes = [tuple(output.shape) for output in network.outputs(torch.rand(2, 1, 5, 8, 12))]

    assert shapes == [(2, 2, 5, 8, 12), (2, 2, 5, 4, 6)]


@pytest.mark.parametrize(("size", "message"), [((8, 8, 9), "9 along X"), ((8, 6, 8), "6 along Y")])
def test_an_illegal_size_is_explained(size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}, nearest legal"):
        build_network(PADDED)(torch.rand(1, 1, *size))


@given(st.sampled_from([PADDED, VALID, FLAT]), st.tuples(*[st.integers(1, 13)] * 3))
@settings(max_examples=40, deadline=None)
def test_padding_makes_any_size_legal(config: UNetConfig, zyx: tuple[int, int, int]) -> None:
    network = build_network(config).eval()
    image = torch.rand(1, 1, *zyx)

    padded, crop = padded_to_legal(config, image)
    with torch.no_grad():
        logits = network(padded)[crop]

    assert logits.shape == (1, config.classes, *zyx)


def test_padding_of_a_legal_image_is_the_image() -> None:
    image = torch.rand(1, 1, 2, 8, 8)

    padded, crop = padded_to_legal(PADDED, image)

    assert padded is image
    assert torch.equal(image[crop], image)


def test_padding_repeats_the_outermost_voxel_at_the_far_end() -> None:
    image = torch.rand(1, 1, 1, 8, 7)

    padded, _ = padded_to_legal(PADDED, image)

    assert padded.shape == (1, 1, 2, 8, 8)
    assert torch.equal(padded[..., :1, :, :7], image)
    assert torch.equal(padded[..., 1, :, :7], image[..., 0, :, :])
    assert torch.equal(padded[..., 7], padded[..., 6])


def test_padding_of_a_valid_network_surrounds_the_image_with_its_margin() -> None:
    """What the network says about a voxel is what it says about it in a larger image."""
    network = build_network(VALID.updated(norm="none")).eval()
    margin = network.description.margin[0]
    image = torch.rand(1, 1, 6, 6, 6)

    padded, crop = padded_to_legal(VALID, image)

    inside = (slice(None), slice(None), *(slice(margin, margin + 6),) * 3)
    assert torch.equal(padded[inside], image)
    assert network(padded)[crop].shape == (1, 2, 6, 6, 6)


def test_padding_of_a_flat_image_takes_four_axes() -> None:
    padded, crop = padded_to_legal(FLAT, torch.rand(1, 1, 5, 6))

    assert padded.shape == (1, 1, 6, 6)
    assert build_network(FLAT)(padded)[crop].shape == (1, 2, 5, 6)


def test_features_stand_in_front_of_the_body() -> None:
    config = network_config("fast", in_channels=2).updated(filters=2, feature_voxel=(2.0, 1.0, 1.0))
    network = build_network(config)

    assert isinstance(network.features, ScaleSpace)
    assert network.features.voxel == (2.0, 1.0, 1.0)
    assert list(network.features.parameters()) == []
    image = torch.rand(1, 2, 4, 8, 8)
    assert network.features(image).shape[1] == config.body_channels == 2 * (1 + 5 * 3)
    network.eval()
    assert torch.equal(network(image), network.body(network.features(image)))
    assert isinstance(build_network(config.updated(features="none")).features, nn.Identity)


def test_automatic_kernels_count_as_isotropic() -> None:
    network = build_network(UNetConfig(levels=2, filters=2))

    assert network.state_dict()["body.encoder.blocks.1.units.0.conv.weight"].shape[2:] == (3, 3, 3)
    assert network.description.total_stride == (2, 2, 2)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_neighbouring_planes_are_the_halo_of_a_tile(padding: Literal["same", "valid"]) -> None:
    config = FLAT.updated(neighbours=2, padding=padding)
    network = build_network(config).eval()
    volume = torch.rand(1, 1, 12, 18, 18)

    with torch.no_grad():
        whole, tile = network(volume), network(volume[:, :, 3:10])

    footprint = Footprint.of(config)
    assert (footprint.full_halo[0], footprint.shrink[0], footprint.stride[0]) == (2, 0, 1)
    torch.testing.assert_close(tile[:, :, 2:-2], whole[:, :, 5:8])
    assert not torch.allclose(tile[:, :, 1], whole[:, :, 4])
    assert describe(config).receptive_field[0] == 5
