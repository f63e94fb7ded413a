"""A model as a program of ``torch.export``, for PyTorch, AOTInductor and ExecuTorch."""

from __future__ import annotations

import io

import torch

from napari_unet3d.engine.model_header import HEADER_KEY, ModelHeader
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.dependencies import quiet_libraries
from napari_unet3d.exports.grey_network import GreyNetwork, dynamic_shapes


def to_pt2(model: TrainedModel) -> bytes:
    """The content of a ``.pt2`` file: grey values -> logits, with free batch and legal spatial sizes.

    Shapes as in `to_onnx`. The extra file ``napari_unet3d`` holds the header of model files. To be loaded with
    ``torch.export.load``, which may unpickle: this program never does.
    """
    example, axes = dynamic_shapes(model.recipe.network)
    content = io.BytesIO()
    with quiet_libraries(), torch.no_grad():
        program = torch.export.export(GreyNetwork(model).eval(), (example,), dynamic_shapes=(axes,), strict=False)
        torch.export.save(program, content, extra_files={HEADER_KEY: ModelHeader.of(model, with_state=False).text()})
    return content.getvalue()
