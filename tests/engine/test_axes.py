

def test_units_are_shown_as_people_write_them() -> None:
    assert VoxelSize(1, 1, 1, "micron").symbol == "µm"
    assert VoxelSize(1, 1, 1, "nm").symbol == "nm"
