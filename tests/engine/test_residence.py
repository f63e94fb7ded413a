"""Where the volume lies while a network learns from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from napari_unet3d.engine import training_setup
from napari_unet3d.engine.progress import Note, Stepped
from napari_unet3d.engine.training_data import TrainingData
from napari_unet3d.engine.training_setup import residence_note

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("on_gpu", "on_host", "processes", "place"),
    [
        (250, 0, 1, GPU),  # 40 % of what is free may be taken
        (249, 250, 1, CPU),
        (249, 249, 1, None),
        (250, 0, 8, GPU),  # each process has a GPU of its own
        (0, 500, 2, CPU),  # but in the computer's memory there are several copies
        (0, 499, 2, None),
    ],
)
def test_the_first_place_with_room_is_taken(
    monkeypatch: pytest.MonkeyPatch, on_gpu: int, on_host: int, processes: int, place: torch.device | None
) -> None:
    monkeypatch.setattr(training_setup, "free_memory", lambda device: on_gpu if device.type == "cuda" else on_host)
    assert training_setup._keeper(100, GPU, "auto", processes) == place


def test_the_place_can_be_chosen() -> None:
    assert training_setup._keeper(10**18, GPU, "device", 1) == GPU
    assert training_setup._keeper(10**18, GPU, "host", 1) == CPU
    assert training_setup._keeper(1, GPU, "off", 1) is None


@pytest.mark.parametrize(
    ("place", "device", "text"),
    [(GPU, GPU, ""), (CPU, CPU, ""), (None, CPU, ""), (CPU, GPU, "not in that of cuda:0"), (None, GPU, "every patch")],
)
def test_another_place_than_the_device_is_told(place: Any, device: torch.device, text: str) -> None:
    class Source:
        kept_on = place

    note = residence_note([Source()], device)  # type: ignore[list-item]  # has what is looked at
    assert text in note
    assert bool(note) == bool(text)


@pytest.mark.parametrize("resident", ["device", "host"])
def test_the_place_changes_no_weight(make_trainer: Make, same_weights: Make, resident: str) -> None:
    models = []
    for where in ("auto", resident):
        trainer = make_trainer(steps=3, resident=where, features="scale_space")
        list(trainer.fit())
        models.append(trainer.model())
    assert same_weights(*models)


def test_features_of_every_patch_anew_change_losses_by_rounding_only(make_trainer: Make) -> None:
    losses = []
    for resident in ("auto", "off"):
        trainer = make_trainer(steps=3, resident=resident, features="scale_space")
        losses.append([event.loss for event in trainer.fit() if isinstance(event, Stepped)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_the_volume_leaves_a_full_device_before_batches_shrink(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, calls = TrainingData.batch, []

    def scarce(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) in (2, 3):
            raise MemoryError
        return batch(*arguments)

    leaving = iter([True, False])
    monkeypatch.setattr(TrainingData, "batch", scarce)
    monkeypatch.setattr(TrainingData, "leave_device", lambda _: next(leaving))
    trainer = make_trainer(batch_size=4, steps=3)
    notes = [event.text for event in trainer.fit() if isinstance(event, Note) and event.level == "warning"]
    assert notes == [
        "out of memory: the volume now lies in the computer's memory",
        "out of memory: going on with 2 patches in a step",
    ]
    assert trainer.model().recipe.record.batch_size_changes == ((1, 2),)
