"""The voxel size of the file behind a layer that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.widgets._workbench.bench import Workbench, workbench_of
from napari_unet3d.widgets.train import TrainDock

TIMEOUT = 60_000


@pytest.fixture
def path(image: NDArray[np.uint8], tmp_path: Path) -> Path:
    edges = {f"PhysicalSize{axis}": edge for axis, edge in zip("ZYX", (0.2, 0.1, 0.1), strict=True)}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    tifffile.imwrite(tmp_path / "cell.ome.tif", image, metadata={"axes": "ZYX", **edges, **units})
    return tmp_path / "cell.ome.tif"


@pytest.fixture
def opened(viewer: Any, path: Path, qtbot: Any) -> Workbench:
    bench = workbench_of(viewer)
    bench.choose_image(viewer.open(path, plugin="napari"))
    qtbot.waitUntil(lambda: bench.session.voxel_size == VoxelSize(0.2, 0.1, 0.1, "um"), timeout=TIMEOUT)
    return bench


def test_training_and_export_get_it_and_the_layer_stays_as_it_is(opened: Workbench) -> None:
    assert opened.image is not None
    assert opened.image.volume().voxel_size == VoxelSize(0.2, 0.1, 0.1, "um")
    np.testing.assert_array_equal(opened.image.layer.scale, (1, 1, 1))


def test_it_is_set_on_the_layers_when_the_user_says_so(qtbot: Any, opened: Workbench) -> None:
    dock = TrainDock(opened.viewer)
    qtbot.addWidget(dock)
    assert not dock.voxel_line.button.isHidden()
    assert dock.voxel_line.text.text() == "voxel 0.2 x 0.1 x 0.1 um, as its file tells"
    opened.new_annotation()
    dock.voxel_line.button.click()
    image = opened.image
    assert image is not None
    for layer in (image.layer, opened.annotation):
        np.testing.assert_allclose(layer.scale, (0.2, 0.1, 0.1))
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
    assert image.has_voxel_size
    assert opened.session.voxel_size == VoxelSize(0.2, 0.1, 0.1, "um")
    assert dock.voxel_line.button.isHidden()
    assert dock.voxel_line.text.text() == "voxel 0.2 x 0.1 x 0.1 um"
    assert opened.annotation is not None


def test_a_scale_set_by_hand_is_followed(bench: Workbench) -> None:
    assert bench.image is not None
    bench.image.layer.scale = (3, 1, 1)
    assert bench.session.voxel_size == VoxelSize(3, 1, 1)


def test_a_layer_with_a_size_of_its_own_keeps_it(viewer: Any, path: Path) -> None:
    bench = workbench_of(viewer)
    (layer,) = viewer.open(path, plugin="napari", scale=(5, 1, 1))
    bench.choose_image([layer])
    assert bench.session.voxel_size == VoxelSize(5, 1, 1)
    assert bench.image is not None
    assert bench.image.told_size is None
