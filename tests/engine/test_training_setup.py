from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import AugmentConfig, HoldOutState, RunRecord, TrainConfig, Triple, UNetConfig
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.networks.build import Network, build_network
from napari_unet3d.engine.normalize import fit_normalization
from napari_unet3d.engine.training_setup import Prepared, network_for, prepare_data
from napari_unet3d.engine.volume import IGNORE_INDEX, AnnotatedVolume, Volume

Make = Callable[..., Any]


def volume_of(
    shape: tuple[int, ...], voxel_size: VoxelSize | None = None, image: Any = None, name: str = "image"
) -> AnnotatedVolume:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32) if image is None else image
    volume = Volume.from_array(data, voxel_size, name)
    labels = np.zeros(volume.shape, np.uint8)
    labels[..., ::2] = 1
    labels[..., 1::2] = 2
    return AnnotatedVolume(volume, labels)


def prepare(
    network: Network,
    *volumes: AnnotatedVolume,
    record: RunRecord | None = None,
    fit_gain: bool = True,
    hold_out_state: HoldOutState | None = None,
    seed: int = 0,
    **settings: Any,
) -> Prepared:
    config = TrainConfig(**settings)
    return prepare_data(
        volumes,
        (1, 2),
        network,
        config,
        normalization=fit_normalization([volume.image for volume in volumes], config.normalize),
        device=torch.device("cpu"),
        dtype=torch.float32,
        rng=np.random.default_rng(seed),
        fit_gain=fit_gain,
        hold_out_state=hold_out_state,
        record=record,
    )


# --- the network ------------------------------------------------------------------------------------------


def test_first_volume_settles_kernels_and_strides() -> None:
    flat = volume_of((8, 16, 16), VoxelSize(5.0, 1.0, 1.0, "micrometer"))
    found = network_for([flat, volume_of((8, 16, 16))], UNetConfig(levels=3, filters=4), (1, 2))
    assert found.kernel_per_level[0] == (1, 3, 3)
    assert found.stride_per_level[0] == (1, 2, 2)
    assert found.feature_voxel == (5, 1, 1)


