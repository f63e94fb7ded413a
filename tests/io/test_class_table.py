"""The table of classes: numbers worked out by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.io import label_blocks
from napari_unet3d.io.class_table import ClassRow, class_table, write_class_table

da: Any = dask.array  # carries no type hints

UM = VoxelSize(2, 0.5, 0.5, "um")


def two_boxes() -> np.ndarray:
    labels = np.ones((4, 10, 10), np.uint8)
    labels[1:3, 2:4, 2:4] = 2  # 8 voxels
    labels[:, 8, 8] = 2  # 4 voxels
    labels[:, :, 0] = 0  # 40 voxels
    return labels


def test_rows_by_hand() -> None:
    rows = class_table(two_boxes(), UM, {1: "background", 2: "nucleus", 5: "cilia"})
    assert rows == [
        ClassRow(1, "background", 348, 174.0, "um3", 348 / 360, 1),
        ClassRow(2, "nucleus", 12, 6.0, "um3", 12 / 360, 2),
        ClassRow(5, "cilia", 0, 0.0, "um3", 0.0, 0),
    ]


@pytest.mark.parametrize(
    ("size", "volume", "unit"),
    [
        (VoxelSize(1, 1, 1, "mm"), 12.0, "mm3"),
        (VoxelSize(1000, 500, 500, "um"), 3.0, "mm3"),
        (VoxelSize(500, 500, 500, "nm"), 1.5, "um3"),
        (VoxelSize(8, 4, 4, "nm"), 1536.0, "nm3"),
        (VoxelSize(2, 1, 1, "angstrom"), 0.024, "nm3"),
        (VoxelSize(1, 1, 1, "cm"), 12000.0, "mm3"),
        (VoxelSize(2, 1, 1), 24.0, "pixel3"),
    ],
)
def test_unit_in_which_the_smallest_class_is_at_least_one(size: VoxelSize, volume: float, unit: str) -> None:
    row = class_table(two_boxes(), size, {})[1]
    assert (row.name, row.unit) == ("class 2", unit)
    assert row.volume == pytest.approx(volume)


def test_planes_have_areas_and_time_points_add_up() -> None:
    plane = np.array([[1, 2, 2], [1, 1, 2]], np.int64)
    (_, row) = class_table(plane, VoxelSize(9, 2, 3, "um"), {2: "cell"}, spatial_dims=2)
    assert (row.voxels, row.volume, row.unit, row.pieces) == (3, 18.0, "um2", 1)
    series = np.stack([two_boxes(), two_boxes()])
    assert [(row.voxels, row.pieces) for row in class_table(series, UM, {})] == [(696, 2), (24, 4)]


def test_lazy_labels_in_small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_blocks, "_SLAB_VOXELS", 150)
    lazy = da.from_array(two_boxes(), chunks=(1, 10, 10))
    assert class_table(lazy, UM, {}) == class_table(two_boxes(), UM, {})


def test_nothing_annotated() -> None:
    rows = class_table(np.zeros((2, 3, 4), np.uint8), UM, {1: "background"})
    assert [(row.voxels, row.share, row.pieces) for row in rows] == [(0, 0.0, 0)]
    assert class_table(np.zeros((2, 3, 4), np.uint8), UM, {}) == []


def test_what_is_no_label_volume() -> None:
    with pytest.raises(DataError, match="needed are integers with 3 axes"):
        class_table(np.zeros((2, 3, 4)), UM, {})
    with pytest.raises(DataError, match="needed are integers with 3 axes"):
        class_table(np.zeros((3, 4), np.uint8), UM, {})


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = class_table(two_boxes(), UM, {1: 'a "b", c', 2: "Zellkern µ"})
    assert write_class_table(rows, path) == path
    with path.open(encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["id", "name", "voxels", "volume (um3)", "share of labelled volume", "connected pieces"]
    assert first == ["1", 'a "b", c', "348", "174", "0.966667", "1"]
    assert second == ["2", "Zellkern µ", "12", "6", "0.0333333", "2"]
    assert [item.name for item in tmp_path.iterdir()] == ["table.csv"]


def test_csv_of_nothing_and_to_nowhere(tmp_path: Path) -> None:
    write_class_table([], tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().count("\n") == 1
    with pytest.raises(FileError, match="does not exist"):
        write_class_table([], tmp_path / "no" / "table.csv")
    with pytest.raises(FileError, match="is a folder"):
        write_class_table([], tmp_path)
