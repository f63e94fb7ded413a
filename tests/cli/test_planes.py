"""Networks of planes on a volume, from the command line: across one axis, and averaged over all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.demo.tubules import make_tubules
from napari_unet3d.engine.model_file import load_model

SHAPE = (16, 48, 48)
QUICK = (
    *(
        "--preset",
        "unet2d-elu",
        "--set",
        "network.levels=2",
        "--set",
        "network.filters=8",
        "--set",
        "network.norm=batch",
    ),
    *("--set", "network.dropout=0", "--steps", "30", "--device", "cpu", "--set", "train.precision=float32"),
    *("--set", "train.augment.probability=0", "--validation", "0"),
)


@pytest.mark.parametrize("axis", ["y", "all"])
def test_planes_of_a_volume_are_learnt_and_labelled(run: Any, tmp_path: Path, axis: str) -> None:
    volume = make_tubules(SHAPE, random_state=1)
    np.save("image.npy", volume.image)
    np.save("labels.npy", volume.painted())
    np.save("truth.npy", volume.truth)
    outcome = run(
        "train", "image.npy", "labels.npy", "--out", "m.safetensors", *QUICK, "--set", f"network.plane_axis={axis}"
    )
    assert (outcome.code, outcome.err) == (0, "")
    network = load_model("m.safetensors").recipe.network
    assert (network.dimensions, network.plane_axis) == (2, axis)
    assert network.plane_axes == ((0, 1, 2) if axis == "all" else (1,))
    results = ("--out", "out.npy", "--probabilities", "p.npy", "--precision", "float32")
    assert run("predict", "m.safetensors", "image.npy", *results).code == 0
    probabilities = np.load("p.npy")
    assert probabilities.shape == (3, *SHAPE)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-4)
    assert run("evaluate", "out.npy", "truth.npy", "--exclude", "labels.npy", "--json", "s.json").code == 0
    classes = json.loads(Path("s.json").read_text())["classes"]
    assert classes[1]["iou"] > np.mean(volume.truth == 2) + 0.05  # more than walls everywhere
