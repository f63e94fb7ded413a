from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import AugmentConfig, TrainConfig, UNetConfig
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.normalize import fit_normalization
from napari_unet3d.engine.progress import Annotate
from napari_unet3d.engine.training_data import TrainingData, intensity_channels, known_labels
from napari_unet3d.engine.training_setup import prepare_data
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

Make = Callable[..., Any]
NETWORK = UNetConfig(levels=2, filters=4)
PLAIN = AugmentConfig(probability=0, flips=False, gain=0, offset=0, noise=0)


def prepared(
    volumes: list[AnnotatedVolume], ids: tuple[int, ...] = (1, 2), network: UNetConfig = NETWORK, **settings: Any
) -> TrainingData:
    config = TrainConfig(**{"augment": PLAIN, "patch_size": (4, 16, 16), **settings})
    images = [volume.image for volume in volumes]
    return prepare_data(
        volumes,
        ids,
        build_network(network),
        config,
        normalization=fit_normalization(images, config.normalize),
        device=torch.device("cpu"),
        dtype=torch.float32,
        rng=np.random.default_rng(0),
        fit_gain=True,
    ).data


def numbered(labels: np.ndarray[Any, Any]) -> AnnotatedVolume:
    """An image whose grey value tells the voxel."""
    image = np.arange(labels.size, dtype=np.float32).reshape(labels.shape)
    return AnnotatedVolume(Volume.from_array(image), labels)


def test_batches_are_cut_where_they_should_be() -> None:
    labels = np.zeros((10, 20, 20), np.uint8)
    labels[4] = np.random.default_rng(0).integers(0, 3, (20, 20))
    volume = numbered(labels)
    config = TrainConfig(normalize={"method": "none"}, patch_size=(4, 16, 16))  # type: ignore[arg-type]  # pydantic converts
    data = prepared([volume], normalize=config.normalize)
    rng = np.random.default_rng(1)
    for _ in range(10):
        batch = data.batch(rng, 2)
        assert batch.input.shape == (2, 1, 4, 16, 16)
        assert batch.target.shape == (2, 4, 16, 16)
        assert batch.target.dtype == torch.int64
        for patch, target in zip(batch.input[:, 0], batch.target, strict=True):
            voxels = patch.round().long().numpy()
            expected = labels.ravel()[voxels].astype(int) - 1
            _, numbers, counts = np.unique(voxels, return_inverse=True, return_counts=True)
            inside = counts[numbers.reshape(voxels.shape)] == 1  # the outermost voxels are repeated beyond the volume
            np.testing.assert_array_equal(target.numpy()[inside], expected[inside])
            assert ((target.numpy() == expected) | (target.numpy() == -1)).all()
            assert inside.sum() >= 3 * 12 * 12
            assert (target >= 0).any()


def test_batches_are_channels_last() -> None:
    labels = np.zeros((10, 20, 20), np.uint8)
    labels[4] = np.random.default_rng(0).integers(0, 3, (20, 20))
    data = prepared([numbered(labels)], network=NETWORK.updated(features="scale_space"))
    batch = data.batch(np.random.default_rng(0), 2)
    assert batch.input.shape[1] == 16
    assert batch.input.is_contiguous(memory_format=torch.channels_last_3d)


def test_patch_larger_than_the_volume() -> None:
    labels = np.ones((3, 5, 5), np.uint8)
    labels[1] = 2
    batch = prepared([numbered(labels)], validation=0.0).batch(np.random.default_rng(0), 1)
    assert batch.input.shape == (1, 1, 4, 16, 16)
    assert torch.isfinite(batch.input).all()
    assert (batch.target >= 0).sum() == 75  # outside is not annotated
    assert (batch.target == 1).sum() == 25


def test_batches_follow_from_the_generator(make_volume: Make) -> None:
    data = prepared([make_volume()], augment=AugmentConfig())
    first, again, other = (data.batch(np.random.default_rng(seed), 2) for seed in (1, 1, 2))
    assert torch.equal(first.input, again.input)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.input, other.input)


def test_held_out_slices_are_not_in_batches(make_volume: Make) -> None:
    data = prepared([make_volume()])
    ((_, axis, index),) = data.hold_out.slices
    assert axis == 0
    training = data.hold_out.training_labels(0)
    assert not training[index].any()
    assert data.class_counts() == [np.count_nonzero(training == 1), np.count_nonzero(training == 2)]
    ((volume, plane_axis, plane, labels),) = data.held_out_planes()
    assert (volume, plane_axis, plane) == (0, 0, index)
    np.testing.assert_array_equal(labels, make_volume().labels[index])


def test_the_given_labels_stay_as_they_are(make_volume: Make) -> None:
    volume = make_volume()
    before = volume.labels.copy()
    data = prepared([volume])
    data.annotate(Annotate(0, (slice(2, 3), slice(0, 9), slice(0, 9)), np.full((1, 9, 9), 2, np.uint8)))
    np.testing.assert_array_equal(volume.labels, before)


