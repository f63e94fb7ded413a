"""Every kind of network, reduced, computes in onnxruntime what it computes in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.networks.presets import network_presets
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.grey_network import legal_sizes, synthetic_grey
from napari_unet3d.exports.onnx_export import to_onnx
from napari_unet3d.exports.runtime import from_onnx
from napari_unet3d.exports.sample import scores_of

REDUCED: dict[str, dict[str, Any]] = {
    "fast": {"filters": 2, "levels": 2, "feature_scales": (1.0,)},
    "large": {"filters": (4, 4, 4), "levels": 3},
    "cicek2016": {"filters": 2, "levels": 2},
    "keras3d": {"filters": 2, "levels": 2, "dropout": 0.1, "decoder_dropout": 0.1},
    "framework3d": {"filters": 2, "levels": 2},
    "unet2d": {"filters": 2, "levels": 2, "dropout": 0.1},
    "unet2d-elu": {"filters": 2, "levels": 2, "dropout": 0.1},
}
OTHERS: dict[str, dict[str, Any]] = {
    "group norm, 3 classes, 2 channels": {"norm": "group", "norm_groups": 2, "classes": 3, "in_channels": 2},
    "instance norm, sigmoid": {"norm": "instance", "classes": 1},
    "flat kernels": {"kernel": ((1, 3, 3), 3), "strides": ((1, 2, 2),)},
    "strided, linear": {"pooling": "convolution", "upsampling": "linear"},
    "a sigmoid for each of three structures": {"head": "sigmoid", "classes": 3},
    "planes across X with their neighbours": {"dimensions": 2, "plane_axis": "x", "neighbours": 1, "filters": 2},
    "planes across all axes": {"dimensions": 2, "plane_axis": "all", "filters": 2},
}


def reduced(preset: str) -> dict[str, Any]:
    if preset in REDUCED:
        return REDUCED[preset]
    return {"filters": 2, "levels": 3}


def check(model: TrainedModel) -> None:
    """Compare logits at the smallest legal size, and at one where no axis is what it was while tracing."""
    exported = from_onnx(Path("x.onnx"), to_onnx(model).SerializeToString())
    smallest, step = legal_sizes(model.recipe.network)
    for steps in ((0, 0, 0), (2, 1, 5)):
        shape = [least + count * size for least, count, size in zip(smallest, steps, step, strict=True)]
        grey = synthetic_grey(model.normalization, shape)
        expected = scores_of(model, grey)
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(scores_of(exported, grey), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", network_presets())
def test_presets(make_model: Callable[..., TrainedModel], preset: str) -> None:
    check(make_model(preset, **reduced(preset)))


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS.keys())
def test_other_layers(make_model: Callable[..., TrainedModel], changes: dict[str, Any]) -> None:
    check(make_model("fast", **({"filters": 4, "levels": 2, "features": "none"} | changes)))
