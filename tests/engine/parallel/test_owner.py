"""Processes that the program starts: events, commands and the model are those of a training in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from napari_unet3d.engine.config import TrainConfig, UNetConfig
from napari_unet3d.engine.device import DeviceChoice
from napari_unet3d.engine.errors import DataError, FileError, TrainingError
from napari_unet3d.engine.parallel import task
from napari_unet3d.engine.parallel.crew import Ended, Message
from napari_unet3d.engine.parallel.owner import ParallelTrainer
from napari_unet3d.engine.parallel.task import Failed, store, stored
from napari_unet3d.engine.progress import (
    Annotate,
    AnnotationTaken,
    Event,
    Finished,
    Inbox,
    Pause,
    Paused,
    Previewed,
    PreviewPlane,
    Resume,
    Started,
    Stepped,
    Stop,
)
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

NETWORK = UNetConfig(levels=2, filters=4, norm="none")
CONFIG = TrainConfig(
    steps=3, device="cpu", precision="float32", patch_size=(4, 16, 16), batch_size=2, optimizer="sgd", threads=1
)
CPU = DeviceChoice(torch.device("cpu"), "as asked for")


@pytest.fixture
def make(make_volume: Callable[..., AnnotatedVolume]) -> Callable[..., ParallelTrainer]:
    def make(volume: AnnotatedVolume | None = None, inbox: Inbox | None = None, **options: Any) -> ParallelTrainer:
        return ParallelTrainer([volume or make_volume()], NETWORK, CONFIG.updated(**options), [CPU, CPU], inbox=inbox)

    return make


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    for process in psutil.Process().children():
        assert "parallel.worker" not in " ".join(process.cmdline())


def test_a_run_with_an_owner(make: Callable[..., ParallelTrainer]) -> None:
    """All commands, in one run: starting processes takes seconds."""
    inbox = Inbox()
    trainer = make(inbox=inbox, steps=1000)
    events: list[Event] = []
    painted = np.full((1, 20, 20), 2, np.uint8)
    with pytest.raises(TrainingError, match="no model yet"):
        trainer.model()
    for event in trainer.fit():
        events.append(event)
        if isinstance(event, Stepped) and event.step == 1:
            assert trainer.model().recipe.record is not None
            inbox.put(PreviewPlane(0, 1, 7))
            inbox.put(Annotate(0, (slice(15, 16), slice(0, 20), slice(0, 20)), painted))
            inbox.put(Pause())
        if isinstance(event, Paused):
            inbox.put(Resume())
            inbox.put(Stop())
    (started,) = (event for event in events if isinstance(event, Started))
    assert (started.device, started.processes) == ("cpu", 2)
    (shown,) = (event for event in events if isinstance(event, Previewed))
    assert (shown.axis, shown.index, shown.labels.shape) == (1, 7, (24, 20))
    (taken,) = (event for event in events if isinstance(event, AnnotationTaken))
    assert taken.box[0] == slice(15, 16)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stopped"
    model = trainer.model(with_state=True)
    record = model.recipe.record
    assert record is not None
    assert (record.processes, record.steps, record.stop_reason) == (2, events[-1].step, "stopped")
    assert model.state is not None
    assert trainer.model().state is None
    assert not list(trainer._folder.glob("*.npy"))


def test_it_gives_what_one_process_gives_and_goes_on_with_it(
    make: Callable[..., ParallelTrainer], make_volume: Callable[..., AnnotatedVolume]
) -> None:
    trainer = make()
    list(trainer.fit())
    alone = Trainer([make_volume()], NETWORK, CONFIG)
    list(alone.fit())
    first, other = trainer.model(with_state=True), alone.model()
    for name, value in other.network.state_dict().items():
        torch.testing.assert_close(first.network.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    # two processes left it, one goes on
    more = Trainer([make_volume()], NETWORK, CONFIG.updated(steps=5), resume=first)
    steps = [event.step for event in more.fit() if isinstance(event, Stepped)]
    assert steps == [4, 5]
    record = more.model().recipe.record
    assert record is not None
    assert record.processes == 1


def test_a_process_that_dies_ends_all(make: Callable[..., ParallelTrainer]) -> None:
    trainer = make(steps=100_000)
    events = trainer.fit()
    while not (isinstance(event := next(events), Stepped) and event.step == 2):
        pass
    worker_with(trainer, rank=1).kill()
    explained = r"^process 2 of 2 \(cpu\) was ended by SIGKILL.*best model so far is kept$"
    with pytest.raises(TrainingError, match=explained):
        list(events)
    record = trainer.model().recipe.record
    assert record is not None
    assert record.steps > 0


def worker_with(trainer: ParallelTrainer, rank: int) -> psutil.Process:
    """The process that writes the log of a rank."""
    log = str(trainer._folder / f"process-{rank}.log")
    for process in psutil.Process().children():
        if Path(f"/proc/{process.pid}/fd/2").resolve() == Path(log).resolve():
            return process
    raise AssertionError("no such process")


def test_what_a_process_says_is_raised_here(make: Callable[..., ParallelTrainer]) -> None:
    labels = np.zeros((24, 20, 20), np.uint8)
    labels[3, :10], labels[3, 10:] = 1, 2
    constant = AnnotatedVolume(Volume.from_array(np.ones((24, 20, 20), np.float32)), labels)
    with pytest.raises(DataError, match="constant"):
        list(make(constant).fit())


def test_annotation_is_looked_at_before_anything_starts(make: Callable[..., ParallelTrainer]) -> None:
    empty = AnnotatedVolume(Volume.from_array(np.ones((4, 8, 8), np.float32)), np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(DataError, match="no voxel is annotated"):
        make(empty)


# --- parts ------------------------------------------------------------------------------------------------


def test_errors_that_explain_go_before_those_that_follow(make: Callable[..., ParallelTrainer]) -> None:
    trainer = make()
    lost = Message(0, Failed("PartnerLost", "another process ended"))
    died = Message(1, Ended(-9))
    told = Message(1, Failed("DeviceError", "out of memory"))
    bug = Message(0, Failed("KeyError", "KeyError: 3"))
    assert "SIGKILL" in str(trainer._worst([lost, Message(0, Ended(1)), died]))
    assert str(trainer._worst([lost, died, told])) == "process 2 of 2: out of memory"
    assert isinstance(trainer._worst([bug, Message(0, Ended(1))]), RuntimeError)
    assert isinstance(trainer._worst([lost]), TrainingError)


def test_how_a_process_ended() -> None:
    assert Ended(3, "ImportError: x").explain() == "ended with code 3: ImportError: x"
    assert Ended(-11).explain() == "was ended by SIGSEGV"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, ">i2", bool])
@pytest.mark.parametrize("block", [1, 2**20])
def test_stored_volumes_are_the_same(tmp_path: Path, dtype: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "_BLOCK_BYTES", block)
    data = (np.random.default_rng(0).random((2, 5, 6, 7)) * 100).astype(dtype)
    labels = np.random.default_rng(1).integers(0, 3, (5, 6, 7), dtype=np.uint8)
    place = stored(AnnotatedVolume(Volume(data, name="x"), labels), tmp_path, 0)
    shares = list(store(AnnotatedVolume(Volume(data, name="x"), labels), place))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    found = place.open()
    np.testing.assert_array_equal(found.image.read(), data)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.image.name == "x"


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    volume = AnnotatedVolume(Volume.from_array(np.ones((2, 3, 4))), np.ones((2, 3, 4), np.uint8))
    with pytest.raises(FileError, match="set TMPDIR"):
        list(store(volume, stored(volume, tmp_path / "missing", 0)))