@pytest.mark.parametrize(
    ("network", "ids", "message"),
    [
        (UNetConfig(in_channels=3), (1, 2), "network.in_channels = 3 but image has 1 channels; set .* to 1"),
        (UNetConfig(classes=4), (1, 2), r"network.classes = 4 but 2 classes are annotated \(ids 1, 2\)"),
        (UNetConfig(classes=1), (1, 2, 5), "network.classes = 1 but 3 classes are annotated"),
        (
            UNetConfig(classes=3, head="sigmoid"),
            (1, 2, 5),
            "set network.classes to 2: .* background, has no",
        ),
    ],
)
def test_networks_that_do_not_fit(network: UNetConfig, ids: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network_for([volume_of((4, 8, 8))], network, ids)


def test_flat_images_need_a_flat_network() -> None:
    with pytest.raises(ConfigError, match=r"network\.dimensions=2"):
        network_for([volume_of((8, 8))], UNetConfig(), (1, 2))
    assert network_for([volume_of((8, 8))], UNetConfig(dimensions=2), (1, 2)).dimensions == 2


def test_volumes_need_the_same_channels() -> None:
    with pytest.raises(DataError, match="b has 2 channels but a has 1"):
        network_for([volume_of((4, 8, 8), name="a"), volume_of((2, 4, 8, 8), name="b")], UNetConfig(), (1, 2))


# --- the data ---------------------------------------------------------------------------------------------


def test_features_get_similar_sizes() -> None:
    network = build_network(UNetConfig(levels=2, filters=4, features="scale_space"))
    volume = volume_of((24, 24, 24))
    prepared = prepare(network, volume)
    whole = prepared.data.sources[0].read((slice(0, 24), slice(0, 24), slice(0, 24)))
    # all blocks are the whole volume here, so that the deviation of every feature is one
    torch.testing.assert_close(whole.std((0, 1, 2), correction=0), torch.ones(16), atol=0.02, rtol=0)


def test_gain_of_a_trained_model_stays() -> None:
    network = build_network(UNetConfig(levels=2, filters=4, features="scale_space"))
    before = network.features.gain.clone()  # type: ignore[operator]  # a buffer
    prepare(network, volume_of((24, 24, 24)), fit_gain=False)
    assert torch.equal(network.features.gain, before)  # type: ignore[arg-type]  # a buffer


def test_constant_features_do_not_divide_by_zero() -> None:
    image = np.zeros((20, 20, 20), np.float32)
    image[0, 0, 0] = 1e-3
    network = build_network(UNetConfig(levels=2, filters=4, features="scale_space"))
    prepare(network, volume_of((20, 20, 20), image=image), normalize={"method": "none"})
    assert torch.isfinite(network.features.gain).all()  # type: ignore[arg-type]  # a buffer


@pytest.mark.parametrize(
    ("network", "asked", "expected"),
    [
        (UNetConfig(levels=2, filters=4), (5, 9, 16), (6, 10, 16)),  # rounded up to what the network takes
        (UNetConfig(levels=2, filters=4, dimensions=2), (1, 8, 8), (1, 8, 8)),
        (UNetConfig(levels=2, filters=4, padding="valid"), "auto", (40, 40, 40)),
    ],
)
def test_patch_sizes(network: UNetConfig, asked: Any, expected: Triple) -> None:
    prepared = prepare(build_network(network), volume_of((12, 40, 40)), patch_size=asked)
    assert prepared.patch_size == expected


def test_automatic_patches_fit_the_network() -> None:
    for config in (UNetConfig(levels=4, filters=2), UNetConfig(levels=2, filters=2, dimensions=2)):
        network = build_network(config)
        prepared = prepare(network, volume_of((30, 70, 50)))
        assert network.description.legal_shape(prepared.patch_size) == prepared.patch_size


def test_batch_sizes(make_trainer: Make) -> None:
    network = build_network(UNetConfig(levels=2, filters=4))
    volume = volume_of((8, 16, 16))
    assert prepare(network, volume).batch_size == 1
    assert prepare(network, volume, batch_size=3).batch_size == 3
    trainer = make_trainer(steps=1, batch_size=5)
    list(trainer.fit())
    record = trainer.model().recipe.record
    assert prepare(network, volume, record=record).batch_size == 5


def test_hold_out_of_an_earlier_run_stays(make_volume: Make) -> None:
    network = build_network(UNetConfig(levels=2, filters=4))
    volume = make_volume()
    first = prepare(network, volume)
    state = first.data.hold_out.to_state()
    other = prepare(network, volume, hold_out_state=state, seed=99, validation=0.5)
    assert other.data.hold_out.to_state() == state


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_patch_too_small_for_its_levels_is_refused(norm: Literal["batch", "instance"]) -> None:
    network = build_network(UNetConfig(levels=5, filters=2, norm=norm))
    with pytest.raises(ConfigError, match=r"network\.levels = 5 .* use fewer levels"):
        prepare(network, volume_of((12, 16, 16)))


@pytest.mark.parametrize(("patch_size", "depth"), [((3, 8, 8), 3), ((1, 8, 8), 1), ((2, 8, 8), 2)])
def test_a_painted_plane_has_its_neighbours_beside_it(patch_size: Any, depth: int) -> None:
    volume = volume_of((12, 8, 8))
    volume.labels[:5] = volume.labels[6:] = 0
    network = build_network(UNetConfig(dimensions=2, neighbours=1, levels=2, filters=2))
    prepared = prepare(network, volume, validation=0, patch_size=patch_size, augment=AugmentConfig(probability=0))

    for seed in range(5):
        target = prepared.data.batch(np.random.default_rng(seed), 1).target[0]
        painted = (target != IGNORE_INDEX).flatten(1).any(1).tolist()
        assert len(painted) == depth
        assert painted[1] if depth == 3 else any(painted)
