"""A model that works at another voxel size gives results on the voxels of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d.engine import resampled_prediction
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NormalizeConfig, PredictConfig, Recipe, TrainConfig, UNetConfig
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.normalize import ChannelNormalization, Normalization
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Box, Event, Finished, Inbox, Note, Predicted, Started, Stop
from napari_unet3d.engine.resampling import resampled_image
from napari_unet3d.engine.volume import Volume

POINTWISE = UNetConfig(levels=1, filters=4, convolutions=1, kernel=1, strides=(), classes=2)
AS_IT_IS = Normalization(channels=(ChannelNormalization(offset=0, factor=1, low=-1e9, high=1e9, fill=0),))
SIZE = VoxelSize(2, 0.5, 0.5, "mm")


class Steep(nn.Module):
    """Logits (0, 9 x): positive voxels are the structure."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), 9 * x], 1)


@dataclass
class Model:
    voxel_size: VoxelSize = field(default_factory=lambda: VoxelSize(1, 1, 1, "mm"))
    spatial_dims: int = 3
    network: nn.Module = field(default_factory=Steep)
    normalization: Normalization = AS_IT_IS
    label_ids: tuple[int, ...] = (1, 4)
    in_channels: int = 1

    @property
    def recipe(self) -> Recipe:
        train = TrainConfig(normalize=NormalizeConfig(voxel_size="1,1,1mm"))
        return Recipe(network=POINTWISE, train=train)


def image(shape: tuple[int, ...] = (6, 16, 18), size: VoxelSize = SIZE) -> Volume:
    noise = np.random.default_rng(0).normal(size=shape)
    return Volume.from_array(np.cumsum(noise, axis=1).astype(np.float32), size)


def predict(volume: Volume, **more: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[Event]]:
    labels = np.zeros(volume.shape, np.uint8)
    probabilities = np.full((2, *volume.shape), np.nan, np.float32)
    uncertainty = np.full(volume.shape, np.nan, np.float32)
    outputs = PredictionOutputs(labels, probabilities, uncertainty)
    config = PredictConfig(device="cpu", precision="float32", **more.pop("config", {}))
    events = list(Predictor(Model(), config).run(volume, outputs, **more))
    return labels, probabilities, uncertainty, events


def expected(volume: Volume) -> NDArray[Any]:
    """Probabilities on the image's grid, by hand: resample, squash, resample back."""
    moved, resampling = resampled_image(volume, Model().voxel_size)
    p = 1 / (1 + np.exp(-9 * moved.read()))
    both = np.concatenate([1 - p, p])
    z, y, x = (slice(0, n) for n in volume.shape)
    return resampling.inverse.interpolated(lambda box: both[(slice(None), *box)], (z, y, x))


def test_results_lie_on_the_voxels_of_the_image() -> None:
    volume = image()
    labels, probabilities, uncertainty, events = predict(volume)
    by_hand = expected(volume)

    assert np.allclose(probabilities, by_hand, atol=1e-4)
    assert np.array_equal(labels, np.array([1, 4])[by_hand.argmax(0)])
    assert np.isfinite(uncertainty).all()
    assert isinstance(events[0], Note)
    assert events[0].text == ("image is resampled from 2 x 0.5 x 0.5 mm to 1 x 1 x 1 mm, and the result back")
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "done"


def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = image()
    whole = predict(volume)
    monkeypatch.setattr(resampled_prediction, "BLOCK_BYTES", 2000)
    labels, probabilities, _, events = predict(volume, start_at=(2, 17))

    assert np.array_equal(labels, whole[0])
    assert np.allclose(probabilities, whole[1], atol=1e-5)
    assert sum(isinstance(event, Started) for event in events) == 1
    progress = [event for event in events if isinstance(event, Predicted)]
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert progress[-1].done == progress[-1].total
    final = [event.box for event in progress if all(part.stop > part.start for part in event.box)]
    assert len(final) == 8
    times = np.zeros(volume.shape, int)
    for box in final:
        times[box] += 1
    assert (times == 1).all()
    assert final[0][2].start <= 17 < final[0][2].stop


def test_a_part_of_the_volume_and_background_as_zero() -> None:
    volume = image()
    box: Box = (slice(1, 3), slice(5, 12), slice(0, 18))
    part, _, _, _ = predict(volume, box=box, config={"background_as_zero": True})
    whole, _, _, _ = predict(volume)
    assert np.array_equal(part[box], np.where(whole[box] == 1, 0, whole[box]))
    part[box] = 0
    assert not part.any()


def test_stopping_ends_it_early() -> None:
    inbox = Inbox()
    inbox.put(Stop())
    labels, _, _, events = predict(image(), inbox=inbox)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stopped"
    assert not labels.any()


def test_an_image_that_has_the_voxel_size_is_left_as_it_is() -> None:
    volume = image(size=VoxelSize(1000, 1000, 1000, "um"))
    labels, _, _, events = predict(volume)
    assert np.array_equal(labels, np.where(volume.read()[0] > 0, 4, 1))
    assert isinstance(events[0], Started)


def test_an_image_without_a_voxel_size_is_refused() -> None:
    with pytest.raises(DataError, match="no voxel size"):
        predict(image(size=VoxelSize()))
