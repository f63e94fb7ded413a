"""Every family of networks learns from painted slices, is kept in a file, and labels a volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.config import PredictConfig, TrainConfig
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Stepped
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume

CONFIG = TrainConfig(steps=30, device="cpu", precision="float32", batch_size=1, validation=0, learning_rate=0.01)
SOLID, FLAT = (8, 16, 16), (4, 32, 32)
LEAN = {"levels": 3}

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "2D": ("unet3plus", {}, FLAT),
    "2.5D": ("unet3plus", {"neighbours": 1}, FLAT),
    "2D across Y": ("unet3plus", {"plane_axis": "y"}, (32, 4, 32)),
    "2D across all axes, guided": ("unet3plus-ds-cgm", {"plane_axis": "all", "neighbours": 1}, (3, 32, 32)),
    "2D U-Net across all axes": ("unet2d-elu", {"plane_axis": "all"}, (2, 32, 32)),
    "2D, supervised": ("unet3plus-ds", {}, FLAT),
    "2D, guided": ("unet3plus-ds-cgm", {}, FLAT),
    "2D, guided, sigmoid": ("unet3plus-ds-cgm", {"classes": 1}, FLAT),
    "3D": ("unet3plus-3d", LEAN, SOLID),
    "3D, supervised": ("unet3plus-ds-3d", LEAN, SOLID),
    "3D, guided": ("unet3plus-ds-cgm-3d", LEAN, SOLID),
    "3D, guided, sigmoid": ("unet3plus-ds-cgm-3d", {**LEAN, "classes": 1}, SOLID),
    "3D, statistics of the tile": ("unet3plus-3d", {**LEAN, "norm_statistics": "batch"}, SOLID),
    "2D U-Net of Keras": ("unet2d-elu", {"classes": 1}, FLAT),
    "2D U-Net of 2015": ("unet2d", {"padding": "same"}, FLAT),
}


def labels_of(model: TrainedModel, volume: AnnotatedVolume) -> np.ndarray[Any, Any]:
    labels = np.zeros(volume.image.shape, np.uint8)
    predictor = Predictor(model, PredictConfig(device="cpu", precision="float32", halo=(0, 0, 0)))
    for _ in predictor.run(volume.image, PredictionOutputs(labels=labels)):
        pass
    return labels


@pytest.mark.parametrize("case", CASES)
def test_it_learns_and_is_kept(case: str, make_volume: Callable[..., AnnotatedVolume], tmp_path: Path) -> None:
    preset, changes, patch_size = CASES[case]
    network = network_config(preset, filters=4, **changes)
    volume = make_volume()
    trainer = Trainer([volume], network, CONFIG.updated(patch_size=patch_size))

    steps = [event for event in trainer.fit() if isinstance(event, Stepped)]

    losses = [step.loss for step in steps]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])
    assert ("presence" in steps[0].loss_terms) == ("guided" in case)
    model = trainer.model()
    kept = load_model(save_model(model, tmp_path / "model.safetensors"))
    assert kept.recipe.network == model.recipe.network
    labels = labels_of(kept, volume)
    assert np.array_equal(labels, labels_of(model, volume))
    structure, truth = labels == 2, volume.labels == 2
    painted = volume.labels > 0
    assert (structure & truth).sum() > 0.5 * ((structure & painted) | truth).sum()


def test_presence_is_learnt(make_volume: Callable[..., AnnotatedVolume]) -> None:
    trainer = Trainer(
        [make_volume()],
        network_config("unet3plus-ds-cgm-3d", filters=4, levels=3),
        CONFIG.updated(patch_size=SOLID, loss="cross_entropy"),
    )

    terms = [event.loss_terms["presence"] for event in trainer.fit() if isinstance(event, Stepped)]

    assert np.mean(terms[-5:]) < 0.5 * np.mean(terms[:5])
