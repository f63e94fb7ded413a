"""Every loss through the real trainer, on planes of a tiny volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import LOSS_TERMS, PredictConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Note, Stepped, Validated
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

Make = Callable[..., Any]


def three_classes(ids: tuple[int, int, int] = (1, 3, 7)) -> AnnotatedVolume:
    """A bright and a dark cylinder along Z in noise, painted on some planes."""
    _, y, x = np.indices((24, 20, 20))
    bright, dark = (y - 6) ** 2 + (x - 6) ** 2 < 20, (y - 14) ** 2 + (x - 13) ** 2 < 20
    image = 1.0 * bright - dark + np.random.default_rng(0).normal(0, 0.2, bright.shape)
    labels = np.zeros(bright.shape, np.uint8)
    for plane in (1, 5, 9, 13, 17, 21):
        labels[plane] = np.select([bright[plane], dark[plane]], [ids[1], ids[2]], ids[0])
    return AnnotatedVolume(Volume.from_array(image.astype(np.float32)), labels)


def fall(trainer: Trainer) -> float:
    """Mean loss of the last five steps divided by that of the first five."""
    losses = [event.loss for event in trainer.fit() if isinstance(event, Stepped)]
    return float(np.mean(losses[-5:]) / np.mean(losses[:5]))


QUICK: dict[str, Any] = {
    "filters": 8,
    "learning_rate": 0.02,
    "steps": 40,
    "validation": 0,
    "average_decay": 0,
    "augment": {"probability": 0},
}


@pytest.mark.parametrize(
    ("loss", "head"),
    [*((loss, "softmax") for loss in LOSS_TERMS), ("cross_entropy_dice", "sigmoid"), ("hybrid", "sigmoid")],
)
def test_every_loss_falls(make_trainer: Make, loss: str, head: str) -> None:
    classes = 3 if head == "softmax" else 2
    assert fall(make_trainer([three_classes()], loss=loss, head=head, classes=classes, **QUICK)) < 0.75


@pytest.mark.parametrize("loss", ["generalised_dice", "hybrid"])
def test_losses_of_one_channel_with_coarser_outputs_fall(make_trainer: Make, loss: str) -> None:
    assert fall(make_trainer(loss=loss, classes=1, deep_supervision=True, **{**QUICK, "levels": 3})) < 0.75


def test_hybrid_loss_of_a_flat_network_in_bfloat16_falls(make_trainer: Make) -> None:
    assert fall(make_trainer(loss="hybrid", dimensions=2, precision="bfloat16", **QUICK)) < 0.75


def test_a_loss_without_windows_is_refused_or_told(make_trainer: Make) -> None:
    with pytest.raises(ConfigError, match=r"raise train\.patch_size"):
        list(make_trainer(loss="ms_ssim", patch_size=(4, 8, 8)).fit())
    events = list(make_trainer(loss="hybrid", patch_size=(4, 8, 8), steps=2).fit())
    assert any(isinstance(event, Note) and "counts 0" in event.text for event in events)


def test_structures_told_by_themselves_are_predicted_and_saved(make_trainer: Make, tmp_path: Path) -> None:
    volume = three_classes()
    changed = {"steps": 120, "validation": 0.2, "average_decay": 0.8}
    trainer = make_trainer([volume], head="sigmoid", classes=2, **{**QUICK, **changed})
    assert max(event.mean_iou for event in trainer.fit() if isinstance(event, Validated)) > 0.6

    model = load_model(save_model(trainer.model(), tmp_path / "model.safetensors"))
    assert model.recipe.network.head == "sigmoid"
    assert model.label_ids == (1, 3, 7)
    labels = np.zeros(volume.image.shape, np.uint8)
    probabilities = np.zeros((3, *volume.image.shape), np.float32)
    outputs = PredictionOutputs(labels, probabilities, np.zeros(volume.image.shape, np.float32))
    config = PredictConfig(device="cpu", precision="float32")
    list(Predictor(model, config).run(volume.image, outputs))
    known = volume.labels > 0
    assert (labels == volume.labels)[known].mean() > 0.85

    footprint = Footprint.of(model.recipe.network)
    shape = volume.image.shape
    legal = footprint.legal_output(footprint.framed(shape))
    widths = [(b, n - b - size) for b, n, size in zip(footprint.border, legal, shape, strict=True)]
    grey = np.pad(model.normalization.apply(volume.image.read()), [(0, 0), *widths], mode="edge")
    with torch.inference_mode():
        framed = model.network(torch.from_numpy(grey)[None])[0]
    inside = tuple(slice(b, b + size) for b, size in zip(footprint.border, shape, strict=True))
    output = framed[(slice(None), *inside)]
    np.testing.assert_allclose(probabilities[1:], output.sigmoid().numpy(), atol=1e-5)
    np.testing.assert_allclose(probabilities[0], 1 - probabilities[1:].max(0), atol=1e-6)
    assert np.array_equal(labels == 1, (probabilities[1:] <= 0.5).all(0))
