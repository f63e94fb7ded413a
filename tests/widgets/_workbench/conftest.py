"""A workbench with a small image, in a window that need not be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.widgets._workbench.bench import Workbench, workbench_of

SMALL = {"levels": 2, "filters": 4}


@pytest.fixture
def truth() -> NDArray[np.bool_]:
    z, y, x = np.ogrid[:16, :32, :40]
    return np.asarray((z - 8) ** 2 * 4 + (y - 16) ** 2 + (x - 20) ** 2 < 10**2)


@pytest.fixture
def image(truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    return (100 + 60 * truth + noise).astype(np.uint8)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=False)


@pytest.fixture
def bench(viewer: Any, image: NDArray[np.uint8]) -> Workbench:
    bench = workbench_of(viewer)
    bench.choose_image([viewer.add_image(image, name="cell")])
    bench.session.network_settings = SMALL
    bench.session.train_config = TrainConfig(steps=3, threads=1, precision="float32")
    return bench


def paint(bench: Any, truth: NDArray[np.bool_], *slices: tuple[int, int]) -> None:
    """Paint whole slices (axis, index), as the truth has them."""
    for axis, index in slices:
        grid = np.nonzero(np.ones_like(truth.take([index], axis=axis)))
        at = tuple(g + (index if i == axis else 0) for i, g in enumerate(grid))
        bench.annotation.data_setitem(at, np.where(truth[at], 2, 1).astype(np.uint8))
    bench.take_strokes()
