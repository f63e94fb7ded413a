"""Menu commands and keys, on a viewer without a window where that is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari.layers
import numpy as np
import pytest
import yaml
from napari.components import ViewerModel
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.shortcuts import default_shortcuts

from napari_unet3d import commands
from napari_unet3d.widgets._shortcuts import SHORTCUTS, bind_shortcuts
from napari_unet3d.widgets._workbench.bench import workbench_of

PATH = Path(str(commands.__file__)).with_name("napari.yaml")


@pytest.fixture
def viewer(qapp: Any, monkeypatch: pytest.MonkeyPatch) -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(np.zeros((5, 6, 7), np.uint8), name="cell")
    return viewer


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_warning", told.append)
    return told


def test_keys_are_free_in_napari_and_in_every_layer() -> None:
    taken = {coerce_keybinding(key) for keys in default_shortcuts.values() for key in keys}
    kinds = [getattr(napari.layers, name) for name in ("Image", "Labels", "Points", "Shapes", "Surface", "Tracks")]
    for kind in (ViewerModel, *kinds):
        taken |= set(kind.class_keymap)
    ours = [coerce_keybinding(shortcut.key) for shortcut in SHORTCUTS.values()]
    assert len(set(ours)) == len(ours)
    assert not set(ours) & taken


def test_each_key_has_a_command_that_the_menu_tells_it_of() -> None:
    stored = yaml.safe_load(PATH.read_text(encoding="utf-8"))["contributions"]["commands"]
    titles = {entry["python_name"]: entry["title"] for entry in stored}
    for key, command in SHORTCUTS.values():
        assert callable(getattr(commands, command))
        assert f"({key.replace('-', '+')})" in titles[f"napari_unet3d.commands:{command}"]


def test_a_key_that_is_taken_stays_what_it_is(viewer: ViewerModel) -> None:
    used: list[Any] = []
    viewer.bind_key("Shift-N", used.append)
    bind_shortcuts(viewer)
    viewer.keymap[coerce_keybinding("Shift-N")](viewer)
    assert used == [viewer]


def test_commands_choose_the_image_themselves(viewer: ViewerModel, warnings: list[str]) -> None:
    commands.train(viewer)
    bench = workbench_of(viewer)
    assert bench.image is not None
    assert bench.image.layer == viewer.layers["cell"]
    assert "make an annotation layer" in warnings[-1]
    commands.apply_model(viewer)
    assert "load a model file first" in warnings[-1]
    commands.next_slice(viewer)
    assert "train a model" in warnings[-1]


def test_complete_slice_from_the_keyboard(viewer: ViewerModel, warnings: list[str]) -> None:
    commands.new_annotation_layer(viewer)
    viewer.dims.set_point(0, 2)
    commands.complete_slice(viewer)
    layer = viewer.layers["annotation"]
    assert (layer.data[2] == 1).all()
    assert layer.data.sum() == 42
    assert not warnings


def test_show_or_hide(viewer: ViewerModel) -> None:
    bench = workbench_of(viewer)
    bench.applying.result = viewer.add_labels(np.ones((5, 6, 7), np.uint8))
    bench.training.preview_layer = viewer.add_labels(np.ones((5, 6, 7), np.uint8), visible=False)
    commands.show_or_hide_prediction(viewer)
    assert [layer.visible for layer in viewer.layers[1:]] == [False, False]
    commands.show_or_hide_prediction(viewer)
    assert [layer.visible for layer in viewer.layers[1:]] == [True, True]


def test_export_needs_labels(viewer: ViewerModel, warnings: list[str]) -> None:
    commands.export_labels(viewer)
    assert warnings == ["select the labels layer to export"]
