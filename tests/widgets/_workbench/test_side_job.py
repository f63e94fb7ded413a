"""Long actions beside training: what they tell, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from qtpy.QtCore import QObject

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import Note, Predicted, Preparing
from napari_unet3d.widgets._session import Progress
from napari_unet3d.widgets._workbench.side_job import SideJob

TIMEOUT = 20_000


@pytest.fixture
def owner(qapp: Any) -> QObject:
    return QObject()


def test_it_tells_what_happens_and_how_it_went(qtbot: Any, owner: QObject) -> None:
    job = SideJob(owner)
    seen: list[Progress] = []
    job.changed.connect(lambda: seen.append(job.progress))

    def work(emit: Callable[[Any], None], inbox: Any) -> str:
        emit(Preparing("reading", 0.25))
        emit(Predicted(3, 4, 65.0, (slice(0, 1), slice(0, 1), slice(0, 1))))
        emit(Note("looking at a part of it"))
        return "seven"

    job.start(work, lambda result: f"found {result}")
    assert job.is_running
    qtbot.waitUntil(lambda: not job.is_running, timeout=TIMEOUT)
    assert seen[0] == Progress(None, "starting")
    assert Progress(0.25, "reading") in seen
    assert Progress(0.75, "3 of 4 blocks, 1 min 05 s left") in seen
    assert seen[-1] == Progress(1.0, "found seven; looking at a part of it")


def into(used: list[Any]) -> Callable[[Any], str]:
    """Keeps results; tells nothing."""

    def use(result: Any) -> str:
        used.append(result)
        return ""

    return use


def test_cancelling_does_not_wait_for_a_part_that_takes_long(
    qtbot: Any, owner: QObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Any] = []
    on_ended = SideJob._on_ended

    def noticed(self: SideJob, job: Any, ended: Any) -> None:
        on_ended(self, job, ended)
        ends.append(ended.result)

    monkeypatch.setattr(SideJob, "_on_ended", noticed)
    job = SideJob(owner)
    may_end = threading.Event()
    used: list[Any] = []

    def slow(emit: Any, inbox: Any) -> str:
        may_end.wait(20)
        return "late"

    job.start(slow, into(used))
    job.cancel()
    assert not job.is_running
    assert job.progress.text == "cancelled"
    job.start(lambda emit, inbox: "second", into(used))
    may_end.set()
    qtbot.waitUntil(lambda: sorted(ends) == ["late", "second"], timeout=TIMEOUT)
    assert used == ["second"]


@pytest.mark.parametrize(
    ("error", "words"), [(DataError("use the other one"), "use the other one"), (RuntimeError("odd"), "odd")]
)
def test_what_fails_is_said_and_can_be_tried_again(qtbot: Any, owner: QObject, error: Exception, words: str) -> None:
    job = SideJob(owner)

    def broken(emit: Any, inbox: Any) -> None:
        raise error

    job.start(broken, str)
    qtbot.waitUntil(lambda: not job.is_running, timeout=TIMEOUT)
    assert words in job.problem
    job.start(lambda emit, inbox: 1, lambda result: "fine")
    assert job.problem == ""
    qtbot.waitUntil(lambda: not job.is_running, timeout=TIMEOUT)
    assert job.progress.text == "fine"


def test_only_one_at_a_time(qtbot: Any, owner: QObject) -> None:
    job = SideJob(owner)
    used: list[int] = []
    job.start(lambda emit, inbox: 0, into(used))
    job.start(lambda emit, inbox: 1, into(used))
    qtbot.waitUntil(lambda: not job.is_running, timeout=TIMEOUT)
    assert used == [0]
