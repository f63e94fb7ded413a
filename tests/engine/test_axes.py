"""Voxel sizes and their units."""

from __future__ import annotations

import pytest

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("text", "zyx", "unit"),
    [("0.5,0.1,0.2um", (0.5, 0.1, 0.2), "um"), (" 2, 1,1 ", (2, 1, 1), "pixel"), ("4e1,5,5 nm", (40, 5, 5), "nm")],
)
def test_a_voxel_size_is_read(text: str, zyx: tuple[float, float, float], unit: str) -> None:
    found = VoxelSize.parse(text)
    assert (found.zyx, found.unit) == (zyx, unit)


@pytest.mark.parametrize("text", ["1,1", "a,b,c", "1,1,1,1", ""])
def test_what_is_no_voxel_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Z,Y,X"):
        VoxelSize.parse(text)


def test_edges_are_positive() -> None:
    with pytest.raises(DataError, match="positive"):
        VoxelSize(1, 0, 1)


def test_units_are_shown_as_people_write_them() -> None:
    assert VoxelSize(1, 1, 1, "micron").symbol == "µm"
    assert VoxelSize(1, 1, 1, "angstrom").symbol == "Å"
    assert VoxelSize(1, 1, 1, "nm").symbol == "nm"
