"""When teachers are asked beforehand, and that both ways say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import DistillConfig
from napari_unet3d.engine.distillation import soft_targets
from napari_unet3d.engine.distillation.soft_targets import CachedScores, LiveScores, SoftTarget, open_targets
from napari_unet3d.engine.distillation.teacher import TeacherEnsemble
from napari_unet3d.engine.progress import Event, Note, Preparing
from napari_unet3d.engine.volume import Volume

Make = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.fixture
def image(make_volume: Make) -> Volume:
    found: Volume = make_volume().image
    return found


@pytest.fixture
def teachers(make_teacher: Make, decided: Make) -> TeacherEnsemble:
    return TeacherEnsemble([decided(make_teacher())], DistillConfig(), "cpu", "float32")


def opened(teachers: TeacherEnsemble, *images: Volume, **changes: Any) -> tuple[list[SoftTarget], list[Event]]:
    """Targets and events; no limits unless they are named."""
    options: dict[str, Any] = {
        "seconds_left": lambda: None,
        "planned_voxels": None,
        "is_stopped": lambda: False,
        "clock": lambda: 0.0,
    }
    mode = DistillConfig(teacher_outputs=changes.pop("mode", "auto"))
    opening = open_targets(teachers, images, mode, CPU, **{**options, **changes})
    events = []
    while True:
        try:
            events.append(next(opening))
        except StopIteration as end:
            return end.value, events


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def test_both_ways_say_the_same(teachers: TeacherEnsemble, image: Volume) -> None:
    (cached,), events = opened(teachers, image)
    (live,), told = opened(teachers, image, mode="live")
    assert isinstance(cached, CachedScores)
    assert isinstance(live, LiveScores)
    assert isinstance(events[-1], Preparing)
    assert events[-1].fraction == 1
    assert notes(told) == [f"the teachers label {image.name} patch by patch: as asked for"]
    box = (slice(4, 12), slice(0, 10), slice(10, 20))
    assert cached.read(box).shape == (8, 10, 10, 1)
    assert cached.read(box).dtype == torch.float32
    torch.testing.assert_close(cached.read(box), live.read(box), atol=0.02, rtol=0.01)


def test_several_images(teachers: TeacherEnsemble, image: Volume, make_volume: Make) -> None:
    targets, events = opened(teachers, image, make_volume(seed=3).image)
    box = (slice(0, 8), slice(0, 8), slice(0, 8))
    assert not torch.equal(targets[0].read(box), targets[1].read(box))
    fractions = [event.fraction for event in events if isinstance(event, Preparing)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_few_steps_on_a_large_volume_ask_patch_by_patch(teachers: TeacherEnsemble, image: Volume) -> None:
    (target,), events = opened(teachers, image, planned_voxels=500.0)
    assert isinstance(target, LiveScores)
    assert "few of its voxels" in notes(events)[0]
    (target,), _ = opened(teachers, image, planned_voxels=500.0, mode="cached")
    assert isinstance(target, CachedScores)


def test_labelling_all_may_not_take_most_of_the_time(
    teachers: TeacherEnsemble, image: Volume, make_clock: Make
) -> None:
    # every look at the clock takes 2 s, and of a budget of 3 s half may be spent
    (target,), events = opened(teachers, image, seconds_left=lambda: 3.0, clock=make_clock(tick=2.0))
    assert isinstance(target, LiveScores)
    assert "labelling all of it would take" in notes(events)[0]
    (target,), _ = opened(teachers, image, seconds_left=lambda: 300.0, clock=make_clock(tick=2.0))
    assert isinstance(target, CachedScores)


def test_a_stop_meanwhile(teachers: TeacherEnsemble, image: Volume) -> None:
    (target,), events = opened(teachers, image, is_stopped=lambda: True)
    assert isinstance(target, LiveScores)
    assert notes(events) == []


def test_where_memory_is_short_scores_go_to_the_disk(
    teachers: TeacherEnsemble, image: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_memory,), _ = opened(teachers, image)
    monkeypatch.setattr(soft_targets, "free_memory", lambda device: 100)
    (on_disk,), _ = opened(teachers, image)
    assert isinstance(on_disk, CachedScores)
    assert isinstance(on_disk._scores, np.memmap)
    box = (slice(0, 24), slice(0, 20), slice(0, 20))
    assert torch.equal(on_disk.read(box), in_memory.read(box))
    monkeypatch.setattr(soft_targets, "_DISK_SHARE", 0.0)
    (nowhere,), events = opened(teachers, image)
    assert isinstance(nowhere, LiveScores)
    assert "neither into memory nor on the disk" in notes(events)[0]
