"""Small models, and a workbench on a viewer without a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_unet3d import api
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import PredictConfig, TrainConfig
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.widgets._session import Session
from napari_unet3d.widgets._workbench.bench import Workbench

SHAPE = (12, 24, 28)
FLAT = (24, 28)
CLASSES = (
    ClassInfo(id=1, name="background", colour="#6c6c6c"),
    ClassInfo(id=2, name="cell", colour="#f58231"),
)
TIMEOUT = 60_000


def pictures(channels: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[np.uint8]:
    """A ball in noise, in each channel: C and `shape`."""
    middle = [n / 2 for n in shape]
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    ball: Any = sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True)) < (min(shape[-2:]) / 4) ** 2
    noise = np.random.default_rng(seed).normal(0, 20, (channels, *shape))
    return np.asarray(np.clip(80 + 90 * ball + noise, 0, 255), np.uint8)


def _train(channels: int, shape: tuple[int, ...]) -> TrainedModel:
    image = pictures(channels, shape)
    labels = np.zeros(shape, np.uint8)
    where: Any = (slice(None), 12) if len(shape) == 3 else (slice(4, 20),)
    labels[where] = 1 + (image[0][where] > 125)
    return api.train(
        image if len(shape) == 3 else image[0],
        labels,
        network="fast",
        network_settings={"levels": 2, "filters": 4, "features": "none", "dimensions": len(shape)},
        config=TrainConfig(steps=6, threads=1, precision="float32", validation=0),
        named_classes=CLASSES,
    )


@pytest.fixture(scope="session")
def model_of() -> Callable[[int, int], TrainedModel]:
    """Model for a number of channels and of dimensions, each trained once for a few steps."""
    made: dict[tuple[int, int], TrainedModel] = {}

    def get(channels: int = 1, dims: int = 3) -> TrainedModel:
        key = (channels, dims)
        if key not in made:
            made[key] = _train(channels, SHAPE if dims == 3 else FLAT)
        return made[key]

    return get


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def bench(qapp: Any, viewer: ViewerModel) -> Workbench:
    bench = Workbench(viewer, Session())
    bench.session.predict_config = PredictConfig(precision="float32", device="cpu")
    return bench
