"""The loop: events, commands, budgets and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.errors import ConfigError, DataError, DeviceError, TrainingError
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.metrics import class_scores, confusion_matrix
from napari_unet3d.engine.networks.outputs import NetworkOutputs
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
    Preparing,
    Previewed,
    PreviewPlane,
    Resume,
    Started,
    Stepped,
    Stop,
    TrainLonger,
    Validated,
)
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

Make = Callable[..., Any]
E = TypeVar("E", bound=Event)


def of_kind(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def warnings_in(events: Iterable[Event]) -> list[str]:
    return [note.text for note in of_kind(Note, events) if note.level == "warning"]


# --- the course of a run ----------------------------------------------------------------------------------


def test_events_of_a_run(make_trainer: Make) -> None:
    events = list(make_trainer(steps=7).fit())
    assert [type(event) for event in events[:3]] == [Started, Preparing, Note]
    assert [event.step for event in of_kind(Stepped, events)] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.step for event in of_kind(Validated, events)] == [5, 7]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.step) == ("the budget is used up", 7)


def test_it_learns_and_says_how_well(make_trainer: Make, make_volume: Make) -> None:
    trainer = make_trainer(steps=60)
    events = list(trainer.fit())
    best = max(of_kind(Validated, events), key=lambda event: event.mean_iou)
    assert best.mean_iou > 0.8
    # the same by hand: the whole volume at once, scored on the held-out plane
    model = trainer.model()
    ((_, axis, index),) = model.recipe.record.held_out
    assert axis == 0
    volume = make_volume()
    image = torch.from_numpy(model.normalization.apply(volume.image.read()))[None]
    with torch.inference_mode():
        labels = 1 + model.network(image)[0].argmax(0).numpy()
    counts = confusion_matrix(labels[index], volume.labels[index], (1, 2))
    assert class_scores(counts, (1, 2))[1].iou == pytest.approx(best.mean_iou, abs=0.01)


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


# --- the inbox --------------------------------------------------------------------------------------------


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


# --- budgets ----------------------------------------------------------------------------------------------


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


# --- what goes wrong --------------------------------------------------------------------------------------


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


# --- beginning with a model -------------------------------------------------------------------------------


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
