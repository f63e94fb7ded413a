"""A viewer without a window, and images to look at."""

from __future__ import annotations

import pytest
from napari.components import ViewerModel

from napari_unet3d.engine.classes import ClassInfo, default_classes


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def classes() -> tuple[ClassInfo, ...]:
    return default_classes((1, 2, 3))
