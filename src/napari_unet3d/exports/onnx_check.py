"""Judging an ONNX file before anything is computed with it.

An ONNX file holds no code, but it can name other files, operators of strangers and tensors of any size. Only what
`to_onnx` writes is let through.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from napari_unet3d.engine.errors import ModelFileError
from napari_unet3d.engine.model_header import HEADER_KEY, ModelHeader
from napari_unet3d.exports.dependencies import require
from napari_unet3d.exports.grey_network import INPUT, OUTPUT, space_axes
from napari_unet3d.exports.onnx_export import CHECKSUM_KEY, LARGEST_FILE, checksum

_DOMAINS: Final = ("", "ai.onnx")
_FLOAT: Final = 1  # onnx.TensorProto.FLOAT


def checked_onnx(path: Path, content: bytes) -> ModelHeader:
    """The header of an ONNX file that this program wrote.

    Parameters
    ----------
    path
        Where it comes from, for messages.
    content
        The file.

    Raises
    ------
    ExportError
        If the package onnx is missing.
    ModelFileError
        If it is no ONNX file, was not written by this program, is damaged or of a newer format, refers to other
        files, has operators that are not ONNX's own, or inputs or outputs that do not fit its header.
    """
    proto = _parsed(path, content)
    found = {entry.key: entry.value for entry in proto.metadata_props}
    if HEADER_KEY not in found:
        raise ModelFileError(f"{path} was not written by napari-unet3d; give a model it exported")
    header = ModelHeader.parse(path, found[HEADER_KEY])
    _check_graph(path, proto)
    _check_tensors(path, proto)
    _check_network(path, proto, header)
    if found.get(CHECKSUM_KEY) != checksum(proto, found[HEADER_KEY]):
        raise ModelFileError(f"{path} is damaged: its content is not what was written; export the model again")
    return header


def _parsed(path: Path, content: bytes) -> Any:
    onnx = require("onnx", f"running {path.name}")
    failure = require("google.protobuf.message", f"running {path.name}").DecodeError
    if len(content) > LARGEST_FILE:
        raise ModelFileError(f"{path} has {len(content):,} bytes; an ONNX file has at most {LARGEST_FILE:,}")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except (failure, RecursionError):
        raise ModelFileError(f"{path} is no ONNX file, or is damaged; export the model again") from None
    return proto


def _check_graph(path: Path, proto: Any) -> None:
    """Refuse strangers' operators, functions, and graphs within graphs (loops, branches)."""
    graph = proto.graph
    if proto.functions or proto.training_info or graph.sparse_initializer:
        raise ModelFileError(
            f"{path} holds functions or training steps, which this program does not write; it is refused"
        )
    for node in graph.node:
        has_graph = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if node.domain not in _DOMAINS or has_graph:
            name = repr(f"{node.domain}:{node.op_type}")[:80]
            raise ModelFileError(f"{path} holds the operator {name}, which this program does not write; it is refused")


def _check_tensors(path: Path, proto: Any) -> None:
    """Refuse tensors that lie in other files or have another size than their values."""
    from onnx import TensorProto, helper

    constants = [a.t for node in proto.graph.node for a in node.attribute if a.HasField("t")]
    for tensor in (*proto.graph.initializer, *constants):
        name = f"the tensor {tensor.name[:60]!r} in {path}"
        if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
            raise ModelFileError(f"{name} says that it lies in another file; it is refused")
        try:
            size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            typed = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
        except (KeyError, ValueError):
            raise ModelFileError(f"{name} has an unknown type: the file is damaged; export the model again") from None
        found = len(tensor.raw_data) if tensor.HasField("raw_data") else len(typed) * size
        if any(length < 0 for length in tensor.dims) or math.prod(tensor.dims) * size != found:
            raise ModelFileError(f"{name} has not the size of its values: the file is damaged; export the model again")


def _check_network(path: Path, proto: Any, header: ModelHeader) -> None:
    """Refuse a graph that is not that of the header's network."""
    network = header.recipe.network
    ends = [(end.name, _shape(end)) for end in (*proto.graph.input, *proto.graph.output)]
    free = [None] * len(space_axes(network))
    if ends != [(INPUT, [None, network.in_channels, *free]), (OUTPUT, [None, network.classes, *free])]:
        raise ModelFileError(f"{path} is damaged: inputs and outputs do not fit its network; export the model again")


def _shape(end: Any) -> list[int | None] | None:
    """Lengths of an input's or output's axes, None where free; None if it is no float32 tensor."""
    if end.type.tensor_type.elem_type != _FLOAT:
        return None
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in end.type.tensor_type.shape.dim]
