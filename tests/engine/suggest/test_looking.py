"""From a model and a painted volume to suggestions, with events on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.annotation_units import find_units
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.progress import Finished, Inbox, Note, Predicted, Started, Stop
from napari_unet3d.engine.suggest.looking import class_weights, sample_boxes, suggest_slices
from napari_unet3d.engine.suggest.ranking import RankedSlice
from napari_unet3d.engine.suggest.suggestion import Situation, Suggestion
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

CONFIG = PredictConfig(device="cpu", precision="float32")


@pytest.fixture
def model(make_trainer: Callable[..., Trainer]) -> TrainedModel:
    trainer = make_trainer(steps=2)
    for _ in trainer.fit():
        pass
    return trainer.model()


def finish(work: Generator[Any, None, tuple[Suggestion, ...]]) -> tuple[list[Any], tuple[Suggestion, ...]]:
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            return events, end.value


# --- the whole --------------------------------------------------------------------------------------------


def test_suggestions_come_with_the_events_of_a_prediction(model: TrainedModel, make_volume: Any) -> None:
    volume = make_volume((1, 5, 9))
    events, found = finish(suggest_slices(model, volume, count=4, config=CONFIG))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "done"
    assert [event.done for event in events if isinstance(event, Predicted)][-1] == events[-2].total
    assert len(found) == 4
    assert found[0].score == 1
    assert not {(one.axis, one.index) for one in found} & {(0, 1), (0, 5), (0, 9)}
    assert all("uncertain border of 'class 2'" in one.reason or "'background'" in one.reason for one in found)


def test_nothing_and_everything_annotated(model: TrainedModel, make_volume: Any) -> None:
    _, found = finish(suggest_slices(model, make_volume(()), config=CONFIG))
    assert len(found) == 5
    assert all(one.reason.endswith("nothing is annotated yet") for one in found)
    _, found = finish(suggest_slices(model, make_volume(tuple(range(24))), config=CONFIG))
    assert found == ()


def test_one_plane_of_a_volume(model: TrainedModel, make_volume: Any) -> None:
    full = make_volume((12,))
    volume = AnnotatedVolume(Volume.from_array(full.image.read()[:, 12:13]), full.labels[12:13] * 0)
    _, found = finish(suggest_slices(model, volume, config=CONFIG))
    assert [(one.axis, one.index) for one in found] == [(0, 0)]


def test_stop_gives_nothing(model: TrainedModel, make_volume: Any) -> None:
    inbox = Inbox()
    inbox.put(Stop())
    events, found = finish(suggest_slices(model, make_volume(), config=CONFIG, inbox=inbox))
    assert found == ()
    assert events[-1].reason == "stopped"


def test_a_large_volume_is_looked_at_in_samples(
    model: TrainedModel, make_volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_unet3d.engine.suggest.looking._BLOCK", 8)
    events, found = finish(suggest_slices(model, make_volume(), config=CONFIG, most_voxels=2400))
    assert [type(event) for event in events].count(Started) == 1
    done = [(event.done, event.total) for event in events if isinstance(event, Predicted)]
    assert done == [(n, 7) for n in range(1, 8)]
    assert any("looking at 2" in event.text for event in events if isinstance(event, Note))
    assert len(found) == 5
    assert isinstance(events[-1], Finished)


def test_stop_between_samples(model: TrainedModel, make_volume: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_unet3d.engine.suggest.looking._BLOCK", 8)
    inbox = Inbox()
    work = suggest_slices(model, make_volume(), config=CONFIG, inbox=inbox, most_voxels=2400)
    while not isinstance(next(work), Predicted):
        pass
    inbox.put(Stop())
    events, found = finish(work)
    assert found == ()
    assert [event.reason for event in events if isinstance(event, Finished)] == ["stopped"]


def test_the_labels_stay_as_they_are(model: TrainedModel, make_volume: Any) -> None:
    volume = make_volume()
    before = volume.labels.copy()
    finish(suggest_slices(model, volume, config=CONFIG))
    assert (volume.labels == before).all()


@pytest.mark.parametrize(
    ("wishes", "message"),
    [({"count": 0}, "count = 0"), ({"classes": [7]}, r"label ids 1, 2"), ({"classes": []}, "label ids 1, 2")],
)
def test_wishes_that_cannot_be_met(
    model: TrainedModel, make_volume: Any, wishes: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        finish(suggest_slices(model, make_volume(), config=CONFIG, **wishes))


def test_an_image_that_the_model_cannot_take(model: TrainedModel, make_volume: Any) -> None:
    labels = make_volume().labels
    two_channels = AnnotatedVolume(Volume.from_array(np.zeros((2, *labels.shape))), labels)
    with pytest.raises(DataError, match="2 channels"):
        finish(suggest_slices(model, two_channels, config=CONFIG))


# --- parts ------------------------------------------------------------------------------------------------


def test_rare_and_badly_predicted_classes_weigh_more() -> None:
    labels = np.array([[[1] * 64 + [2] * 16 + [3] * 20 + [0] * 50]], np.uint8)
    weights = class_weights((1, 2, 3), labels, {1: 0.0})
    raw = np.array([1.5 / 0.8, 2 / 0.4, 1.5 / math.sqrt(0.2)])
    np.testing.assert_allclose(weights, raw / raw.mean())
    assert class_weights((1, 2, 3), labels, {}, [2]).tolist() == [0, 1, 0]


def test_an_unpainted_class_has_a_bounded_weight() -> None:
    labels = np.array([[[1] * 99 + [2]]], np.uint8)
    weights = class_weights((1, 2, 9), labels, {})
    assert weights[2] == weights[1]  # none counts as one in a hundred
    assert class_weights((1, 2), np.zeros((1, 1, 3), np.uint8), {}).tolist() == [1, 1]


@given(st.tuples(*[st.integers(1, 700)] * 3), st.integers(1, 10**8))
def test_sampled_blocks_are_apart_and_about_as_many_as_wanted(shape: tuple[int, int, int], most: int) -> None:
    boxes = sample_boxes(shape, most)
    voxels = [math.prod(part.stop - part.start for part in box) for box in boxes]
    assert all(0 <= part.start < part.stop <= size for box in boxes for part, size in zip(box, shape, strict=True))
    assert len({tuple(part.start for part in box) for box in boxes}) == len(boxes) >= 1
    if math.prod(shape) <= most:
        assert sum(voxels) == math.prod(shape)
    else:
        assert len(boxes) == 1 or sum(voxels) < math.prod(shape)


def test_each_axis_is_covered_evenly() -> None:
    boxes = sample_boxes((384, 384, 384), 384**3 // 3)
    for axis in range(3):
        assert sorted(box[axis].start for box in boxes) == [0] * 3 + [128] * 3 + [256] * 3


# --- reasons ----------------------------------------------------------------------------------------------


def reason(axis: int, index: int, shares: tuple[float, ...], iou: Mapping[int, float], **more: Any) -> str:
    labels = np.zeros((30, 20, 20), np.uint8)
    if more.get("annotated", True):
        labels[4] = 1
    voxel_size = VoxelSize(0.5, 0.1, 0.1, more.get("unit", "um"))
    situation = Situation(default_classes([1, 2, 5]), iou, find_units(labels), voxel_size)
    return situation.suggestion(RankedSlice(axis, index, 0.5, (0, 0, 0), np.array(shares))).reason


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            (0, 24, (0.5, 0.1, 0.4), {2: 0.456}),
            "uncertain border of 'class 5' (IoU 0.46 on held-out slices), "
            "the nearest annotated Z slice is 20 slices (10 µm) away",
        ),
        ((0, 3, (0.6, 0.4, 0.0), {}), "uncertain border of 'class 2', the nearest annotated Z slice is 1 slice (0.5"),
        ((1, 3, (0.95, 0.05, 0.0), {}), "uncertain border of 'background', no Y slice is annotated"),
        ((2, 3, (0.0, 0.0, 0.0), {}), "the model is sure of everything here, no X slice is annotated"),
        ((0, 4, (0.5, 0.5, 0.0), {}), "uncertain border of 'class 2', this Z slice is annotated in part only"),
    ],
)
def test_reasons(given: tuple[Any, ...], expected: str) -> None:
    assert reason(*given).startswith(expected)


def test_lengths_in_pixels_are_not_told_twice() -> None:
    assert reason(0, 9, (0.5, 0.5, 0), {}, unit="pixel").endswith("the nearest annotated Z slice is 5 slices away")


def test_suggestions_as_plain_values() -> None:
    assert Suggestion(1, 3, 0.5, "why", (1, 3, 2)).as_dict() == {
        "axis": 1,
        "axis_name": "y",
        "index": 3,
        "score": 0.5,
        "reason": "why",
        "centre": [1, 3, 2],
    }