def test_annotation_enters_the_next_batch(make_volume: Make) -> None:
    data = prepared([make_volume(planes=(1, 5))])
    painted = np.full((1, 9, 9), 2, np.uint8)
    assert data.annotate(Annotate(0, (slice(20, 21), slice(0, 9), slice(0, 9)), painted)) == []
    batch = data.batch(np.random.default_rng(0), 1)
    found = batch.target[0] >= 0
    assert found.any()
    assert set(batch.target[0][found].tolist()) == {1}  # nothing but the new stroke is near


def test_annotation_on_a_held_out_slice_is_scored_not_learnt(make_volume: Make) -> None:
    data = prepared([make_volume()])
    ((_, _, index),) = data.hold_out.slices
    before = data.class_counts()
    box = (slice(index, index + 1), slice(0, 3), slice(0, 3))
    data.annotate(Annotate(0, box, np.full((1, 3, 3), 2, np.uint8)))
    assert data.class_counts() == before
    ((*_, labels),) = data.held_out_planes()
    assert (labels[:3, :3] == 2).all()


def test_one_in_five_later_slices_is_held_out_and_the_rest_is_learnt_next(make_volume: Make) -> None:
    base = make_volume(planes=())
    image = np.tile(base.image.data, (1, 5, 1, 1))
    labels = np.zeros(image.shape[1:], np.uint8)
    for plane in (1, 9, 17, 25, 33):
        labels[plane] = make_volume(planes=(9,)).labels[9]
    data = prepared([AnnotatedVolume(Volume(image), labels)])
    assert len(data.hold_out.slices) == 1
    plane = make_volume(planes=(9,)).labels[9:10]
    rng = np.random.default_rng(0)
    for index in (50, 60, 70, 80, 90):
        before = len(data.hold_out.slices)
        data.annotate(Annotate(0, (slice(index, index + 1), slice(0, 20), slice(0, 20)), plane))
        if len(data.hold_out.slices) > before:
            assert data.hold_out.slices[-1] == (0, 0, index)
            assert not data._train[0][index].any()
        else:
            np.testing.assert_array_equal(data._train[0][index].numpy(), plane[0])
            assert (data.batch(rng, 1).target >= 0).any()
    assert len(data.hold_out.slices) == 2
    assert len(list(data.held_out_planes())) == 2
    np.testing.assert_array_equal(data._train[0].numpy(), data.hold_out.training_labels(0))
    np.testing.assert_array_equal(data._sampler.labels[0], data.hold_out.training_labels(0))


def test_erased_annotation_is_gone(make_volume: Make) -> None:
    data = prepared([make_volume(planes=(1, 5))])
    assert data.has_annotation
    whole = (slice(0, 24), slice(0, 20), slice(0, 20))
    data.annotate(Annotate(0, whole, np.zeros((24, 20, 20), np.uint8)))
    assert not data.has_annotation


def test_unknown_ids_count_as_not_annotated() -> None:
    labels = np.array([0, 1, 3, 258, 700], np.uint16)
    found = known_labels(labels, (1, 3))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [0, 1, 3, 0, 0])
    wide = known_labels(labels, (1, 700))
    assert wide.dtype == np.uint16
    np.testing.assert_array_equal(wide, [0, 1, 0, 0, 700])


def test_unknown_ids_are_reported_and_not_learnt(make_volume: Make) -> None:
    data = prepared([make_volume(planes=(1, 5))])
    before = data.class_counts()
    box = (slice(20, 21), slice(0, 2), slice(0, 2))
    assert data.annotate(Annotate(0, box, np.array([[[258, 1], [9, 9]]], np.uint16))) == [9, 258]
    assert data.class_counts() == [before[0] + 1, before[1]]


def test_pieces_on_one_plane_are_predicted_once() -> None:
    image = np.random.default_rng(0).normal(size=(20, 60, 60)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    for y, x in np.ndindex(3, 3):
        labels[:5, 25 * y : 25 * y + 5, 25 * x : 25 * x + 5] = 1 + (image[:5, :5, :5] > 0)
    data = prepared([AnnotatedVolume(Volume.from_array(image), labels)], validation=0.4)
    assert len(data.hold_out.units) > 2
    planes = [key for *key, _ in data.held_out_planes()]
    assert len(planes) == len({tuple(key) for key in planes})
    scored = sum(np.count_nonzero(labels) for *_, labels in data.held_out_planes())
    assert scored == np.count_nonzero(data.hold_out.validation_labels(0))


@pytest.mark.parametrize(("features", "expected"), [("none", [True, True]), ("scale_space", None)])
def test_intensity_channels(features: Any, expected: list[bool] | None) -> None:
    network = NETWORK.updated(in_channels=2, features=features)
    found = intensity_channels(network)
    assert len(found) == network.body_channels
    assert found[0]
    assert expected is None or found == expected
