"""What goes wrong in a training run: bad numbers, lack of memory, errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
import torch

from napari_unet3d.engine.errors import DeviceError, TrainingError
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.progress import (
    Event,
    Note,
    Stepped,
    Validated,
)
from napari_unet3d.engine.trained_model import TrainedModel

Make = Callable[..., Any]
E = TypeVar("E", bound=Event)


def of_kind(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def warnings_in(events: Iterable[Event]) -> list[str]:
    return [note.text for note in of_kind(Note, events) if note.level == "warning"]


def poison(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[int], bool]) -> None:
    """Make the input of some calls of `Learner.learn` NaN, which reaches running statistics and loss."""
    learn = Learner.learn
    calls = 0

    def poisoned(self: Learner, batch: Any, rate: float, seed: int) -> Any:
        nonlocal calls
        calls += 1
        bad = batch._replace(input=batch.input * math.nan) if is_bad(calls) else batch
        return learn(self, bad, rate, seed)

    monkeypatch.setattr(Learner, "learn", poisoned)


def test_single_bad_steps_are_skipped(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda call: call in (3, 5))
    trainer = make_trainer(steps=10)
    events = list(trainer.fit())
    losses = [event.loss for event in of_kind(Stepped, events)]
    assert [step for step, loss in enumerate(losses, 1) if math.isnan(loss)] == [3, 5]
    assert not warnings_in(events)
    assert all(torch.isfinite(tensor).all() for tensor in trainer.model().network.state_dict().values())
    assert all(math.isfinite(point.loss) for point in trainer.model().history.steps)


def test_many_bad_steps_are_told_once(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda call: call % 2 == 0)
    events = list(make_trainer(steps=40).fit())
    (text,) = warnings_in(events)
    assert text.startswith("10 of 20 steps were not finite")


def test_falls_back_to_float32(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda call: 3 <= call <= 7)
    trainer = make_trainer(steps=12, precision="bfloat16")
    events = list(trainer.fit())
    assert warnings_in(events) == ["the loss was not finite in bfloat16: going on in float32"]
    record = trainer.model().recipe.record
    assert record.precision == "bfloat16"
    assert record.precision_changes == ((7, "float32"),)
    assert all(math.isfinite(event.loss) for event in of_kind(Stepped, events)[7:])


def test_gives_up_in_float32_but_keeps_the_best(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, same_weights: Make
) -> None:
    reference = make_trainer(steps=30)
    best: TrainedModel | None = None
    for event in reference.fit():
        if isinstance(event, Validated) and event.step == 5:
            best = reference.model()
            break
    poison(monkeypatch, lambda call: call > 5)
    trainer = make_trainer(steps=30)
    with pytest.raises(TrainingError, match=r"lower train\.learning_rate \(now 0\.005\)"):
        list(trainer.fit())
    assert best is not None
    assert same_weights(trainer.model(), best)


def fill_memory(monkeypatch: pytest.MonkeyPatch, most: int, after: int = 0) -> None:
    learn = Learner.learn
    calls = 0

    def tight(self: Learner, batch: Any, rate: float, seed: int) -> Any:
        nonlocal calls
        calls += 1
        if calls > after and batch.input.shape[0] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return learn(self, batch, rate, seed)

    monkeypatch.setattr(Learner, "learn", tight)


def test_out_of_memory_halves_the_batch(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_memory(monkeypatch, most=2)
    trainer = make_trainer(batch_size=8, steps=3)
    events = list(trainer.fit())
    assert [text.split(":")[1] for text in warnings_in(events)] == [
        " going on with 4 patches in a step",
        " going on with 2 patches in a step",
    ]
    assert len(of_kind(Stepped, events)) == 3
    record = trainer.model().recipe.record
    assert record.batch_size == 8
    assert record.batch_size_changes == ((0, 4), (0, 2))


def test_out_of_memory_with_one_patch_names_the_knobs(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_memory(monkeypatch, most=0)
    with pytest.raises(DeviceError, match=r"train\.patch_size.*network\.filters.*--device cpu"):
        list(make_trainer(batch_size=2).fit())


def test_out_of_memory_while_predicting_is_a_user_error(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*_: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Learner, "logits", allocate)
    with pytest.raises(DeviceError, match="ran out of memory"):
        list(make_trainer().fit())


def test_other_errors_are_not_hidden(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Learner, "learn", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        list(make_trainer().fit())
