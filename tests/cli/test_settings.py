"""Settings from files, ``--set`` and options; values as typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.cli.options import joined_pairs, parse_memory, parse_triple
from napari_unet3d.cli.settings import gather, parse_assignment, read_config
from napari_unet3d.engine.config import AugmentConfig, Recipe, RunRecord, TrainConfig, UNetConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.recipe_text import dump_yaml

RECORD = RunRecord(
    steps=3,
    best_step=2,
    seconds=1 / 3,
    device="cpu",
    precision="bfloat16",
    threads=2,
    batch_size=1,
    patch_size=(8, 96, 96),
    schedule=((0, 0.0, 1 / 3), (1, 0.1, 1e-17)),
    held_out=((0, 1, 7),),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("010", 10.0),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("null", None),
        ("", None),
        ("auto", "auto"),
        ("cuda:1", "cuda:1"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("[[1, 3, 3], 3]", [[1, 3, 3], 3]),
        ("a=b", "a=b"),
    ],
)
def test_values_mean_what_they_look_like(text: str, value: Any) -> None:
    found = parse_assignment(f"train.augment.x={text}")["train"]["augment"]["x"]
    assert found == value
    assert type(found) is type(value)


def test_a_recipe_written_is_the_recipe_read(tmp_path: Path) -> None:
    recipe = Recipe(
        network=UNetConfig(levels=2, kernel=((1, 3, 3), 3), norm_epsilon=1e-5),
        train=TrainConfig(seconds=0.1 + 0.2, class_weights="off", augment=AugmentConfig(rotation=1e-9)),
        record=RECORD,
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_yaml(recipe.model_dump(mode="json")), encoding="utf-8")
    assert Recipe.model_validate(read_config(path)) == recipe


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_yaml(number: float) -> None:
    text = dump_yaml({"x": [number]}).removeprefix("x: ")
    assert parse_assignment(f"train.x={text}")["train"]["x"] == [number]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    recipe = Recipe(train=TrainConfig(seconds=60, momentum=0.8), record=RECORD)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_yaml(recipe.model_dump(mode="json")), encoding="utf-8")
    return path


def test_a_record_is_repeated_unless_a_budget_is_given(recorded: Path) -> None:
    assert gather(None, recorded, [], {"device": "cpu"}).record == RECORD
    assert gather(None, recorded, ["train.steps=5"], {}).record is None
    assert gather(None, recorded, [], {"seconds": 5.0}).record is None


def test_one_kind_of_budget_displaces_the_other(recorded: Path) -> None:
    in_steps = gather(None, recorded, ["train.seconds=30"], {"steps": 5}).train_config()
    assert (in_steps.seconds, in_steps.steps, in_steps.momentum) == (None, 5, 0.8)
    kept = gather(None, recorded, ["train.loss=dice"], {"steps": None}).train_config()
    assert (kept.seconds, kept.steps) == (60, None)


def test_given_fields_go_over_those_of_a_resumed_run() -> None:
    base = TrainConfig(steps=7, loss="dice", augment=AugmentConfig(rotation=5, noise=0))
    settings = gather(None, None, ["train.augment.rotation=9"], {"steps": 3})
    config = settings.without_budget().train_config(base)
    assert (config.steps, config.loss, config.augment.rotation, config.augment.noise) == (7, "dice", 9, 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("500 mb", 5 * 10**8), ("2GiB", 2**31), ("1.5k", 1500), ("64", 64), (".5T", 5 * 10**11)],
)
def test_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


def test_triple() -> None:
    assert parse_triple(" 8, 16,32", "--tile") == (8, 16, 32)
    with pytest.raises(ConfigError, match="--tile '8,16' needs three whole numbers"):
        parse_triple("8,16", "--tile")


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ([], []),
        (["--also", "a", "b"], ["--also", "a", "--also", "b"]),
        (["x", "--also", "a", "b", "y"], ["x", "--also", "a", "--also", "b", "y"]),
        (["--also", "a", "--out", "m"], ["--also", "a", "--out", "m"]),
        (["--also", "a"], ["--also", "a"]),
        (["--", "--also", "a", "b"], ["--", "--also", "a", "b"]),
    ],
)
def test_joined_pairs(given: list[str], joined: list[str]) -> None:
    assert joined_pairs(given, ("--also", "--on")) == joined
