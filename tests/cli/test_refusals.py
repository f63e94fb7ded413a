"""Bad input: exit code 1, exactly one line on stderr, nothing written."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile

nib: Any = nibabel  # its type hints are too wide, or missing

SHAPE = (12, 32, 32)
TRAIN = ("train", "image.npy", "labels.npy", "--out", "new.safetensors")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    } | {f"{path.relative_to(folder)}/": (0, 0) for path in folder.rglob("*") if path.is_dir()}


@pytest.fixture
def refused(scene: Any, run: Any) -> Callable[..., str]:
    """Runs the program, checks that it refuses, gives its message."""

    def call(*arguments: object) -> str:
        before = snapshot(scene.folder)
        outcome = run(*arguments)
        assert outcome.code == 1
        lines = outcome.err.splitlines()
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("error: ")
        assert snapshot(scene.folder) == before
        return str(lines[0])

    return call


# --- data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["image.npy", "labels.npy"])
def test_missing_file(refused: Any, scene: Any, missing: str) -> None:
    (scene.folder / missing).unlink()
    assert f"{missing} does not exist" in refused(*TRAIN)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(SHAPE, np.uint8), "no voxel is annotated"),
        (np.full(SHAPE, 3, np.uint8), "only class 3 is annotated"),
        (np.ones((12, 32, 31), np.uint8), "labels need the shape of their image"),
        (np.full(SHAPE, -1, np.int16), "negative value -1"),
        (np.full(SHAPE, 1.5), "fractional value 1.5"),
        (np.full(SHAPE, np.nan), "NaN"),
        (np.full(SHAPE, 70000), "70000"),
    ],
)
def test_labels_that_cannot_be_used(refused: Any, scene: Any, labels: np.ndarray[Any, Any], message: str) -> None:
    np.save(scene.labels, labels)
    assert message in refused(*TRAIN)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones(SHAPE, np.complex64), "complex"),
        (np.full(SHAPE, 7, np.uint16), "constant (7 everywhere)"),
        (np.full(SHAPE, np.nan, np.float32), "no finite value"),
    ],
)
def test_image_that_cannot_be_used(refused: Any, scene: Any, image: np.ndarray[Any, Any], message: str) -> None:
    np.save(scene.image, image)
    assert message in refused(*TRAIN)


def test_plane_where_a_volume_is_needed(refused: Any, scene: Any, model: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("plane.npy", rng.normal(size=(32, 32)))
    np.save("plane_labels.npy", rng.integers(1, 3, (32, 32)))
    message = refused("train", "plane.npy", "plane_labels.npy", "--out", "new.safetensors")
    assert "network.dimensions=2" in message
    assert "plane.npy is 2D" in refused("predict", model, "plane.npy", "--out", "out.npy")


def test_volume_where_a_plane_is_needed(refused: Any, run: Any, scene: Any, quick: Any) -> None:
    rng = np.random.default_rng(0)
    np.save("plane.npy", rng.normal(size=(32, 32)))
    np.save("plane_labels.npy", rng.integers(1, 3, (32, 32)))
    flat = ("--set", "network.dimensions=2")
    trained = run("train", "plane.npy", "plane_labels.npy", "--out", "flat.safetensors", *quick, *flat)
    assert trained.code == 0, trained.err
    assert "image.npy is 3D" in refused("predict", "flat.safetensors", "image.npy", "--out", "out.npy")


def write_image(path: Path) -> bytes:
    array = np.arange(12 * 32 * 32, dtype=np.uint16).reshape(SHAPE)
    if ".nii" in path.name:
        nib.Nifti1Image(array, np.eye(4)).to_filename(path)
    elif ".tif" in path.name:
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        np.save(path, array)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.npy", "a.nii", "a.nii.gz", "a.tif", "a.ome.tif"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign"])
def test_damaged_image(refused: Any, scene: Any, name: str, damage: str) -> None:
    whole = write_image(scene.folder / name)
    content = {"empty": b"", "truncated": whole[: len(whole) // 2], "foreign": b"%PDF-1.7 no image" * 99}[damage]
    (scene.folder / name).write_bytes(content)
    assert name in refused("train", name, "labels.npy", "--out", "new.safetensors")


def test_unknown_format(refused: Any, scene: Any, model: Path) -> None:
    (scene.folder / "image.jpg").write_bytes(b"abc")
    assert "known suffixes" in refused("train", "image.jpg", "labels.npy", "--out", "new.safetensors")
    assert "known suffixes" in refused("predict", model, "image.npy", "--out", "labels.jpg")


def test_other_channels_than_the_model_needs(refused: Any, scene: Any, model: Path) -> None:
    np.save("two.npy", np.zeros((2, *SHAPE), np.uint8))
    assert "2 channels" in refused("predict", model, "two.npy", "--out", "out.npy")


# --- models -----------------------------------------------------------------------------------------------


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, ("sprung",))


def model_content(kind: str, model: Path) -> bytes:
    whole = model.read_bytes()
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "foreign": gzip.compress(b"weights" * 100),
        "pickle": pickle.dumps(Trap()),
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "truncated", "foreign", "pickle"])
@pytest.mark.parametrize("use", ["predict", "info", "--resume", "--weights-from"])
def test_model_that_is_none(refused: Any, scene: Any, model: Path, kind: str, use: str) -> None:
    (scene.folder / "bad.safetensors").write_bytes(model_content(kind, model))
    arguments = {
        "predict": ("predict", "bad.safetensors", "image.npy", "--out", "out.npy"),
        "info": ("info", "bad.safetensors", "--recipe", "recipe.yaml"),
    }
    assert "bad.safetensors" in refused(*arguments.get(use, (*TRAIN, use, "bad.safetensors")))


def test_missing_model(refused: Any) -> None:
    assert "no model file gone.safetensors" in refused("info", "gone.safetensors")
    assert "no model file gone" in refused("predict", "gone.safetensors", "image.npy", "--out", "out.npy")


def test_settings_of_a_model_cannot_be_changed(refused: Any, model: Path) -> None:
    assert "--set changes presets only" in refused("info", model, "--set", "network.levels=3")


def test_finished_model_cannot_be_resumed(refused: Any, model: Path) -> None:
    assert "--weights-from" in refused(*TRAIN, "--resume", model)


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "fats"], "did you mean 'fast'?"),
        (["--set", "network.levles=3"], "known here: kind, dimensions, in_channels"),
        (["--set", "network.name=fast"], "unknown setting 'network.name'"),
        (["--set", "train.augment.rotate=3"], "known here: probability, rotation"),
        (["--set", "train.augment=3"], "train.augment"),
        (["--set", "nets.levels=3"], "known here: network, train"),
        (["--set", "network=3"], "needs fields"),
        (["--set", "network.levels=many"], "network.levels = 'many'"),
        (["--set", "network.levels=99"], "less than or equal to 8"),
        (["--set", "train.patch_size=[1,2]"], "train.patch_size = [1, 2]: give 3 values (Z Y X), not 2, or 'auto'"),
        (["--set", "train.patch_size=[1,2,3,4]"], "give 3 values (Z Y X), not 4"),
        (["--set", "train.patch_size=5"], "give a list, such as [1, 2, 3], or 'auto'"),
        (["--set", "network.feature_voxel=[1,2]"], "give 3 values (Z Y X), not 2"),
        (["--set", "network.kernel=4"], "odd sizes"),
        (["--set", "train.learning_rate=-1"], "train.learning_rate = -1"),
        (["--set", "train.loss=[1"], "no valid YAML"),
        (["--set", "network.levels"], "not of the form section.field=value"),
        (["--set", "network..levels=3"], "not of the form section.field=value"),
        (["--set", "train.precision=fp8"], "'float32'"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "xpu"], "give auto, cpu, cuda"),
        (["--voxel-size", "1,2"], "Z,Y,X[unit]"),
        (["--voxel-size", "1,2,0um"], "positive"),
        (["--voxel-size", "1,2,3furlongs"], "unknown length unit"),
        (["--axes", "QYX"], "letters of T, C, Z, Y, X"),
        (["--axes", "YX"], "--axes YX names 2"),
        (["--validation", "1"], "train.validation = 1.0"),
        (["--preset", ""], "unknown network preset ''"),
        (["--seconds", "nan"], "finite"),
        (["--set", "train.learning_rate=inf"], "finite"),
        (["--set", "train.threads=100000"], "train.threads = 100000"),
        (["--random-state", "99999999999999999999"], "train.random_state = 99999999999999999999"),
        (["--random-state", "-1"], "train.random_state = -1"),
        (["--steps", "0"], "train.steps = 0"),
        (["--seconds", "-5"], "train.seconds = -5.0"),
        (["--seconds", "5", "--steps", "5"], "give one of them"),
        (["--set", "train.seconds=5", "--set", "train.steps=5", "--set", "train={seconds: 5, steps: 5}"], "give one"),
        (["--resume", "a.safetensors", "--weights-from", "b.safetensors"], "give one of them"),
    ],
)
def test_settings(refused: Any, arguments: list[str], message: str) -> None:
    assert message in refused(*TRAIN, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no settings"),
        ("just words", "holds no settings"),
        ("- 1\n- 2\n", "holds no settings"),
        ("network: [unclosed\n", "line 2"),
        ("netwrok: {levels: 3}\n", "known here: network, train, distill, record"),
        ("network: {levles: 3}\n", "unknown setting 'network.levles'"),
        ("network: {1: 3}\n", "names of settings are words"),
        ("network: 3\n", "needs fields"),
        ("network: {levels: three}\n", "network.levels = 'three'"),
        ("train: {augment: {rotate: 3}}\n", "unknown setting 'train.augment.rotate'"),
        ("train: {seconds: soon}\n", "train.seconds = 'soon'"),
        ("record: {steps: 3}\n", "record."),
        ("train: {seconds: 3, steps: 3}\n", "give one of them"),
        ("a: " + "[" * 1500, "no valid YAML"),
    ],
)
def test_config_file(refused: Any, scene: Any, text: str, message: str) -> None:
    (scene.folder / "my.yaml").write_text(text)
    assert message in refused(*TRAIN, "--config", "my.yaml")


def test_config_file_that_cannot_be_read(refused: Any, scene: Any, model: Path) -> None:
    assert "gone.yaml cannot be read" in refused(*TRAIN, "--config", "gone.yaml")
    assert "no text file" in refused(*TRAIN, "--config", model)
    assert f"{scene.folder} cannot be read" in refused(*TRAIN, "--config", scene.folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "plenty"], "4GB, 500MB or 2GiB"),
        (["--memory", "0GB"], "no amount of memory"),
        (["--memory", "1"], "memory"),
        (["--tile", "64"], "Z,Y,X"),
        (["--tile", "0,64,64"], "at least 1"),
        (["--overlap", "1.5"], "--overlap = 1.5"),
        (["--precision", "double"], "--precision = 'double'"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--voxel-size", "thin"], "Z,Y,X[unit]"),
    ],
)
def test_prediction_settings(refused: Any, model: Path, arguments: list[str], message: str) -> None:
    assert message in refused("predict", model, "image.npy", "--out", "out.npy", *arguments)


def test_preset_and_shape_that_info_does_not_know(refused: Any) -> None:
    assert "known presets: fast" in refused("info", "fats")
    assert "known here: kind" in refused("info", "fast", "--set", "network.levles=3")
    assert "nearest legal" in refused("info", "cicek2016", "--shape", "100,100,101")


# --- evaluation -------------------------------------------------------------------------------------------


def test_evaluation_input(refused: Any, scene: Any) -> None:
    assert "nothing.npy does not exist" in refused("evaluate", "nothing.npy", "truth.npy", "--json", "e.json")
    np.save("other.npy", np.ones((3, 3, 3), np.uint8))
    assert "shape" in refused("evaluate", "other.npy", "truth.npy", "--json", "e.json")
    assert "image.npy" in refused("evaluate", "truth.npy", "image.npy", "--json", "e.json")
    np.save("zeros.npy", np.zeros(SHAPE, np.uint8))
    assert "--zero-is-background" in refused("evaluate", "truth.npy", "zeros.npy", "--json", "e.json")
    message = refused("evaluate", "truth.npy", "truth.npy", "--exclude", "truth.npy", "--json", "e.json")
    assert "no voxel can be scored" in message


# --- outputs ----------------------------------------------------------------------------------------------


def verbs(model: Path) -> dict[str, tuple[object, ...]]:
    """Every verb that writes, its output last and left out."""
    return {
        "train": ("train", "image.npy", "labels.npy", "--steps", 10**6, "--out"),
        "predict": ("predict", model, "image.npy", "--out"),
        "probabilities": ("predict", model, "image.npy", "--out", "out.npy", "--probabilities"),
        "uncertainty": ("predict", model, "image.npy", "--out", "out.npy", "--uncertainty"),
        "evaluate": ("evaluate", "truth.npy", "truth.npy", "--json"),
        "info": ("info", "fast", "--recipe"),
    }


NAMES = {"train": "o.safetensors", "evaluate": "o.json", "info": "o.yaml"}
WRITING = ["train", "predict", "probabilities", "uncertainty", "evaluate", "info"]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are checked before the engine is asked for anything."""
    for name in ("training.Trainer", "prediction.Predictor", "evaluation.evaluate_labels"):
        monkeypatch.delattr(f"napari_unet3d.api.{name}")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("verb", WRITING)
