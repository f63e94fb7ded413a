"""Training in several processes, started by torchrun and by the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from napari_unet3d.engine.model_file import load_model

LIMIT = 150
SMALL = ("--set", "network.filters=4", "--set", "network.levels=2", "--set", "train.precision=float32")
TRAIN = ("train", "image.npy", "labels.npy", "--device", "cpu", *SMALL)


def record_of(path: Path) -> Any:
    record = load_model(path).recipe.record
    assert record is not None
    return record


def test_torchrun_starts_processes_of_which_one_speaks(scene: Any) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "napari_unet3d", *TRAIN, "--steps", "3", "--out", "new.safetensors"]
    done = subprocess.run(
        [*command, *program],
        cwd=scene.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("processes: 2") == 1
    assert done.stdout.count("finished after") == 1
    assert record_of(scene.folder / "new.safetensors").processes == 2


def test_an_interrupted_training_goes_on_in_one_process(scene: Any, run: Any) -> None:
    command = [sys.executable, "-m", "napari_unet3d", *TRAIN, "--processes", "2", "--out", "new.safetensors"]
    process = subprocess.Popen(
        command, cwd=scene.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                break
        out, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert errors.startswith("stopping; the best model so far is being saved")
    assert "stopped" in out
    before = record_of(scene.folder / "new.safetensors")
    assert (before.processes, before.batch_size) == (2, 2)
    options = ("--resume", "new.safetensors", "--processes", "1", "--steps", "1", "--out", "more.safetensors")
    outcome = run("train", "image.npy", "labels.npy", *options)
    assert outcome.code == 0, outcome.err
    after = record_of(scene.folder / "more.safetensors")
    assert (after.processes, after.steps) == (1, before.steps + 1)
    assert "the recorded run had 2 processes, this one has 1" in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cuda:0,cuda:1"), "is not there"),
        (("--device", "cpu,cpu"), "for a CPU give --processes N"),
        (("--processes", "0"), "train.processes = 0: "),
        (("--processes", "2", "--set", "train.sync_batch_norm=true"), "needs GPUs"),
    ],
)
def test_what_cannot_be_started_is_refused_in_one_line(
    run: Any, scene: Any, options: tuple[str, ...], message: str
) -> None:
    outcome = run("train", "image.npy", "labels.npy", "--out", "new.safetensors", "--device", "cpu", *options)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (scene.folder / "new.safetensors").exists()
