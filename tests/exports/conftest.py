"""Small models with weights drawn at random, and what they export to."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from napari_unet3d.api import export_model
from napari_unet3d.cli import main
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.config import Recipe, TrainConfig
from napari_unet3d.engine.model_file import save_model
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.normalize import ChannelNormalization, Normalization
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.onnx_export import to_onnx

MakeModel = Callable[..., TrainedModel]


class Outcome(NamedTuple):
    """What a run of the program left."""

    code: int
    out: str
    err: str


def make(preset: str = "fast", spatial_dims: int = 3, **overrides: Any) -> TrainedModel:
    """A model whose classes are about equally frequent on grey values around 100 +- 50."""
    torch.manual_seed(0)
    config = network_config(preset, **overrides)
    network = build_network(config).eval().requires_grad_(False)
    for module in network.modules():  # statistics as after training, so that folding them into weights shows
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    channel = ChannelNormalization(offset=100.0, factor=0.02, low=10.0, high=180.0, fill=95.0)
    return TrainedModel(
        network=network,
        recipe=Recipe(network=config, train=TrainConfig(steps=1)),
        normalization=Normalization(channels=(channel,) * config.in_channels),
        classes=default_classes(range(1, 1 + config.label_count)),
        voxel_size=VoxelSize(2.0, 0.5, 0.5, "um"),
        spatial_dims=spatial_dims,
    )


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    return make


@pytest.fixture(scope="session")
def model() -> TrainedModel:
    """A 3D network; without the scale-space stem, which takes long to trace."""
    return make("fast", filters=4, levels=2, features="none")


@pytest.fixture(scope="session")
def plain_model() -> TrainedModel:
    """A 2D network of one level, with one sigmoid channel: quick to export."""
    return make("unet2d-elu", 2, filters=4, levels=2, dropout=0.0, classes=1)


@pytest.fixture(scope="session")
def sigmoid_model() -> TrainedModel:
    """A 3D network that tells three structures apart, each by itself."""
    return make("fast", filters=2, levels=2, features="none", classes=3, head="sigmoid")


@pytest.fixture(scope="session")
def model_file(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of which the exported files are; not to be changed."""
    return save_model(model, tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="session")
def pt2_file(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model; not to be changed."""
    return export_model(model, tmp_path_factory.mktemp("pt2") / "model.pt2", "pt2")


@pytest.fixture(scope="session")
def onnx_file(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model; not to be changed."""
    return export_model(model, tmp_path_factory.mktemp("onnx") / "model.onnx", "onnx")


@pytest.fixture(scope="session")
def package_file(plain_model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported package; not to be changed."""
    return export_model(plain_model, tmp_path_factory.mktemp("package") / "model.zip", "bioimageio")


@pytest.fixture(scope="session")
def entries(package_file: Path) -> dict[str, bytes]:
    """What is in the package."""
    with zipfile.ZipFile(package_file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="session")
def traced() -> dict[TrainedModel, Any]:
    """Graphs by model: tracing one takes seconds."""
    return {}


@pytest.fixture
def traced_once(traced: dict[TrainedModel, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graph of a model that was traced by another test already."""

    def remembered(model: TrainedModel) -> Any:
        if model not in traced:
            traced[model] = to_onnx(model)
        return copy.deepcopy(traced[model])

    monkeypatch.setattr("napari_unet3d.api.exporting.to_onnx", remembered)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The program, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def grey() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Z Y X grey values over the whole range of the normalisation, with a few that are no numbers."""
    random = np.random.default_rng(1)
    values = random.normal(100, 60, (13, 37, 30)).astype(np.float32)
    values[3, 4, 5:8] = (np.nan, np.inf, -np.inf)
    return values
