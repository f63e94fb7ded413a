"""The course of a training run, and beginning one with a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from napari_unet3d.engine.errors import ConfigError, DataError, TrainingError
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.metrics import class_scores, confusion_matrix
from napari_unet3d.engine.networks.outputs import NetworkOutputs
from napari_unet3d.engine.progress import (
    Event,
    Finished,
    Inbox,
    Note,
    Previewed,
    PreviewPlane,
    Started,
    Stepped,
    Validated,
)
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

Make = Callable[..., Any]
E = TypeVar("E", bound=Event)


def of_kind(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def warnings_in(events: Iterable[Event]) -> list[str]:
    return [note.text for note in of_kind(Note, events) if note.level == "warning"]


# --- the course of a run --------------------------------------------------------------------------------------


def test_events_of_a_run(make_trainer: Make) -> None:
    events = list(make_trainer(steps=7).fit())
    assert [type(event) for event in events[:2]] == [Started, Note]
    assert [event.step for event in of_kind(Stepped, events)] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.step for event in of_kind(Validated, events)] == [5, 7]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.step) == ("the budget is used up", 7)


def test_it_learns_and_says_how_well(make_trainer: Make, make_volume: Make) -> None:
    trainer = make_trainer(steps=80)
    events = list(trainer.fit())
    model = trainer.model()
    (kept,) = [event for event in of_kind(Validated, events) if event.step == model.recipe.record.best_step]
    assert kept.mean_iou > 0.8
    # the same by hand: the whole volume at once with its edge repeated, scored on the held-out plane
    ((_, axis, index),) = model.recipe.record.held_out
    assert axis == 0
    volume = make_volume()
    image = np.pad(model.normalization.apply(volume.image.read()), [(0, 0), *[(4, 4)] * 3], mode="edge")
    with torch.inference_mode():
        framed = 1 + model.network(torch.from_numpy(image)[None])[0].argmax(0).numpy()
    labels = framed[4:-4, 4:-4, 4:-4]
    counts = confusion_matrix(labels[index], volume.labels[index], (1, 2))
    assert class_scores(counts, (1, 2))[1].iou == pytest.approx(kept.mean_iou, abs=0.01)


def test_the_kept_weights_are_those_of_the_best_validation(make_trainer: Make, monkeypatch: Any) -> None:
    scores = iter([0.2, 0.9, 0.5, math.nan, 0.9, 0.1])
    monkeypatch.setattr("napari_unet3d.engine.plane_predictor.mean_foreground_iou", lambda *_: next(scores))
    trainer = make_trainer(steps=30)
    states, best = {}, []
    for event in trainer.fit():
        if isinstance(event, Stepped):
            step = event.step
        if isinstance(event, Validated):
            best.append(event.is_best)
            states[step] = trainer.model().recipe.record.best_step
    assert best == [True, True, False, False, True, False]  # of equal ones the later
    assert states == {5: 5, 10: 10, 15: 10, 20: 10, 25: 25, 30: 25}


def test_too_few_slices_are_explained(make_trainer: Make, make_volume: Make) -> None:
    trainer = make_trainer([make_volume(planes=(3, 9, 15))])
    events = list(trainer.fit())
    assert not of_kind(Validated, events)
    assert any("from 5 on" in note.text for note in of_kind(Note, events))
    assert trainer.model().recipe.record.best_step == 6


def test_the_model_says_what_happened(make_trainer: Make) -> None:
    trainer = make_trainer(steps=10)
    list(trainer.fit())
    model = trainer.model()
    assert model.state is None
    assert not model.network.training
    assert [point.step for point in model.history.validations] == [5, 10]
    assert model.history.steps
    record = model.recipe.record
    assert (record.steps, record.precision, record.threads, record.batch_size) == (10, "float32", 1, 1)
    assert record.validated_steps == (5, 10)
    assert record.label_ids == (1, 2)
    assert record.stop_reason == "the budget is used up"


def test_there_is_no_model_before_the_start(make_trainer: Make) -> None:
    with pytest.raises(TrainingError, match="no model yet"):
        make_trainer().model()


@pytest.mark.parametrize(
    ("network", "training"),
    [
        ({"classes": 1}, {}),
        ({"padding": "valid"}, {"patch_size": "auto", "steps": 2}),
        ({"deep_supervision": True, "levels": 3}, {"loss": "dice"}),
        ({"padding": "valid", "deep_supervision": True, "levels": 3}, {"patch_size": "auto", "steps": 1}),
        ({"dimensions": 2}, {"optimizer": "sgd"}),
        ({"norm": "instance"}, {"optimizer": "adam", "loss": "focal"}),
        ({"features": "scale_space"}, {"class_weights": "balanced", "average_decay": 0}),
        ({}, {"patch_size": (40, 40, 40), "steps": 2}),
        ({}, {"precision": "bfloat16", "batch_size": 3}),
        ({}, {"validation": 0}),
    ],
)
def test_every_kind_of_training_runs(make_trainer: Make, network: dict[str, Any], training: dict[str, Any]) -> None:
    trainer = make_trainer(**network, **training)
    events = list(trainer.fit())
    assert not warnings_in(events)
    assert all(math.isfinite(event.loss) for event in of_kind(Stepped, events))
    model = trainer.model()
    assert model.label_ids == (1, 2)
    assert all(tensor.dtype != torch.bfloat16 for tensor in model.network.state_dict().values())


def test_flat_image_with_a_flat_network(make_trainer: Make) -> None:
    y, x = np.indices((48, 48))
    image = (np.hypot(y - 20, x - 20) < 10) + np.random.default_rng(0).normal(0, 0.2, (48, 48))
    labels = np.zeros((1, 48, 48), np.uint8)
    labels[0, ::2, :30] = 1 + (image[::2, :30] > 0.5)
    volume = AnnotatedVolume(Volume.from_array(image), labels)
    trainer = make_trainer([volume], dimensions=2, patch_size="auto", steps=3)
    events = list(trainer.fit())
    assert len(of_kind(Stepped, events)) == 3
    assert trainer.model().spatial_dims == 2


def test_label_ids_with_gaps(make_trainer: Make, make_volume: Make) -> None:
    inbox = Inbox()
    inbox.put(PreviewPlane(0, 1, 4))
    trainer = make_trainer([make_volume(ids=(3, 700))], inbox=inbox, steps=40)
    events = list(trainer.fit())
    assert trainer.model().label_ids == (3, 700)
    assert [score.class_id for score in of_kind(Validated, events)[-1].scores] == [3, 700]
    assert of_kind(Validated, events)[-1].mean_iou > 0.5
    (preview,) = of_kind(Previewed, events)
    assert preview.labels.dtype == np.uint16
    assert set(np.unique(preview.labels)) <= {3, 700}


def test_several_volumes(make_trainer: Make, make_volume: Make) -> None:
    trainer = make_trainer([make_volume(), make_volume(planes=(4, 8, 12), seed=1)])
    events = list(trainer.fit())
    assert any("9 annotated slices" in note.text for note in of_kind(Note, events))
    assert of_kind(Validated, events)


def test_same_seed_same_weights(make_trainer: Make, same_weights: Make) -> None:
    first, second, third = (
        make_trainer(dropout=0.3),
        make_trainer(dropout=0.3),
        make_trainer(random_state=1, dropout=0.3),
    )
    for trainer in (first, second, third):
        torch.rand(3)  # somebody else's random numbers
        list(trainer.fit())
    assert same_weights(first.model(), second.model())
    assert not same_weights(first.model(), third.model())


def test_random_numbers_of_others_are_left_alone(make_trainer: Make) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    list(make_trainer(dropout=0.3).fit())
    assert torch.equal(torch.rand(4), expected)


def test_only_annotated_voxels_count(
    make_trainer: Make, make_volume: Make, same_weights: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the network says at voxels that are not annotated changes no weight."""
    plain = make_trainer(validation=0)
    list(plain.fit())

    learn_from = Learner._outputs
    targets: list[torch.Tensor] = []
    learn = Learner.learn

    def remember(self: Learner, batch: Any, rate: float, seed: int) -> Any:
        targets[:] = [batch.target]
        return learn(self, batch, rate, seed)

    def disturbed(self: Learner, values: torch.Tensor) -> NetworkOutputs:
        ((logits,), _) = learn_from(self, values)
        noise = torch.full_like(logits, 1e3) * (targets[0] < 0)[:, None]
        return NetworkOutputs([logits + noise])

    monkeypatch.setattr(Learner, "learn", remember)
    monkeypatch.setattr(Learner, "_outputs", disturbed)
    other = make_trainer(validation=0)
    list(other.fit())
    assert same_weights(plain.model(), other.model())


