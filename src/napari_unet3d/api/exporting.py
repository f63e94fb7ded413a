"""Writing models in formats that other programs run, and opening what was written."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.api.sources import ImageSource, LabelSource, PathLike, as_volume, check_apart, read_annotated
from napari_unet3d.engine.atomic_file import check_writable, write_atomically
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError, ExportError, FileError, ModelFileError
from napari_unet3d.engine.model_file import load_model
from napari_unet3d.engine.model_header import ModelHeader
from napari_unet3d.engine.prediction_io import check_image
from napari_unet3d.engine.progress import Note
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import Volume
from napari_unet3d.exports.bioimageio import UNKNOWN_AUTHOR, PackageDescription, to_package
from napari_unet3d.exports.onnx_export import to_onnx
from napari_unet3d.exports.quantization import Method, compared, quantized
from napari_unet3d.exports.runtime import ONNX_SUFFIX, PACKAGE_SUFFIX, ExportedModel, from_onnx, load_exported
from napari_unet3d.exports.sample import check_same, sample_grey
from napari_unet3d.exports.torch_export import PT2_SUFFIX, to_pt2
from napari_unet3d.exports.torch_import import load_pt2

Format: TypeAlias = Literal["onnx", "pt2", "bioimageio"]
SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {"onnx": ONNX_SUFFIX, "pt2": PT2_SUFFIX, "bioimageio": PACKAGE_SUFFIX}
)
"""Suffix of the files of each format."""


def open_model(path: PathLike) -> TrainedModel | ExportedModel:
    """A model for predicting: a model file, or an ``.onnx``, ``.pt2`` or bioimage.io ``.zip`` of `export_model`.

    ONNX graphs run in onnxruntime; of a ``.pt2`` the weights are taken, not the graph, so it is a trained model again.

    Raises
    ------
    ExportError
        If a package that exported models need is missing.
    ModelFileError
        If the file is missing, foreign, damaged or of a newer format.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (ONNX_SUFFIX, PACKAGE_SUFFIX):
        return load_exported(path)
    return load_pt2(path) if suffix == PT2_SUFFIX else load_model(path)


def export_model(model: TrainedModel | PathLike, out: PathLike, format: Format, **options: Any) -> Path:
    """As `export_events`, without being told anything; gives the path of the file."""
    for _ in export_events(model, out, format, **options):
        pass
    return Path(out)


def export_events(
    model: TrainedModel | PathLike,
    out: PathLike,
    format: Format,
    *,
    image: ImageSource | None = None,
    truth: LabelSource | None = None,
    zero_is_background: bool = False,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    quantize: Method | None = None,
    force: bool = False,
    about: PackageDescription | None = None,
) -> Generator[Note, None, None]:
    """Write a model in another format, telling what is found on the way. The file appears complete or not at all.

    Parameters
    ----------
    model
        A trained model or its file.
    out
        The file to write, with the suffix of the format (`SUFFIXES`).
    format
        ``onnx``, ``pt2`` (torch.export) or ``bioimageio`` (a package).
    image
        To compare the exported model on, instead of an invented pattern. A package takes its test tensors and its
        cover from the middle of it. Needed for `quantize`.
    truth
        Label ids of the image, 0 where unknown: what quantisation may cost is then measured against it.
    zero_is_background
        The truth's 0 is class 1, and every id of it moves up by one.
    voxel_size, axes
        Of the image, instead of what its file says.
    quantize
        Compute the convolutions of the ONNX file in eight-bit integers: ``static`` or ``dynamic``. The figures are told
        before anything is written.
    force
        Write the quantised model even if it is slower or worse.
    about
        What a person says about a package.

    Yields
    ------
    Note
        What the user should know.

    Raises
    ------
    ConfigError
        If settings contradict each other or do not fit the format.
    ExportError
        If a package is missing, the format cannot hold the model, the exported model gives other labels, or the
        quantised one is refused.
    UNet3dError
        If the model, the image or the truth cannot be used, or the file cannot be written.
    """
    path = _checked_output(out, format)
    _check_options(format, image, truth, quantize, force, about)
    check_apart([path], [model, image, truth])
    model = _trained(model) if isinstance(model, str | os.PathLike) else model
    volume, truth_ids = None, None
    if image is not None:
        volume, truth_ids, notes = _sources(image, truth, zero_is_background, voxel_size, axes)
        yield from notes
        check_image(model, volume)
    yield Note("tracing the network, which can take a minute")
    if format == "pt2":
        content = to_pt2(model)
    else:
        weights = to_onnx(model)
        exported = from_onnx(path, weights.SerializeToString())
        grey = sample_grey(model, volume)
        same = check_same(model, exported, grey)
        yield Note(f"labels {same:.4%} of {grey[0].size:,} voxels as the model does")
        if quantize is not None:
            assert volume is not None
            weights = yield from _quantized(weights, model, quantize, volume, truth_ids, force)
        if format == "bioimageio":
            about = about or PackageDescription()
            if about.authors == (UNKNOWN_AUTHOR,):
                yield Note("name the authors before you publish the package (--author)", "warning")
            content = to_package(model, exported, weights, grey, about)
        else:
            content = weights.SerializeToString()
    write_atomically(path, content)
    yield Note(f"{format}: {path.resolve()} ({len(content):,} bytes)")


