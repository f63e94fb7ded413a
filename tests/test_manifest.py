"""What napari is told of the plugin, and what it makes of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import napari.layers
import nibabel
import numpy as np
import pytest
import yaml
from napari._app_model.constants import MenuId
from napari._app_model.context import LayerListContextKeys, LayerListSelectionContextKeys
from napari.components import ViewerModel
from napari.plugins import _initialize_plugins
from npe2 import PluginManifest

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import FileError
from napari_unet3d.io.voxel_size import voxel_size_of_file

nib: Any = nibabel  # its type hints are too wide

PATH = Path(__file__).parent.parent / "src" / "napari_unet3d" / "napari.yaml"
LABELS = (np.arange(4 * 5 * 6).reshape(4, 5, 6) % 4).astype(np.uint8)


@pytest.fixture
def manifest() -> PluginManifest:
    found: PluginManifest = PluginManifest.from_file(PATH)
    return found


@pytest.fixture
def viewer() -> Any:
    """The model of a viewer, without a window, beside the readers and writers that napari itself has."""
    _initialize_plugins()
    return ViewerModel()


def commands(manifest: PluginManifest) -> dict[str, Any]:
    return {command.id: command for command in manifest.contributions.commands or ()}


def test_every_command_is_declared_and_used_or_in_a_menu(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    used = [
        item.command  # type: ignore[union-attr]  # no sample of ours is an address
        for kind in (contributions.widgets, contributions.readers, contributions.writers, contributions.sample_data)
        for item in kind or ()
    ]
    in_menus = [
        item.command for items in (contributions.menus or {}).values() for item in items if hasattr(item, "command")
    ]
    assert set(used) | set(in_menus) == set(commands(manifest))
    assert len(used) == len(set(used))
    assert {item.command for item in contributions.widgets or ()} <= set(in_menus)


def test_menus_are_ones_that_napari_takes_from_plugins(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    own = {submenu.id for submenu in contributions.submenus or ()}
    known = {str(menu) for menu in MenuId.contributables()} | own
    assert set(contributions.menus or {}) <= known
    opened = {
        item.submenu for items in (contributions.menus or {}).values() for item in items if hasattr(item, "submenu")
    }
    assert opened == own
    assert {"napari/layers/segment", "napari/layers/annotate", "napari/file/io_utilities"} <= set(
        contributions.menus or {}
    )


def test_enablement_uses_keys_that_napari_has(manifest: PluginManifest) -> None:
    known = set(LayerListContextKeys.__members__) | set(LayerListSelectionContextKeys.__members__)
    expressions = [command.enablement for command in commands(manifest).values() if command.enablement]
    assert len(expressions) == 2
    for expression in expressions:
        names = {word for word in str(expression).split() if word.isidentifier()} - {"and", "or", "not"}
        assert names
        assert names <= known


def test_python_names_can_be_called(manifest: PluginManifest) -> None:
    for command in commands(manifest).values():
        module, _, name = str(command.python_name).partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_preferences_have_defaults_that_fit(manifest: PluginManifest) -> None:
    stored = yaml.safe_load(PATH.read_text(encoding="utf-8"))["contributions"]["configurations"]
    assert {key: set(group["properties"]) for key, group in stored.items()} == {
        "compute": {"device", "preview_rate"},
        "autosave": {"folder"},
    }
    for group in stored.values():
        for entry in group["properties"].values():
            assert entry["title"]
            assert entry["description"]
            assert isinstance(entry["default"], {"string": str, "number": float}[entry["type"]])
            assert entry["default"] in entry.get("enum", [entry["default"]])
            assert entry.get("minimum", 0) <= entry["default"] if entry["type"] == "number" else True


def test_a_name_without_suffix_becomes_an_ome_tiff(viewer: Any, tmp_path: Path) -> None:
    layer = viewer.add_labels(LABELS, scale=(3, 2, 1), units=("um",) * 3)
    assert layer.save(str(tmp_path / "cells"), plugin="napari-unet3d") == [str(tmp_path / "cells.ome.tif")]


@pytest.mark.parametrize("name", ["a.ome.tif", "a.b.ome.tiff", "a.nii", "a.nii.gz", "a.ome.zarr", "a.zarr"])
def test_each_suffix_finds_our_writer(viewer: Any, tmp_path: Path, name: str) -> None:
    layer = viewer.add_labels(LABELS, scale=(3, 2, 1), units=("um",) * 3)
    assert layer.save(str(tmp_path / name)) == [str(tmp_path / name)]
    assert voxel_size_of_file(tmp_path / name) == VoxelSize(3, 2, 1, "um")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.ome.zarr", "a.zarr"])
def test_what_was_written_is_read_as_labels(viewer: Any, tmp_path: Path, name: str) -> None:
    table = {"index": [2], "class": ["cell"]}
    layer = viewer.add_labels(LABELS, scale=(3, 2, 1), units=("um",) * 3, features=table)
    layer.save(str(tmp_path / name))
    (again,) = viewer.open(tmp_path / name, plugin="napari-unet3d")
    assert isinstance(again, napari.layers.Labels)
    np.testing.assert_array_equal(again.data, LABELS)
    np.testing.assert_allclose(again.scale, (3, 2, 1))
    assert list(again.features["class"]) == ["cell"]


def test_image_and_labels_keep_the_affine(viewer: Any, tmp_path: Path) -> None:
    affine = np.array([[0, 0.3, 0, 10], [-0.2, 0, 0, 20], [0, 0, 0.9, -30], [0, 0, 0, 1]])
    nib.Nifti1Image(LABELS.T * 60.5, affine).to_filename(tmp_path / "a.nii.gz")
    (image,) = viewer.open(tmp_path / "a.nii.gz", plugin="napari-unet3d")
    assert isinstance(image, napari.layers.Image)
    layer = viewer.add_labels(LABELS, scale=image.scale, units=image.units, metadata=image.metadata)
    layer.save(str(tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").affine, nib.load(tmp_path / "a.nii.gz").affine)


def test_napari_tells_why_a_file_cannot_be_read(viewer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(FileError, match=r"a\.nii\.gz cannot be read"):
        viewer.open(tmp_path / "a.nii.gz", plugin="napari-unet3d")


def test_sample_opens(viewer: Any) -> None:
    pytest.importorskip("nilearn")
    image, annotation = viewer.open_sample("napari-unet3d", "head")
    np.testing.assert_array_equal(image.extent.world, annotation.extent.world)
    assert viewer.layers.selection.active is annotation
