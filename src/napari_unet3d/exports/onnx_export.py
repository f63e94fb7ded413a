"""A model as ONNX: one graph from grey values to logits, and the header of model files beside it."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import torch

from napari_unet3d.engine.errors import ExportError
from napari_unet3d.engine.model_header import HEADER_KEY, ModelHeader
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.dependencies import quiet_libraries, require
from napari_unet3d.exports.grey_network import INPUT, OUTPUT, GreyNetwork, dynamic_shapes

CHECKSUM_KEY: Final = f"{HEADER_KEY}_sha256"
LARGEST_FILE: Final = 2**31 - 1
"""Bytes that one ONNX file can hold (a limit of protocol buffers)."""

_PURPOSE: Final = "exporting to ONNX"


def to_onnx(model: TrainedModel) -> Any:
    """A model as an ``onnx.ModelProto``.

    Input ``grey``: float32 B C Z Y X (planar networks: B C Y X) grey values as they are in the image.
    Output ``logits``: float32 B K Z Y X (B K Y X), see `engine.heads`. Batch and spatial sizes are free; the spatial
    ones must be legal (see `legal_sizes`). The metadata hold the header of model files and a checksum of the weights.

    Raises
    ------
    ExportError
        If a package is missing, or the network has more weights than an ONNX file can hold.
    """
    require("onnx", _PURPOSE)
    require("onnxscript", _PURPOSE)
    weights = sum(t.numel() * t.element_size() for t in model.network.state_dict().values())
    if weights > 0.95 * LARGEST_FILE:
        raise ExportError(
            f"the network has {weights / 1e9:.1f} GB of weights, an ONNX file holds 2 GB; export to pt2, or distil it"
        )
    example, axes = dynamic_shapes(model.recipe.network)
    with quiet_libraries(), torch.no_grad():
        program = torch.onnx.export(
            GreyNetwork(model).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return described(program.model_proto, ModelHeader.of(model, with_state=False))


def described(proto: Any, header: ModelHeader) -> Any:
    """The same ``onnx.ModelProto`` with header and checksum, without notes of the exporter."""
    _drop_traces(proto)
    text = header.text()
    proto.producer_name = "napari-unet3d"
    proto.producer_version = header.versions["napari-unet3d"]
    del proto.metadata_props[:]
    for key, value in ((HEADER_KEY, text), (CHECKSUM_KEY, checksum(proto, text))):
        proto.metadata_props.add(key=key, value=value)
    return proto


def checksum(proto: Any, header: str) -> str:
    """SHA-256 of the header and of names, types, shapes and values of all weights of the graph, in their order."""
    digest = hashlib.sha256(header.encode())
    for tensor in proto.graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)} ".encode())
        values = tensor.raw_data or repr([*tensor.float_data, *tensor.int32_data, *tensor.int64_data]).encode()
        digest.update(values)
    return digest.hexdigest()


def _drop_traces(proto: Any) -> None:
    """Remove where in which file of whose machine each node came from."""
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        item.doc_string = ""
        if item is not proto:
            del item.metadata_props[:]
