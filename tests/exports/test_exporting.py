"""The verb `export`, from Python and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d import api
from napari_unet3d.api import export_events, export_model
from napari_unet3d.engine.errors import ConfigError, DataError, ExportError, FileError, ModelFileError
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import Volume
from napari_unet3d.exports import dependencies, sample
from napari_unet3d.exports.bioimageio import PackageDescription
from napari_unet3d.exports.dependencies import require
from napari_unet3d.exports.sample import sample_grey

pytestmark = pytest.mark.usefixtures("traced_once")


def test_what_is_told(sigmoid_model: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    texts = [note.text for note in export_events(sigmoid_model, path, "onnx")]
    assert texts[0].startswith("tracing the network")
    assert texts[1].startswith("labels 100.0000% of 18,432 voxels as the model does")
    assert texts[2] == f"onnx: {path.resolve()} ({path.stat().st_size:,} bytes)"


def test_a_package_from_the_command_line(run: Any, model_file: Path, tmp_path: Path, grey: Any) -> None:
    np.save(tmp_path / "image.npy", grey)
    about = ("--name", "Nuclei of a root", "--author", "Ada Example", "--author", "Bo Example", "--licence", "MIT")
    arguments = ("--format", "bioimageio", "--out", "nuclei.zip", "--image", "image.npy", *about)
    outcome = run("export", model_file, *arguments)
    assert outcome.code == 0, outcome.err
    assert "name the authors" not in outcome.out
    assert api.open_model(tmp_path / "nuclei.zip").in_channels == 1


def test_authors_are_asked_for(plain_model: TrainedModel, tmp_path: Path) -> None:
    found = list(export_events(plain_model, tmp_path / "x.zip", "bioimageio"))
    assert any(note.level == "warning" and "--author" in note.text for note in found)


@pytest.mark.parametrize(
    ("name", "format", "options", "error", "message"),
    [
        ("x.onnx", "tensorflow", {}, ConfigError, "known: onnx, pt2, bioimageio"),
        ("x.zip", "onnx", {}, FileError, "does not end in .onnx"),
        ("gone/x.onnx", "onnx", {}, FileError, "gone"),
        ("x.pt2", "pt2", {"image": np.zeros((4, 4, 4))}, ConfigError, "--image is for"),
        ("x.onnx", "onnx", {"about": PackageDescription()}, ConfigError, "for --format bioimageio"),
        ("x.onnx", "onnx", {"image": np.zeros((2, 8, 8, 8))}, DataError, "2 channels"),
    ],
)
def test_refused(
    model: TrainedModel, tmp_path: Path, name: str, format: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_model(model, tmp_path / name, format, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_not_written_over(model_file: Path, tmp_path: Path, pt2_file: Path) -> None:
    copy = tmp_path / "model.pt2"
    copy.write_bytes(pt2_file.read_bytes())
    with pytest.raises(FileError, match=r"model\.pt2"):
        export_model(copy, copy, "pt2")
    assert copy.read_bytes() == pt2_file.read_bytes()


def test_exported_graphs_cannot_be_exported(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="exported already"):
        export_model(onnx_file, tmp_path / "x.pt2", "pt2")


def test_other_labels_are_noticed(model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the format computed something else."""
    right = sample.scores_of
    monkeypatch.setattr(sample, "scores_of", lambda one, grey: right(one, grey) * (1 if one is model else -1))
    with pytest.raises(ExportError, match=r"labels only .* of the voxels as the model does"):
        export_model(model, tmp_path / "x.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_samples_are_the_middle_of_the_image(model: TrainedModel) -> None:
    z, y, x = np.indices((40, 50, 60))
    grey = sample_grey(model, Volume.from_array((10_000 * z + 100 * y + x).astype(np.float64)))
    depth, height, width = grey.shape[1:]
    assert grey[0, 0, 0, 0] == 10_000 * ((40 - depth) // 2) + 100 * ((50 - height) // 2) + (60 - width) // 2
    small = sample_grey(model, Volume.from_array(np.arange(8.0).reshape(2, 2, 2)))
    assert small.shape == grey.shape
    assert small[0, :4, 0, 0].tolist() == [0, 4, 4, 0]  # mirrored


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(dependencies, "import_module", missing)
    with pytest.raises(ExportError, match=r"needs the package onnxruntime; .*napari-unet3d\[onnx\]"):
        require("onnxruntime.quantization", "quantising")
