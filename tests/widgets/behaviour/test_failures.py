"""Errors and lack of memory in the middle: something is kept, it is said, and the buttons are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.progress import Stepped
from napari_unet3d.engine.tile_network import TileNetwork
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.applying import ApplyOptions

PLANES = ((0, 5), (0, 10), (0, 14), (1, 24), (2, 28))


def failing(method: Any, errors: dict[int, Exception]) -> Any:
    """A method that raises at some of its calls, counted from 0; -1 stands for all others."""
    calls = 0

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        error = errors.get(calls, errors.get(-1))
        calls += 1
        if error is not None:
            raise error
        return method(self, *args, **kwargs)

    return call


def test_an_error_after_some_steps_leaves_the_model_so_far(person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "learn", failing(Learner.learn, {3: RuntimeError("the device is on fire")}))
    person.annotate(*PLANES)
    person.sees(person.dock.train_button.isEnabled)
    person.dock.train_button.click()
    person.sees(lambda: person.session.is_warning)
    assert "on fire" in person.session.message
    assert person.session.phase is Phase.IDLE
    assert len(person.session.curves.losses) == 3
    assert person.session.model is not None
    assert person.dock.train_button.isEnabled()
    assert person.dock.continue_button.isEnabled()
    assert person.dock.save_button.isEnabled()
    assert not person.dock.stop_button.isEnabled()


def test_training_goes_on_with_smaller_batches(person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {2: MemoryError(), 4: torch.OutOfMemoryError("CUDA out of memory")}
    monkeypatch.setattr(Learner, "learn", failing(Learner.learn, errors))
    person.session.train_config = person.session.train_config.updated(steps=4, batch_size=4)
    person.annotate(*PLANES)
    person.sees(person.dock.train_button.isEnabled)
    person.dock.train_button.click()
    person.sees(lambda: person.session.model is not None)
    assert person.session.message == "out of memory: going on with 1 patches in a step"
    assert [event.step for event in person.of_kind(Stepped)] == [1, 2, 3, 4]


def test_training_that_finds_no_memory_at_all_says_what_to_do(person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "learn", failing(Learner.learn, {-1: MemoryError()}))
    person.annotate(*PLANES)
    person.sees(person.dock.train_button.isEnabled)
    person.dock.train_button.click()
    person.sees(lambda: person.session.phase is Phase.IDLE and person.session.is_warning)
    assert "ran out of memory" in person.session.message
    assert "patch_size" in person.session.message
    assert person.dock.train_button.isEnabled()
    shown = person.dock._message.styleSheet()
    assert "color" in shown
    person.viewer.theme = "light"
    assert person.dock._message.styleSheet() != shown  # readable there, too


def test_predictions_survive_a_lack_of_memory_and_errors(person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    person.session.train_config = person.session.train_config.updated(steps=2)
    person.annotate(*PLANES)
    person.sees(person.dock.train_button.isEnabled)
    person.dock.train_button.click()
    person.sees(lambda: person.session.model is not None)

    def applied(errors: dict[int, Exception]) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(TileNetwork, "__call__", failing(TileNetwork.__call__, errors))
            person.bench.applying.start(ApplyOptions())
            person.sees(lambda: not person.session.is_applying)
        return str(person.session.message)

    assert "memory ran out with tiles of" in applied({0: MemoryError()})
    assert np.all(person.bench.prediction.data > 0)
    for error, told in ((MemoryError(), "memory"), (RuntimeError("the device is on fire"), "on fire")):
        assert told in applied({-1: error})
        assert person.session.is_warning
        assert not person.bench.applying.problem()
    assert applied({}) == ""
    assert np.all(person.bench.prediction.data > 0)
