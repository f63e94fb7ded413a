from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.presets import network_config, network_presets

# trainable, and with the running means and variances
COUNTS: list[tuple[str, dict[str, Any], int, int]] = [
    ("cicek2016", {"in_channels": 3, "classes": 3}, 19_069_955, 19_069_955),
    ("cicek2016", {"in_channels": 3, "classes": 3, "norm": "batch"}, 19_074_627, 19_079_299),
    ("cicek2016", {"classes": 2}, 19_068_162, 19_068_162),
    ("cicek2016", {"classes": 2, "norm": "batch"}, 19_072_834, 19_077_506),
    ("cicek2016", {"classes": 2, "filters": 32}, 4_767_874, 4_767_874),
    ("keras3d", {"classes": 4}, 19_072_964, 19_077_636),
    ("framework3d", {"classes": 1}, 1_474_913, 1_476_385),
    ("framework3d", {"classes": 1, "norm": "none"}, 1_473_441, 1_473_441),
    ("framework3d", {"classes": 1, "upsampling": "transposed"}, 1_416_113, 1_417_809),
    ("framework3d", {"classes": 1, "levels": 3, "filters": (8, 8, 8)}, 22_977, 23_169),
    ("framework3d", {"classes": 1, "levels": 2, "filters": (8, 16), "convolutions": 1}, 10_713, 10_793),
    (
        "framework3d",
        {
            "classes": 1,
            "levels": 3,
            "filters": (8, 16, 32),
            "kernel": (7, 5, 3),
            "norm": "none",
            "upsampling": "transposed",
        },
        325_257,
        325_257,
    ),
    ("unet2d-elu", {"classes": 1}, 1_940_817, 1_940_817),
    ("unet2d-elu", {"classes": 1, "up_bias": False}, 1_940_577, 1_940_577),
    ("unet2d", {}, 31_030_658, 31_030_658),
    ("unet3plus", {"in_channels": 3}, 26_974_658, 26_987_714),
    ("unet3plus", {"neighbours": 1}, 26_974_658, 26_987_714),
    ("unet3plus", {"in_channels": 3, "classes": 1}, 26_971_777, 26_984_833),
    ("unet3plus", {}, 26_973_506, 26_986_562),
    ("unet3plus-ds", {"in_channels": 3}, 27_010_378, 27_023_434),
    ("unet3plus-ds", {"in_channels": 3, "classes": 1}, 26_989_637, 27_002_693),
    ("unet3plus-ds-cgm", {"in_channels": 3}, 27_012_428, 27_025_484),
    ("unet3plus-ds-cgm", {"in_channels": 3, "classes": 1}, 26_991_687, 27_004_743),
    ("unet3plus-3d", {}, 5_062_322, 5_065_586),
    ("unet3plus-ds-3d", {}, 5_089_114, 5_092_378),
    ("unet3plus-ds-cgm-3d", {}, 5_089_628, 5_092_892),
    ("unet3plus-3d", {"filters": 64}, 80_881_346, 80_894_402),
    ("unet3plus-3d", {"filters": 8}, 1_267_994, 1_269_626),
]


@pytest.mark.parametrize(("name", "changes", "trainable", "total"), COUNTS)
def test_parameters_of_the_reference_systems(name: str, changes: dict[str, Any], trainable: int, total: int) -> None:
    config = network_config(name, **changes)
    with torch.device("meta"):
        network = build_network(config)

    assert sum(p.numel() for p in network.parameters()) == trainable
    running = sum(b.numel() for key, b in network.named_buffers() if "running" in key)
    assert trainable + running == total
    assert describe(config).parameters == trainable
    assert describe(config).running_statistics == running


@pytest.mark.parametrize(
    ("name", "changes", "zyx", "result"),
    [
        ("cicek2016", {"in_channels": 3, "classes": 3}, (116, 132, 132), (28, 44, 44)),
        ("cicek2016", {}, (100, 100, 100), (12, 12, 12)),
        ("cicek2016", {}, (92, 92, 92), (4, 4, 4)),
        ("keras3d", {"classes": 4}, (64, 64, 64), (64, 64, 64)),
        ("unet2d", {}, (3, 572, 572), (3, 388, 388)),
        ("unet2d-elu", {"classes": 1}, (1, 512, 512), (1, 512, 512)),
        ("unet3plus-ds-cgm", {"in_channels": 3, "classes": 1}, (1, 320, 320), (1, 320, 320)),
        ("unet3plus-ds-cgm-3d", {"classes": 3}, (16, 64, 48), (16, 64, 48)),
    ],
)
def test_shapes_of_the_reference_systems(
    name: str, changes: dict[str, Any], zyx: tuple[int, ...], result: tuple[int, ...]
) -> None:
    config = network_config(name, **changes)
    with torch.device("meta"):
        logits = build_network(config)(torch.empty(1, config.in_channels, *zyx))

    assert logits.shape == (1, config.classes, *result)


@pytest.mark.parametrize("name", network_presets())
def test_every_preset_learns_and_predicts(name: str) -> None:
    config = network_config(name, in_channels=2, classes=3)
    if name not in ("fast", "framework3d"):
        config = config.updated(filters=4)
    network = build_network(config)
    zyx = describe(config).legal_shape((1, 32, 32))
    image = torch.rand(2, 2, *zyx)

    loss = sum(output.square().mean() for output in network.outputs(image))
    assert isinstance(loss, torch.Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    with torch.no_grad():
        assert network.eval()(image).shape[:2] == (2, 3)


def test_dropout_of_the_keras_network_leaves_out_the_first_level() -> None:
    network = build_network(network_config("keras3d", filters=8))

    active = [name for name, module in network.body.named_modules() if isinstance(module, torch.nn.Dropout3d)]
    assert active == [
        "encoder.blocks.1.after",
        "encoder.blocks.2.after",
        "encoder.blocks.3.after",
        "decoder.blocks.0.after",
        "decoder.blocks.1.after",
        "decoder.blocks.2.after",
    ]
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert len(norms) == 14


@pytest.mark.parametrize("name", ["fast", "large", "unet3plus-3d"])
def test_own_presets_follow_the_voxel_size(name: str) -> None:
    config = network_config(name).for_voxels(VoxelSize(4, 1, 1, "um"))

    assert config.kernel_per_level[0] == (1, 3, 3)
    assert config.stride_per_level[0] == (1, 2, 2)


def test_another_kind_takes_the_defaults_of_its_family() -> None:
    config = network_config("fast", kind="unet3plus", classes=3)

    assert config == UNet3PlusConfig(classes=3)
    assert network_config("unet3plus", kind="unet") == UNetConfig()
    with pytest.raises(ConfigError, match=r"kind = 'vnet': there is no such family; known: unet, unet3plus"):
        network_config("fast", kind="vnet")


def test_an_unknown_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'cicek2061'; did you mean 'cicek2016'\? known: fast, large"):
        network_config("cicek2061")
    with pytest.raises(ConfigError, match=r"'zzz'; known: fast"):
        network_config("zzz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filtres": 8}, r"unknown setting 'network.filtres'; known here: .*filters"),
        ({"filters": 0}, r"network.filters = 0"),
        ({"levels": 3}, r"dropout has 4 entries but levels = 3 needs 3"),
        ({"kernel": 4}, r"kernel has the even size 4; it needs odd sizes, such as 5"),
    ],
)
def test_wrong_overrides_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network_config("keras3d", **changes)
