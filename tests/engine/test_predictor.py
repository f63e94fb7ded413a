from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import PredictConfig, Recipe, Triple, UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import DataError, DeviceError
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor, predict_plane
from napari_unet3d.engine.progress import (
    Event,
    Finished,
    Inbox,
    Note,
    Pause,
    Paused,
    Predicted,
    Resume,
    Started,
    Stop,
)
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.volume import Volume

PADDED = UNetConfig(levels=2, filters=4, convolutions=1, kernel=3, strides=2, norm="batch", classes=3)
VALID = UNetConfig(levels=2, filters=4, convolutions=1, kernel=3, strides=2, norm="none", padding="valid", classes=3)
POINTWISE = UNetConfig(levels=1, filters=4, convolutions=1, kernel=1, strides=(), classes=2)


class AsTheyAre:
    def apply(self, values: NDArray[Any], /) -> NDArray[np.float32]:
        return values.astype(np.float32)


@dataclass
class Model:
    """What the predictor needs of a model, without training one."""

    config: UNetConfig
    network: nn.Module
    label_ids: tuple[int, ...] = (1, 2, 3)
    spatial_dims: int = 3
    normalization: AsTheyAre = field(default_factory=AsTheyAre)
    voxel_size: VoxelSize = field(default_factory=VoxelSize)

    @property
    def recipe(self) -> Recipe:
        return Recipe(network=self.config)

    @property
    def in_channels(self) -> int:
        return self.config.in_channels


def _model(config: UNetConfig, label_ids: tuple[int, ...] = (1, 2, 3), spatial_dims: int = 3) -> Model:
    torch.manual_seed(0)
    return Model(config, build_network(config).eval(), label_ids, spatial_dims)


class Threshold(nn.Module):
    """Logits (0, x), or x alone; calls `before` on each block."""

    def __init__(self, before: Callable[[Tensor], None] = lambda x: None, channels: int = 2) -> None:
        super().__init__()
        self.before = before
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        self.before(x)
        return torch.cat([torch.zeros_like(x), x], 1) if self.channels == 2 else x


def _threshold(before: Callable[[Tensor], None] = lambda x: None, label_ids: tuple[int, ...] = (1, 2)) -> Model:
    return Model(POINTWISE, Threshold(before), label_ids)


