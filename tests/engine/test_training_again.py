"""Resuming and replaying: the same weights to the bit, also through the model file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import Recipe, RunRecord, validated
from napari_unet3d.engine.errors import ConfigError, ModelFileError
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.progress import Annotate, Inbox, Note, Stepped, Stop, TrainLonger, Validated
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

Make = Callable[..., Any]

RICH: dict[str, Any] = {"dropout": 0.3, "norm": "batch", "deep_supervision": True, "levels": 3, "batch_size": 2}


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[TrainedModel], TrainedModel]:
    """The model after a way through its file."""
    return lambda model: load_model(save_model(model, tmp_path / "model.safetensors"))


def finished(trainer: Trainer) -> TrainedModel:
    for _ in trainer.fit():
        pass
    return trainer.model()


def record_of(model: TrainedModel) -> RunRecord:
    assert model.recipe.record is not None
    return model.recipe.record


def saved_at(trainer: Trainer, step: int) -> TrainedModel:
    """The model with its state, as saved right after a step; the process is killed then."""
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.step == step:
            return trainer.model(with_state=True)
    raise AssertionError("ended before")


# --- resuming ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("step", [1, 5, 8])  # 5: between a step and the validation that follows it
def test_resumed_equals_uninterrupted(
    make_trainer: Make, same_weights: Make, stored: Make, step: int, optimizer: str
) -> None:
    settings = {**RICH, "steps": 12, "optimizer": optimizer}
    whole = make_trainer(**settings)
    expected = finished(whole)
    part = stored(saved_at(make_trainer(**settings), step))
    resumed = make_trainer(**settings, resume=part)
    found = finished(resumed)
    assert same_weights(found, expected)
    assert resumed.step == 12
    assert record_of(found).best_step == record_of(expected).best_step
    assert record_of(found).validated_steps == record_of(expected).validated_steps == (5, 10, 12)
    assert [v.mean_iou for v in found.history.validations] == [v.mean_iou for v in expected.history.validations]
    # the newest weights too, not only the best
    last, other = resumed.model(with_state=True).state, whole.model(with_state=True).state
    assert last.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(last.tensors[name], other.tensors[name]) for name in last.tensors)


def test_resumed_after_stop_equals_uninterrupted(make_trainer: Make, same_weights: Make) -> None:
    expected = finished(make_trainer(steps=12))
    inbox = Inbox()
    trainer = make_trainer(steps=12, inbox=inbox)
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.step == 7:
            inbox.put(Stop())
    resumed = make_trainer(steps=12, resume=trainer.model(with_state=True))
    assert same_weights(finished(resumed), expected)


def test_bfloat16_and_its_fall_back_go_on(
    make_trainer: Make, same_weights: Make, stored: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features stay in the precision they were computed in, though the arithmetic changed."""
    learn = Learner.learn

    def poisoned(self: Learner, batch: Any, rate: float, seed: int) -> Any:
        bad = batch._replace(input=batch.input * float("nan")) if self.precision == "bfloat16" else batch
        return learn(self, bad, rate, seed)

    monkeypatch.setattr(Learner, "learn", poisoned)
    settings = {"steps": 12, "precision": "bfloat16", "features": "scale_space"}
    expected = finished(make_trainer(**settings))
    assert record_of(expected).precision_changes == ((5, "float32"),)
    part = stored(saved_at(make_trainer(**settings), 8))
    found = finished(make_trainer(**settings, resume=part))
    assert same_weights(found, expected)
    assert record_of(found).precision_changes == ((5, "float32"),)


def test_finished_run_goes_on_with_a_larger_budget(make_trainer: Make, stored: Make) -> None:
    trainer = make_trainer(steps=6)
    finished(trainer)
    kept = stored(trainer.model(with_state=True))
    longer = make_trainer(steps=10, resume=kept)
    events = list(longer.fit())
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [event.step for event in steps] == [7, 8, 9, 10]
    assert steps[0].learning_rate == 0.005  # raised again
    assert [event.text for event in events if isinstance(event, Note)][-1] == "going on after step 6"
    again = stored(longer.model(with_state=True))
    assert record_of(finished(make_trainer(steps=10, resume=again))).steps == 10  # nothing more to do


def test_finished_run_goes_on_by_command(make_trainer: Make) -> None:
    trainer = make_trainer(steps=6)
    finished(trainer)
    inbox = Inbox()
    inbox.put(TrainLonger(steps=3))
    assert record_of(finished(make_trainer(steps=6, resume=trainer.model(with_state=True), inbox=inbox))).steps == 9


def test_smaller_budget_is_used_up(make_trainer: Make) -> None:
    part = saved_at(make_trainer(steps=12), 7)
    (*_, last) = make_trainer(steps=5, resume=part).fit()
    assert last.reason == "7 of 5 steps were taken before"