def test_missing_output_folder(refused: Any, model: Path, verb: str) -> None:
    message = refused(*verbs(model)[verb], Path("gone") / NAMES.get(verb, "o.npy"))
    assert "does not exist; make it first" in message


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("verb", WRITING)
def test_output_below_a_file(refused: Any, model: Path, verb: str) -> None:
    refused(*verbs(model)[verb], Path("image.npy") / NAMES.get(verb, "o.npy"))


@pytest.mark.usefixtures("no_work")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that nobody can write to")
@pytest.mark.parametrize("verb", WRITING)
def test_unwritable_output(refused: Any, model: Path, verb: str) -> None:
    refused(*verbs(model)[verb], Path("/proc") / NAMES.get(verb, "o.npy"))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("verb", WRITING)
def test_output_is_a_folder(refused: Any, scene: Any, model: Path, verb: str) -> None:
    (scene.folder / NAMES.get(verb, "o.npy")).mkdir()
    assert "folder" in refused(*verbs(model)[verb], NAMES.get(verb, "o.npy"))


def test_output_that_would_replace_an_input(refused: Any, scene: Any, model: Path) -> None:
    assert "replace the input" in refused("predict", model, "image.npy", "--out", "image.npy")
    assert "replace an input" in refused("evaluate", "truth.npy", "truth.npy", "--json", "truth.npy")
    own = scene.folder / "own.safetensors"
    own.write_bytes(model.read_bytes())
    assert "replace an input" in refused("info", own, "--recipe", own)


