"""A model as a program of ``torch.export``, for PyTorch, AOTInductor and ExecuTorch."""

from __future__ import annotations

import copy
import io
from typing import Final

import torch

from napari_unet3d.engine.model_header import HEADER_KEY, ModelHeader
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.dependencies import quiet_libraries
from napari_unet3d.exports.grey_network import GreyNetwork, dynamic_shapes

PT2_SUFFIX: Final = ".pt2"


def to_pt2(model: TrainedModel) -> bytes:
    """The content of a ``.pt2`` file: grey values -> logits, with free batch and legal spatial sizes.

    Shapes as in `to_onnx`. The extra file ``napari_unet3d`` holds the header of model files. Other programs load it
    with ``torch.export.load``, which may unpickle; this one never does, see `load_pt2`.
    """
    example, axes = dynamic_shapes(model.recipe.network)
    network = copy.deepcopy(GreyNetwork(model)).eval()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub lacks this overload
    content = io.BytesIO()
    with quiet_libraries(), torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=(axes,), strict=False)
        torch.export.save(program, content, extra_files={HEADER_KEY: ModelHeader.of(model, with_state=False).text()})
    return content.getvalue()