def _image(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _predict(
    model: Model, image: NDArray[Any] | Volume, config: PredictConfig | None = None, **more: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[Event]]:
    """Labels, probabilities, uncertainty and events."""
    volume = image if isinstance(image, Volume) else Volume.from_array(image)
    labels = np.zeros(volume.shape, np.uint16)
    probabilities = np.full((len(model.label_ids), *volume.shape), np.nan, np.float32)
    uncertainty = np.full(volume.shape, np.nan, np.float32)
    config = config or PredictConfig(device="cpu", precision="float32")
    outputs = PredictionOutputs(labels, probabilities, uncertainty)
    events = list(Predictor(model, config).run(volume, outputs, **more))
    return labels, probabilities, uncertainty, events


def _float32(**settings: Any) -> PredictConfig:
    return PredictConfig(device="cpu", precision="float32", **settings)


def _untiled(model: Model, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities C Z Y X from one call of the network, padded by NumPy."""
    facts = describe(model.config)
    border = Footprint.of(model.config).border
    before = facts.margin if any(facts.margin) else border
    inner = [size + 2 * m for size, m in zip(image.shape, before, strict=True)]
    legal = facts.legal_shape(inner)
    pad = [(m, total - m - size) for m, total, size in zip(before, legal, image.shape, strict=True)]
    padded = np.pad(image, pad, mode="edge")
    with torch.no_grad():
        output = model.network(torch.from_numpy(padded)[None, None]).softmax(1)[0]
    inside = tuple(slice(start, start + size) for start, size in zip(border, image.shape, strict=True))
    result: NDArray[np.float32] = output[(slice(None), *inside)].numpy()
    return result


shapes = st.tuples(*[st.integers(2, 40)] * 3)
tiles = st.tuples(*[st.integers(14, 32)] * 3)


@pytest.mark.parametrize("config", [PADDED, VALID], ids=["padded", "valid"])
def test_tiled_is_untiled(config: UNetConfig) -> None:
    model = _model(config)
    halo = describe(config).context if config.padding == "same" else (0, 0, 0)

    @settings(deadline=None, max_examples=20)
    @given(shape=shapes, tile=tiles, overlap=st.sampled_from([0.0, 0.0, 0.25, 0.6]))
    def check(shape: Triple, tile: Triple, overlap: float) -> None:
        image = _image(shape)
        least = tuple(max(side, 2 * h + 2) for side, h in zip(tile, halo, strict=True))
        _, result, _, _ = _predict(model, image, _float32(tile=least, halo=halo, overlap=overlap))
        np.testing.assert_allclose(result, _untiled(model, image), atol=1e-5)

    check()


def test_a_halo_too_small_is_seen_so_the_test_above_can_fail() -> None:
    model, image = _model(PADDED), _image((24, 24, 24))
    _, result, _, _ = _predict(model, image, _float32(tile=(12, 12, 12), halo=(0, 0, 0)))
    assert np.abs(result - _untiled(model, image)).max() > 1e-3


def test_the_automatic_tile_and_halo_are_exact_where_memory_allows() -> None:
    model, image = _model(PADDED), _image((40, 50, 60))
    memory = 4_000_000
    _, result, _, events = _predict(model, image, _float32(memory=memory))
    assert sum(isinstance(event, Predicted) for event in events) > 1
    np.testing.assert_allclose(result, _untiled(model, image), atol=1e-5)


def test_same_as_monai_on_a_pointwise_network() -> None:
    monai = pytest.importorskip("monai.inferers")
    model, image = _model(POINTWISE, (1, 2)), _image((9, 20, 31))
    _, result, _, _ = _predict(model, image, _float32(tile=(8, 8, 8), overlap=0.25))
    with torch.no_grad():
        theirs = monai.sliding_window_inference(torch.from_numpy(image)[None, None], (8, 8, 8), 1, model.network)
    np.testing.assert_allclose(result, theirs.softmax(1)[0].numpy(), atol=1e-5)


def test_labels_probabilities_and_uncertainty_by_hand() -> None:
    image = np.array([[[-np.log(3), 0, np.log(3)]]], np.float32)
    labels, probabilities, uncertainty, _ = _predict(_threshold(), image)
    assert labels.tolist() == [[[1, 1, 2]]]
    np.testing.assert_allclose(probabilities[1].ravel(), [0.25, 0.5, 0.75], rtol=1e-6)
    h = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    np.testing.assert_allclose(uncertainty.ravel(), [h, 1, h], rtol=1e-6)


def test_one_sigmoid_channel_is_two_classes() -> None:
    model = Model(POINTWISE.updated(classes=1), Threshold(channels=1), (1, 2))
    image = _image((3, 4, 5))
    labels, probabilities, _, _ = _predict(model, image)
    assert np.array_equal(labels, 1 + (image > 0))
    np.testing.assert_allclose(probabilities[1], 1 / (1 + np.exp(-image)), rtol=1e-5)


class TwoStructures(nn.Module):
    """Logits x and -2 x - 1 of two structures."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -2 * x - 1], 1)


@pytest.mark.parametrize("settings", [{}, {"flips": True}, {"tile": (3, 3, 3), "halo": (0, 0, 0), "overlap": 0.4}])
def test_structures_of_a_sigmoid_head(settings: dict[str, Any]) -> None:
    model = Model(POINTWISE.updated(classes=2, head="sigmoid"), TwoStructures(), (1, 5, 9))
    image = _image((4, 5, 6))
    labels, probabilities, uncertainty, _ = _predict(model, image, _float32(**settings))
    first, second = 1 / (1 + np.exp(-image)), 1 / (1 + np.exp(2 * image + 1))
    np.testing.assert_allclose(probabilities, [1 - np.maximum(first, second), first, second], atol=1e-5)
    assert np.array_equal(labels, np.select([image > 0, image < -0.5], [5, 9], 1))
    binary = [-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) for p in (first, second)]
    np.testing.assert_allclose(uncertainty, np.mean(binary, axis=0), atol=1e-4)
    # logits alone suffice for labels
    alone = np.zeros(image.shape, np.uint16)
    list(Predictor(model, _float32(**settings)).run(Volume.from_array(image), PredictionOutputs(alone)))
    assert np.array_equal(alone, labels)
    assert np.array_equal(predict_plane(model, Volume.from_array(image), 0, 2), labels[2])


def test_ids_with_gaps_and_background_as_zero() -> None:
    model, image = _threshold(label_ids=(3, 700)), _image((4, 5, 6))
    assert np.array_equal(_predict(model, image)[0], np.where(image > 0, 700, 3))
    as_zero = _predict(model, image, _float32(background_as_zero=True))[0]
    assert np.array_equal(as_zero, np.where(image > 0, 700, 0))


@pytest.mark.parametrize("kind", ["big-endian", "strided", "zarr"])
def test_any_array_is_read(kind: str, tmp_path: Path) -> None:
    image = np.arange(-60, 60, dtype=np.int16).reshape(4, 5, 6)
    array: Any = {"big-endian": image.astype(">i2"), "strided": np.repeat(image, 2, 2)[:, :, ::2]}.get(kind)
    labels: Any = np.zeros(image.shape, np.uint8)
    if kind == "zarr":
        array = zarr.create_array(tmp_path / "image.zarr", shape=image.shape, chunks=(2, 3, 4), dtype="i2")
        array[:] = image
        labels = zarr.create_array(tmp_path / "labels.zarr", shape=image.shape, chunks=(3, 2, 4), dtype="u1")
    predictor = Predictor(_threshold(), _float32(tile=(3, 3, 3)))
    events = list(predictor.run(Volume.from_array(array), PredictionOutputs(labels=labels)))
    assert isinstance(events[-1], Finished)
    assert np.array_equal(labels[:], 1 + (image > 0))


def test_two_dimensional_images() -> None:
    config = PADDED.updated(dimensions=2)
    model = _model(config, spatial_dims=2)
    image = _image((30, 41))
    _, result, _, _ = _predict(model, image, _float32(tile=(1, 24, 24), halo=describe(config).context))
    np.testing.assert_allclose(result, _untiled(model, image[None]), atol=1e-5)


def test_mirrored_averages_are_those_made_by_hand() -> None:
    model, image = _model(PADDED), _image((8, 12, 16))
    _, result, _, _ = _predict(model, image, _float32(flips=True))
    by_hand = []
    for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        flipped = _untiled(model, np.flip(image, axes).copy())
        by_hand.append(np.flip(flipped, tuple(1 + axis for axis in axes)))
    np.testing.assert_allclose(result, np.mean(by_hand, 0), atol=1e-5)


def test_only_a_box_is_predicted_and_only_its_surroundings_are_read() -> None:
    model, image = _model(PADDED), _image((60, 30, 30))
    box = (slice(20, 24), slice(3, 9), slice(0, 30))
    labels, probabilities, _, _ = _predict(model, image, box=box)
    np.testing.assert_allclose(
        probabilities[(slice(None), *box)], _untiled(model, image)[(slice(None), *box)], atol=1e-5
    )
    labels[box] = 0
    assert not labels.any()


# --- events -------------------------------------------------------------------------------------------------


def test_events_tell_what_becomes_final() -> None:
    image = _image((8, 8, 20))
    for overlap in (0.0, 0.5):
        *_, events = _predict(_threshold(), image, _float32(tile=(4, 4, 4), overlap=overlap))
        assert isinstance(events[0], Started)
        assert events[0].precision == "float32"
        predicted = [event for event in events if isinstance(event, Predicted)]
        assert [event.done for event in predicted] == list(range(1, len(predicted) + 1))
        assert {event.total for event in predicted} == {len(predicted)}
        times = np.zeros(image.shape)
        for event in predicted:
            times[event.box] += 1
        assert (times == 1).all()
        assert predicted[-1].seconds_left == 0
        last = events[-1]
        assert isinstance(last, Finished)
        assert last.reason == "done"


def test_the_plane_looked_at_comes_first() -> None:
    *_, events = _predict(_threshold(), _image((12, 4, 4)), _float32(tile=(4, 4, 4)), start_at=(0, 9))
    first = next(event for event in events if isinstance(event, Predicted))
    assert first.box[0] == slice(8, 12)


def test_stop_in_the_middle_keeps_what_is_done() -> None:
    inbox = Inbox()
    labels = np.zeros((4, 4, 40), np.uint8)
    predictor = Predictor(_threshold(), _float32(tile=(4, 4, 4)))
    events = []
    for event in predictor.run(Volume.from_array(_image((4, 4, 40))), PredictionOutputs(labels), inbox):
        events.append(event)
        if isinstance(event, Predicted) and event.done == 3:
            inbox.put(Stop())
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.step) == ("stopped", 3)
    assert labels[:, :, :12].all()
    assert not labels[:, :, 12:].any()