def test_two_outputs_of_one_name(refused: Any, scene: Any, model: Path) -> None:
    same = ("predict", model, "image.npy", "--out", "o.npy", "--uncertainty", "./o.npy")
    assert "two results" in refused(*same)
    (scene.folder / "copy").mkdir()
    np.save("copy/image.npy", np.zeros(SHAPE))
    assert "two results" in refused("predict", model, "image.npy", "copy/image.npy", "--out", "many")


def test_model_name_without_suffix(refused: Any) -> None:
    assert ".safetensors" in refused("train", "image.npy", "labels.npy", "--out", "model.pt")


@pytest.mark.parametrize("verb", WRITING)
def test_full_disk(
    refused: Any, scene: Any, model: Path, verb: str, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has no room left when data are to be brought there; an older result stays."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    name = NAMES.get(verb, "o.npy")
    (scene.folder / name).write_bytes(b"older")
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    given = ("train", "image.npy", "labels.npy", *quick, "--out") if verb == "train" else verbs(model)[verb]
    message = refused(*given, name)
    assert "No space left" in message or "no space left" in message


# --- usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian"],
        ["--verbose"],
        ["train"],
        ["train", "image.npy"],
        ["train", "image.npy", "labels.npy"],
        ["train", "image.npy", "labels.npy", "more.npy", "--out", "new.safetensors"],
        [*TRAIN, "--speed", "9"],
        [*TRAIN, "--seconds"],
        [*TRAIN, "--seconds", "soon"],
        [*TRAIN, "--steps", "1.5"],
        [*TRAIN, "--also", "image.npy"],
        [*TRAIN, "--also", "image.npy", "--steps", "3"],
        ["predict", "model.safetensors", "--out", "o.npy"],
        ["predict", "model.safetensors", "image.npy"],
        ["evaluate", "truth.npy"],
        ["info"],
        ["info", "fast", "--shape", "big"],
        ["demo", "--seconds", "soon"],
    ],
)
def test_usage_errors(refused: Any, arguments: list[str]) -> None:
    refused(*arguments)
