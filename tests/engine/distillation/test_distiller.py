"""The course of a distillation, its commands, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import UNet3PlusConfig
from napari_unet3d.engine.distillation.agreement import looked_at
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.progress import (
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


def notes(events: Iterable[Event]) -> str:
    return " | ".join(event.text for event in of_kind(Note, events))


@pytest.fixture
def unpainted(make_volume: Make) -> AnnotatedVolume:
    volume: AnnotatedVolume = make_volume(planes=(), seed=5)
    return volume


# --- the course of a run ----------------------------------------------------------------------------------


def test_events_of_a_run(make_teacher: Make, make_distiller: Make) -> None:
    events = list(make_distiller(make_teacher(), steps=7).fit())
    assert isinstance(events[0], Started)
    assert [event.stage for event in of_kind(Preparing, events)] == ["teacher"]
    assert [event.step for event in of_kind(Stepped, events)] == list(range(1, 8))
    assert all("soft" in event.loss_terms for event in of_kind(Stepped, events))
    validated = of_kind(Validated, events)
    assert [event.step for event in validated] == [5, 7]
    assert all(event.agreement is not None and 0 <= event.agreement <= 1 for event in validated)
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.step) == ("the budget is used up", 7)


def test_a_student_learns_to_agree_without_any_annotation(
    make_teacher: Make, make_distiller: Make, unpainted: AnnotatedVolume
) -> None:
    teacher = make_teacher(60)
    distiller = make_distiller(teacher, [unpainted], steps=60)
    events = list(distiller.fit())
    assert notes(events) == (
        "nothing is annotated: the student learns from the teachers alone, and agreement with them is measured"
    )
    best = max(event.agreement or 0.0 for event in of_kind(Validated, events))
    assert best > 0.9
    model = distiller.model()
    assert model.label_ids == teacher.label_ids
    assert model.normalization == teacher.normalization
    # the same over the whole volume, by hand
    image = torch.from_numpy(model.normalization.apply(unpainted.image.read()))[None]
    with torch.inference_mode():
        ours, theirs = (entry.network(image)[0].argmax(0) for entry in (model, teacher))
    assert float((ours == theirs).float().mean()) > 0.9
    assert 0.05 < float(theirs.float().mean()) < 0.5


def test_both_terms_where_something_is_painted(make_teacher: Make, make_distiller: Make) -> None:
    events = list(make_distiller(make_teacher(), labelled_patches=1.0).fit())
    assert all(set(event.loss_terms) == {"soft", "hard"} for event in of_kind(Stepped, events))
    scores = of_kind(Validated, events)[-1]
    assert not math.isnan(scores.mean_iou)


@pytest.mark.parametrize(
    ("taught", "student"),
    [
        ({"classes": 3}, {"classes": 3}),
        ({"classes": 1}, {"classes": 1}),
        ({"classes": 1}, {"classes": 2}),
        ({"classes": 2}, {"classes": 1}),
        ({"classes": 2, "head": "sigmoid"}, {"classes": 2, "head": "sigmoid"}),
        ({}, {"deep_supervision": True}),
        ({"padding": "valid", "patch_size": (16, 16, 16)}, {}),
        ({}, {"dimensions": 2}),
    ],
    ids=["multi-class", "binary", "binary to two", "two to binary", "sigmoids", "deep supervision", "valid", "planes"],
)
def test_kinds_of_teachers_and_students(
    make_teacher: Make, make_distiller: Make, make_volume: Make, taught: dict[str, Any], student: dict[str, Any]
) -> None:
    volume = make_volume()
    if taught.get("classes") == 3 or taught.get("head") == "sigmoid":
        volume.labels[1:10, :3, :3][volume.labels[1:10, :3, :3] > 0] = 3
    teacher = make_teacher(volumes=[volume], **taught)
    distiller = make_distiller(teacher, [volume], feature_hint=0.5, steps=2, **student)
    events = list(distiller.fit())
    assert all(math.isfinite(event.loss) and "hint" in event.loss_terms for event in of_kind(Stepped, events))
    assert distiller.model().label_ids == teacher.label_ids


def test_patches_are_changed_only_where_that_is_asked_for(make_teacher: Make, make_distiller: Make) -> None:
    """Noise would show in the loss."""
    teacher = make_teacher(3)

    def losses(noise: float, **values: Any) -> list[float]:
        augment = {"probability": 0, "flips": False, "noise": noise}
        distiller = make_distiller(teacher, steps=3, augment=augment, **values)
        return [event.loss for event in of_kind(Stepped, list(distiller.fit()))]

    assert losses(0.5) == losses(0.0) == losses(0.0, augmented=True)
    assert losses(0.5, augmented=True) != losses(0.0)


def test_another_family(make_teacher: Make, make_distiller: Make) -> None:
    network = UNet3PlusConfig(levels=2, filters=2, branch_filters=2)
    distiller = make_distiller(make_teacher(), student=network, steps=2)
    assert len(of_kind(Stepped, distiller.fit())) == 2
    assert distiller.model().recipe.network.kind == "unet3plus"


def test_further_images_and_several_teachers(
    make_teacher: Make, make_distiller: Make, make_volume: Make, unpainted: AnnotatedVolume
) -> None:
    teachers = [make_teacher(random_state=state) for state in (0, 1)]
    distiller = make_distiller(teachers, [make_volume(), unpainted], flips=True, steps=2)
    list(distiller.fit())
    record = distiller.model().recipe.record
    assert [entry.name for entry in record.teachers] == ["teacher 1", "teacher 2"]
    assert distiller.model().recipe.distill.flips


def test_the_teacher_is_frozen(make_teacher: Make, make_distiller: Make) -> None:
    teacher = make_teacher()
    assert any("running_mean" in name for name in teacher.network.state_dict())
    for outputs in ("cached", "live"):
        before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
        list(make_distiller(teacher, steps=2, teacher_outputs=outputs).fit())
        assert not any(module.training for module in teacher.network.modules())
        assert all(parameter.grad is None for parameter in teacher.network.parameters())
        assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())


def test_the_student_is_measured_where_the_teacher_was(
    make_trainer: Make, make_distiller: Make, make_volume: Make
) -> None:
    trainer = make_trainer(random_state=3, steps=1)
    wanted = of_kind(HeldOut, trainer.fit())[0].slices
    for state in range(4):
        found = of_kind(HeldOut, make_distiller(trainer.model(), random_state=state, steps=1).fit())[0].slices
        assert found == wanted
    other = make_distiller(trainer.model(), [make_volume(planes=(2, 6, 10, 14, 18, 22))], steps=1)
    assert of_kind(HeldOut, other.fit())[0].slices != wanted


# --- what the owner may do --------------------------------------------------------------------------------


def test_cancelling_keeps_the_best_student(
    make_teacher: Make, make_distiller: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, inbox = make_teacher(), Inbox()
    scores = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr("napari_unet3d.engine.plane_predictor.mean_foreground_iou", lambda *_: next(scores))
    distiller = make_distiller(teacher, steps=100, inbox=inbox)
    weights = None
    for event in distiller.fit():
        if isinstance(event, Validated) and event.is_best:
            weights = distiller.model().network.state_dict()
        if isinstance(event, Validated) and event.step == 15:
            inbox.put(Stop())
    assert isinstance(event, Finished)
    assert event.reason == "stopped"
    assert event.step in (15, 16)  # at once, or after the present step
    model = distiller.model()
    assert model.recipe.record.best_step == 10
    assert weights is not None
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())


def test_a_stop_while_the_teachers_look(make_teacher: Make, make_distiller: Make) -> None:
    inbox = Inbox()
    distiller = make_distiller(make_teacher(), inbox=inbox, steps=50)
    inbox.put(PreviewPlane(0, 0, 4))
    inbox.put(Stop())
    events = list(distiller.fit())
    assert of_kind(Finished, events)[0].reason == "stopped"
    assert not of_kind(Stepped, events)


def test_pause_preview_and_longer(make_teacher: Make, make_distiller: Make) -> None:
    inbox = Inbox()
    distiller = make_distiller(make_teacher(), inbox=inbox, steps=4)
    seen = []
    for event in distiller.fit():
        seen.append(type(event))
        if isinstance(event, Stepped) and event.step == 2:
            for command in (Pause(), PreviewPlane(0, 2, 5), Resume(), TrainLonger(steps=4)):
                inbox.put(command)
        if isinstance(event, Previewed):
            assert event.labels.shape == (24, 20)
            assert set(np.unique(event.labels)) <= {1, 2}
    assert seen.count(Paused) == seen.count(Previewed) == 1
    assert distiller.step == 6


def test_resumed_as_if_never_interrupted(make_teacher: Make, make_distiller: Make, same_weights: Make) -> None:
    teacher, inbox = make_teacher(), Inbox()
    whole = make_distiller(teacher, steps=8)
    list(whole.fit())
    first = make_distiller(teacher, steps=8, inbox=inbox)
    for event in first.fit():
        if isinstance(event, Stepped) and event.step == 4:
            inbox.put(Stop())
    second = make_distiller(teacher, steps=8, resume=first.model(with_state=True))
    list(second.fit())
    assert second.step == 8
    assert same_weights(whole.model(), second.model())


def test_repeated_from_the_record(make_teacher: Make, make_distiller: Make, same_weights: Make) -> None:
    teacher = make_teacher()
    first = make_distiller(teacher, steps=6)
    list(first.fit())
    again = make_distiller(teacher, steps=6, record=first.model().recipe.record)
    list(again.fit())
    assert same_weights(first.model(), again.model())


# --- what it begins with ----------------------------------------------------------------------------------


def test_beginning_with_the_weights_of_the_teacher(make_teacher: Make, make_distiller: Make) -> None:
    teacher = make_teacher()
    same = make_distiller(teacher, student_from="teacher", filters=4, steps=1)
    assert "100% of the student's weights are those of the teacher teacher 1" in notes(same.fit())
    deeper = make_distiller(teacher, student_from="teacher", filters=4, levels=3, steps=1)
    assert "% of the student's weights" in notes(deeper.fit())


def test_beginning_with_the_weights_of_a_student(make_teacher: Make, make_distiller: Make, same_weights: Make) -> None:
    teacher = make_teacher()
    scratch = make_teacher(filters=2, random_state=1)
    distiller = make_distiller(teacher, start=scratch, steps=2, learning_rate=1e-12, average_decay=0.0)
    list(distiller.fit())
    ours, theirs = distiller.model().network.state_dict(), scratch.network.state_dict()
    weights = [name for name, _ in scratch.network.named_parameters()]
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in weights)
    assert distiller.model().recipe.record.from_weights


def test_planes_to_compare_on_are_spread() -> None:
    keys = looked_at([(40, 50, 60), (30, 30, 30)])
    assert [volume for volume, _, _ in keys] == [0, 0, 0, 1, 1, 1]
    assert {axis for _, axis, _ in keys} == {0, 1, 2}
    shapes = [(40, 50, 60), (30, 30, 30)]
    assert all(0 <= index < shapes[volume][axis] for volume, axis, index in keys)
    assert {axis for _, axis, _ in looked_at([(4, 50, 60)])} == {0}
    assert looked_at([(1, 50, 60)]) == [(0, 0, 0)]
    assert len(looked_at([(20, 20, 20)] * 9)) == 6


# --- refusals ---------------------------------------------------------------------------------------------


def refusal(kind: type[Exception], make: Callable[[], Any]) -> str:
    with pytest.raises(kind) as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": 5},
            "network.classes = 5 but the teacher teacher 1 knows the classes 1, 2; set network.classes to 2",
        ),
        ({"head": "sigmoid", "classes": 1}, "set network.head to softmax"),
        ({"in_channels": 2}, "set network.in_channels to 1"),
        ({"normalize": {"method": "zscore"}}, "train.normalize differs from that of the teacher"),
        ({"student_from": "teacher", "filters": 3, "levels": 1, "kernel": 5}, "use --student-from scratch"),
    ],
)
def test_students_that_do_not_fit(
    make_teacher: Make, make_distiller: Make, change: dict[str, Any], message: str
) -> None:
    assert message in refusal(ConfigError, lambda: make_distiller(make_teacher(), **change))


def test_a_teacher_of_other_channels(make_teacher: Make, make_distiller: Make, make_volume: Make) -> None:
    volume = make_volume()
    two = AnnotatedVolume(Volume.from_array(np.stack([volume.image.read()[0]] * 2)), volume.labels)
    assert "channel" in refusal(DataError, lambda: make_distiller(make_teacher(), [two]))


def test_nothing_to_learn_from(make_teacher: Make, make_distiller: Make, unpainted: AnnotatedVolume) -> None:
    message = refusal(ConfigError, lambda: make_distiller(make_teacher(), [unpainted], alpha=0.0))
    assert "distill.alpha = 0 listens to the annotation alone, and there is none" in message


def test_resuming_with_another_teacher(make_teacher: Make, make_distiller: Make) -> None:
    first = make_distiller(make_teacher(), steps=2)
    list(first.fit())
    student: TrainedModel = first.model(with_state=True)
    other = make_teacher(random_state=1)
    message = refusal(ConfigError, lambda: make_distiller(other, resume=student))
    assert "learnt from teacher 1, with other weights; give the same teachers" in message