def test_time_goes_on_where_it_stood(make_trainer: Make, make_clock: Make, stored: Make) -> None:
    trainer = make_trainer(seconds=20.0, clock=make_clock(tick=0.02))
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.seconds > 10:
            break
    part = stored(trainer.model(with_state=True))
    clock = make_clock(tick=0.02)
    resumed = make_trainer(seconds=20.0, clock=clock, resume=part)
    events = list(resumed.fit())
    assert clock.now - 100 < 10
    assert 17 < events[-1].seconds < 20
    rates = [event.learning_rate for event in events if isinstance(event, Stepped)]
    assert rates[0] == pytest.approx(event.learning_rate, rel=0.2)
    assert rates[-1] < 0.1 * rates[0]


def test_extension_by_the_clock_goes_on(make_trainer: Make, make_clock: Make) -> None:
    inbox = Inbox()
    trainer = make_trainer(steps=3, inbox=inbox, clock=make_clock(tick=0.02))
    for event in trainer.fit():
        if isinstance(event, Stepped):
            if event.step == 3:
                inbox.put(TrainLonger(seconds=12.0))
            if event.step == 8:
                break
    resumed = make_trainer(steps=3, clock=make_clock(tick=0.02), resume=trainer.model(with_state=True))
    *_, last = resumed.fit()
    assert 10 < last.seconds < 13


def test_a_finished_model_cannot_be_resumed(make_trainer: Make) -> None:
    with pytest.raises(ConfigError, match="--weights-from"):
        make_trainer(resume=finished(make_trainer(steps=1)))


def test_state_of_another_network_is_refused(make_trainer: Make) -> None:
    part = saved_at(make_trainer(), 1)
    assert part.state is not None
    tensors = dict(part.state.tensors)
    name = next(name for name in tensors if name.startswith("weights."))
    tensors[name] = torch.zeros(7)
    broken = TrainedModel(**{**vars(part), "state": type(part.state)(tensors, part.state.values)})
    with pytest.raises(ModelFileError, match="does not fit the network"):
        finished(make_trainer(resume=broken))


# --- replaying --------------------------------------------------------------------------------------------


def replayed(model: TrainedModel, make_trainer: Make, *volumes: AnnotatedVolume, **arguments: Any) -> TrainedModel:
    """Train again from the recipe as it comes out of a text file."""
    recipe = validated(Recipe, model.recipe.model_dump(mode="json"))
    trainer = make_trainer(list(volumes) or None, record=recipe.record, **arguments, **asked(recipe))
    return finished(trainer)


def asked(recipe: Recipe) -> dict[str, Any]:
    train = {name: value for name, value in recipe.train.model_dump().items() if name != "steps"}
    return {**train, **recipe.network.model_dump(), "seconds": recipe.train.seconds}


def test_run_by_the_clock_is_repeated_step_by_step(make_trainer: Make, make_clock: Make, same_weights: Make) -> None:
    trainer = make_trainer(**RICH, seconds=20.0, clock=make_clock(tick=0.03))
    expected = finished(trainer)
    record = record_of(expected)
    assert record.steps > 20
    assert len(record.schedule) > 5
    assert len(record.validated_steps) > 2
    found = replayed(expected, make_trainer, clock=make_clock(tick=5.0))
    assert same_weights(found, expected)
    again = record_of(found)
    for name in ("steps", "best_step", "schedule", "validated_steps", "held_out", "hold_out", "precision"):
        assert getattr(again, name) == getattr(record, name), name


def test_stopped_run_is_repeated_up_to_its_stop(make_trainer: Make, make_clock: Make, same_weights: Make) -> None:
    inbox = Inbox()
    trainer = make_trainer(seconds=50.0, clock=make_clock(tick=0.02), inbox=inbox)
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.step == 13:
            inbox.put(Stop())
    expected = trainer.model()
    found = replayed(expected, make_trainer)
    assert record_of(found).steps == 13
    assert record_of(found).best_step == record_of(expected).best_step
    assert same_weights(found, expected)


def test_extended_run_is_repeated(make_trainer: Make, make_clock: Make, same_weights: Make) -> None:
    inbox = Inbox()
    inbox.put(TrainLonger(seconds=3.0))
    trainer = make_trainer(seconds=3.0, clock=make_clock(tick=0.02), inbox=inbox)
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.step == 9:
            inbox.put(TrainLonger(steps=4))
    expected = trainer.model()
    assert same_weights(replayed(expected, make_trainer), expected)


