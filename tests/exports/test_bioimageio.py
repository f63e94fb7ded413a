"""Packages: what is in them, and that bioimage.io's own library takes and computes them."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from napari_unet3d.api import export_model
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.bioimageio import PackageDescription
from napari_unet3d.exports.cover import cover_png
from napari_unet3d.exports.documentation import documentation

pytestmark = pytest.mark.usefixtures("traced_once")


def loaded(entries: dict[str, bytes], name: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.load(io.BytesIO(entries[name]), allow_pickle=False)
    return values


@pytest.fixture(scope="module")
def description(entries: dict[str, bytes]) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(entries["rdf.yaml"])
    return values


def test_files_and_their_checksums(entries: dict[str, bytes], description: dict[str, Any]) -> None:
    described = [
        description["documentation"],
        *description["covers"],
        description["inputs"][0]["test_tensor"],
        description["outputs"][0]["test_tensor"],
        description["weights"]["onnx"],
    ]
    assert {one["source"] for one in described} | {"rdf.yaml"} == entries.keys()
    for one in described:
        assert one["sha256"] == hashlib.sha256(entries[one["source"]]).hexdigest()


def test_axes_of_a_planar_network_with_one_sigmoid(description: dict[str, Any]) -> None:
    (given,), (made,) = description["inputs"], description["outputs"]
    assert [axis.get("id", axis["type"]) for axis in given["axes"]] == ["batch", "channel", "y", "x"]
    assert given["axes"][2] | {"size": None} == {
        "type": "space", "id": "y", "scale": 0.5, "unit": "micrometer", "size": None,
    }  # fmt: skip
    assert made["axes"][1]["channel_names"] == ["class_2"]
    assert made["postprocessing"] == [{"id": "sigmoid"}]


def test_test_tensors_are_grey_values_and_probabilities(entries: dict[str, bytes]) -> None:
    grey, probabilities = loaded(entries, "test_input.npy"), loaded(entries, "test_output.npy")
    assert grey.shape[2:] == probabilities.shape[2:]
    assert grey.min() >= 10  # what the normalisation clips to
    assert grey.max() <= 180
    assert 0 <= probabilities.min() < probabilities.max() <= 1


def test_a_sigmoid_for_each_structure(sigmoid_model: TrainedModel, tmp_path: Path) -> None:
    path = export_model(sigmoid_model, tmp_path / "three.zip", "bioimageio")
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    made = yaml.safe_load(contents["rdf.yaml"])["outputs"][0]
    assert made["axes"][1]["channel_names"] == ["class_2", "class_3", "class_4"]
    assert made["postprocessing"] == [{"id": "sigmoid"}]
    assert [axis.get("id") for axis in made["axes"][2:]] == ["z", "y", "x"]
    probabilities = loaded(contents, "test_output.npy")
    assert probabilities.shape[1] == 3
    session = onnxruntime.InferenceSession(contents["weights.onnx"], providers=["CPUExecutionProvider"])
    logits = session.run(None, {"grey": loaded(contents, "test_input.npy")})[0]
    np.testing.assert_allclose(probabilities, expit(logits), atol=1e-6)
    page = contents["README.md"].decode()
    assert "| 0 | 2 | class 2 |" in page
    assert "After the sigmoid" in page
    assert "A voxel where no probability is above 0.5 is background (id 1), which has no channel." in page


def test_documentation_of_a_softmax(model: TrainedModel) -> None:
    page = documentation(model, "Finds things.")
    assert "| 0 | 1 | background |" in page
    assert "| 1 | 2 | class 2 |" in page
    assert "After the softmax over channels" in page
    assert "Input: B C Z Y X" in page
    assert "It was not validated" in page


def test_cover_shows_the_image_and_what_was_found() -> None:
    grey = np.zeros((3, 20, 20))
    grey[1, :, 10:] = 4
    classes = np.zeros((3, 10, 10), np.intp)
    classes[1, :5] = 1
    picture = np.asarray(Image.open(io.BytesIO(cover_png(grey, classes, ["#000000", "#ff0000"]))))
    assert picture.shape == (256, 512, 3)
    assert picture[10, 10].tolist() == [0, 0, 0]
    assert picture[10, 250].tolist() == [255, 255, 255]
    assert picture[10, 256 + 10].tolist() == [127, 0, 0]
    assert picture[10, 256 + 250].tolist() == [255, 127, 127]
    assert picture[250, 256 + 250].tolist() == [255, 255, 255]


def test_a_cover_of_nothing_but_nan() -> None:
    picture = cover_png(np.full((1, 4, 4), np.nan), np.zeros((1, 4, 4), np.intp), ["#000000", "#ff0000"])
    assert np.asarray(Image.open(io.BytesIO(picture))).max() == 0


@pytest.mark.parametrize(
    "wrong", [{"name": "x"}, {"name": "bad/name"}, {"authors": ()}, {"authors": ("a/b",)}, {"licence": "two words"}]
)
def test_descriptions_that_the_specification_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PackageDescription().updated(**wrong)


@pytest.mark.skipif(importlib.util.find_spec("bioimageio") is None, reason="bioimageio.core is not installed")
@pytest.mark.filterwarnings("ignore")
def test_bioimageio_core_computes_what_the_package_says(package_file: Path) -> None:
    """Its own test: the description is valid, and the weights turn the test input into the test output."""
    from bioimageio.core import test_description

    summary = test_description(package_file, format_version="latest")
    if "package_file_descr_serializer" in summary.format():
        pytest.skip("bioimageio.spec 0.5.12 cannot read packages with pydantic 2.13 and later")
    assert summary.status == "passed", summary.format()
