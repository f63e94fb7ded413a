"""The verbs doing their work on a tiny volume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
import yaml

from napari_unet3d.engine.model_file import load_model

nib: Any = nibabel  # its type hints are too wide, or missing

TRAIN = ("train", "image.npy", "labels.npy", "--out", "new.safetensors")


def weights(path: str) -> dict[str, torch.Tensor]:
    return load_model(path).network.state_dict()


def steps_of(path: str) -> int:
    record = load_model(path).recipe.record
    assert record is not None
    return record.steps


def equal_weights(first: str, second: str) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- train ------------------------------------------------------------------------------------------------


def test_train_tells_what_it_does_and_where_the_model_is(run: Any, scene: Any, quick: Any) -> None:
    outcome = run(*TRAIN, *quick)
    assert (outcome.code, outcome.err) == (0, "")
    assert "device: cpu (as asked for), precision: float32, CPU threads: " in outcome.out
    assert "held out" in outcome.out
    assert "step 1, " in outcome.out
    assert f"model: {scene.folder / 'new.safetensors'}" in outcome.out.splitlines()
    model = load_model("new.safetensors")
    assert model.recipe.record is not None
    assert model.recipe.record.steps == 2
    assert model.state is None


def test_train_scores_held_out_slices(run: Any, scene: Any, quick: Any) -> None:
    rng = np.random.default_rng(0)
    z = np.indices((40, 16, 16))[0]
    np.save(scene.image, rng.normal(size=z.shape))
    np.save(scene.labels, np.where(z % 8 == 2, rng.integers(1, 3, z.shape), 0))
    outcome = run(*TRAIN, *quick)
    assert outcome.code == 0
    assert "IoU on held-out slices: class 1 0." in outcome.out
    assert "best at step " in outcome.out


def test_settings_reach_the_training_in_their_order(run: Any, scene: Any) -> None:
    (scene.folder / "my.yaml").write_text(
        "network: {levels: 2, filters: 8, norm: none}\n"
        "train: {seconds: 99, learning_rate: 1e-2, class_weights: off, augment: {rotation: 5, noise: 0}}\n"
    )
    given = ("--set", "network.filters=4", "--set", "train.augment.rotation=7", "--set", "train.steps=9")
    options = ("--steps", "1", "--validation", "0", "--random-state", "3", "--device", "cpu")
    outcome = run(*TRAIN, "--preset", "fast", "--config", "my.yaml", *given, *options)
    assert outcome.code == 0, outcome.err
    recipe = load_model("new.safetensors").recipe
    assert (recipe.network.levels, recipe.network.filters, recipe.network.norm) == (2, 4, "none")
    assert recipe.network.features == "scale_space"  # of the preset
    assert (recipe.train.seconds, recipe.train.steps, recipe.train.learning_rate) == (None, 1, 0.01)
    assert (recipe.train.augment.rotation, recipe.train.augment.noise) == (7, 0)
    assert (recipe.train.validation, recipe.train.random_state) == (0, 3)


def test_recipe_replays_a_run_by_the_clock_step_by_step(run: Any, scene: Any, quick: Any) -> None:
    network = quick[:4]
    precision = ("--set", "train.precision=float32")
    assert run(*TRAIN, *network, *precision, "--seconds", "2", "--device", "cpu").code == 0
    assert run("info", "new.safetensors", "--recipe", "recipe.yaml").code == 0
    steps = steps_of("new.safetensors")
    assert steps > 0
    again = ("train", "image.npy", "labels.npy", "--out", "again.safetensors", "--config", "recipe.yaml")
    outcome = run(*again)
    assert outcome.code == 0, outcome.err
    assert steps_of("again.safetensors") == steps
    assert equal_weights("new.safetensors", "again.safetensors")
    # a budget given by hand counts instead of the record
    assert run(*again, "--steps", "1").code == 0
    assert steps_of("again.safetensors") == 1


def test_resumed_training_equals_an_uninterrupted_one(run: Any, scene: Any, quick: Any) -> None:
    assert run(*TRAIN, *quick, "--keep-state").code == 0
    assert load_model("new.safetensors").state is not None
    more = ("train", "image.npy", "labels.npy", "--resume", "new.safetensors", "--out")
    assert run(*more, "longer.safetensors", "--steps", "2").code == 0
    assert run(*more, "same.safetensors", "--steps", "2").code == 0
    assert steps_of("longer.safetensors") == 4
    assert equal_weights("longer.safetensors", "same.safetensors")
    assert not equal_weights("longer.safetensors", "new.safetensors")


def test_resuming_what_is_finished_needs_a_budget(run: Any, scene: Any, quick: Any) -> None:
    assert run(*TRAIN, *quick, "--keep-state").code == 0
    outcome = run("train", "image.npy", "labels.npy", "--out", "more.safetensors", "--resume", "new.safetensors")
    assert outcome.code == 1
    assert outcome.err == "error: the training is finished already; give --seconds or --steps to train longer\n"
    assert not (scene.folder / "more.safetensors").exists()


def test_weights_from_begins_with_the_network_of_a_model(run: Any, model: Path, scene: Any) -> None:
    outcome = run(*TRAIN, "--weights-from", model, "--steps", "1", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    first, second = load_model(model).recipe.network, load_model("new.safetensors").recipe.network
    assert first == second


def test_several_volumes(run: Any, scene: Any, quick: Any) -> None:
    np.save("more.npy", np.load(scene.image)[:, ::-1])
    np.save("more_labels.npy", 3 * (np.load(scene.labels)[:, ::-1] == 2).astype(np.uint8))
    outcome = run(*TRAIN, *quick, "--also", "more.npy", "more_labels.npy")
    assert outcome.code == 0, outcome.err
    assert load_model("new.safetensors").label_ids == (1, 2, 3)


def test_zero_is_background_moves_ids_up(run: Any, scene: Any, quick: Any) -> None:
    np.save("dense.npy", np.load(scene.truth) - 1)
    outcome = run("train", "image.npy", "dense.npy", "--out", "new.safetensors", *quick, "--zero-is-background")
    assert outcome.code == 0, outcome.err
    assert load_model("new.safetensors").label_ids == (1, 2)


def test_voxel_size_and_axes_override_the_file(run: Any, scene: Any, quick: Any) -> None:
    np.save("stack.npy", np.load(scene.image)[..., None])
    options = ("--axes", "ZYXC", "--voxel-size", "3,1,1um")
    outcome = run("train", "stack.npy", "labels.npy", "--out", "new.safetensors", *quick, *options)
    assert outcome.code == 0, outcome.err
    model = load_model("new.safetensors")
    assert str(model.voxel_size) == "3 x 1 x 1 um"
    assert model.recipe.network.kernel_per_level[0] == (1, 3, 3)


# --- what works though it looks odd -----------------------------------------------------------------------


def test_label_ids_with_gaps_come_back(run: Any, scene: Any, quick: Any) -> None:
    labels = np.load(scene.labels).astype(np.float32)  # whole numbers as floats are fine
    np.save(scene.labels, np.where(labels == 2, 300, labels * 7))
    assert run(*TRAIN, *quick).code == 0
    assert run("predict", "new.safetensors", "image.npy", "--out", "out.npy").code == 0
    assert set(np.unique(np.load("out.npy"))) <= {7, 300}
    assert load_model("new.safetensors").label_ids == (7, 300)


def test_non_finite_voxels_are_told_and_used(run: Any, scene: Any, quick: Any) -> None:
    image = np.load(scene.image)
    image[2, 3, 4], image[5, 6, 7], image[6, 7, 8] = np.nan, np.inf, -np.inf
    np.save(scene.image, image)
    told = "warning: image.npy holds NaN or infinite values; each counts as the median grey value"
    trained = run(*TRAIN, *quick)
    assert (trained.code, trained.err) == (0, "")
    assert trained.out.count(told) == 1
    predicted = run("predict", "new.safetensors", "image.npy", "--out", "out.npy", "--uncertainty", "u.npy")
    assert (predicted.code, predicted.err) == (0, "")
    assert predicted.out.count(told) == 1
    assert np.isfinite(np.load("u.npy")).all()
    np.save(scene.image, np.nan_to_num(image, posinf=0, neginf=0))
    assert "NaN" not in run("predict", "new.safetensors", "image.npy", "--out", "out.npy").out


def test_volume_smaller_than_a_patch(run: Any, scene: Any, quick: Any) -> None:
    rng = np.random.default_rng(0)
    np.save("small.npy", rng.normal(size=(3, 5, 7)))
    np.save("small_labels.npy", rng.integers(1, 3, (3, 5, 7)))
    patch = ("--set", "train.patch_size=[16, 64, 64]")
    assert run("train", "small.npy", "small_labels.npy", "--out", "new.safetensors", *quick, *patch).code == 0
    assert run("predict", "new.safetensors", "small.npy", "--out", "out.npy").code == 0
    assert np.load("out.npy").shape == (3, 5, 7)


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_are_three_channels(run: Any, scene: Any, quick: Any, colours: int) -> None:
    grey = np.load(scene.image).clip(0, 255).astype(np.uint8)
    stack = np.stack([grey, grey // 2, 255 - grey, np.full_like(grey, 255)][:colours], axis=-1)
    tifffile.imwrite("rgb.tif", stack, photometric="rgb")
    assert run("train", "rgb.tif", "labels.npy", "--out", "new.safetensors", *quick).code == 0
    assert load_model("new.safetensors").in_channels == 3
    assert run("predict", "new.safetensors", "rgb.tif", "--out", "out.tif").code == 0
    assert tifffile.imread("out.tif").shape == (12, 32, 32)


# --- predict ----------------------------------------------------------------------------------------------


def test_all_results_of_one_image(run: Any, model: Path, scene: Any) -> None:
    outputs = ("--out", "l.npy", "--probabilities", "p.npy", "--uncertainty", "u.npy")
    options = ("--tile", "8,16,16", "--overlap", "0.25", "--precision", "float32", "--device", "cpu")
    outcome = run("predict", model, "image.npy", *outputs, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"labels: {scene.folder / 'l.npy'}" in outcome.out.splitlines()
    probabilities = np.load("p.npy")
    assert probabilities.shape == (2, 12, 32, 32)
    assert np.array_equal(np.load("l.npy"), 1 + probabilities.argmax(0))
    assert np.load("u.npy").shape == (12, 32, 32)


def test_background_as_zero_and_flips(run: Any, model: Path, scene: Any) -> None:
    assert run("predict", model, "image.npy", "--out", "o.npy", "--background-as-zero", "--flips").code == 0
    assert set(np.unique(np.load("o.npy"))) <= {0, 2}


def test_memory_is_heeded(run: Any, model: Path, scene: Any) -> None:
    outcome = run("predict", model, "image.npy", "--out", "o.npy", "--memory", "1MB")
    tiles = [line for line in outcome.out.splitlines() if line.startswith("predicted ")][-1].split()[3]
    assert int(tiles) > 1


def test_one_image_into_a_folder_that_exists(run: Any, model: Path, scene: Any) -> None:
    (scene.folder / "there").mkdir()
    assert run("predict", model, "image.npy", "--out", "there").code == 0
    assert [path.name for path in (scene.folder / "there").iterdir()] == ["image_labels.npy"]


def test_a_batch_makes_its_folder_and_keeps_formats(run: Any, model: Path, scene: Any) -> None:
    image = np.load(scene.image)
    affine = np.diag([0.5, 0.5, 2, 1])
    nib.Nifti1Image(image.T, affine).to_filename("head.nii.gz")
    tifffile.imwrite("cell.1.ome.tif", image, metadata={"axes": "ZYX"})
    images = ("image.npy", "head.nii.gz", "cell.1.ome.tif")
    outcome = run("predict", model, *images, "--out", "many", "--uncertainty", "u")
    assert (outcome.code, outcome.err) == (0, "")
    assert "image 2 of 3: head.nii.gz" in outcome.out
    names = {path.name for path in (scene.folder / "many").iterdir()}
    assert names == {"image_labels.npy", "head_labels.nii.gz", "cell.1_labels.ome.tif"}
    assert {path.name for path in (scene.folder / "u").iterdir()} == {
        "image_uncertainty.npy",
        "head_uncertainty.nii.gz",
        "cell.1_uncertainty.ome.tif",
    }
    written = nib.load("many/head_labels.nii.gz")
    assert np.array_equal(written.affine, affine)
    assert np.array_equal(np.asarray(written.dataobj).T, np.load("many/image_labels.npy"))


def test_a_failing_batch_leaves_no_empty_folder(run: Any, model: Path, scene: Any) -> None:
    np.save("two.npy", np.zeros((2, 12, 32, 32)))
    np.save("three.npy", np.zeros((3, 12, 32, 32)))
    outcome = run("predict", model, "two.npy", "three.npy", "--out", "many")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert not (scene.folder / "many").exists()


# --- evaluate ---------------------------------------------------------------------------------------------


def test_evaluation_as_table_and_json(run: Any, scene: Any) -> None:
    """On a 2 x 2 x 2 cube of 0.5 um voxels, of which one of four structure voxels is missed."""
    truth = np.array([[[1, 1], [1, 1]], [[2, 2], [2, 2]]], np.uint8)
    prediction = truth.copy()
    prediction[1, 1, 1] = 1
    nib.Nifti1Image(truth.T, np.eye(4)).to_filename("t.nii")
    image = nib.Nifti1Image(prediction.T, np.diag([0.5, 0.5, 0.5, 1]))
    image.header.set_xyzt_units("micron")
    image.to_filename("p.nii")
    outcome = run("evaluate", "p.nii", "t.nii", "--json", "e.json")
    assert (outcome.code, outcome.err) == (0, "")
    row = next(line.split() for line in outcome.out.splitlines() if line.split()[:1] == ["2"])
    assert row[1:7] == ["0.750", "0.857", "1.000", "0.750", "0.5", "0.375"]
    assert "(um^3)" in outcome.out
    assert "mean IoU of structures: 0.750 over 8 scored voxels (class 1 is the background)" in outcome.out
    figures = json.loads(Path("e.json").read_text())
    assert figures["mean_foreground_iou"] == 0.75
    assert figures["classes"][1]["volume_truth"] == 0.5


def test_evaluation_of_probabilities(run: Any, scene: Any) -> None:
    truth = np.load(scene.truth)
    p = np.where(truth == 2, 0.68, 0.1).astype(np.float32)
    np.save("p.npy", np.stack([1 - p, p]))
    outcome = run("evaluate", "truth.npy", "truth.npy", "--probabilities", "p.npy", "--json", "e.json")
    assert (outcome.code, outcome.err) == (0, "")
    row = next(line.split() for line in outcome.out.splitlines() if line.split()[:1] == ["2"])
    assert row[1:4] == ["1.000", "0.400", "1.000"]
    assert "mean IoU of structures over the thresholds .5 to .95: 0.400" in outcome.out
    assert json.loads(Path("e.json").read_text())["mean_foreground_threshold_iou"] == 0.4
    swapped = ("--probabilities", "p.npy", "--probability-ids", "2,1")
    assert "thresholds .5 to .95: 0.000" in run("evaluate", "truth.npy", "truth.npy", *swapped).out
    assert "1,2,5" in run("evaluate", "truth.npy", "truth.npy", *swapped[:3], "two").err


def test_evaluation_leaves_out_what_was_painted(run: Any, scene: Any) -> None:
    outcome = run("evaluate", "truth.npy", "truth.npy", "--exclude", "labels.npy")
    unpainted = int((np.load(scene.labels) == 0).sum())
    assert f"mean IoU of structures: 1.000 over {unpainted} scored voxels" in outcome.out


def test_evaluation_of_a_truth_without_gaps(run: Any, scene: Any) -> None:
    np.save("zero_based.npy", np.load(scene.truth) - 1)
    outcome = run("evaluate", "truth.npy", "zero_based.npy", "--zero-is-background")
    assert "mean IoU of structures: 1.000 over 12288 scored voxels" in outcome.out


# --- info -------------------------------------------------------------------------------------------------


def test_info_on_the_network_of_the_paper(run: Any) -> None:
    as_there = ("--set", "network.in_channels=3", "--set", "network.classes=3")
    outcome = run("info", "cicek2016", *as_there, "--shape", "116,132,132")
    assert (outcome.code, outcome.err) == (0, "")
    facts = dict(line.split(":", 1) for line in outcome.out.splitlines() if ":" in line)
    assert facts["parameters"].strip() == "19,069,955"
    assert facts["output"].strip() == "28 x 44 x 44 for an input of 116 x 132 x 132"
    assert facts["total stride"].strip() == "8 x 8 x 8"


def test_recipe_of_a_preset_trains_on_data_with_other_classes(run: Any, scene: Any, quick: Any) -> None:
    np.save(scene.labels, np.load(scene.labels) * (1 + np.arange(32, dtype=np.uint8) // 16))
    assert run("info", "fast", "--recipe", "fast.yaml").code == 0
    recipe = yaml.safe_load(Path("fast.yaml").read_text())
    assert set(recipe) == {"network", "train"}
    assert not {"classes", "in_channels"} & set(recipe["network"])
    outcome = run(*TRAIN, "--config", "fast.yaml", *quick)
    assert outcome.code == 0, outcome.err
    assert load_model("new.safetensors").recipe.network.classes == 3


def test_info_on_a_model(run: Any, model: Path) -> None:
    outcome = run("info", model)
    assert (outcome.code, outcome.err) == (0, "")
    facts = dict(line.split(":", 1) for line in outcome.out.splitlines() if ":" in line)
    assert facts["class 1"].strip().startswith("background")
    assert facts["training"].strip().startswith("2 steps in ")
    assert facts["can be resumed"].strip() == "no"
    assert f"torch {torch.__version__}" in facts["written with"]
    assert "encoder.blocks.0" in outcome.out


def test_receptive_field_in_the_unit_of_the_voxels(run: Any, scene: Any, quick: Any) -> None:
    assert run(*TRAIN, *quick, "--set", "network.features=none", "--voxel-size", "2,1,1um").code == 0
    outcome = run("info", "new.safetensors")
    facts = dict(line.split(":", 1) for line in outcome.out.splitlines() if ":" in line)
    voxels, lengths = facts["receptive field"].split(" voxels = ")
    z, y, x = (int(size) for size in voxels.split(" x "))
    assert lengths == f"{2 * z} x {y} x {x} um"
