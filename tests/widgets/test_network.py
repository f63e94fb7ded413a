from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from napari.components import ViewerModel
from napari.layers import Image
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QPushButton, QScrollArea, QWidget

from napari_unet3d.cli.settings import gather
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, TrainConfig, UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.widgets._network_choice import NetworkChoice, chosen, closest, read_recipe, recipe_text
from napari_unet3d.widgets._network_fields import FIELD_GROUPS, irrelevant_fields, preset_sentence
from napari_unet3d.widgets._network_summary import (
    Surroundings,
    amount,
    count,
    reach_text,
    step_seconds_text,
    summarize,
    training_rate,
)
from napari_unet3d.widgets._session import Phase, Session, session_of
from napari_unet3d.widgets.network import NetworkDock


@pytest.fixture
def viewer() -> ViewerModel:
    """A viewer without a window: layers, theme and events."""
    return ViewerModel()


@pytest.fixture
def session(viewer: ViewerModel) -> Session:
    return session_of(viewer)


@pytest.fixture
def dock(viewer: ViewerModel, session: Session, qtbot: QtBot) -> NetworkDock:
    widget = NetworkDock(viewer)
    qtbot.addWidget(widget)
    widget.show()
    return widget


def click(widget: QWidget) -> None:
    # the stubs of PyQt6 take the static functions of QTest for methods
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)  # type: ignore[call-overload]


def enter(dock: NetworkDock, field: str, text: str) -> None:
    """Type into a field of the form, and be done with it."""
    editor: Any = dock.findChild(QWidget, field)
    line = editor.lineEdit() if hasattr(editor, "lineEdit") else editor
    line.selectAll()
    QTest.keyClicks(line, text)  # type: ignore[arg-type, call-arg]
    QTest.keyClick(line, Qt.Key.Key_Return)  # type: ignore[call-overload]


def combo(dock: NetworkDock) -> QComboBox:
    return dock._preset


def facts(dock: NetworkDock) -> dict[str, str]:
    labels = [widget.text() for widget in dock.findChildren(QLabel) if widget.toolTip().startswith("<p>")]
    names = ("Parameters", "Receptive field", "Training patch", "Operations", "Memory: train", "Time of a step")
    return {name: labels[labels.index(name) + 1] for name in names if name in labels}


def button(dock: NetworkDock, text: str) -> QPushButton:
    return next(found for found in dock.findChildren(QPushButton) if found.text() == text)


# --- choosing ---------------------------------------------------------------------------------------------


def test_each_preset_can_be_chosen_and_says_what_it_is(dock: NetworkDock, session: Session) -> None:
    for name in network_presets():
        combo(dock).setCurrentText(name)
        combo(dock).textActivated.emit(name)
        assert session.network_preset == name
        assert session.network_settings == {}
        config = network_config(name)
        assert dock._sentence.text() == preset_sentence(name, config)
        assert facts(dock)["Parameters"] == f"{describe(config).parameters:,}"
        assert dock._form is not None
        assert dock._form.config == config


def test_what_is_set_differs_from_the_preset(dock: NetworkDock, session: Session) -> None:
    enter(dock, "filters", "24")
    assert session.network_settings == {"filters": 24}
    enter(dock, "levels", "4")
    assert session.network_settings == {"levels": 4, "filters": 24}
    assert facts(dock)["Parameters"] == f"{describe(network_config('fast', filters=24, levels=4)).parameters:,}"
    enter(dock, "filters", "16")
    assert session.network_settings == {"levels": 4}
    click(button(dock, "Use defaults"))
    assert session.network_settings == {}
    assert not button(dock, "Use defaults").isEnabled()


def test_what_cannot_be_used_never_reaches_the_session(dock: NetworkDock, session: Session) -> None:
    enter(dock, "filters", "0")
    assert session.network_settings == {}
    assert dock._form is not None
    assert dock._form.problems == {"filters": "needs at least 1; 0 was given"}
    session.machine_rate = 1e10  # news must not wipe out what is being typed
    assert dock._form.problems
    click(button(dock, "Use defaults"))
    assert dock._form.problems == {}


def test_typing_goes_on_undisturbed(dock: NetworkDock, session: Session) -> None:
    enter(dock, "filters", "8,16, 24")
    editor: Any = dock.findChild(QWidget, "filters")
    assert session.network_settings == {"filters": (8, 16, 24)}
    assert editor.text() == "8,16, 24"


def test_choosing_a_preset_drops_what_differed_from_the_old_one(dock: NetworkDock, session: Session) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    session.network_settings = {"levels": 2, "filters": (8, 16)}
    for name in ("network_preset", "network_settings"):
        getattr(session.events, name).connect(
            lambda *_: seen.append((session.network_preset, session.network_settings))
        )
    combo(dock).textActivated.emit("unet3plus-3d")
    assert (session.network_preset, session.network_settings) == ("unet3plus-3d", {})
    for preset, settings in seen:  # no state in between is nonsense
        network_config(preset, **settings)