def test_lack_of_memory_is_repeated(make_trainer: Make, same_weights: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        outputs, calls = Learner._outputs, []

        def tight(self: Learner, values: torch.Tensor) -> Any:
            calls.append(1)
            found = outputs(self, values)  # changes running statistics
            if len(calls) == 4:
                raise MemoryError
            return found

        patch.setattr(Learner, "_outputs", tight)
        expected = finished(make_trainer(batch_size=4, validation=0, dropout=0.2))
    assert record_of(expected).batch_size_changes == ((3, 2),)
    found = replayed(expected, make_trainer)
    assert record_of(found).batch_size_changes == ((3, 2),)
    assert same_weights(found, expected)


def test_fall_back_of_another_machine_is_repeated(make_trainer: Make, same_weights: Make) -> None:
    expected = finished(make_trainer(steps=10, precision="bfloat16"))
    record = record_of(expected).updated(precision_changes=((4, "float32"),))
    found = finished(make_trainer(steps=10, precision="bfloat16", record=record))
    assert record_of(found).precision_changes == ((4, "float32"),)
    assert not same_weights(found, expected)


def test_automatic_precision_is_repeated(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_unet3d.engine.training_start.choose_precision", lambda *_: "bfloat16")
    expected = finished(make_trainer(precision="auto"))
    assert record_of(expected).precision == "bfloat16"
    monkeypatch.setattr("napari_unet3d.engine.training_start.choose_precision", lambda *_: "float32")
    assert record_of(replayed(expected, make_trainer)).precision == "bfloat16"


def test_threads_are_repeated(make_trainer: Make) -> None:
    expected = finished(make_trainer(threads=2, steps=1))
    record = record_of(expected)
    seen = [torch.get_num_threads() for event in make_trainer(record=record).fit() if isinstance(event, Stepped)]
    assert seen == [2]


def test_loose_strokes_stay_held_out(make_trainer: Make, same_weights: Make) -> None:
    def strokes() -> AnnotatedVolume:
        image = np.random.default_rng(0).normal(0, 0.2, (20, 60, 60)).astype(np.float32)
        image[:, ::2] += 1
        labels = np.zeros(image.shape, np.uint8)
        for z, y, x in np.ndindex(1, 3, 3):
            box = (slice(z, 5), slice(25 * y, 25 * y + 5), slice(25 * x, 25 * x + 5))
            labels[box] = 1 + (image[box] > 0.5)
        return AnnotatedVolume(Volume.from_array(image), labels)

    expected = finished(make_trainer([strokes()], steps=10))
    record = record_of(expected)
    assert record.hold_out is not None
    held_out = record.hold_out[3]
    assert held_out
    found = replayed(expected, make_trainer, strokes())
    assert record_of(found).hold_out == record.hold_out
    assert same_weights(found, expected)
    # another share, or a seed that would choose otherwise, does not matter to what was decided
    other = record_of(finished(make_trainer([strokes()], record=record, validation=0.0, random_state=7)))
    assert other.hold_out == record.hold_out


def test_interrupted_replay_goes_on(make_trainer: Make, make_clock: Make, same_weights: Make, stored: Make) -> None:
    expected = finished(make_trainer(seconds=12.0, clock=make_clock(tick=0.03)))
    record = record_of(expected)
    part = stored(saved_at(make_trainer(seconds=12.0, record=record), 6))
    found = finished(make_trainer(seconds=12.0, resume=part))
    assert record_of(found).steps == record.steps
    assert record_of(found).validated_steps == record.validated_steps
    assert same_weights(found, expected)


def test_replay_without_the_first_weights_is_noted(make_trainer: Make) -> None:
    first = finished(make_trainer(steps=1))
    second = finished(make_trainer(steps=1, start=first))
    events = list(make_trainer(record=record_of(second)).fit())
    assert any("began with the weights of another model" in e.text for e in events if isinstance(e, Note))


def test_classes_painted_later_change_no_replay(make_trainer: Make, make_volume: Make, same_weights: Make) -> None:
    expected = finished(make_trainer())
    volume = make_volume()
    volume.labels[3, :3, :3] = 5  # left out in the run, painted in the file that was saved at its end
    assert same_weights(replayed(expected, make_trainer, volume), expected)


def test_annotation_painted_meanwhile_keeps_what_is_held_out(make_trainer: Make, make_volume: Make) -> None:
    inbox = Inbox()
    trainer = make_trainer(steps=10, inbox=inbox)
    box = (slice(0, 24), slice(3, 4), slice(0, 20))
    painted = np.where(np.arange(20) < 9, 1, 2).astype(np.uint8) * np.ones((24, 1, 1), np.uint8)
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.step == 2:
            inbox.put(Annotate(0, box, painted))
    before = trainer.model(with_state=True)
    volume = make_volume()
    volume.labels[box] = painted
    after = finished(make_trainer([volume], steps=12, resume=before))
    assert record_of(after).hold_out == record_of(before).hold_out


def test_validation_disturbs_nothing(make_trainer: Make, make_volume: Make) -> None:
    """A run that is validated often has the same losses as one that is validated at the end."""

    def losses(often: bool) -> list[float]:
        trainer = make_trainer(steps=12, dropout=0.3)
        trainer._course.validations.recorded = range(100) if often else ()
        events = list(trainer.fit())
        assert len([event for event in events if isinstance(event, Validated)]) == (12 if often else 1)
        return [event.loss for event in events if isinstance(event, Stepped)]

    assert losses(often=True) == losses(often=False)
