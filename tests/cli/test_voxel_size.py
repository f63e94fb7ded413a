"""Preparation as for CT: a window of grey values and a voxel size, carried by the model and undone in the results."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import pytest

from napari_unet3d.api import compare
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.model_file import load_model

nib: Any = nibabel  # its type hints are too wide, or missing

AFFINE = np.array([[-0.7, 0, 0.1, 12.3], [0, 0.7, 0, -4.567], [0, -0.2, 3, 100.1], [0, 0, 0, 1]])
PREPARED = (
    *("--set", "train.normalize={method: window, low: -200, high: 250, voxel_size: '2,1.5,1.5mm'}"),
    *("--set", "network.features=none", "--set", "network.filters=6", "--set", "network.levels=2"),
    *("--device", "cpu", "--set", "train.precision=float32", "--set", "train.augment.probability=0"),
    *("--set", "train.patch_size=[8,16,16]"),
)


@pytest.fixture
def ct(run: Any) -> Any:
    """Image, labels and truth of a bright ball in NIfTI files with an oblique affine, in Hounsfield units."""
    x, y, z = np.indices((40, 44, 14))
    ball = ((x - 20) * 0.7) ** 2 + ((y - 22) * 0.7) ** 2 + ((z - 7) * 3) ** 2 < 100
    noise = np.random.default_rng(0).normal(0, 20, ball.shape)
    image = np.where(ball, 90, -60) + noise
    image[:3] = 3000  # metal, which the window cuts
    truth = np.where(ball, 2, 1).astype(np.uint8)
    painted = np.zeros_like(truth)
    for index in (3, 5, 7, 9, 11):
        painted[:, :, index] = truth[:, :, index]
    for name, values in (("ct", image.astype(np.int16)), ("painted", painted), ("truth", truth)):
        stored = nib.Nifti1Image(values, AFFINE)
        stored.header.set_xyzt_units("mm")
        stored.to_filename(f"{name}.nii.gz")
    return truth


def test_results_come_back_on_the_grid_of_the_image(run: Any, ct: Any) -> None:
    outcome = run("train", "ct.nii.gz", "painted.nii.gz", "--out", "m.safetensors", "--steps", "80", *PREPARED)
    assert (outcome.code, outcome.err) == (0, "")
    assert "training on images resampled to 2 x 1.5 x 1.5 mm" in outcome.out
    assert "IoU on held-out slices: " in outcome.out
    model = load_model("m.safetensors")
    assert model.voxel_size.zyx == pytest.approx((2, 1.5, 1.5))
    assert model.recipe.train.normalize.voxel_size == "2.0,1.5,1.5mm"
    (channel,) = model.normalization.channels
    assert (channel.low, channel.high, channel.offset) == (-200, 250, -200)
    assert channel.factor == pytest.approx(1 / 450)

    results = ("--out", "out.nii.gz", "--probabilities", "p.nii.gz", "--uncertainty", "u.nii.gz")
    assert run("predict", "m.safetensors", "ct.nii.gz", *results).code == 0
    source = nib.load("ct.nii.gz")
    for name in ("out", "p", "u"):
        result = nib.load(f"{name}.nii.gz")
        assert np.array_equal(result.affine, source.affine)
        assert result.shape[:3] == source.shape
        assert result.header.get_zooms()[:3] == source.header.get_zooms()[:3]
    labels = np.asarray(nib.load("out.nii.gz").dataobj)
    overlap = ((labels == 2) & (ct == 2)).sum() / ((labels == 2) | (ct == 2)).sum()
    assert overlap > 0.75


def test_going_on_and_distilling_keep_the_voxel_size(run: Any, ct: Any) -> None:
    image = ("ct.nii.gz", "painted.nii.gz")
    assert run("train", *image, "--out", "m.safetensors", "--steps", "2", "--keep-state", *PREPARED).code == 0
    more = run("train", *image, "--out", "r.safetensors", "--resume", "m.safetensors", "--steps", "1")
    assert (more.code, more.err) == (0, "")
    again = ("--weights-from", "m.safetensors", "--steps", "1", "--set", "train.normalize.voxel_size='2,1.5,1.5'")
    outcome = run("train", *image, "--out", "w.safetensors", *again)
    assert (outcome.code, outcome.err) == (0, "")
    network = ("--set", "network.filters=2", "--set", "network.levels=2", "--set", "network.features=none")
    student = run("distill", "m.safetensors", *image, "--out", "s.safetensors", "--steps", "1", *network)
    assert (student.code, student.err) == (0, "")
    for name in ("r", "w", "s"):
        model = load_model(f"{name}.safetensors")
        assert model.recipe.train.normalize.voxel_size == "2.0,1.5,1.5mm"
        assert model.voxel_size.zyx == pytest.approx((2, 1.5, 1.5))
    refused = run(
        *("train", *image, "--out", "x.safetensors", "--weights-from", "m.safetensors", "--steps", "1"),
        *("--set", "train.normalize.voxel_size=1,1,1mm"),
    )
    assert refused.code == 1
    assert "the model to go on with works at 2 x 1.5 x 1.5 mm; leave it away" in refused.err


def test_images_without_a_voxel_size_are_refused(run: Any, scene: Any) -> None:
    train = ("train", "image.npy", "labels.npy", "--out", "m.safetensors", "--set")
    outcome = run(*train, "train.normalize.voxel_size=1,1,1mm")
    assert outcome.code == 1
    assert "image.npy has no voxel size, so it cannot be resampled to 1 x 1 x 1 mm" in outcome.err
    assert "voxel size 'small' is not of the form" in run(*train, "train.normalize.voxel_size=small").err


def test_a_comparison_measures_what_was_held_out_on_the_grid_of_the_image(run: Any, ct: Any) -> None:
    image = ("ct.nii.gz", "painted.nii.gz")
    assert run("train", *image, "--out", "m.safetensors", "--steps", "30", *PREPARED).code == 0
    model = load_model("m.safetensors")
    record = model.recipe.record
    assert record is not None
    assert record.held_out  # on the other grid
    figures = compare({"m": model}, "ct.nii.gz", "painted.nii.gz", config=PredictConfig(device="cpu"))
    held_out = figures[0].held_out
    assert held_out is not None
    assert 0.3 < held_out.mean_iou <= 1