def test_a_family_brings_its_own_fields(dock: NetworkDock, session: Session, qtbot: QtBot) -> None:
    session.network_preset = "unet3plus-3d"
    assert dock.findChild(QWidget, "branch_filters") is not None
    enter(dock, "branch_filters", "8")
    assert session.network_settings == {"branch_filters": 8}
    session.network_settings = {}
    session.network_preset = "fast"
    qtbot.waitUntil(lambda: dock.findChild(QWidget, "branch_filters") is None)


def test_two_docks_show_the_same(dock: NetworkDock, viewer: ViewerModel, qtbot: QtBot) -> None:
    other = NetworkDock(viewer)
    qtbot.addWidget(other)
    enter(dock, "filters", "24")
    assert facts(other)["Parameters"] == facts(dock)["Parameters"]
    assert other._form is not None
    assert other._form.config == network_config("fast", filters=24)


def test_fields_that_make_no_difference_are_disabled(dock: NetworkDock) -> None:
    groups: Any = dock.findChild(QWidget, "norm_groups")
    assert not groups.isEnabled()
    assert "Only for norm = group" in groups.toolTip()
    norm: Any = dock.findChild(QWidget, "norm")
    norm.set_value("group")
    norm.edited.emit(True)
    assert groups.isEnabled()


# --- what comes of it -------------------------------------------------------------------------------------


def test_the_open_image_decides(dock: NetworkDock, session: Session) -> None:
    assert "µm" not in facts(dock)["Receptive field"]
    before = facts(dock)["Parameters"]
    session.image_channels = 3
    session.class_count = 4
    session.voxel_size = VoxelSize(2, 0.5, 0.5, "um")
    session.image_shape = (20, 200, 200)
    network = describe(network_config("fast", in_channels=3, classes=4).for_voxels(session.voxel_size))
    assert facts(dock)["Parameters"] == f"{network.parameters:,}" != before
    z, y, x = network.receptive_field
    assert facts(dock)["Receptive field"] == f"{z}×{y}×{x} voxels\n{2 * z:.3g} × {y / 2:.3g} × {x / 2:.3g} µm"
    assert session.network_settings == {}


def test_seconds_are_told_once_they_are_measured(dock: NetworkDock, session: Session) -> None:
    assert facts(dock)["Time of a step"] == "measured when training starts"
    summary = summarize(network_config("fast"), Surroundings())
    assert summary.patch is not None
    session.machine_rate = training_rate(summary.network.operations(summary.patch), seconds=0.5)
    assert facts(dock)["Time of a step"] == "about 0.5 s"


def test_warnings_come_and_go(dock: NetworkDock, session: Session) -> None:
    assert dock._warnings.isHidden()
    session.image_shape = (1, 300, 300)
    assert "set dimensions to 2" in dock._warnings.text()
    session.image_shape = (40, 300, 300)
    assert dock._warnings.isHidden()


def test_nothing_can_be_changed_while_training_runs(dock: NetworkDock, session: Session) -> None:
    session.phase = Phase.TRAINING
    filters: Any = dock.findChild(QWidget, "filters")
    changing = [combo(dock), filters, button(dock, "Load…"), button(dock, "Use defaults")]
    assert not any(widget.isEnabled() for widget in changing)
    assert all("Training is running: stop it" in widget.toolTip() for widget in changing)
    assert button(dock, "Save…").isEnabled()
    assert not dock._running.isHidden()
    session.phase = Phase.IDLE
    assert combo(dock).isEnabled()
    assert filters.isEnabled()
    assert dock._running.isHidden()


def test_a_real_window_holds_it_in_300_pixels(make_napari_viewer_proxy: Callable[[], Any]) -> None:
    viewer = make_napari_viewer_proxy()
    dock = NetworkDock(viewer)
    viewer.window.add_dock_widget(dock, name="Network", area="right")
    area = dock.findChild(QScrollArea)
    assert isinstance(area, QScrollArea)
    content = area.widget()
    assert content is not None
    assert content.minimumSizeHint().width() <= 285
    assert dock.minimumSizeHint().height() < 200
    viewer.theme = "light"
    light = dock._sentence.styleSheet()
    viewer.theme = "dark"
    assert dock._sentence.styleSheet() != light
    viewer.layers.append(Image(np.zeros((4, 4, 4), np.uint8)))  # asks for reset_choices
    assert facts(dock)["Parameters"]


