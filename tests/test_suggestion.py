"""Suggestions from arrays and files, without a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_unet3d
from napari_unet3d import api
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.model_file import save_model
from napari_unet3d.engine.progress import Finished, Inbox, Note, Started, Stop
from napari_unet3d.engine.trained_model import TrainedModel

CONFIG = PredictConfig(device="cpu", precision="float32")
TRAIN = TrainConfig(steps=3, device="cpu", precision="float32", validation=0)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Image and sparse labels, 12 x 24 x 24."""
    _, y, x = np.indices((12, 24, 24))
    truth = (1 + ((y - 12) ** 2 + (x - 9) ** 2 < 40)).astype(np.uint8)
    image = (50 * truth + np.random.default_rng(0).normal(0, 10, truth.shape)).astype(np.float32)
    labels = np.zeros_like(truth)
    labels[6] = truth[6]
    return image, labels


@pytest.fixture(scope="module")
def model(scene: Any) -> TrainedModel:
    return api.train(*scene, network=UNetConfig(levels=2, filters=4), config=TRAIN)


def test_from_arrays_and_from_files_alike(scene: Any, model: TrainedModel, tmp_path: Path) -> None:
    image, labels = scene
    found = napari_unet3d.suggest(model, image, labels, count=3, config=CONFIG)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len(found) == 3
    save_model(model, tmp_path / "model.safetensors")
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "labels.npy", labels)
    again = api.suggest(
        tmp_path / "model.safetensors", tmp_path / "image.npy", tmp_path / "labels.npy", count=3, config=CONFIG
    )
    assert again == found


def test_events_then_suggestions(scene: Any, model: TrainedModel) -> None:
    image, labels = scene
    broken = image.copy()
    broken[0, 0, 0] = np.nan
    run = api.suggest_events(model, broken, labels, config=CONFIG)
    assert run.suggestions == ()
    events = list(run)
    assert any(isinstance(event, Started) for event in events)
    assert next(event.text for event in events if isinstance(event, Note)).startswith("image holds NaN")
    assert len(run.suggestions) == 5


def test_stop(scene: Any, model: TrainedModel) -> None:
    inbox = Inbox()
    inbox.put(Stop())
    run = api.suggest_events(model, *scene, config=CONFIG, inbox=inbox)
    last = list(run)[-1]
    assert isinstance(last, Finished)
    assert last.reason == "stopped"
    assert run.suggestions == ()


def test_dense_labels_leave_nothing_to_paint(scene: Any, model: TrainedModel) -> None:
    image, labels = scene
    assert api.suggest(model, image, labels * 0, config=CONFIG, zero_is_background=True) == []


def test_voxel_size_is_that_of_the_call(scene: Any, model: TrainedModel) -> None:
    found = api.suggest(model, *scene, config=CONFIG, count=9, voxel_size=VoxelSize(0.5, 0.5, 0.5, "um"))
    assert any(" µm) away" in one.reason for one in found)


def test_an_image_with_a_single_plane() -> None:
    image = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)
    labels = np.zeros((24, 24), np.uint8)
    labels[:4, :12], labels[:4, 12:] = 1, 2
    flat = api.train(image, labels, network=UNetConfig(levels=2, filters=4, dimensions=2), config=TRAIN)
    found = api.suggest(flat, image, labels, config=CONFIG)
    assert [(one.axis, one.index) for one in found] == [(0, 0)]
    assert found[0].centre[1] >= 4


def test_labels_of_another_shape(scene: Any, model: TrainedModel) -> None:
    image, labels = scene
    with pytest.raises(DataError, match="labels have shape"):
        api.suggest_events(model, image, labels[:5])


def test_a_network_that_tells_every_structure_by_itself(scene: Any) -> None:
    image, labels = scene
    three = np.where((labels == 2) & (np.indices(labels.shape)[2] > 9), 3, labels).astype(np.uint8)
    network = UNetConfig(levels=2, filters=4, head="sigmoid", classes=2)
    found = api.suggest(api.train(image, three, network=network, config=TRAIN), image, three, config=CONFIG)
    assert len(found) == 5
    assert all(0 < one.score <= 1 for one in found)
    assert (0, 6) not in [(one.axis, one.index) for one in found]
