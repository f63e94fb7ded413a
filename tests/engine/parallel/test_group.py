"""Two processes on the CPU against one with the same batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_unet3d.engine.model_file import load_model
from napari_unet3d.engine.parallel.group import ALONE
from napari_unet3d.engine.trained_model import TrainedModel

SCRIPT = Path(__file__).with_name("together.py")
EQUAL = ("cross_entropy", "adamw", "dice", "generalised_dice", "hybrid", "sigmoid", "guidance", "painted", "resumed")
LIMIT = 150


def run(folder: Path, size: int, *cases: str) -> None:
    """Train in `size` processes; none may fail, and none may hang."""
    folder.mkdir()
    started = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(size), str(folder), *cases], stderr=-1, text=True)
        for rank in range(size)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models by number of processes and case."""
    folder = tmp_path_factory.mktemp("together")
    run(folder / "1", 1, *EQUAL)
    run(folder / "2", 2, *EQUAL, "clock", "tight")
    return lambda size, case: load_model(folder / str(size) / f"{case}.safetensors")


@pytest.mark.parametrize("case", EQUAL)
def test_two_processes_give_the_weights_of_one(models: Any, case: str) -> None:
    one, two = models(1, case), models(2, case)
    for name, found in two.state.tensors.items():
        if name.startswith("weights."):
            torch.testing.assert_close(found, one.state.tensors[name], atol=2e-6, rtol=2e-5)
    assert first_loss(two) == pytest.approx(first_loss(one), rel=1e-5)
    assert (record(one).processes, record(two).processes) == (1, 2)
    assert record(two).held_out == record(one).held_out


def test_training_moved_the_weights_further_than_rounding(models: Any) -> None:
    early, late = models(2, "cross_entropy"), models(2, "resumed")
    moved = [
        (late.state.tensors[name] - value).abs().max()
        for name, value in early.state.tensors.items()
        if name.startswith("weights.")
    ]
    assert max(moved) > 1e-3


def test_strokes_reach_all_processes_at_the_same_step(models: Any) -> None:
    assert record(models(2, "painted")).steps == 5
    assert record(models(2, "painted")).stop_reason == "stopped"


def test_only_the_first_process_has_a_clock(models: Any) -> None:
    found = record(models(2, "clock"))
    assert found.stop_reason == "the budget is used up"
    assert found.steps > 0


def test_memory_that_runs_out_in_one_process_runs_out_in_all(models: Any) -> None:
    found = record(models(2, "tight"))
    assert found.batch_size_changes == ((1, 2),)
    assert found.steps == 4


def test_shares_cover_every_patch_once() -> None:
    assert list(range(5))[ALONE.share(5)] == [0, 1, 2, 3, 4]
    shares = []
    for rank in range(3):
        group = type(ALONE)()
        group.rank, group.size = rank, 3
        shares.append(list(range(5))[group.share(5)])
    assert shares == [[0], [1, 2], [3, 4]]


def record(model: TrainedModel) -> Any:
    return model.recipe.record


def first_loss(model: TrainedModel) -> float:
    return model.history.steps[0].loss
