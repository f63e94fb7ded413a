"""A model as a bioimage.io package: ONNX weights, test tensors, description and documentation in one ZIP file.

The description follows the model specification 0.5 (https://github.com/bioimage-io/spec-bioimage-io). It is written as
plain YAML, so that exporting needs nothing of that project; the tests give the package to ``bioimageio.core``.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, softmax

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import Config
from napari_unet3d.engine.heads import is_sigmoid
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.cover import cover_png
from napari_unet3d.exports.documentation import documentation
from napari_unet3d.exports.grey_network import folded, legal_sizes, sample_shape, space_axes
from napari_unet3d.exports.runtime import PACKAGE_WEIGHTS, ExportedModel
from napari_unet3d.exports.sample import classes_of, scores_of

FORMAT_VERSION: Final = "0.5.12"
UNKNOWN_AUTHOR: Final = "unknown author"
_DESCRIPTION: Final = "rdf.yaml"
_DOCUMENTATION: Final = "README.md"
_COVER: Final = "cover.png"
_TEST_INPUT: Final = "test_input.npy"
_TEST_OUTPUT: Final = "test_output.npy"
_INPUT: Final = "raw"
_UNITS: Final = {
    "angstrom": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}
_CITED: Final = (
    (
        "Ronneberger, O. et al.: U-Net: Convolutional Networks for Biomedical Image Segmentation (2015)",
        "10.1007/978-3-319-24574-4_28",
    ),
    (
        "Çiçek, Ö. et al.: 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation (2016)",
        "10.1007/978-3-319-46723-8_49",
    ),
)


class PackageDescription(Config):
    """What a person says about a package."""

    name: Annotated[str, Field(pattern=r"^[0-9A-Za-z_+\- ()]{5,128}$")] = "U-Net trained in napari-unet3d"
    """5 to 128 letters, digits, spaces and _ + - ( )."""
    description: Annotated[str, Field(min_length=1, max_length=1024)] = (
        "Labels every voxel of an image; learnt from a few painted slices."
    )
    """One or two sentences."""
    authors: Annotated[tuple[Annotated[str, Field(pattern=r"^[^/\\]+$")], ...], Field(min_length=1)] = (UNKNOWN_AUTHOR,)
    """Full names, without slashes."""
    licence: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+\-]+$")] = "CC-BY-4.0"
    """SPDX identifier, such as CC-BY-4.0, CC0-1.0 or MIT."""


def to_package(
    model: TrainedModel, exported: ExportedModel, weights: Any, grey: NDArray[Any], about: PackageDescription
) -> bytes:
    """The content of a bioimage.io package.

    Parameters
    ----------
    model
        The model.
    exported
        The same through onnxruntime; computes the test tensors.
    weights
        The same as ``onnx.ModelProto``.
    grey
        C Z Y X of `sample_shape`: the test input.
    about
        What a person says about it.
    """
    logits = scores_of(exported, grey)
    network = model.recipe.network
    values = expit(logits) if is_sigmoid(network) else softmax(logits, 0)
    colours = [entry.colour for entry in model.classes]
    files = {
        PACKAGE_WEIGHTS: weights.SerializeToString(),
        _TEST_INPUT: _npy(folded(network, exported.normalization.apply(grey)[None])),
        _TEST_OUTPUT: _npy(folded(network, values[None].astype(np.float32))),
        _COVER: cover_png(grey[0], classes_of(logits, network.head), colours),
        _DOCUMENTATION: documentation(model, about.description).encode(),
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    described = _description(model, weights.opset_import[0].version, about, hashes)
    files[_DESCRIPTION] = yaml.safe_dump(described, sort_keys=False, allow_unicode=True).encode()
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # weights are noise to a compressor
            archive.writestr(name, content, zipfile.ZIP_STORED if name == PACKAGE_WEIGHTS else None)
    return package.getvalue()


def _npy(values: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


# --- description ------------------------------------------------------------------------------------------


def _description(model: TrainedModel, opset: int, about: PackageDescription, hashes: dict[str, str]) -> dict[str, Any]:
    """The content of ``rdf.yaml``."""

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashes[name]}

    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": about.name,
        "description": about.description,
        "authors": [{"name": author} for author in about.authors],
        "cite": [{"text": text, "doi": doi} for text, doi in _CITED],
        "license": about.licence,
        "documentation": file(_DOCUMENTATION),
        "covers": [file(_COVER)],
        "tags": [
            "unet", "semantic-segmentation", f"{model.recipe.network.dimensions}d", "napari", "pytorch", "onnx",
        ],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_input(model) | {"test_tensor": file(_TEST_INPUT)}],
        "outputs": [_output(model) | {"test_tensor": file(_TEST_OUTPUT)}],
        "weights": {"onnx": {**file(PACKAGE_WEIGHTS), "opset_version": opset}},
    }  # fmt: skip


def _input(model: TrainedModel) -> dict[str, Any]:
    channels = [f"channel{number}" for number in range(model.in_channels)]
    return {
        "id": _INPUT,
        "description": "grey values as they are in the image; the graph normalises them",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *_space(model, is_input=True)],
        "data": {"type": "float32"},
        "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}],
    }


def _output(model: TrainedModel) -> dict[str, Any]:
    told_apart = is_sigmoid(model.recipe.network)
    classes = model.classes[1:] if told_apart else model.classes  # no channel for the background
    channels = [_identifier(entry) for entry in classes]
    return {
        "id": "probabilities",
        "description": "probability of " + ", ".join(f"{entry.name} (id {entry.id})" for entry in classes),
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *_space(model, is_input=False)],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "postprocessing": [{"id": "sigmoid"} if told_apart else {"id": "softmax", "kwargs": {"axis": "channel"}}],
    }


def _space(model: TrainedModel, is_input: bool) -> list[dict[str, Any]]:
    """The spatial axes, with voxel size; those of the output refer to those of the input."""
    network = model.recipe.network
    footprint = Footprint.of(network)
    _, steps = legal_sizes(network)
    least = sample_shape(network)
    unit = _UNITS.get(model.voxel_size.unit)
    axes = []
    for axis in space_axes(network):
        described: dict[str, Any] = {"type": "space", "id": "zyx"[axis], "scale": float(model.voxel_size.zyx[axis])}
        if unit:
            described["unit"] = unit
        if is_input:
            described["size"] = {"min": least[axis], "step": steps[axis]}
        else:
            described["size"] = {"tensor_id": _INPUT, "axis_id": "zyx"[axis], "offset": -footprint.shrink[axis]}
            if footprint.wanted_halo[axis]:
                described["halo"] = footprint.wanted_halo[axis]
        axes.append(described)
    return axes


def _identifier(entry: ClassInfo) -> str:
    """A class name as the specification wants names of channels: a Python identifier."""
    plain = re.sub(r"\W+", "_", entry.name.lower(), flags=re.ASCII).strip("_")
    if plain in ("", f"class_{entry.id}") or plain[0].isdigit():
        return f"class_{entry.id}"
    return f"{plain}_{entry.id}"
