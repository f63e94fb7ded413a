"""What the owner of a running training says to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.progress import (
    Annotate,
    AnnotationTaken,
    Event,
    Finished,
    HeldOut,
    Inbox,
    Note,
    Pause,
    Paused,
    Previewed,
    PreviewPlane,
    Resume,
    Stepped,
    Stop,
    TrainLonger,
)

Make = Callable[..., Any]
E = TypeVar("E", bound=Event)


def of_kind(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def warnings_in(events: Iterable[Event]) -> list[str]:
    return [note.text for note in of_kind(Note, events) if note.level == "warning"]


def test_stop_ends_between_two_steps(make_trainer: Make) -> None:
    inbox = Inbox()
    trainer = make_trainer(steps=100, inbox=inbox)
    steps = 0
    for event in trainer.fit():
        if isinstance(event, Stepped):
            steps = event.step
            if steps == 3:
                inbox.put(Stop())
    assert steps == 3
    assert isinstance(event, Finished)
    assert event.reason == "stopped"
    assert trainer.model().recipe.record.stop_reason == "stopped"


def test_pausing_takes_no_time(make_trainer: Make, make_clock: Make) -> None:
    inbox, clock = Inbox(), make_clock(tick=0.01)
    trainer = make_trainer(seconds=10.0, inbox=inbox, clock=clock)
    seconds, paused_at = 0.0, None
    for event in trainer.fit():
        if isinstance(event, Stepped):
            seconds = event.seconds
            if event.step == 5:
                inbox.put(Pause())
        elif isinstance(event, Paused):
            paused_at = event.step
            before = seconds
            clock.now += 1000.0
            inbox.put(PreviewPlane(0, 0, 1))
            inbox.put(Resume())
        elif isinstance(event, Previewed):
            assert event.step == paused_at
    assert paused_at == 5
    assert before < seconds < 10.1
    assert isinstance(event, Finished)
    assert 8 < event.seconds < 10.1
    assert event.step > 20


def test_stop_ends_a_pause(make_trainer: Make) -> None:
    inbox = Inbox()
    for command in (Pause(), Pause(), Stop()):
        inbox.put(command)
    events = list(make_trainer(inbox=inbox).fit())
    assert len(of_kind(Paused, events)) == 1
    assert not of_kind(Stepped, events)
    assert isinstance(events[-1], Finished)


def test_previews_show_the_plane_that_was_asked_for_last(make_trainer: Make) -> None:
    inbox = Inbox()
    for command in (PreviewPlane(0, 0, 3), PreviewPlane(0, 0, 4), PreviewPlane(0, 2, 7)):
        inbox.put(command)
    events = list(make_trainer(inbox=inbox).fit())
    found = of_kind(Previewed, events)
    assert [(event.axis, event.index, event.labels.shape) for event in found] == [(0, 4, (20, 20)), (2, 7, (24, 20))]
    assert all(event.step == 1 and event.labels.dtype == np.uint8 for event in found)


def test_new_annotation_is_learnt_next(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = []
    learn = Learner.learn

    def remember(self: Learner, batch: Any, rate: float, seed: int) -> Any:
        targets.append(batch.target)
        return learn(self, batch, rate, seed)

    monkeypatch.setattr(Learner, "learn", remember)
    inbox = Inbox()
    box = (slice(2, 22), slice(4, 5), slice(2, 18))  # a slice across Y
    painted = np.full((20, 1, 16), 2, np.uint8)
    trainer = make_trainer(inbox=inbox, augment={"probability": 0.0, "flips": False})
    taken = []
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.step == 3:
            assert not any(_is_across_y(target) for target in targets)
            inbox.put(Annotate(0, box, painted))
        elif isinstance(event, AnnotationTaken):
            taken.append((event.volume, event.box, event.step))
    assert taken == [(0, box, 3)]
    assert _is_across_y(targets[3])


def _is_across_y(target: torch.Tensor) -> bool:
    """Whether a plane along Z holds annotation in a line of many planes."""
    painted = target[0] >= 0  # Z Y X
    return bool((painted.any(dim=2).sum(dim=0) == painted.shape[0]).any())


def test_held_out_slices_stay_held_out(make_trainer: Make) -> None:
    inbox = Inbox()
    trainer = make_trainer(steps=20, inbox=inbox)
    seen = set()
    for event in trainer.fit():
        if isinstance(event, Stepped):
            record = trainer.model().recipe.record
            seen.add(record.held_out[0])
            if event.step in (4, 8):
                (_, _, index), *_ = record.held_out
                inbox.put(
                    Annotate(0, (slice(index, index + 1), slice(0, 4), slice(0, 4)), np.ones((1, 4, 4), np.uint8))
                )
                inbox.put(Annotate(0, (slice(23, 24), slice(0, 9), slice(0, 9)), np.ones((1, 9, 9), np.uint8)))
    assert len(seen) == 1


def test_what_is_held_out_is_told_before_the_first_step(make_trainer: Make) -> None:
    trainer = make_trainer(steps=1)
    events = [event for event in trainer.fit() if isinstance(event, HeldOut | Stepped)]
    assert [type(event) for event in events] == [HeldOut, Stepped]
    (told,) = of_kind(HeldOut, events)
    assert len(told.slices) == 1
    assert told.slices == trainer.model().recipe.record.held_out


def test_classes_carry_the_names_they_were_given(make_trainer: Make) -> None:
    nucleus = ClassInfo(id=2, name="nucleus", colour="#ff00ff")
    trainer = make_trainer(steps=1, named_classes=[nucleus, ClassInfo(id=7, name="unused", colour="#000000")])
    list(trainer.fit())
    assert [entry.name for entry in trainer.model().classes] == ["background", "nucleus"]
    assert trainer.model().classes[1] == nucleus


def test_unknown_classes_are_left_out(make_trainer: Make) -> None:
    inbox = Inbox()
    # 258 would become the known id 2 in 8 bits
    inbox.put(Annotate(0, (slice(3, 4), slice(0, 5), slice(0, 5)), np.full((1, 5, 5), 258, np.uint16)))
    trainer = make_trainer(inbox=inbox)
    events = list(trainer.fit())
    assert [text for text in warnings_in(events) if "[258]" in text]
    assert trainer.model().label_ids == (1, 2)


def test_erasing_everything_waits_for_more(make_trainer: Make, make_volume: Make) -> None:
    inbox = Inbox()
    whole = (slice(0, 24), slice(0, 20), slice(0, 20))
    inbox.put(Annotate(0, whole, np.zeros((24, 20, 20), np.uint8)))
    trainer = make_trainer(inbox=inbox)
    paused = 0
    for event in trainer.fit():
        if isinstance(event, Paused):
            paused += 1
            inbox.put(Resume())  # there is nothing to go on with
            inbox.put(Annotate(0, whole, make_volume().labels))
    assert paused == 1
    assert isinstance(event, Finished)
    assert event.step == 6


def test_training_longer_raises_the_rate_again(make_trainer: Make) -> None:
    inbox = Inbox()
    trainer = make_trainer(steps=10, inbox=inbox)
    rates = []
    for event in trainer.fit():
        if isinstance(event, Stepped):
            rates.append(event.learning_rate)
            if event.step == 10:
                inbox.put(TrainLonger(steps=5))
    assert len(rates) == 15
    assert rates[9] < 0.3 * max(rates)
    assert rates[10] == max(rates)


def test_training_longer_by_the_clock(make_trainer: Make, make_clock: Make) -> None:
    inbox = Inbox()
    trainer = make_trainer(steps=3, inbox=inbox, clock=make_clock(tick=0.01))
    for event in trainer.fit():
        if isinstance(event, Stepped) and event.step == 3:
            before = event.seconds
            inbox.put(TrainLonger(seconds=10.0))
    assert isinstance(event, Finished)
    assert before + 8 < event.seconds < before + 10.1
