"""Networks of planes that lie across other axes than Z, or across all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.build import Network, build_network, padded_to_legal
from napari_unet3d.engine.patch_shapes import planned_patches

T = TypeVar("T")

UNET = UNetConfig(dimensions=2, levels=3, filters=3, kernel=(3, (1, 3, 5), 3), strides=((1, 2, 4), 2), neighbours=1)
EVEN = UNetConfig(dimensions=2, levels=2, filters=3, strides=4, neighbours=1)
FULL = UNet3PlusConfig(dimensions=2, levels=3, filters=3, deep_supervision=True, guidance=True)


def turned_network(config: NetworkConfig, axis: str) -> tuple[Network, Network]:
    """A network across Z, and one of the same weights across another axis."""
    torch.manual_seed(0)
    across_z = build_network(config).eval()
    turned = build_network(config.updated(plane_axis=axis)).eval()
    turned.load_state_dict(across_z.state_dict())
    return across_z, turned


@pytest.mark.parametrize("config", [UNET, UNET.updated(padding="valid", deep_supervision=True), FULL])
@pytest.mark.parametrize("axis", ["y", "x"])
def test_it_is_the_network_across_z_turned(config: NetworkConfig, axis: str) -> None:
    across_z, turned = turned_network(config, axis)
    place = 2 + "zyx".index(axis)
    zyx = turned.description.legal_shape((7, 19, 33))
    volume = torch.rand(2, 1, *zyx)

    with torch.no_grad():
        expected, found = across_z(volume.movedim(place, 2)), turned(volume)
        outputs, planes = turned.all_outputs_of(volume), across_z.all_outputs_of(volume.movedim(place, 2))

    torch.testing.assert_close(found, expected.movedim(2, place))
    assert found.shape[2:] == turned.description.output_shape(zyx)
    for output, plane in zip(outputs.logits, planes.logits, strict=True):
        torch.testing.assert_close(output, plane.movedim(2, place))
    if outputs.presence is not None and planes.presence is not None:
        torch.testing.assert_close(outputs.presence, planes.presence.movedim(2, place))


@pytest.mark.parametrize("axis", ["y", "x"])
def test_its_description_is_turned_too(axis: str) -> None:
    place = "zyx".index(axis)
    flat, turned = describe(UNET), describe(UNET.updated(plane_axis=axis))
    zyx = (8, 32, 64)
    frame = (zyx[place], *(size for other, size in enumerate(zyx) if other != place))

    def back(sizes: Sequence[T]) -> tuple[T, ...]:
        rest = list(sizes[1:])
        rest.insert(place, sizes[0])
        return tuple(rest)

    assert turned.total_stride == back(flat.total_stride)
    assert turned.receptive_field == back(flat.receptive_field)
    assert turned.layer_shapes(zyx) == tuple(back(size) for size in flat.layer_shapes(frame))
    assert turned.operations(zyx) == flat.operations(frame)
    assert [layer.kernel for layer in turned.layers] == [back(layer.kernel) for layer in flat.layers]
    z, y, x = back((1.0, 4.0, 1.0))
    automatic = UNET.updated(kernel="auto", strides="auto", plane_axis=axis).for_voxels(VoxelSize(z, y, x, "um"))
    assert automatic.stride_per_level[0] == (1, 1, 2)


@pytest.mark.parametrize(
    ("config", "classes", "head"),
    [(EVEN, 3, "softmax"), (EVEN, 1, "softmax"), (FULL, 2, "softmax"), (FULL, 2, "sigmoid")],
)
def test_across_all_axes_probabilities_are_averaged(config: NetworkConfig, classes: int, head: Any) -> None:
    config = config.updated(classes=classes, head=head)
    across_all = turned_network(config, "all")[1]
    volume = torch.rand(2, 1, 4, 8, 12)
    is_sigmoid = classes == 1 or head == "sigmoid"

    def probabilities(network: Network) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = network(volume)
        return logits.sigmoid() if is_sigmoid else logits.softmax(1)

    parts = [probabilities(turned_network(config, axis)[1]) for axis in "zyx"]

    torch.testing.assert_close(probabilities(across_all), sum(parts, torch.zeros(())) / 3)


def test_sure_passes_stay_finite() -> None:
    network = build_network(EVEN.updated(plane_axis="all", classes=1)).eval()
    torch.nn.init.constant_(network.get_parameter("body.head.bias"), 300.0)

    with torch.no_grad():
        assert torch.isfinite(network(torch.rand(1, 1, 4, 4, 4))).all()


def test_a_patch_is_cut_across_its_shortest_axis() -> None:
    across_all = turned_network(FULL, "all")[1]
    across_y = turned_network(FULL, "y")[1]
    patch = torch.rand(1, 1, 8, 3, 12)

    with torch.no_grad():
        found, expected = across_all.all_outputs_of(patch), across_y.all_outputs_of(patch)

    for output, other in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(output, other)
    assert found.presence is not None
    assert found.presence.shape == (1, 2, 2, 3, 3)


@pytest.mark.parametrize("config", [EVEN, FULL])
def test_the_description_covers_all_passes(config: NetworkConfig) -> None:
    config = config.updated(plane_axis="all")
    network, description = build_network(config).eval(), describe(config)
    zyx = (4, 8, 12)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, *zyx))

    assert description.operations(zyx) * 2 == counter.get_total_flops()
    assert len(set(description.total_stride)) == 1
    padded, crop = padded_to_legal(config, torch.rand(1, 1, 3, 5, 6))
    with torch.no_grad():
        assert network(padded)[crop].shape[2:] == (3, 5, 6)


def test_a_tile_with_its_context_equals_the_whole_across_all_axes() -> None:
    config = UNetConfig(dimensions=2, levels=2, filters=3, convolutions=1, norm="none", plane_axis="all")
    network, context = build_network(config).eval(), describe(config).context[0]
    start = context + context % 2
    volume = torch.rand(1, 1, *[3 * start + 2] * 3)

    with torch.no_grad():
        whole, tile = network(volume), network(volume[..., : 2 * start, : 2 * start, : 2 * start])

    kept = slice(0, 2 * start - context)
    torch.testing.assert_close(tile[..., kept, kept, kept], whole[..., kept, kept, kept])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((3, 8, 20), {0: (3, 8, 20), 1: (8, 3, 20), 2: (8, 20, 3)}),
        ((9, 5, 8), {0: (8, 8, 8), 1: (8, 8, 8), 2: (8, 8, 8)}),
    ],
)
def test_patches_across_all_axes_are_turned(asked: Any, expected: dict[int, Any]) -> None:
    shapes = planned_patches(describe(EVEN.updated(plane_axis="all")), asked, (64, 64, 64))

    assert {axis: shapes[axis] for axis in range(3)} == expected
    assert shapes[None] == shapes[0]


@pytest.mark.parametrize("extent", [(400, 400, 400), (24, 20, 20), (64, 9, 9), (5, 300, 300)])
def test_automatic_patches_are_planes_with_their_neighbours(extent: tuple[int, int, int]) -> None:
    config = EVEN.updated(plane_axis="all")
    network = build_network(config)

    shapes = planned_patches(describe(config), "auto", extent)

    for axis in range(3):
        shape = shapes[axis]
        assert shape[axis] == min(shape)
        assert shape[axis] == 3 or extent != (400, 400, 400)
        network.outputs(torch.zeros(1, 1, *shape))  # takes it


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (UNetConfig(), {"plane_axis": "y"}, "plane_axis = y needs dimensions = 2"),
        (UNET, {"plane_axis": "x", "features": "scale_space"}, "plane_axis = x needs features = none"),
        (UNET, {"plane_axis": "all"}, "plane_axis = all needs the same kernel and stride"),
        (EVEN, {"plane_axis": "all", "padding": "valid"}, "padding = valid needs a single plane_axis"),
        (EVEN, {"plane_axis": "all", "deep_supervision": True}, "deep_supervision = True needs a single plane_axis"),
    ],
)
def test_what_does_not_fit_is_refused(config: NetworkConfig, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.updated(**changes)
