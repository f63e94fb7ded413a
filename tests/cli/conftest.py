"""A tiny painted volume, a model trained on it, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_unet3d.cli import main

SMALL_NETWORK = ("--set", "network.filters=4", "--set", "network.levels=2")
QUICK = (*SMALL_NETWORK, "--steps", "2", "--device", "cpu", "--set", "train.precision=float32")


class Outcome(NamedTuple):
    """What a run of the program left."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


class Scene(NamedTuple):
    """A folder with image, labels (a few slices) and truth, all 12 x 32 x 32."""

    folder: Path
    image: Path
    labels: Path
    truth: Path


def make_scene(folder: Path) -> Scene:
    z, y, x = np.indices((12, 32, 32))
    truth = 1 + ((y - 16) ** 2 + (x - 12) ** 2 < 60).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    save(folder / "image.npy", (50 * truth + noise).astype(np.float32))
    save(folder / "labels.npy", np.where(z % 5 == 1, truth, 0).astype(np.uint8))
    save(folder / "truth.npy", truth)
    return Scene(folder, folder / "image.npy", folder / "labels.npy", folder / "truth.npy")


def save(path: Path, array: NDArray[np.generic]) -> Path:
    np.save(path, array)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program, in the folder of the scene."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 1-channel volumes with the classes 1 and 2; not to be changed."""
    scene = make_scene(tmp_path_factory.mktemp("trained"))
    path = scene.folder / "model.safetensors"
    assert main(["train", str(scene.image), str(scene.labels), "--out", str(path), *QUICK]) == 0
    return path


@pytest.fixture
def quick() -> tuple[str, ...]:
    """Options for a training of two steps."""
    return QUICK
