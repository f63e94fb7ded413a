"""Suggestions on the command line: the table, the JSON, refusals."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.progress import Finished

CPU = ("--device", "cpu", "--precision", "float32")


def test_table_and_json_tell_the_same(run: Any, scene: Any, model: Path) -> None:
    outcome = run("suggest", model, "image.npy", "labels.npy", "--count", "3", "--json", "next.json", *CPU)
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads((scene.folder / "next.json").read_text())["suggestions"]
    assert len(found) == 3
    assert found[0]["score"] == 1
    lines = [line.split() for line in outcome.out.splitlines()]
    for one in found:
        assert [one["axis_name"].upper(), str(one["index"]), f"{one['score']:.2f}"] in [line[:3] for line in lines]
        assert one["reason"] in outcome.out
        assert "zyx"[one["axis"]] == one["axis_name"]
    assert f"suggestions: {scene.folder / 'next.json'}" in outcome.out
    assert (0, 1) not in [(one["axis"], one["index"]) for one in found]


def test_nothing_annotated_and_no_zero(run: Any, scene: Any, model: Path) -> None:
    np.save(scene.labels, np.zeros((12, 32, 32), np.uint8))
    outcome = run("suggest", model, "image.npy", "labels.npy", *CPU)
    assert outcome.code == 0
    assert outcome.out.count("nothing is annotated yet") == 5
    outcome = run("suggest", model, "image.npy", "labels.npy", "--zero-is-background", "--json", "none.json", *CPU)
    assert outcome.code == 0
    assert "every voxel is annotated" in outcome.out
    assert json.loads((scene.folder / "none.json").read_text()) == {"suggestions": []}


def test_voxel_size_is_told(run: Any, model: Path, scene: Any) -> None:
    outcome = run("suggest", model, "image.npy", "labels.npy", "--voxel-size", "2,1,1um", "--count", "9", *CPU)
    assert outcome.code == 0
    assert " µm) away" in outcome.out


def test_a_stopped_search_exits_as_interrupted(
    run: Any, scene: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **more: object) -> Any:
        yield Finished("stopped")
        return ()

    monkeypatch.setattr("napari_unet3d.api.suggestion.suggest_slices", stopped)
    outcome = run("suggest", model, "image.npy", "labels.npy", "--json", "next.json", *CPU)
    assert outcome.code == 130
    assert not (scene.folder / "next.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on POSIX")
def test_ctrl_c_is_a_wish_to_stop(run: Any, scene: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, inbox: Any, **more: object) -> Any:
        signal.raise_signal(signal.SIGINT)
        commands = [type(command).__name__ for command in inbox.drain()]
        yield Finished("stopped" if commands == ["Stop"] else "done")
        return ()

    monkeypatch.setattr("napari_unet3d.api.suggestion.suggest_slices", interrupted)
    assert run("suggest", model, "image.npy", "labels.npy", *CPU).code == 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "gone.npy", "labels.npy"], "gone.npy does not exist"),
        (["model", "image.npy", "gone.npy"], "gone.npy does not exist"),
        (["gone.safetensors", "image.npy", "labels.npy"], "gone.safetensors"),
        (["model", "two.npy", "labels.npy"], "2 channels"),
        (["model", "image.npy", "small.npy"], "labels need the shape of their image"),
        (["model", "plane.npy", "flat.npy"], "plane.npy is 2D"),
        (["model", "image.npy", "labels.npy", "--count", "0"], "--count"),
        (["model", "image.npy", "labels.npy", "--count", "many"], "--count"),
        (["model", "image.npy", "labels.npy", "--device", "gpu"], "unknown device 'gpu'"),
        (["model", "image.npy", "labels.npy", "--memory", "plenty"], "4GB, 500MB or 2GiB"),
        (["model", "image.npy", "labels.npy", "--voxel-size", "thin"], "Z,Y,X[unit]"),
        (["model", "image.npy", "labels.npy", "--json", "gone/o.json"], "does not exist; make it first"),
        (["model", "image.npy", "labels.npy", "--json", "image.npy"], "replace an input"),
        (["model", "image.npy", "labels.npy", "--json", "."], "folder"),
        (["model", "image.npy"], "LABELS"),
    ],
)
def test_refusals(run: Any, scene: Any, model: Path, arguments: list[str], message: str) -> None:
    np.save("two.npy", np.zeros((2, 12, 32, 32), np.uint8))
    np.save("small.npy", np.ones((12, 32, 31), np.uint8))
    np.save("plane.npy", np.zeros((32, 32)))
    np.save("flat.npy", np.ones((32, 32), np.uint8))
    before = sorted(path.name for path in scene.folder.iterdir())
    outcome = run("suggest", *(model if argument == "model" else argument for argument in arguments))
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert sorted(path.name for path in scene.folder.iterdir()) == before