def _trained(path: PathLike) -> TrainedModel:
    """A model that can be exported, from its file."""
    if Path(path).suffix.lower() in (ONNX_SUFFIX, PACKAGE_SUFFIX):
        raise ModelFileError(f"{path} is exported already; give the .safetensors (or a .pt2) of the model")
    model = open_model(path)
    assert isinstance(model, TrainedModel)
    return model


def _checked_output(out: PathLike, format: str) -> Path:
    path = Path(out)
    if format not in SUFFIXES:
        raise ConfigError(f"--format {format!r} is unknown; known: {', '.join(SUFFIXES)}")
    if path.suffix != SUFFIXES[format]:
        raise FileError(f"{path} does not end in {SUFFIXES[format]}; a file of the format {format} needs that suffix")
    check_writable(path)
    return path


def _check_options(
    format: str, image: Any, truth: Any, quantize: str | None, force: bool, about: PackageDescription | None
) -> None:
    if quantize is not None and format != "onnx":
        raise ConfigError(f"--quantize is for --format onnx, not {format}; leave it away")
    if quantize not in (None, "static", "dynamic"):
        raise ConfigError(f"--quantize {quantize!r} is unknown; known: static, dynamic")
    if quantize is not None and image is None:
        raise ConfigError("--quantize compares the models on an image of yours; give it with --image")
    if quantize is None and (truth is not None or force):
        raise ConfigError("--truth and --force are for --quantize; give that too, or leave them away")
    if image is not None and format == "pt2":
        raise ConfigError("--image is for --format onnx and bioimageio; leave it away")
    if about is not None and format != "bioimageio":
        raise ConfigError("name, description, authors and licence are for --format bioimageio; leave them away")


def _sources(
    image: ImageSource,
    truth: LabelSource | None,
    zero_is_background: bool,
    voxel_size: VoxelSize | None,
    axes: str | None,
) -> tuple[Volume, NDArray[np.integer] | None, list[Note]]:
    """The image, the truth, and what should be known about how they fit."""
    if truth is None:
        return as_volume(image, voxel_size=voxel_size, axes=axes), None, []
    both, warnings = read_annotated(
        image, truth, voxel_size=voxel_size, axes=axes, zero_is_background=zero_is_background
    )
    return both.image, both.labels, [Note(text, "warning") for text in warnings]


def _quantized(
    weights: Any,
    model: TrainedModel,
    method: Method,
    image: Volume,
    truth: NDArray[np.integer] | None,
    force: bool,
) -> Generator[Note, None, Any]:
    """The quantised model, if its figures (which are told first) allow it or `force` is given."""
    header = ModelHeader.of(model, with_state=False)
    result = quantized(weights, header, method, image)
    report = compared(weights, result, header, method, image, truth)
    for line in report.lines():
        yield Note(line)
    if report.objection is not None:
        if not force:
            raise ExportError(f"not quantised: {report.objection}; export without --quantize, or give --force")
        yield Note(f"taken because of --force, although {report.objection}", "warning")
    return result
