"""Predicting with exported models, through onnxruntime."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor, nn

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import NetworkConfig, Recipe
from napari_unet3d.engine.errors import ModelFileError
from napari_unet3d.engine.model_header import ModelHeader
from napari_unet3d.exports.dependencies import require
from napari_unet3d.exports.grey_network import INPUT, GreyValues, folded, unfolded
from napari_unet3d.exports.onnx_check import checked_onnx
from napari_unet3d.exports.onnx_export import LARGEST_FILE
from napari_unet3d.exports.safe_zip import opened_zip

ONNX_SUFFIX: Final = ".onnx"
PACKAGE_SUFFIX: Final = ".zip"
PACKAGE_WEIGHTS: Final = "weights.onnx"
"""Name of the ONNX file in a bioimage.io package."""

_SILENT: Final = 4  # onnxruntime: fatal errors only; the others are raised anyway


class OnnxNetwork(nn.Module):
    """An ONNX graph with the call of a network: B C Z Y X float32 grey values -> logits B K Z' Y' X', on the CPU.

    Parameters
    ----------
    content
        A checked ONNX file.
    network
        Configuration of the network in it.
    name
        Of the file, for messages.

    Raises
    ------
    ExportError
        If the package onnxruntime is missing.
    ModelFileError
        If onnxruntime cannot load or compute the graph.
    """

    def __init__(self, content: bytes, network: NetworkConfig, name: str) -> None:
        super().__init__()
        self._network = network
        self._name = name
        runtime = require("onnxruntime", f"running {name}")
        options = runtime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for every status
            raise ModelFileError(f"{name} is damaged or made for another version ({_first_line(error)})") from None

    def forward(self, image: Tensor) -> Tensor:
        grey = folded(self._network, image.contiguous().numpy())
        try:
            output: Any = self._session.run(None, {INPUT: grey})[0]
        except Exception as error:
            if "alloc" in str(error).lower():
                raise MemoryError(f"not enough memory for a tile of {tuple(image.shape[2:])}") from None
            raise ModelFileError(f"{self._name} cannot be computed ({_first_line(error)}); export it again") from None
        return torch.from_numpy(unfolded(self._network, np.asarray(output), image.shape[0]))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: nothing in it ever changes."""
        return self


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """What `Predictor` needs of a model, from a file that was exported. It takes grey values as they are.

    Parameters
    ----------
    network
        B C Z Y X float32 grey values -> B K Z Y X logits.
    header
        What the file says besides the weights.
    """

    network: nn.Module
    header: ModelHeader

    @property
    def recipe(self) -> Recipe:
        """The whole configuration."""
        return self.header.recipe

    @property
    def normalization(self) -> GreyValues:
        """None: the network brings its own."""
        return GreyValues()

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Class index -> label id, name and colour."""
        return self.header.classes

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Label id of each class index."""
        return tuple(entry.id for entry in self.classes)

    @property
    def voxel_size(self) -> VoxelSize:
        """Of the (first) training image."""
        return self.header.size

    @property
    def spatial_dims(self) -> int:
        """Dimensions of the images it was trained on."""
        return self.header.spatial_dims

    @property
    def in_channels(self) -> int:
        """Channels an image must have."""
        return self.recipe.network.in_channels


def load_exported(path: str | os.PathLike[str]) -> ExportedModel:
    """Read an ``.onnx`` file or a bioimage.io package (``.zip``) that this program wrote.

    Nothing is unpickled or unpacked to disk, and of a package nothing but the weights is read.

    Raises
    ------
    ExportError
        If a package that it takes is missing.
    ModelFileError
        If the file is missing, foreign, damaged or of a newer format, or not to be trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}")
    if path.suffix.lower() != PACKAGE_SUFFIX:
        return from_onnx(path, _read(path))
    with opened_zip(path) as archive:
        content = archive.read(PACKAGE_WEIGHTS, LARGEST_FILE)
    return from_onnx(path, content)


def from_onnx(path: Path, content: bytes) -> ExportedModel:
    """The model in the content of an ONNX file; see `load_exported`."""
    header = checked_onnx(path, content)
    return ExportedModel(OnnxNetwork(content, header.recipe.network, path.name), header)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelFileError(f"{path} has {path.stat().st_size:,} bytes; an ONNX file has at most {LARGEST_FILE:,}")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
