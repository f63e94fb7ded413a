"""Distilling and comparing from Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import napari_unet3d
from napari_unet3d import api
from napari_unet3d.engine.config import DistillConfig, PredictConfig, TrainConfig, UNetConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import HeldOut, Stepped
from napari_unet3d.engine.trained_model import TrainedModel

QUICK = TrainConfig(steps=4, device="cpu", precision="float32", patch_size=(4, 16, 16), threads=1)
SMALL = UNetConfig(levels=2, filters=8)
PLAIN = PredictConfig(device="cpu", precision="float32")
Scene = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Image, labels of every sixth slice, and truth, 30 x 32 x 32."""
    _, y, x = np.indices((30, 32, 32))
    truth = (1 + ((y - 16) ** 2 + (x - 12) ** 2 < 60)).astype(np.uint8)
    image = (50 * truth + np.random.default_rng(0).normal(0, 10, truth.shape)).astype(np.float32)
    labels = np.zeros_like(truth)
    labels[2::6] = truth[2::6]
    return image, labels, truth


@pytest.fixture(scope="module")
def teacher(scene: Scene) -> TrainedModel:
    return api.train(*scene[:2], network=SMALL, config=QUICK)


def test_two_lines_are_enough(scene: Scene, teacher: TrainedModel) -> None:
    student = napari_unet3d.distill(teacher, scene[0], train=QUICK, operations="1/2")
    assert napari_unet3d.predict(student, scene[0], config=PLAIN).shape == scene[2].shape
    assert student.recipe.distill == DistillConfig()
    assert student.recipe.record is not None
    assert student.recipe.record.teachers[0].name == "teacher"


def test_the_network_is_chosen_or_given(scene: Scene, teacher: TrainedModel) -> None:
    image = scene[0]

    def made(**options: Any) -> UNetConfig:
        config = api.distill(teacher, image, train=QUICK.updated(steps=1), **options).recipe.network
        assert isinstance(config, UNetConfig)
        return config

    assert made(network=UNetConfig(levels=2, filters=3)).filters == 3
    assert made(network="fast", network_settings={"levels": 2, "filters": 5}).filters == 5
    assert made().filters_per_level < SMALL.filters_per_level
    with pytest.raises(ConfigError, match="give one of them"):
        made(network="fast", operations="1/8")


def test_without_teachers_on_the_same_hold_out(scene: Scene) -> None:
    image, labels, _ = scene
    teacher = api.train(image, labels, network=SMALL, config=QUICK.updated(random_state=4))
    student = api.distill(teacher, image, labels, network=UNetConfig(levels=2, filters=2), train=QUICK)
    run = api.scratch_events(student, image, labels)
    events = list(run)
    scratch = run.model()
    assert teacher.recipe.record is not None
    assert student.recipe.record is not None
    assert scratch.recipe.record is not None
    assert [event.slices for event in events if isinstance(event, HeldOut)] == [teacher.recipe.record.held_out]
    assert student.recipe.record.held_out == teacher.recipe.record.held_out
    assert sum(isinstance(event, Stepped) for event in events) == student.recipe.record.steps
    assert scratch.recipe.network == student.recipe.network
    assert scratch.recipe.record.teachers == ()


def test_a_student_may_begin_with_given_weights(scene: Scene, teacher: TrainedModel) -> None:
    first = api.distill(teacher, scene[0], network=UNetConfig(levels=2, filters=2), train=QUICK)
    run = api.distill_events(teacher, scene[0], train=QUICK, weights_from=first)
    list(run)
    assert run.model().recipe.network == first.recipe.network
    with pytest.raises(ConfigError, match="both given"):
        api.distill(teacher, scene[0], weights_from=first, resume=first)


def test_comparing(scene: Scene, teacher: TrainedModel) -> None:
    image, labels, truth = scene
    student = api.distill(teacher, image, labels, network=UNetConfig(levels=2, filters=2), train=QUICK)
    into = {"student": np.zeros(truth.shape, np.uint8)}
    figures = api.compare({"teacher": teacher, "student": student}, image, labels, truth=truth, config=PLAIN, into=into)
    np.testing.assert_array_equal(into["student"], api.predict(student, image, config=PLAIN))
    one, two = figures
    assert (one.agreement, one.file_bytes) == (1, None)
    assert two.agreement == np.mean(into["student"] == api.predict(teacher, image, config=PLAIN))
    assert one.held_out is not None
    assert one.held_out.voxels == (labels[[s[2] for s in student.recipe.record.held_out]] > 0).sum()  # type: ignore[union-attr]
    # other annotation than the student's: nothing of it was held out
    other = np.zeros_like(labels)
    other[4::6] = truth[4::6]
    assert api.compare({"student": student}, image, other, config=PLAIN)[0].held_out is None


def test_nobody_to_compare_or_to_learn_from(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="no model"):
        api.compare({}, scene[0])
    with pytest.raises(ConfigError, match="there is no teacher"):
        api.distill([], scene[0])
