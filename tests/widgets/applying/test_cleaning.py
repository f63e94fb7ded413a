"""Labels tidied and numbered into new layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.progress import Stop
from napari_unet3d.widgets._layers.classes import apply_classes
from napari_unet3d.widgets._layers.geometry import geometry_of
from napari_unet3d.widgets._layers.image import ImageChoice
from napari_unet3d.widgets._workbench.bench import Workbench
from napari_unet3d.widgets._workbench.cleaning import Tidying
from napari_unet3d.widgets._workers import Job

from .conftest import TIMEOUT

SCALE = (2.0, 0.5, 0.5)  # a voxel is half a cubic micrometre


def labels() -> Any:
    """Background 1; of class 2 a block of 27 voxels with a hole, and a pair; of class 3 a pair and a single voxel."""
    data = np.ones((6, 10, 12), np.uint8)
    data[1:4, 1:4, 1:4] = 2
    data[2, 2, 2] = 1
    data[1, 7, 1:3] = 2
    data[4, 7, 6:8] = 3
    data[1, 1, 10] = 3
    return data


@pytest.fixture
def layer(bench: Workbench) -> Labels:
    layer = bench.viewer.add_labels(labels(), name="cells", scale=SCALE, units=("um",) * 3, translate=(1, 2, 3))
    apply_classes(layer, default_classes((1, 2, 3)))
    return layer


def done(qtbot: Any, bench: Workbench) -> Any:
    """The newest layer, after the clean-up."""
    assert bench.cleaning.job.is_running
    qtbot.waitUntil(lambda: not bench.cleaning.job.is_running, timeout=TIMEOUT)
    assert bench.cleaning.job.problem == ""
    return bench.viewer.layers[-1]


def test_small_pieces_go_by_their_physical_volume(qtbot: Any, bench: Workbench, layer: Labels) -> None:
    before = layer.data.copy()
    bench.cleaning.tidy(layer, Tidying(minimum_volume=1.0))  # two voxels
    result = done(qtbot, bench)
    wanted = labels()
    wanted[1, 1, 10] = 1
    np.testing.assert_array_equal(result.data, wanted)
    np.testing.assert_array_equal(layer.data, before)
    assert result.name == "cells cleaned"
    np.testing.assert_array_equal(result.scale, SCALE)
    np.testing.assert_array_equal(result.translate, (1, 2, 3))
    assert result.units == layer.units
    assert list(result.features["class"]) == list(layer.features["class"])
    np.testing.assert_array_equal(result.get_color(2), layer.get_color(2))
    assert bench.cleaning.job.progress.text == "made 'cells cleaned'"


def test_holes_of_one_class_and_the_largest_piece(qtbot: Any, bench: Workbench, layer: Labels) -> None:
    bench.cleaning.tidy(layer, Tidying(fill_holes=True, keep_largest=True), classes=(2,))
    wanted = labels()
    wanted[2, 2, 2] = 2
    wanted[1, 7, 1:3] = 1
    np.testing.assert_array_equal(done(qtbot, bench).data, wanted)


def test_large_holes_stay(qtbot: Any, bench: Workbench, layer: Labels) -> None:
    bench.cleaning.tidy(layer, Tidying(fill_holes=True, largest_hole=0.4))
    np.testing.assert_array_equal(done(qtbot, bench).data, labels())


def test_objects_are_numbered_and_know_their_class(qtbot: Any, bench: Workbench, layer: Labels) -> None:
    bench.cleaning.split(layer, 100.0)
    result = done(qtbot, bench)
    assert result.data.max() == 4
    assert [int((result.data == n).sum()) for n in range(1, 5)] == [26, 2, 1, 2]
    assert list(result.features["class"]) == ["", "class 2", "class 2", "class 3", "class 3"]
    np.testing.assert_array_equal(result.scale, SCALE)
    assert "4 objects" in bench.cleaning.job.progress.text


def test_touching_balls_are_cut_apart(qtbot: Any, bench: Workbench) -> None:
    z, y, x = np.ogrid[:11, :11, :20]
    balls = ((z - 5) ** 2 + (y - 5) ** 2 + (x - 5) ** 2 <= 20) | ((z - 5) ** 2 + (y - 5) ** 2 + (x - 13) ** 2 <= 20)
    layer = bench.viewer.add_labels(balls.astype(np.uint8), name="balls")  # of another program: 0 is background
    bench.cleaning.split(layer, 6.0)
    numbers = done(qtbot, bench).data
    assert set(np.unique(numbers)) == {0, 1, 2}
    assert numbers[5, 5, 5] != numbers[5, 5, 13]


def test_each_time_point_on_its_own(qtbot: Any, bench: Workbench) -> None:
    image = Image(np.zeros((12, 2, 6, 10)))
    data = np.stack([labels(), labels()])
    data[1, 1, 7, 1:3] = 1
    # the time axis lies second, X first
    layer = Labels(data.transpose(3, 0, 1, 2), name="film", **geometry_of(ImageChoice((image,), "XTZY")))
    apply_classes(bench.viewer.add_layer(layer), default_classes((1, 2, 3)))
    bench.cleaning.split(layer, 100.0)
    result = done(qtbot, bench).data.transpose(1, 2, 3, 0)
    assert [len(np.unique(frame)) - 1 for frame in result] == [4, 3]
    assert set(np.unique(result[0])) & set(np.unique(result[1])) == {0}  # no number twice
    bench.cleaning.tidy(layer, Tidying(keep_largest=True))
    cleaned = done(qtbot, bench).data.transpose(1, 2, 3, 0)
    wanted = labels()
    wanted[1, 7, 1:3] = wanted[1, 1, 10] = 1
    np.testing.assert_array_equal(cleaned, [wanted, wanted])


@pytest.mark.parametrize("kind", ["tidy", "split"])
def test_cancelling_adds_nothing(
    qtbot: Any, bench: Workbench, layer: Labels, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    start = Job.start

    def stopped_at_once(self: Job) -> None:
        self.inbox.put(Stop())
        start(self)

    monkeypatch.setattr(Job, "start", stopped_at_once)
    if kind == "tidy":
        bench.cleaning.tidy(layer, Tidying(keep_largest=True))
    else:
        bench.cleaning.split(layer, 1.0)
    qtbot.waitUntil(lambda: not bench.cleaning.job.is_running, timeout=TIMEOUT)
    assert bench.cleaning.job.progress.text == "cancelled"
    assert list(bench.viewer.layers) == [layer]


def test_the_layer_may_go_meanwhile(qtbot: Any, bench: Workbench, layer: Labels) -> None:
    bench.cleaning.tidy(layer, Tidying(keep_largest=True))
    assert bench.cleaning.problem(layer) == "a clean-up is running"
    bench.viewer.layers.remove(layer)
    assert done(qtbot, bench).name == "cells cleaned"


def test_what_goes_wrong_is_said(qtbot: Any, bench: Workbench) -> None:
    layer = bench.viewer.add_labels(np.full((3, 4, 5), 70000, np.int32))
    bench.cleaning.tidy(layer, Tidying(keep_largest=True))
    qtbot.waitUntil(lambda: not bench.cleaning.job.is_running, timeout=TIMEOUT)
    assert "70000" in bench.cleaning.job.problem
    assert bench.cleaning.problem(None) == "no labels layer is chosen; apply a model or open labels"