@pytest.mark.parametrize(("command", "reason"), [(Resume(), "done"), (Stop(), "stopped")])
def test_pause_waits_for_resume_or_stop(command: Resume | Stop, reason: str) -> None:
    inbox = Inbox()
    inbox.put(Pause())
    run = Predictor(_threshold(), _float32()).run(
        Volume.from_array(_image((4, 4, 4))), PredictionOutputs(np.zeros((4, 4, 4))), inbox
    )
    assert isinstance(next(run), Started)
    assert next(run) == Paused(0)
    inbox.put(command)
    last = list(run)[-1]
    assert isinstance(last, Finished)
    assert last.reason == reason


# --- memory -------------------------------------------------------------------------------------------------


class CountingReads:
    """A lazy image of zeros that remembers the largest block anyone asked for."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.uint8)
        self.largest = 0

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]:
        block = np.zeros([len(range(*s.indices(n))) for s, n in zip(index, self.shape, strict=True)], np.uint8)
        self.largest = max(self.largest, block.size)
        return block


class Nowhere:
    """Forgets what is written, but for its size."""

    largest = 0

    def __setitem__(self, index: Any, value: Any, /) -> None:
        self.largest = max(self.largest, value.size)


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_no_block_grows_with_the_depth_of_the_volume(overlap: float) -> None:
    largest = []
    for depth in (16, 160):
        image, labels = CountingReads((1, depth, 16, 16)), Nowhere()
        predictor = Predictor(_threshold(), _float32(tile=(8, 8, 8), overlap=overlap))
        for _ in predictor.run(Volume(image), PredictionOutputs(labels=labels)):
            pass
        largest.append((image.largest, labels.largest))
    assert largest[0] == largest[1]
    assert largest[0][0] == 8**3


@pytest.mark.parametrize("overlap", [0.0, 0.25])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("not enough memory"), MemoryError()]
)
def test_when_memory_runs_out_the_rest_is_done_with_smaller_tiles(error: Exception, overlap: float) -> None:
    calls = []

    def fail_on_large(x: Tensor) -> None:
        calls.append(x.numel())
        if len(calls) > 2 and x.numel() > 300:
            raise error

    image = _image((8, 8, 40))
    labels, *_, events = _predict(_threshold(fail_on_large), image, _float32(tile=(8, 8, 10), overlap=overlap))
    assert np.array_equal(labels, 1 + (image > 0))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes[0] == "memory ran out with tiles of (8, 8, 10); going on with (8, 8, 5)"
    predicted = [event for event in events if isinstance(event, Predicted)]
    assert predicted[-1].done == predicted[-1].total


def test_memory_that_never_suffices_is_an_error() -> None:
    def fail(x: Tensor) -> None:
        raise MemoryError

    with pytest.raises(DeviceError, match=r"even with the smallest tile \(1, 1, 1\)"):
        _predict(_threshold(fail), _image((4, 4, 4)))


def test_other_errors_of_the_network_are_not_hidden() -> None:
    def fail(x: Tensor) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        _predict(_threshold(fail), _image((4, 4, 4)))


# --- arithmetic ---------------------------------------------------------------------------------------------


class OverflowsInBfloat16(nn.Module):
    """Infinite wherever autocast is on."""

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.cat([torch.zeros_like(x), x], 1)
        return logits / 0 if torch.is_autocast_enabled("cpu") else logits


def test_tiles_that_overflow_are_computed_in_float32_and_the_user_is_told_once() -> None:
    image = _image((4, 4, 12))
    model = Model(POINTWISE, OverflowsInBfloat16(), (1, 2))
    config = PredictConfig(device="cpu", precision="bfloat16", tile=(4, 4, 4))
    labels, *_, events = _predict(model, image, config)
    assert np.array_equal(labels, 1 + (image > 0))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == ["bfloat16 gave values that are not finite: such tiles are computed in float32"]


def test_a_network_that_gives_nan_is_refused() -> None:
    model = _model(PADDED)
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    with pytest.raises(DataError, match="train it again"):
        _predict(model, _image((4, 4, 4)))


def test_bfloat16_is_close_to_float32() -> None:
    model, image = _model(PADDED), _image((16, 16, 16))
    _, result, _, _ = _predict(model, image, PredictConfig(device="cpu", precision="bfloat16"))
    np.testing.assert_allclose(result, _untiled(model, image), atol=0.03)


def test_the_model_is_left_as_it_was() -> None:
    model = _model(PADDED)
    before = {name: (value.clone(), value.stride()) for name, value in model.network.state_dict().items()}
    _predict(model, _image((8, 8, 8)), PredictConfig(device="cpu", precision="bfloat16"))
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.stride() == before[name][1]


# --- refusals -----------------------------------------------------------------------------------------------


def test_images_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(DataError, match="has 2 channels but the model needs 1"):
        _predict(_threshold(), _image((2, 4, 4, 4)))
    with pytest.raises(DataError, match="is 2D but the model was trained on 3D images"):
        _predict(_threshold(), _image((4, 4)))


# --- planes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PADDED, VALID], ids=["padded", "valid"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_is_that_of_the_volume(config: UNetConfig, axis: int) -> None:
    model, image = _model(config), _image((30, 31, 33))
    expected = 1 + _untiled(model, image).argmax(0).take(17, axis)
    assert np.array_equal(predict_plane(model, Volume.from_array(image), axis, 17), expected)


def test_a_plane_reads_a_thin_slab_and_leaves_the_mode_of_the_network() -> None:
    image = CountingReads((1, 400, 20, 20))
    model = _model(PADDED)
    model.network.train()
    plane = predict_plane(model, Volume(image), 0, 200, context=4)
    assert plane.shape == (20, 20)
    assert image.largest <= 12 * 20 * 20
    assert model.network.training
