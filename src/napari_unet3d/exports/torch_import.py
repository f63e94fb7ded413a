"""A model out of a ``.pt2`` file, without running or unpickling anything in it.

``torch.export.load`` evaluates expressions that stand in the file, and may unpickle. So only the header and the bytes
of the weights are read, and the network is built anew from the header's configuration. The graph is left alone: it is
for other programs.

The archive (PyTorch 2.9 and later; R is any folder)::

    R/extra/napari_unet3d                            header, JSON
    R/data/weights/model_weights_config.json         name -> file, offset and strides of a tensor
    R/data/weights/weight_N                          bytes of a tensor's storage, little-endian
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from napari_unet3d.engine.errors import ModelFileError
from napari_unet3d.engine.model_file import assembled
from napari_unet3d.engine.model_header import HEADER_KEY, ModelHeader
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.safe_zip import SafeZip, opened_zip

_HEADER: Final = f"/extra/{HEADER_KEY}"
_FOLDER: Final = "data/weights"
_LAYOUT: Final = f"{_FOLDER}/model_weights_config.json"
_WEIGHTS: Final = "network."  # of exports.grey_network.GreyNetwork
_LARGEST_TEXT: Final = 64_000_000
_DTYPES: Final = MappingProxyType({5: torch.int64, 7: torch.float32})  # as torch.export numbers them


class _Length(BaseModel):
    as_int: Annotated[int, Field(ge=0, lt=2**40)]


class _Layout(BaseModel):
    dtype: int
    sizes: list[_Length]
    strides: list[_Length]
    storage_offset: _Length


class _Stored(BaseModel):
    path_name: Annotated[str, Field(pattern=r"^\w+$")]
    use_pickle: bool
    tensor_meta: _Layout


class _Config(BaseModel):
    config: dict[str, _Stored]


def load_pt2(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a ``.pt2`` file that this program wrote: the model as it was exported, without its training state.

    Raises
    ------
    ModelFileError
        If the file is missing, foreign, damaged, of a newer format or of an older PyTorch, or not to be trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}")
    with opened_zip(path) as archive:
        found = [name for name in archive.names if name.endswith(_HEADER)]
        if len(found) != 1:
            raise ModelFileError(f"{path} was not written by napari-unet3d; give a model it exported")
        root = found[0].removesuffix(_HEADER)
        header = ModelHeader.parse(path, archive.read(found[0], _LARGEST_TEXT).decode(errors="replace"))
        layout = _layout(path, archive, root)
        weights = _weights(path, archive, root, layout)
    return assembled(path, header, weights)


def _layout(path: Path, archive: SafeZip, root: str) -> Mapping[str, _Stored]:
    """Where in the archive which weight of the network lies."""
    if f"{root}/{_LAYOUT}" not in archive.names:
        raise ModelFileError(f"{path} was written with an older PyTorch; predict with the model file or as ONNX")
    text = archive.read(f"{root}/{_LAYOUT}", _LARGEST_TEXT)
    try:
        config = _Config.model_validate(json.loads(text)).config
    except (ValidationError, ValueError, RecursionError):
        raise ModelFileError(f"the list of weights in {path} is damaged; export the model again") from None
    return {k.removeprefix(_WEIGHTS): stored for k, stored in config.items() if k.startswith(_WEIGHTS)}


def _weights(path: Path, archive: SafeZip, root: str, layout: Mapping[str, _Stored]) -> dict[str, Tensor]:
    """The tensors by their names in the network; together not larger than the file."""
    left = path.stat().st_size
    weights: dict[str, Tensor] = {}
    for name, stored in layout.items():
        if stored.use_pickle or stored.tensor_meta.dtype not in _DTYPES:
            raise ModelFileError(f"{path} is damaged: the weights {name!r:.80} are not plain numbers; export it again")
        content = archive.read(f"{root}/{_FOLDER}/{stored.path_name}", left)
        left -= len(content)
        weights[name] = _tensor(path, name, content, stored.tensor_meta)
    return weights


def _tensor(path: Path, name: str, content: bytes, layout: _Layout) -> Tensor:
    """A contiguous copy of the values of a tensor's storage."""
    dtype = _DTYPES[layout.dtype]
    sizes, strides = ([length.as_int for length in lengths] for lengths in (layout.sizes, layout.strides))
    offset = layout.storage_offset.as_int
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=False))
    fits = len(sizes) == len(strides) and 0 not in sizes and (last + 1) * dtype.itemsize <= len(content)
    if not fits or math.prod(sizes) * dtype.itemsize > len(content):
        raise ModelFileError(f"{path} is damaged: {name!r:.80} has not the size of its values; export the model again")
    values = torch.frombuffer(bytearray(content), dtype=dtype)
    return torch.as_strided(values, sizes, strides, offset).clone(memory_format=torch.contiguous_format)
