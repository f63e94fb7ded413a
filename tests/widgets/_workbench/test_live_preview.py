"""When a run is asked for the slice in view."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from qtpy.QtCore import QObject

from napari_unet3d.engine.progress import PreviewPlane
from napari_unet3d.widgets._workbench import live_preview
from napari_unet3d.widgets._workbench.live_preview import LivePreview

HERE, THERE = PreviewPlane(0, 0, 5), PreviewPlane(0, 1, 7)


class Run:
    """What is in view, whether the model learns, and what was asked, by a clock that is set by hand."""

    def __init__(self) -> None:
        self.plane: PreviewPlane | None = HERE
        self.is_learning = True
        self.asked: list[PreviewPlane] = []
        self.now = 100.0
        self.parent = QObject()
        self.preview = LivePreview(
            self.parent,
            in_view=lambda: self.plane,
            is_learning=lambda: self.is_learning,
            ask=self.asked.append,
        )
        self.preview.start()

    def tick(self) -> list[PreviewPlane]:
        self.preview._ticks.timeout.emit()
        return self.asked


@pytest.fixture
def run(qapp: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    monkeypatch.setattr(live_preview, "time", SimpleNamespace(monotonic=lambda: run.now))
    monkeypatch.setattr(live_preview, "preferences", lambda: SimpleNamespace(preview_rate=2.0))
    return run


def test_one_question_at_a_time(run: Run) -> None:
    assert run.tick() == [HERE]
    run.plane = THERE
    assert run.tick() == [HERE]
    run.preview.answered()
    assert run.tick() == [HERE, THERE]


def test_nothing_in_view_asks_nothing(run: Run) -> None:
    run.plane = None
    assert run.tick() == []


def test_the_same_plane_is_asked_for_at_the_rate_of_the_preferences(run: Run) -> None:
    run.tick()
    run.preview.answered()
    run.now += 0.4
    assert run.tick() == [HERE]
    run.now += 0.2
    assert run.tick() == [HERE, HERE]


def test_slow_previews_take_a_fifth_of_the_time(run: Run) -> None:
    run.tick()
    run.now += 3.0
    run.preview.answered()
    run.now = 100.0 + 14.9
    assert run.tick() == [HERE]
    run.now = 100.0 + 15.1
    assert run.tick() == [HERE, HERE]


def test_a_model_that_does_not_change_is_asked_once(run: Run) -> None:
    run.is_learning = False
    run.tick()
    run.preview.answered()
    run.now += 100
    assert run.tick() == [HERE]
    run.plane = THERE
    assert run.tick() == [HERE, THERE]


def test_a_new_run_is_asked_anew(run: Run) -> None:
    run.is_learning = False
    run.tick()
    run.preview.stop()
    run.preview.start()
    assert run.tick() == [HERE, HERE]
