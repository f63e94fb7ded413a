"""The second experiment of Çiçek et al. 2016, on generated stacks: learn from some volumes, label a new one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.demo.tubules import make_tubules
from napari_unet3d.engine.model_file import load_model

SHAPE = (24, 64, 64)
NETWORK = ("--set", "network.filters=8", "--set", "network.levels=2", "--set", "network.feature_scales=[1, 2]")
TRAINING = (
    "--steps",
    "60",
    "--device",
    "cpu",
    "--set",
    "train.precision=float32",
    "--set",
    "train.patch_size=[8,32,32]",
)


def test_what_was_learnt_on_two_volumes_labels_a_third(run: Any, tmp_path: Path) -> None:
    for folder in ("known", "new", "truth"):
        (tmp_path / folder).mkdir()
    with (tmp_path / "known" / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "labels", "validation"))
        for number in range(3):
            volume = make_tubules(SHAPE, random_state=number)
            np.save(tmp_path / "known" / f"{number}.npy", volume.image)
            np.save(tmp_path / "known" / f"{number}_painted.npy", volume.painted())
            rows.writerow((f"{number}.npy", f"{number}_painted.npy", int(number == 2)))
    new = make_tubules(SHAPE, random_state=3)
    np.save("new/kidney.npy", new.image)
    np.save("truth/kidney_truth.npy", new.truth)

    size = ("--voxel-size", "1.76,0.88,0.88um")
    trained = run("train", "--pairs", "known/list.csv", "--out", "m.safetensors", *size, *NETWORK, *TRAINING)
    assert (trained.code, trained.err) == (0, "")
    assert "1 of 3 volumes is held out" in trained.out
    assert run("predict", "m.safetensors", "new", "--out", "labels", *size, "--table", "volumes.csv").code == 0
    assert run("evaluate", "labels", "truth", "--json", "scores.json").code == 0

    (score,) = json.loads(Path("scores.json").read_text())["files"].values()
    always_wall = np.mean(new.truth == 2)  # IoU of walls everywhere
    assert score["classes"][1]["iou"] > always_wall + 0.1
    shown = [entry.mean_iou for entry in load_model("m.safetensors").history.validations if entry.mean_iou is not None]
    assert abs(max(shown) - score["mean_foreground_iou"]) < 0.2  # a volume never seen tells of another one
