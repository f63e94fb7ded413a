"""Folders of images: what fails does not end the rest, and a table tells of each."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Inbox, Stop


def table(path: str) -> dict[str, dict[str, str]]:
    with open(path, newline="") as file:
        return {Path(row["file"]).name: row for row in csv.DictReader(file)}


@pytest.fixture
def folder(scene: Any, run: Any) -> Path:
    """Two good images, one with too many channels, one broken."""
    into = Path("in")
    into.mkdir()
    image = np.load(scene.image)
    np.save(into / "a.npy", image)
    np.save(into / "c.npy", np.stack([image, image, image]))
    (into / "d.npy").write_bytes(b"nothing")
    tifffile.imwrite(
        into / "b.tif", image, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "spacing": 2, "unit": "um"}
    )
    return into  # `run` works there


def test_what_fails_does_not_end_the_rest(run: Any, model: Path, folder: Path) -> None:
    outcome = run("predict", model, folder, "--out", "out", "--table", "t.csv", "--background-as-zero")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: 2 of 4 files failed; in/c.npy: c.npy has 3 channels")
    assert sorted(path.name for path in Path("out").iterdir()) == ["a_labels.npy", "b_labels.tif"]
    rows = table("t.csv")
    assert {name: row["result"] for name, row in rows.items()} == {
        "a.npy": "done",
        "b.tif": "done",
        "c.npy": "failed",
        "d.npy": "failed",
    }
    labels = np.load("out/a_labels.npy")
    assert int(rows["a.npy"]["background (voxels)"]) == (labels == 0).sum()
    assert int(rows["b.tif"]["class 2 (voxels)"]) == (labels == 2).sum()
    assert float(rows["b.tif"]["class 2 (um^3)"]) == pytest.approx((labels == 2).sum() * 2 * 0.5 * 0.5)
    assert rows["a.npy"]["class 2 (um^3)"] == ""
    assert "d.npy" in rows["d.npy"]["reason"]
    assert "in/c.npy: c.npy has 3 channels" in outcome.out


def test_finished_ones_are_left_out_on_request_only(run: Any, model: Path, folder: Path) -> None:
    for name in ("c.npy", "d.npy"):
        (folder / name).unlink()
    assert run("predict", model, folder, "--out", "out").code == 0
    Path("out/b_labels.tif").unlink()
    first = Path("out/a_labels.npy").stat().st_mtime_ns
    outcome = run("predict", model, folder, "--out", "out", "--skip-existing", "--table", "t.csv")
    assert outcome.code == 0
    assert Path("out/a_labels.npy").stat().st_mtime_ns == first
    assert {name: row["result"] for name, row in table("t.csv").items()} == {"a.npy": "skipped", "b.tif": "done"}
    assert run("predict", model, folder, "--out", "out").code == 0
    assert Path("out/a_labels.npy").stat().st_mtime_ns > first


def test_results_beside_their_images_are_no_images(run: Any, model: Path, folder: Path) -> None:
    for name in ("c.npy", "d.npy"):
        (folder / name).unlink()
    assert run("predict", model, folder, "--out", folder).code == 0
    outcome = run("predict", model, folder, "--out", folder, "--skip-existing")
    assert outcome.code == 0
    assert "image 2 of 2" in outcome.out


def test_ctrl_c_ends_a_batch_in_order(run: Any, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = []
    whole = Predictor.run

    def stopped_at_the_second(self: Predictor, image: Any, outputs: Any, inbox: Inbox, *more: Any) -> Any:
        images.append(image.name)
        if len(images) == 2:
            inbox.put(Stop())
        return whole(self, image, outputs, inbox, *more)

    monkeypatch.setattr(Predictor, "run", stopped_at_the_second)
    outcome = run("predict", model, folder, "--out", "out", "--table", "t.csv")
    assert outcome.code == 130
    assert images == ["a.npy", "b.tif"]
    assert [path.name for path in Path("out").iterdir()] == ["a_labels.npy"]
    assert list(table("t.csv")) == ["a.npy"]
    assert any(line.split()[:2] == ["in/a.npy", "done"] for line in outcome.out.splitlines())


def test_a_folder_without_images_is_refused(run: Any, model: Path, scene: Any) -> None:
    (scene.folder / "none").mkdir()
    outcome = run("predict", model, "none", "--out", "out")
    assert outcome.code == 1
    assert "none holds no image" in outcome.err
    assert not Path("out").exists()


# --- evaluate ---------------------------------------------------------------------------------------------


def saved(folder: str, **arrays: Any) -> None:
    Path(folder).mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(Path(folder) / f"{name}.npy", array)


def test_folders_are_scored_file_by_file(run: Any, scene: Any) -> None:
    truth = np.load(scene.truth)
    worse = truth.copy()
    worse[:6][truth[:6] == 2] = 1
    saved("p", x_labels=truth, y_labels=worse, z_labels=truth[1:], alone_labels=truth)
    saved("t", x=truth, y_truth=truth, z=truth, w=truth)
    outcome = run("evaluate", "p", "t", "--table", "s.csv", "--json", "s.json")
    assert outcome.code == 1
    assert outcome.err.startswith("error: 1 of 5 files failed; z_labels.npy: ")
    rows = table("s.csv")
    assert float(rows["x_labels.npy"]["mean IoU"]) == 1
    assert float(rows["y_labels.npy"]["IoU 2"]) == 0.5
    assert rows["alone_labels.npy"]["reason"] == "it has no truth"
    assert rows["w.npy"]["reason"] == "it has no prediction"
    assert "mean IoU of structures: 0.750, mean over 2 files (0.500 .. 1.000)" in outcome.out
    figures = json.loads(Path("s.json").read_text())
    assert figures["mean_foreground_iou"] == 0.75
    assert figures["files"]["y_labels.npy"]["mean_foreground_iou"] == 0.5
    assert list(figures["failed"]) == ["z_labels.npy"]


def test_painted_voxels_are_left_out_of_each(run: Any, scene: Any) -> None:
    truth = np.load(scene.truth)
    wrong = np.where(np.load(scene.labels) > 0, 1, truth).astype(np.uint8)
    saved("p", x=wrong, y=wrong)
    saved("t", x=truth, y=truth)
    saved("e", x_labels=np.load(scene.labels))
    outcome = run("evaluate", "p", "t", "--exclude", scene.labels)
    assert outcome.code == 0
    assert "mean IoU of structures: 1.000, mean over 2 files" in outcome.out
    outcome = run("evaluate", "p", "t", "--exclude", "e", "--table", "s.csv")
    assert outcome.code == 1
    assert float(table("s.csv")["x.npy"]["mean IoU"]) == 1
    assert "no file in e belongs to y.npy" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("p", "truth.npy"), "one is a folder, the other is not"),
        (("truth.npy", "truth.npy", "--table", "s.csv"), "--table is for folders"),
        (("p", "p", "--probabilities", "truth.npy"), "--probabilities is for one prediction"),
    ],
)
def test_refusals(run: Any, scene: Any, arguments: tuple[str, ...], said: str) -> None:
    saved("p", x=np.load(scene.truth))
    outcome = run("evaluate", *arguments)
    assert outcome.code == 1
    assert said in outcome.err
