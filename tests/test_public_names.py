"""The names promised to the outside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import napari_unet3d


@pytest.mark.parametrize("name", napari_unet3d.__all__)
def test_public_name_is_importable_and_keeps_its_name(name: str) -> None:
    assert getattr(napari_unet3d, name).__name__ == name


def test_all_is_sorted_and_listed_by_dir() -> None:
    assert list(napari_unet3d.__all__) == sorted(napari_unet3d.__all__)
    assert set(napari_unet3d.__all__) <= set(dir(napari_unet3d))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = napari_unet3d.trian


def test_type_checkers_see_the_names_from_where_they_are_imported() -> None:
    """The block for type checkers and the table used at run time must not drift apart."""
    tree = ast.parse(Path(napari_unet3d.__file__).read_text(encoding="utf-8"))
    for_checkers = {
        alias.name: node.module
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    at_run_time = {name: f"napari_unet3d.{module}" for name, module in napari_unet3d._HOME.items()}
    assert for_checkers == at_run_time
    assert set(at_run_time) == set(napari_unet3d.__all__)
