"""When a training run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.progress import (
    Event,
    Finished,
    Note,
    Stepped,
    Validated,
)

Make = Callable[..., Any]
E = TypeVar("E", bound=Event)


def of_kind(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def warnings_in(events: Iterable[Event]) -> list[str]:
    return [note.text for note in of_kind(Note, events) if note.level == "warning"]


def test_budget_of_seconds_keeps_time_for_the_end(make_trainer: Make, make_clock: Make) -> None:
    clock = make_clock(tick=0.02)
    trainer = make_trainer(seconds=20.0, clock=clock, started_at=clock.now - 3.0)
    events = []
    for event in trainer.fit():
        events.append(event)
        if isinstance(event, Stepped) and event.step == 5:
            clock.now += 1.5  # the owner saves
    last = events[-1]
    assert isinstance(last, Finished)
    assert 15 < last.seconds < 20 - 1.5  # as long as saving took is left
    assert isinstance(events[-2], Validated)
    assert of_kind(Stepped, events)[-1].learning_rate < 0.1 * 0.005


def test_budget_shorter_than_the_preparation(make_trainer: Make, make_clock: Make) -> None:
    clock = make_clock(tick=0.01)
    trainer = make_trainer(seconds=5.0, clock=clock, started_at=clock.now - 60.0)
    events = list(trainer.fit())
    assert len(of_kind(Stepped, events)) == 1
    assert of_kind(Validated, events)
    assert any("give it more time" in text for text in warnings_in(events))


def test_early_stop(make_trainer: Make, monkeypatch: Any) -> None:
    scores = iter([0.5, 0.6, 0.4, 0.5, 0.3])
    monkeypatch.setattr("napari_unet3d.engine.plane_predictor.mean_foreground_iou", lambda *_: next(scores))
    trainer = make_trainer(steps=100, patience=2)
    events = list(trainer.fit())
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.step) == ("no improvement in 2 validations", 20)
    assert trainer.model().recipe.record.best_step == 10


def test_open_run_cools_down_when_validation_stops_improving(
    make_trainer: Make, make_clock: Make, monkeypatch: Any
) -> None:
    scores = iter([0.1, 0.2, 0.3, *[0.25] * 1000])
    monkeypatch.setattr("napari_unet3d.engine.plane_predictor.mean_foreground_iou", lambda *_: next(scores))
    trainer = make_trainer(steps=None, patience=3, clock=make_clock(tick=0.05))
    events = list(trainer.fit())
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.reason == "it stopped improving"
    rates = [event.learning_rate for event in of_kind(Stepped, events)]
    assert rates[-1] < 0.1 * max(rates)
    # the cool-down is not cut short by further validations without improvement
    assert len([rate for rate in rates[-20:] if rate < max(rates)]) >= 19
    assert trainer.model().recipe.record.best_step < last.step


def test_open_run_without_held_out_slices_ends_with_the_loss(
    make_trainer: Make, make_volume: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Learner.learn
    monkeypatch.setattr(Learner, "learn", lambda *args, **seed: learn(*args, **seed)._replace(loss=1.0))
    trainer = make_trainer([make_volume(planes=(3, 12))], steps=None, patience=2)
    events = list(trainer.fit())
    last = events[-1]
    assert isinstance(last, Finished)
    # three means of 50 steps, the last two no better, then a quarter more
    assert (last.reason, last.step) == ("it stopped improving", 150 + 38)