def test_a_session_outlives_its_docks(viewer: ViewerModel, session: Session, qtbot: QtBot) -> None:
    dock = NetworkDock(viewer)
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    session.network_preset = "large"  # nothing is told to what is gone
    viewer.theme = "light"


# --- files ------------------------------------------------------------------------------------------------


def test_settings_survive_a_file(dock: NetworkDock, session: Session, tmp_path: Path) -> None:
    session.network_preset = "large"
    session.network_settings = {"norm": "group", "levels": 3, "filters": (8, 16, 32)}
    session.train_config = TrainConfig(seconds=33)
    dock.save_recipe(tmp_path / "a.yaml")
    assert dock._message.text() == "Saved to a.yaml."
    session.network_settings = {}
    session.network_preset = "fast"
    session.train_config = TrainConfig()
    dock.load_recipe(tmp_path / "a.yaml")
    assert dock._message.text() == "Loaded settings of network and training from a.yaml."
    assert session.network_preset == "large"
    assert session.network_settings == {"norm": "group", "levels": 3, "filters": (8, 16, 32)}
    assert session.train_config == TrainConfig(seconds=33)


def test_the_command_line_takes_the_file(dock: NetworkDock, session: Session, tmp_path: Path) -> None:
    session.class_count = 5
    session.network_preset = "cicek2016"
    dock.save_recipe(tmp_path / "a.yaml")
    settings = gather(None, tmp_path / "a.yaml", (), {})
    assert network_config("fast", classes=5, **settings.network) == network_config("cicek2016", classes=5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("network: {levels: 9}", "network.levels = 9: input should be less than or equal to 8"),
        ("network: {depth: 3}", "unknown setting 'network.depth'"),
        ("network: {kind: transformer}", "transformer"),
        ("layers: 3", "unknown setting 'layers'"),
        ("network: [1, 2", "is no valid YAML"),
        ("", "holds no settings"),
        ("train: {seconds: -1}", "train.seconds"),
    ],
)
def test_bad_files_are_refused_in_a_line(
    dock: NetworkDock, session: Session, tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    session.network_settings = {"filters": 24}
    dock.load_recipe(path)
    assert problem in dock._message.text()
    assert "\n" not in dock._message.text()
    assert dock._colours is not None
    assert dock._colours.warning in dock._message.styleSheet()
    assert session.network_settings == {"filters": 24}


def test_files_that_cannot_be_read_or_written_are_told_of(dock: NetworkDock, tmp_path: Path) -> None:
    dock.load_recipe(tmp_path / "gone.yaml")
    assert "gone.yaml cannot be read" in dock._message.text()
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    dock.load_recipe(tmp_path / "picture.yaml")
    assert "no text file" in dock._message.text()
    (tmp_path / "large.yaml").write_bytes(b"#" * 2_000_000)
    dock.load_recipe(tmp_path / "large.yaml")
    assert "too large" in dock._message.text()
    dock.save_recipe(tmp_path / "missing" / "a.yaml")
    assert "a.yaml cannot be written" in dock._message.text()
    assert not (tmp_path / "missing").exists()


def test_what_cannot_be_used_is_not_saved(dock: NetworkDock, tmp_path: Path) -> None:
    enter(dock, "filters", "0")
    dock.save_recipe(tmp_path / "a.yaml")
    assert "not saved" in dock._message.text()
    assert not list(tmp_path.iterdir())


def test_the_buttons_ask_for_a_file(
    dock: NetworkDock, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(tmp_path / "a.yaml")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (name, ""))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (name, ""))
    enter(dock, "filters", "24")
    click(button(dock, "Save…"))
    click(button(dock, "Use defaults"))
    click(button(dock, "Load…"))
    assert session.network_settings == {"filters": 24}
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("", ""))  # the user thought better of it
    session.network_settings = {}
    click(button(dock, "Load…"))
    assert session.network_settings == {}


# --- choices and recipes, without a window ----------------------------------------------------------------


@pytest.mark.parametrize("name", network_presets())
def test_a_preset_is_its_own_closest(name: str) -> None:
    config = network_config(name, in_channels=2, classes=4)
    assert closest(config).config(2, 4) == config
    assert closest(config).settings == {}
    assert chosen("fast", config).config(2, 4) == config


def test_the_closest_preset_has_the_fewest_differences() -> None:
    config = network_config("large", activation="relu")
    assert closest(config) == NetworkChoice("large", {"activation": "relu"})


def test_a_sigmoid_head_has_no_channel_for_the_background() -> None:
    assert NetworkChoice("fast", {"head": "sigmoid"}).config(1, 3).classes == 2
    assert NetworkChoice("fast", {}).config(1, 3).classes == 3


