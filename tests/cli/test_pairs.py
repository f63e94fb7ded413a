"""Several volumes: on the command line, in a list, and in the table before the training."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.cli.pairs import Pair, read_pair_list
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.model_file import load_model


@pytest.fixture
def second(scene: Any) -> tuple[Path, Path]:
    """One more painted volume, smaller, with a third class."""
    folder = scene.folder / "more"
    folder.mkdir()
    image, labels = np.load(scene.image)[:, :24], np.load(scene.labels)[:, :24]
    labels[1, :4] = 3
    np.save(folder / "b.npy", image)
    np.save(folder / "b_labels.npy", labels)
    return folder / "b.npy", folder / "b_labels.npy"


# --- lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lists_count_paths_from_their_folder(tmp_path: Path, between: str, line_end: str) -> None:
    lines = [("Labels", " image ", "validation"), ("a_labels.tif", "a.tif", ""), (), ("d.tif", "/x/c.tif", "Yes")]
    text = "\ufeff" + line_end.join(between.join(cells) for cells in lines)
    (tmp_path / "list.csv").write_bytes(text.encode())
    assert read_pair_list(tmp_path / "list.csv") == [
        Pair(tmp_path / "a.tif", tmp_path / "a_labels.tif", False),
        Pair(Path("/x/c.tif"), tmp_path / "d.tif", True),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns image,labels[,validation]; found: nothing"),
        ("image;mask\na;b\n", "columns image,labels[,validation]; found: image, mask"),
        ("image\na\n", "columns image,labels[,validation]; found: image"),
        ("image,labels\n", "lists no pair"),
        ("image,labels\na,b\nc\n", "pair 2 of list.csv has no labels"),
        ("image,labels,validation\na,b,maybe\n", "pair 1 of list.csv has validation = 'maybe'"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_pair_list(Path("list.csv"))
    assert said in str(raised.value)


# --- training ---------------------------------------------------------------------------------------------


def test_a_list_is_trained_and_measured_on(run: Any, scene: Any, second: Any, quick: Any) -> None:
    (scene.folder / "more" / "list.csv").write_text(
        "image,labels,validation\n../image.npy,../labels.npy,\nb.npy,b_labels.npy,1\n"
    )
    outcome = run("train", "--pairs", "more/list.csv", "--out", "new.safetensors", "--log", "log.csv", *quick)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    first = next(line for line in lines if line[:2] == ["1", "image.npy"])
    other = next(line for line in lines if line[:2] == ["2", "b.npy"])
    assert first[2:8] == ["training", "12", "x", "32", "x", "32"]
    assert other[2] == "validation"
    assert "25 %" in outcome.out
    assert "pair 2 (b.npy) has the ids 3, which no volume to train on has: they are not scored" in outcome.out
    assert "1 of 2 volumes is held out: the score shown is measured on 3 slices there" in outcome.out
    assert "IoU on held-out slices: class 1 0." in outcome.out
    record = load_model("new.safetensors").recipe.record
    assert record is not None
    assert record.label_ids == (1, 2)
    assert record.held_out == ((1, 0, 1), (1, 0, 6), (1, 0, 11))
    with open("log.csv", newline="") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert {"loss", "learning_rate", "iou/1", "iou/2", "iou/mean", "loss/dice", "loss/cross_entropy"} <= names


def test_options_name_further_volumes(run: Any, scene: Any, second: Any, quick: Any) -> None:
    image, labels = second
    train = ("train", scene.image, scene.labels, "--out", "new.safetensors", *quick)
    assert run(*train, "--also", image, labels).code == 0
    record = load_model("new.safetensors").recipe.record
    assert record is not None
    assert record.label_ids == (1, 2, 3)
    assert {volume for volume, _, _ in record.held_out} <= {0, 1}
    assert run(*train, "--validate-on", image, labels).code == 0
    record = load_model("new.safetensors").recipe.record
    assert record is not None
    assert {volume for volume, _, _ in record.held_out} == {1}


def test_a_run_on_several_volumes_is_repeated_and_resumed(run: Any, scene: Any, second: Any, quick: Any) -> None:
    volumes = (scene.image, scene.labels, "--validate-on", *second)
    assert run("train", *volumes, "--out", "new.safetensors", "--keep-state", "--log", "log.csv", *quick).code == 0
    assert run("info", "new.safetensors", "--recipe", "recipe.yaml").code == 0
    assert run("train", *volumes, "--out", "again.safetensors", "--config", "recipe.yaml").code == 0
    first, again = (load_model(name).network.state_dict() for name in ("new.safetensors", "again.safetensors"))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    more = ("--resume", "new.safetensors", "--steps", "1", "--log", "log.csv")
    outcome = run("train", *volumes, "--out", "more.safetensors", *more)
    assert outcome.code == 0
    with open("log.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert steps == [1, 2, 3]


def test_patience_ends_a_training(run: Any, scene: Any, second: Any) -> None:
    network = ("--set", "network.filters=2", "--set", "network.levels=1", "--set", "train.patch_size=[4,8,8]")
    quick = ("--steps", "500", "--patience", "1", "--device", "cpu", "--set", "train.precision=float32")
    still = ("--set", "train.learning_rate=1e-9", "--set", "network.features=none")
    outcome = run(
        "train", scene.image, scene.labels, "--validate-on", *second, "--out", "m.safetensors", *network, *quick, *still
    )
    assert outcome.code == 0, outcome.err
    assert "no improvement in 1 validations" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "m.safetensors"), "there is nothing to train on; give IMAGE LABELS, or --pairs"),
        (("image.npy", "--out", "m.safetensors"), "image.npy has no labels"),
        (("image.npy", "labels.npy", "--validate-on", "more/b.npy"), "--validate-on more/b.npy needs two values"),
        (
            ("image.npy", "labels.npy", "--validate-on", "more/b.npy", "more/b_labels.npy", "--validation", "0.3"),
            "--validation 0.3 holds slices out, but volumes to validate on are given, too",
        ),
        (
            ("image.npy", "labels.npy", "--validate-on", "image.npy", "labels.npy"),
            "image.npy is both trained on and validated on",
        ),
        (
            ("image.npy", "labels.npy", "--also", "more/b.npy", "labels.npy", "--also", "image.npy", "none.npy"),
            "pair 2 of 3 (more/b.npy, labels.npy): labels.npy has shape (12, 32, 32) but b.npy has (12, 24, 32) "
            "(Z Y X): labels need the shape of their image; paint on this image, or resample the labels to it (nor "
            "can pair 3 be used)",
        ),
        (("image.npy", "labels.npy", "--log", "labels.npy"), "labels.npy would replace an input"),
        (("image.npy", "labels.npy", "--log", "no/log.csv"), "the folder no does not exist"),
    ],
)
def test_refusals(run: Any, scene: Any, second: Any, arguments: tuple[str, ...], said: str) -> None:
    given = arguments if "--out" in arguments else (*arguments, "--out", "m.safetensors")
    outcome = run("train", *given)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert not Path("m.safetensors").exists()
