"""The Network dock: choose a preset or set every field, and see what comes of it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from qtpy.QtCore import QIODevice, QSaveFile, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
)

from napari_unet3d.engine.config import NetworkConfig
from napari_unet3d.engine.errors import ConfigError, FileError, UNet3dError
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.widgets._config_form import ConfigForm
from napari_unet3d.widgets._dock import Dock, button, set_reason
from napari_unet3d.widgets._help import NETWORK_HELP, Help
from napari_unet3d.widgets._network_choice import (
    FROM_DATA,
    NetworkChoice,
    chosen,
    closest,
    read_recipe,
    recipe_text,
)
from napari_unet3d.widgets._network_drawing import NetworkDrawing
from napari_unet3d.widgets._network_fields import FIELD_GROUPS, irrelevant_fields, preset_sentence
from napari_unet3d.widgets._network_summary import Summary, Surroundings, summarize
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._session import session_of
from napari_unet3d.widgets._theme import ThemeColours

if TYPE_CHECKING:
    import napari

_LARGEST_RECIPE: Final = 1_000_000
"""Bytes; a recipe has a few thousand."""

_FILES: Final = "Recipes (*.yaml *.yml);;All files (*)"
_RUNNING: Final = "Training is running: stop it to change the network."

_WATCHED: Final = (
    "network_preset",
    "network_settings",
    "train_config",
    "image_channels",
    "class_count",
    "voxel_size",
    "image_shape",
    "machine_rate",
    "phase",
)


class NetworkDock(Dock):
    """A view of the network in the viewer's session; two docks of one viewer show the same.

    Parameters
    ----------
    napari_viewer
        The viewer it belongs to.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._session = session_of(napari_viewer)
        self._form: ConfigForm | None = None
        self._shown: NetworkConfig | None = None
        self._is_valid = True
        self._build()
        self._lay_out()
        for name in _WATCHED:
            self.follow(getattr(self._session.events, name), self.refresh)
        self.refresh()
        self.finish()

    def _build(self) -> None:
        self._running = wrapped(QLabel(_RUNNING))
        self._preset = QComboBox()
        self._preset.addItems(list(network_presets()))
        self._preset.setAccessibleName("Preset")
        self._preset.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._preset.textActivated.connect(self._on_preset_chosen)
        self._sentence = wrapped(QLabel())
        self._drawing = NetworkDrawing()
        self._facts = QGridLayout()
        self._facts.setContentsMargins(0, 0, 0, 0)
        self._facts.setVerticalSpacing(2)
        self._facts.setHorizontalSpacing(8)
        self._facts.setColumnStretch(1, 1)
        self._warnings = wrapped(QLabel())
        self._form_place = QVBoxLayout()
        self._defaults = button("Use defaults", "", self._on_defaults_clicked)
        self._load = button(
            "Load…",
            "Settings of network and training from a recipe (YAML), as the command line writes them.",
            self._on_load_clicked,
        )
        self._save = button(
            "Save…",
            "Settings of network and training as a recipe (YAML), for train --config.",
            self._on_save_clicked,
        )

    def _lay_out(self) -> None:
        preset = QHBoxLayout()
        preset.addWidget(QLabel("Preset"))
        preset.addWidget(self._preset, 1)
        buttons = QHBoxLayout()
        for pushed in (self._defaults, self._load, self._save):
            buttons.addWidget(pushed)
        self.column.setSpacing(6)
        self.column.addWidget(Help("Choose the network to train.", NETWORK_HELP))
        self.column.addWidget(self._running)
        self.column.addLayout(preset)
        self.column.addWidget(self._sentence)
        self.column.addWidget(self._drawing)
        self.column.addLayout(self._facts)
        self.column.addWidget(self._warnings)
        self.column.addWidget(QLabel("<b>Settings</b>"))
        self.column.addLayout(self._form_place)
        self.column.addLayout(buttons)
        self.column.addWidget(self._message)
        self._message.hide()

    # --- showing the session ------------------------------------------------------------------------------

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        super().set_colours(colours)
        self._drawing.set_colours(colours)
        self._sentence.setStyleSheet(f"color: {colours.faint_text};")
        for label in (self._warnings, self._running):
            label.setStyleSheet(f"color: {colours.warning};")
        if self._form is not None:
            self._form.set_colours(colours)

    def refresh(self, *args: Any) -> None:
        """Show the state of the session."""
        session = self._session
        choice = NetworkChoice(session.network_preset, session.network_settings)
        base = network_config(session.network_preset)
        config = choice.config(session.image_channels, session.class_count)
        self._preset.setCurrentText(session.network_preset)
        self._sentence.setText(preset_sentence(session.network_preset, base))
        self._show_form(config, base)
        self._show_summary(config)
        self._show_phase(config)

    def _show_form(self, config: NetworkConfig, base: NetworkConfig) -> None:
        if self._form is None or type(self._shown) is not type(config):
            if self._form is not None:
                self._form_place.removeWidget(self._form)
                self._form.deleteLater()
            self._form = ConfigForm(type(config), config, groups=FIELD_GROUPS, hidden=FROM_DATA)
            if self._colours is not None:
                self._form.set_colours(self._colours)
            self._form.changed.connect(self._on_form_changed)
            self._form.validity_changed.connect(self._on_validity_changed)
            self._form_place.addWidget(self._form)
            self._is_valid = True
        elif config != self._shown:  # what is being typed stays where nothing else changed
            self._form.set_config(config)
        self._shown = config
        self._form.set_defaults(base if type(base) is type(config) else type(config)())

    def _show_summary(self, config: NetworkConfig) -> None:
        session = self._session
        around = Surroundings(
            image_shape=session.image_shape,
            voxel_size=session.voxel_size,
            train=session.train_config,
            machine_rate=session.machine_rate,
            free_memory=psutil.virtual_memory().available,
        )
        summary = summarize(config, around)
        if summary.patch is not None:
            self._drawing.set_network(summary.network, summary.patch)
        else:
            self._drawing.clear()
        self._show_facts(summary)
        self._warnings.setText("<br>".join(f"⚠ {html.escape(text)}" for text in summary.warnings))
        self._warnings.setVisible(bool(summary.warnings))

    def _show_facts(self, summary: Summary) -> None:
        for row, fact in enumerate(summary.facts):
            for column, text in enumerate((fact.name, fact.value)):
                item = self._facts.itemAtPosition(row, column)
                label = item.widget() if item is not None else None
                if not isinstance(label, QLabel):
                    label = wrapped(QLabel()) if column else QLabel()
                    where = Qt.AlignmentFlag(0) if column else Qt.AlignmentFlag.AlignTop
                    self._facts.addWidget(label, row, column, where)
                label.setText(text)
                label.setToolTip(f"<p>{html.escape(fact.help)}</p>")
                label.show()
        for row in range(len(summary.facts), self._facts.rowCount()):
            for column in (0, 1):
                item = self._facts.itemAtPosition(row, column)
                if item is not None and item.widget() is not None:
                    item.widget().hide()  # type: ignore[union-attr]

    def _show_phase(self, config: NetworkConfig) -> None:
        """Nothing can be changed while training runs, and all that is disabled says why."""
        is_running = self._session.phase.is_running
        self._running.setVisible(is_running)
        reason = _RUNNING if is_running else ""
        self._preset.setEnabled(not is_running)
        self._preset.setToolTip(reason or "A network to start from; the settings below change it.")
        set_reason(self._load, reason)
        changed = ", ".join(self._session.network_settings) or ("" if self._is_valid else "what cannot be used")
        self._defaults.setProperty("purpose", f"Back to the preset: {changed}")
        set_reason(self._defaults, reason or ("" if changed else "Nothing differs from the preset."))
        assert self._form is not None
        reasons = dict.fromkeys(self._form.fields, _RUNNING) if is_running else irrelevant_fields(config)
        self._form.set_disabled_fields(reasons)

    # --- what the user does -------------------------------------------------------------------------------

    def _on_preset_chosen(self, name: str) -> None:
        self.show_message("")
        self._start_over(NetworkChoice(name, {}))

    def _on_defaults_clicked(self) -> None:
        self.show_message("")
        self._start_over(NetworkChoice(self._session.network_preset, {}))

    def _on_form_changed(self, config: NetworkConfig) -> None:
        self.show_message("")
        self._shown = config
        self._set_choice(chosen(self._session.network_preset, config))

    def _on_validity_changed(self, is_valid: bool) -> None:
        self._is_valid = is_valid
        if self._shown is not None:
            self._show_phase(self._shown)

    def _on_save_clicked(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save settings", "recipe.yaml", _FILES)
        if name:
            self.save_recipe(Path(name))

    def _on_load_clicked(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Load settings", "", _FILES)
        if name:
            self.load_recipe(Path(name))

    def save_recipe(self, path: Path) -> None:
        """Write the settings of network and training; says beside the button how it went."""
        assert self._form is not None
        try:
            if not self._form.is_valid:
                raise ConfigError("not saved: some settings above cannot be used, see the red lines")
            config = self._form.config
            assert isinstance(config, NetworkConfig)
            _write(path, recipe_text(config, self._session.train_config))
        except UNet3dError as error:
            self.show_message(str(error), warning=True)
        else:
            self.show_message(f"Saved to {path.name}.")

    def load_recipe(self, path: Path) -> None:
        """Take the settings of network and training from a file; says beside the button how it went."""
        try:
            network, train = read_recipe(_read(path), path.name)
        except UNet3dError as error:
            self.show_message(str(error), warning=True)
            return
        if train is not None:
            self._session.train_config = train
        if network is not None:
            self._start_over(closest(network))
        parts = [name for name, part in (("network", network), ("training", train)) if part is not None]
        self.show_message(f"Loaded settings of {' and '.join(parts)} from {path.name}.")

    def _start_over(self, choice: NetworkChoice) -> None:
        """Take a choice, and drop what is being typed, valid or not."""
        if self._form is not None and self._shown is not None:
            self._form.drop_edits()
        self._set_choice(choice)

    def _set_choice(self, choice: NetworkChoice) -> None:
        if choice.preset != self._session.network_preset:
            # settings belong to their preset: no state in between may hold those of one with the name of another
            self._session.network_settings = {}
            self._session.network_preset = choice.preset
        self._session.network_settings = choice.settings


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_RECIPE:
            raise FileError(f"{path.name} is too large for a recipe; choose a YAML file as written by Save")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FileError(f"{path.name} is no text file; choose a YAML file as written by Save") from None
    except OSError as error:
        raise FileError(f"{path.name} cannot be read ({error.strerror}); choose another file") from None


def _write(path: Path, text: str) -> None:
    """Write atomically: an older file stays until the new one is complete."""
    file = QSaveFile(str(path))
    data = text.encode()
    is_written = file.open(QIODevice.OpenModeFlag.WriteOnly) and file.write(data) == len(data) and file.commit()
    if not is_written:
        raise FileError(f"{path.name} cannot be written ({file.errorString()}); free some space or save elsewhere")