def test_a_recipe_leaves_to_the_data_what_follows_from_it() -> None:
    text = recipe_text(network_config("fast", in_channels=3, classes=7), TrainConfig())
    assert {"in_channels", "classes", "feature_voxel"}.isdisjoint(yaml.safe_load(text)["network"])
    assert read_recipe(text, "a") == (network_config("fast"), TrainConfig())
    network, train = read_recipe("network: {levels: 2, classes: 9}", "a")
    assert (network, train) == (network_config("fast", levels=2), None)
    with pytest.raises(ConfigError, match="neither network nor train"):
        read_recipe("record: {steps: 3}", "a")


@pytest.mark.parametrize("family", [UNetConfig, UNet3PlusConfig])
def test_fields_named_for_the_form_exist(family: type[NetworkConfig]) -> None:
    known = UNetConfig.model_fields | UNet3PlusConfig.model_fields
    assert {name for names in FIELD_GROUPS.values() for name in names} <= set(known)
    assert set(irrelevant_fields(family())) <= set(known)


# --- summaries, without a window --------------------------------------------------------------------------


def test_a_patch_that_leaves_one_voxel_is_warned_of() -> None:
    config = network_config("fast", levels=4, strides=2, norm="instance")
    around = Surroundings(train=TrainConfig(patch_size=(8, 8, 8)))
    warnings = summarize(config, around).warnings
    assert len(warnings) == 1
    assert "single voxel" in warnings[0]
    assert summarize(config.updated(norm="group"), around).warnings == ()
    assert "single voxel" in summarize(config.updated(norm="batch"), around).warnings[0]
    two = Surroundings(train=TrainConfig(patch_size=(8, 8, 8), batch_size=2))
    assert summarize(config.updated(norm="batch"), two).warnings == ()


def test_a_thin_image_and_too_many_levels_are_warned_of() -> None:
    config = network_config("fast", levels=5, strides=2)
    warnings = summarize(config, Surroundings(image_shape=(10, 300, 300))).warnings
    assert ["10 long along Z but 5 levels join 16 voxels" in text for text in warnings] == [True]


def test_a_patch_that_grows_and_memory_that_is_short_are_warned_of() -> None:
    config = network_config("fast", strides=2)
    around = Surroundings(train=TrainConfig(patch_size=(10, 64, 64)), free_memory=1_000_000)
    grown, short = summarize(config, around).warnings
    assert "10×64×64 voxels do not fit the levels; 12×64×64 are used" in grown
    assert "1 MB are free" in short


def test_patches_of_a_batch_share_the_weights() -> None:
    config = network_config("large", norm="group")
    one, four = (
        next(fact.value for fact in summarize(config, around).facts if fact.name == "Memory: train")
        for around in (Surroundings(), Surroundings(train=TrainConfig(batch_size=4)))
    )
    assert one != four
    patch = summarize(config, Surroundings()).patch
    assert patch is not None
    single = describe(config).memory(patch, training=True, bytes_per_value=4)
    weights = 5 * 4 * describe(config).parameters
    assert four == amount(single + 3 * (single - weights))


@pytest.mark.parametrize("name", network_presets())
@pytest.mark.parametrize("shape", [None, (1, 40, 40), (3, 500, 20), (400, 400, 400)])
@pytest.mark.parametrize("voxel_size", [None, VoxelSize(10, 1, 1, "nm")])
def test_every_preset_can_be_looked_at(
    name: str, shape: tuple[int, int, int] | None, voxel_size: VoxelSize | None
) -> None:
    summary = summarize(network_config(name), Surroundings(shape, voxel_size, machine_rate=1e9))
    assert {fact.name for fact in summary.facts} >= {"Parameters", "Receptive field", "Memory: apply"}
    assert summary.patch is not None
    summary.network.shapes(summary.patch)


def test_numbers_are_told_in_words() -> None:
    assert [count(n) for n in (12, 9999, 36_900, 3.24e9, 2e12)] == [
        "12",
        "10,000",
        "36,900",
        "3.24 billion",
        "2 trillion",
    ]
    assert [amount(n) for n in (1e6, 102e6, 1.14e9)] == ["1 MB", "102 MB", "1.1 GB"]
    assert reach_text((3, 5, 5), VoxelSize(1, 1, 1)) == "3×5×5 voxels"
    assert reach_text((3, 5, 5), VoxelSize(4, 1, 1, "angstrom")) == "3×5×5 voxels\n12 × 5 × 5 Å"
    # three times the operations of predicting, at a million a second
    assert step_seconds_text(5e6, 1e6) == "about 15 s"
    assert math.isclose(training_rate(5e6, 15), 1e6)


# --- torch stays out --------------------------------------------------------------------------------------


def test_the_dock_needs_no_torch() -> None:
    code = "import napari_unet3d.widgets.network, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
