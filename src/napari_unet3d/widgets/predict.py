"""The Predict dock: apply the model to an open image, tidy, measure and save the labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtWidgets import QCheckBox, QFileDialog, QFormLayout, QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.widgets._class_volumes import ClassVolumes
from napari_unet3d.widgets._cleanup_section import CleanUpSection
from napari_unet3d.widgets._config_form import ConfigForm
from napari_unet3d.widgets._dock import Dock, button, first_layer, layer_box, set_reason
from napari_unet3d.widgets._help import PREDICT_HELP, Help
from napari_unet3d.widgets._image_chooser import ImageChooser
from napari_unet3d.widgets._label_files import ask_label_file
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._section import Section
from napari_unet3d.widgets._shortcuts import with_key
from napari_unet3d.widgets._theme import ThemeColours
from napari_unet3d.widgets._workbench.applying import ApplyOptions
from napari_unet3d.widgets._workbench.bench import workbench_of

if TYPE_CHECKING:
    import napari

_MODEL_FILTER: Final = "Models (*.safetensors)"
_CHOSEN_ELSEWHERE: Final = ("background_as_zero", "device")


class PredictDock(Dock):
    """Applies the trained or loaded model, shows the labels as they come, tidies, measures and exports them.

    Parameters
    ----------
    napari_viewer
        The viewer; its workbench keeps everything, so that closing the dock loses nothing.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._bench = workbench_of(napari_viewer)
        self._session = self._bench.session
        self._shown_result: Any = None
        self._build()
        self._connect()
        self._show_image()
        self._show_labels()
        self.finish()

    # --- building -----------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.column.addWidget(Help("Apply a model to an open image.", PREDICT_HELP))
        self.model = wrapped(QLabel())
        self.column.addWidget(self.model)
        self.load_button = button("Load model…", "Read a model file (.safetensors)", self._on_load)
        self.column.addWidget(self.load_button)
        self.chooser = ImageChooser()
        self.image_box = self.chooser.box
        self.column.addWidget(self.chooser)
        self._build_options()
        self.apply_button = button(
            "Apply", with_key("Predict the image into a new labels layer, the slice in view first", "apply"), self.apply
        )
        self.cancel_button = button(
            "Cancel", "End after the present block; the layers keep what is done", self._bench.applying.cancel
        )
        self._add_row(self.apply_button, self.cancel_button)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.column.addWidget(self.progress)
        self.status = wrapped(QLabel())
        self.column.addWidget(self.status)
        self.column.addWidget(self._message)
        self._build_labels()

    def _build_options(self) -> None:
        self.all_times = QCheckBox("all time points")
        self.all_times.setToolTip("Else only the time point in view")
        self.only_view = QCheckBox("only what is in view")
        self.only_view.setToolTip(
            "Predict the part of the volume inside the canvas, along the slider all of it; everything in the 3D view"
        )
        self.probabilities = QCheckBox("layers of probabilities")
        self.probabilities.setToolTip("An image layer for each class, 0 to 1; hidden at first, click its eye")
        self.uncertainty = QCheckBox("layer of uncertainty")
        self.uncertainty.setToolTip("An image layer: 0 the model is sure, 1 it is undecided")
        self._options = (self.all_times, self.only_view, self.probabilities, self.uncertainty)
        for box in self._options:
            self.column.addWidget(box)
        self.form = ConfigForm(PredictConfig, self._session.predict_config, hidden=_CHOSEN_ELSEWHERE)
        self.column.addWidget(Section("Settings", self.form))
        self.memory = wrapped(QLabel())
        self.column.addWidget(self.memory)

    def _build_labels(self) -> None:
        self.labels_box = layer_box("Labels")
        self.labels_box.native.setToolTip("The labels to clean up, measure or export: a prediction, or any others")
        self._pickers = [self.labels_box]
        row = QFormLayout()
        row.addRow("Labels", self.labels_box.native)
        self.column.addLayout(row)
        self.clean_up = CleanUpSection(self._bench.cleaning, self._labels)
        self.column.addWidget(Section("Clean up", self.clean_up))
        self.volumes = ClassVolumes(self._bench.measuring, self._labels)
        self.column.addWidget(Section("Class volumes", self.volumes))
        export = QWidget()
        inner = QVBoxLayout(export)
        inner.setContentsMargins(0, 0, 0, 0)
        self.as_zero = QCheckBox("write the background as 0")
        self.as_zero.setToolTip("As most other programs expect; else the background keeps its id")
        self.export_button = button(
            "Export labels…", "Save the labels with the voxel size and affine of their image", self._on_export
        )
        inner.addWidget(self.as_zero)
        inner.addWidget(self.export_button)
        self.column.addWidget(Section("Export", export, expanded=True))

    def _add_row(self, *widgets: QWidget) -> None:
        row = QHBoxLayout()
        for widget in widgets:
            row.addWidget(widget)
        self.column.addLayout(row)

    def _connect(self) -> None:
        bench, events = self._bench, self._session.events
        self.chooser.chosen.connect(bench.applying.choose_image)
        self.labels_box.changed.connect(self._show_labels)
        for box in self._options:
            box.toggled.connect(self._show)
        self.form.changed.connect(self._on_settings)
        for signal in (events.model, events.is_applying, events.applying_progress, events.message):
            self.follow(signal, self._show)
        self.follow(events.predict_config, self._show_settings)
        self.follow(events.classes, self._show_labels)
        bench.applying.image_changed.connect(self._show_image)

    # --- what the user does -------------------------------------------------------------------------------

    @property
    def options(self) -> ApplyOptions:
        """What is ticked."""
        image = self._bench.applying.image
        return ApplyOptions(
            all_times=self.all_times.isChecked() and image is not None and image.time_points > 1,
            only_view=self.only_view.isChecked(),
            probabilities=self.probabilities.isChecked(),
            uncertainty=self.uncertainty.isChecked(),
        )

    def apply(self) -> None:
        """Predict what is ticked."""
        self.form.flush()
        self._bench.applying.start(self.options)

    def _labels(self) -> Any:
        return self.labels_box.value

    def _on_load(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Load a model", "", _MODEL_FILTER)
        if name:
            self._bench.load_model(Path(name))

    def _on_settings(self, config: PredictConfig) -> None:
        self._session.predict_config = config

    def _on_export(self) -> None:
        layer = self._labels()
        path = ask_label_file(self, str(layer.name)) if layer is not None else None
        if path is not None:
            self._bench.export_labels(layer, path, background_as_zero=self.as_zero.isChecked())

    # --- what is shown ------------------------------------------------------------------------------------

    def reset_choices(self, *args: Any) -> None:
        """Refill the boxes, and choose the image where there is none yet."""
        super().reset_choices(*args)
        self.chooser.reset_choices()
        image = first_layer(self.image_box)
        if not self._bench.image_layers and not self._bench.applying.image_layers and image is not None:
            self._bench.choose_image([image])
        self._show_labels()

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        super().set_colours(colours)
        for part in (self.chooser, self.clean_up, self.volumes, self.form):
            part.set_colours(colours)
        self.memory.setStyleSheet(f"color: {colours.warning};")

    def _show_image(self) -> None:
        applying = self._bench.applying
        self.chooser.show_choice(applying.image_layers, applying.image_axes, applying.image, applying.image_problem)
        self.all_times.setVisible(applying.image is not None and applying.image.time_points > 1)
        self._show()

    def _show_settings(self, *_: Any) -> None:
        self.form.set_config(self._session.predict_config)

    def _show_labels(self, *_: Any) -> None:
        """Another labels layer was chosen, or its classes have other names."""
        self.clean_up.refresh()
        self.volumes.refresh()
        missing = "" if self._labels() is not None else "choose a labels layer: apply a model, or open labels"
        set_reason(self.export_button, missing)

    def _show(self, *_: Any) -> None:
        session, applying = self._session, self._bench.applying
        self.model.setText(f"Model: {session.model_origin}" if session.model else "No model yet: train or load one.")
        set_reason(self.apply_button, applying.problem(self.options))
        set_reason(self.cancel_button, "" if session.is_applying else "no prediction is running")
        note = "" if session.is_applying else applying.memory_note(self.options)
        self.memory.setText(note[:1].upper() + note[1:])
        self.memory.setVisible(bool(note))
        fraction, text = session.applying_progress
        is_busy = session.is_applying and fraction is None
        self.progress.setRange(0, 0 if is_busy else 1000)
        self.progress.setValue(round(1000 * (fraction or 0)))
        self.progress.setVisible(session.is_applying)
        self.status.setText(text)
        self.status.setVisible(bool(text))
        self.show_message(session.message, warning=session.is_warning)
        self._choose_result()

    def _choose_result(self) -> None:
        """A new prediction is what the user will tidy and save next."""
        result = self._bench.applying.result
        if result is not None and result != self._shown_result and result in self.labels_box.choices:
            self._shown_result = result
            self.labels_box.value = result
