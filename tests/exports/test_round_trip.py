"""A model exported, deleted and opened again gives the same labels."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.api import export_model, open_model, predict
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.model_file import save_model
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.runtime import ExportedModel
from napari_unet3d.exports.torch_import import load_pt2

pytestmark = pytest.mark.usefixtures("traced_once")

PLAIN = PredictConfig(device="cpu", precision="float32", tile=(8, 24, 24))
LEAST = 0.999


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
@pytest.mark.parametrize("options", [(), ("--overlap", "0.25"), ("--flips",)], ids=["plain", "blended", "flips"])
def test_through_the_program(
    run: Any, tmp_path: Path, model_file: Path, onnx_file: Path, pt2_file: Path, grey: Any, suffix: str, options: Any
) -> None:
    np.save(tmp_path / "image.npy", grey)
    settings = ("--precision", "float32", "--device", "cpu", "--tile", "8,24,24", *options)
    exported = {"onnx": onnx_file, "pt2": pt2_file}[suffix]
    for model, out in ((model_file, "own.npy"), (exported, "other.npy")):
        outcome = run("predict", model, "image.npy", "--out", out, *settings)
        assert outcome.code == 0, outcome.err
    own, other = (np.load(tmp_path / name) for name in ("own.npy", "other.npy"))
    assert set(np.unique(own)) == {1, 2}
    assert np.mean(own == other) >= LEAST


@pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("pt2", ".pt2"), ("bioimageio", ".zip")])
def test_exported_deleted_and_opened_again(
    sigmoid_model: TrainedModel, tmp_path: Path, grey: Any, format: Any, suffix: str
) -> None:
    file = save_model(sigmoid_model, tmp_path / "model.safetensors")
    own = np.asarray(predict(file, grey, config=PLAIN))
    export_model(file, tmp_path / f"model{suffix}", format)
    file.unlink()
    again = open_model(tmp_path / f"model{suffix}")
    assert again.classes == sigmoid_model.classes
    assert again.voxel_size == sigmoid_model.voxel_size
    assert again.spatial_dims == sigmoid_model.spatial_dims
    assert set(np.unique(own)) == {1, 2, 3, 4}
    assert np.mean(np.asarray(predict(again, grey, config=PLAIN)) == own) >= LEAST


def test_planes_of_a_package(plain_model: TrainedModel, package_file: Path, grey: Any) -> None:
    """A network trained on 2D images, on a volume of which every plane is one of a batch."""
    own = np.asarray(predict(plain_model, grey[0], config=PLAIN.updated(tile=(1, 24, 24))))
    again = open_model(package_file)
    assert isinstance(again, ExportedModel)
    assert np.mean(np.asarray(predict(again, grey[0], config=PLAIN.updated(tile=(1, 24, 24)))) == own) >= LEAST


def test_weights_of_a_pt2_are_those_of_the_model(model: TrainedModel, pt2_file: Path) -> None:
    again = load_pt2(pt2_file)
    own, other = model.network.state_dict(), again.network.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert again.recipe == model.recipe
    assert not again.network.training


def test_the_graph_of_a_pt2_computes_the_same(model: TrainedModel, pt2_file: Path) -> None:
    """As other programs run it, at a size that it was not traced at."""
    program = torch.export.load(pt2_file).module()
    grey = torch.rand(2, 1, 4, 8, 6) * 200
    normalized = torch.from_numpy(np.stack([model.normalization.apply(one) for one in grey.numpy()]))
    with torch.inference_mode():
        torch.testing.assert_close(program(grey), model.network(normalized), rtol=1e-4, atol=1e-4)


def test_channels_last_weights(model: TrainedModel, tmp_path: Path) -> None:
    """In the memory order that networks have on the CPU."""
    network = copy.deepcopy(model.network)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    path = export_model(dataclasses.replace(model, network=network), tmp_path / "model.pt2", "pt2")
    own, other = model.network.state_dict(), load_pt2(path).network.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_a_pt2_can_be_exported_again(pt2_file: Path, tmp_path: Path) -> None:
    export_model(pt2_file, tmp_path / "again.pt2", "pt2")
    assert load_pt2(tmp_path / "again.pt2").classes == load_pt2(pt2_file).classes