# --- beginning with a model -----------------------------------------------------------------------------------


def test_begins_with_the_weights_of_a_model(make_trainer: Make, make_volume: Make) -> None:
    first = make_trainer(steps=3, features="scale_space")
    list(first.fit())
    model = first.model()
    second = make_trainer([make_volume(seed=1)], start=model, steps=1, features="scale_space", learning_rate=1e-9)
    list(second.fit())
    found = second.model()
    assert found.normalization == model.normalization
    for name, tensor in model.network.state_dict().items():
        if tensor.is_floating_point() and "running" not in name:
            torch.testing.assert_close(found.network.state_dict()[name], tensor, atol=1e-6, rtol=0)
    assert found.recipe.record.from_weights
    assert found.recipe.record.steps == 1


def test_ids_that_the_model_does_not_know_are_left_out(make_trainer: Make, make_volume: Make) -> None:
    first = make_trainer(steps=1)
    list(first.fit())
    volume = make_volume()
    volume.labels[3, :4, :4] = 9
    events = list(make_trainer([volume], start=first.model(), steps=1).fit())
    assert [text for text in warnings_in(events) if text.startswith("the ids 9 are painted")]
    with pytest.raises(DataError, match="the ids 8, 9 are painted, but the model's classes are 1, 2"):
        make_trainer([make_volume(ids=(8, 9))], start=first.model())


def test_weights_must_fit_the_network(make_trainer: Make) -> None:
    first = make_trainer(steps=1)
    list(first.fit())
    with pytest.raises(ConfigError, match="weights of the given model do not fit"):
        make_trainer(start=first.model(), filters=8)


def test_threads_are_given_back(make_trainer: Make) -> None:
    torch.set_num_threads(1)
    trainer = make_trainer(threads=2, steps=1)
    seen = [torch.get_num_threads() for event in trainer.fit() if isinstance(event, Stepped)]
    assert seen == [2]
    assert torch.get_num_threads() == 1
    assert trainer.model().recipe.record.threads == 2
