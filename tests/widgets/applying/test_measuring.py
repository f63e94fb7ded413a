"""How much of each class there is, in the unit of the layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.progress import Stop
from napari_unet3d.widgets._class_volumes import as_text, number_text, unit_text
from napari_unet3d.widgets._layers.classes import apply_classes
from napari_unet3d.widgets._workbench.bench import Workbench
from napari_unet3d.widgets._workers import Job

from .conftest import TIMEOUT


@pytest.fixture
def layer(bench: Workbench) -> Any:
    data = np.ones((4, 5, 10), np.uint8)
    data[0, 0, :] = 0
    data[1, :2, 0] = 2
    data[3, 4, 9] = 2
    layer = bench.viewer.add_labels(data, name="cells", scale=(2, 0.5, 0.5), units=("um",) * 3)
    apply_classes(layer, default_classes((1, 2)))
    return layer


def wait(qtbot: Any, bench: Workbench) -> None:
    qtbot.waitUntil(lambda: not bench.measuring.job.is_running, timeout=TIMEOUT)


def test_the_table_and_its_file(qtbot: Any, bench: Workbench, layer: Any, tmp_path: Path) -> None:
    bench.measuring.start(layer)
    wait(qtbot, bench)
    rows = bench.measuring.rows
    assert [(row.id, row.name, row.voxels, row.volume, row.unit, row.pieces) for row in rows] == [
        (1, "background", 187, 93.5, "um3", 1),
        (2, "class 2", 3, 1.5, "um3", 2),
    ]
    assert [row.share for row in rows] == [187 / 190, 3 / 190]
    assert bench.measuring.layer_name == "cells"
    lines = as_text(rows).splitlines()
    assert lines[0].split("\t") == ["id", "class", "voxels", "volume (um3)", "share", "connected pieces"]
    assert lines[2].split("\t") == ["2", "class 2", "3", "1.5", "0.0157895", "2"]
    bench.measuring.save(tmp_path / "table")
    wait(qtbot, bench)
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()[2].startswith("2,class 2,3,1.5,")
    assert "table.csv" in bench.measuring.job.progress.text


def test_a_folder_that_is_not_there(qtbot: Any, bench: Workbench, layer: Any, tmp_path: Path) -> None:
    bench.measuring.start(layer)
    wait(qtbot, bench)
    bench.measuring.save(tmp_path / "no" / "table.csv")
    wait(qtbot, bench)
    assert "does not exist" in bench.measuring.job.problem


def test_cancelling_keeps_the_table_before(
    qtbot: Any, bench: Workbench, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.measuring.start(layer)
    wait(qtbot, bench)
    before = bench.measuring.rows
    start = Job.start

    def stopped_at_once(self: Job) -> None:
        self.inbox.put(Stop())
        start(self)

    monkeypatch.setattr(Job, "start", stopped_at_once)
    bench.measuring.start(layer)
    wait(qtbot, bench)
    assert bench.measuring.job.progress.text == "cancelled"
    assert bench.measuring.rows == before


def test_all_time_points_together(qtbot: Any, bench: Workbench) -> None:
    film = bench.viewer.add_labels(np.full((3, 2, 4, 5), 7, np.uint8), axis_labels=("t", "z", "y", "x"))
    bench.measuring.start(film)
    wait(qtbot, bench)
    (row,) = bench.measuring.rows
    assert (row.voxels, row.volume, row.unit, row.pieces) == (120, 120, "pixel3", 3)


def test_numbers_and_units_for_people() -> None:
    assert [number_text(value) for value in (0.0512345, 12.5, 23943.5)] == ["0.05123", "12.5", "23,944"]
    assert [unit_text(unit) for unit in ("um3", "mm2", "pixel3")] == ["µm³", "mm²", "pixel³"]
