"""The Predict dock: apply the model to the open image and save the labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtWidgets import QCheckBox, QFileDialog, QFormLayout, QHBoxLayout, QLabel, QProgressBar

from napari_unet3d.widgets._dock import Dock, button, first_layer, layer_box, set_reason
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._workbench.applying import ApplyOptions
from napari_unet3d.widgets._workbench.bench import workbench_of

if TYPE_CHECKING:
    import napari

_LABEL_FILTER: Final = "OME-TIFF (*.ome.tif);;NIfTI (*.nii.gz);;NumPy (*.npy);;OME-Zarr (*.ome.zarr)"
_MODEL_FILTER: Final = "Models (*.safetensors)"


class PredictDock(Dock):
    """Applies the trained or loaded model, shows the labels as they come, and exports them.

    Parameters
    ----------
    napari_viewer
        The viewer; its workbench keeps everything, so that closing the dock loses nothing.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._bench = workbench_of(napari_viewer)
        self._session = self._bench.session
        self._build()
        self._connect()
        self._show()
        self.finish()

    def _build(self) -> None:
        self.model = wrapped(QLabel())
        self.column.addWidget(self.model)
        self.load_button = button("Load model...", "Read a model file", self._on_load)
        self.column.addWidget(self.load_button)
        self.image_box = layer_box("Image")
        self.labels_box = layer_box("Labels")
        self._pickers = [self.image_box, self.labels_box]
        form = QFormLayout()
        form.addRow("Image", self.image_box.native)
        self.column.addLayout(form)
        self.all_times = QCheckBox("all time points")
        self.only_view = QCheckBox("only what is in view")
        self.only_view.setToolTip("Predict the part of the volume inside the canvas, along the slider all of it")
        self.probabilities = QCheckBox("a layer of probabilities for each class")
        self.uncertainty = QCheckBox("a layer of uncertainty (0 sure, 1 undecided)")
        for box in (self.all_times, self.only_view, self.probabilities, self.uncertainty):
            self.column.addWidget(box)
        self.apply_button = button(
            "Apply", "Predict the image into a new labels layer, the slice in view first", self._on_apply
        )
        self.cancel_button = button(
            "Cancel", "End after the present block; the layer keeps what is done", self._bench.applying.cancel
        )
        row = QHBoxLayout()
        row.addWidget(self.apply_button)
        row.addWidget(self.cancel_button)
        self.column.addLayout(row)
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.setTextVisible(False)
        self.column.addWidget(self.progress)
        self.status = wrapped(QLabel())
        self.column.addWidget(self.status)
        self.column.addWidget(self._message)
        export = QFormLayout()
        export.addRow("Labels", self.labels_box.native)
        self.column.addLayout(export)
        self.as_zero = QCheckBox("write the background as 0")
        self.column.addWidget(self.as_zero)
        self.export_button = button(
            "Export labels...", "Save the labels with voxel size and affine of the image", self._on_export
        )
        self.column.addWidget(self.export_button)

    def _connect(self) -> None:
        bench, events = self._bench, self._session.events
        self.image_box.changed.connect(lambda layer: bench.choose_image([layer] if layer is not None else []))
        self.labels_box.changed.connect(self._show)
        for signal in (events.model, events.is_applying, events.applying_progress, events.message):
            self.follow(signal, self._show)
        bench.layers_changed.connect(self._show)

    def _on_load(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Load a model", "", _MODEL_FILTER)
        if name:
            self._bench.load_model(Path(name))

    def _on_apply(self) -> None:
        self._bench.applying.start(
            ApplyOptions(
                all_times=self.all_times.isChecked(),
                only_view=self.only_view.isChecked(),
                probabilities=self.probabilities.isChecked(),
                uncertainty=self.uncertainty.isChecked(),
            )
        )

    def _on_export(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Export labels", "labels.ome.tif", _LABEL_FILTER)
        if name:
            self._bench.export_labels(self.labels_box.value, Path(name), background_as_zero=self.as_zero.isChecked())

    def reset_choices(self, *args: Any) -> None:
        """Refill the boxes, and choose the image where there is none yet."""
        super().reset_choices(*args)
        image = first_layer(self.image_box)
        if self._bench.image is None and image is not None:
            self._bench.choose_image([image])

    def _show(self, *_: Any) -> None:
        session, bench = self._session, self._bench
        image = bench.image
        if image is not None and image.layer in self.image_box.choices and self.image_box.value != image.layer:
            with self.image_box.changed.blocked():
                self.image_box.value = image.layer
        self.model.setText(f"Model: {session.model_origin}" if session.model else "No model yet: train or load one.")
        self.all_times.setVisible(image is not None and image.time_points > 1)
        set_reason(self.apply_button, bench.applying.problem())
        set_reason(self.cancel_button, "" if session.is_applying else "no prediction is running")
        set_reason(self.export_button, "" if self.labels_box.value is not None else "there is no labels layer yet")
        fraction, text = session.applying_progress
        self.progress.setValue(round(1000 * (fraction or 0)))
        self.status.setText(text)
        self.show_message(session.message, warning=session.is_warning)
