"""The Train dock: paint, train, watch, correct."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QWidget,
)

from napari_unet3d.widgets._class_table import ClassTable
from napari_unet3d.widgets._dock import Dock, button, first_layer, layer_box, set_reason
from napari_unet3d.widgets._further_volumes import FurtherVolumesList
from napari_unet3d.widgets._help import TRAIN_HELP, Help
from napari_unet3d.widgets._image_chooser import ImageChooser
from napari_unet3d.widgets._legend import Legend
from napari_unet3d.widgets._model_buttons import ModelButtons
from napari_unet3d.widgets._next_slices import NextSlices
from napari_unet3d.widgets._not_annotated import NotAnnotatedQuestion
from napari_unet3d.widgets._offer import Offer
from napari_unet3d.widgets._plots import CurvePoint, CurvesPlot, CurveStyle
from napari_unet3d.widgets._run_settings import RunSettings
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._section import Section
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._shortcuts import with_key
from napari_unet3d.widgets._theme import ThemeColours
from napari_unet3d.widgets._voxel_line import VoxelLine
from napari_unet3d.widgets._workbench.bench import workbench_of

if TYPE_CHECKING:
    import napari

_MOST_ADVICE: Final = 2
"""Sentences of the guide that are shown at a time."""


class TrainDock(Dock):
    """Trains a network on painted slices of the open image while the user goes on painting.

    Parameters
    ----------
    napari_viewer
        The viewer; its workbench keeps everything, so that closing the dock loses nothing.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._bench = workbench_of(napari_viewer)
        self._session = self._bench.session
        self._drawn_losses = self._drawn_scores = 0
        self._build()
        self._connect()
        self._show_layers()
        self._show_all()
        self.finish()

    # --- building -----------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.column.addWidget(Help("Paint a few slices, train, and watch.", TRAIN_HELP))
        self.chooser = ImageChooser()
        self.image_box = self.chooser.box
        self.annotation_box = layer_box("Labels")
        self.annotation_box.native.setToolTip("The labels layer to train on: a new one, or any that fits the image")
        self._pickers = [self.annotation_box]
        layers = QFormLayout()
        bench = self._bench
        self.voxel_line = VoxelLine(bench)
        self.column.addWidget(self.chooser)
        self.column.addWidget(self.voxel_line)
        layers.addRow("Annotation", self.annotation_box.native)
        self.column.addLayout(layers)
        self.question = NotAnnotatedQuestion(bench.check)
        self.column.addWidget(self.question)
        self.offer = Offer("Restore", "Not now")
        self.column.addWidget(self.offer)

        self.new_button = button(
            "New annotation layer", "Add a layer over the image to paint classes into", bench.new_annotation
        )
        self.column.addWidget(self.new_button)
        self.class_table = ClassTable()
        self.column.addWidget(self.class_table)
        self.legend = Legend()
        self.column.addWidget(self.legend)
        self.guide = wrapped(QLabel())
        self.column.addWidget(self.guide)
        self.complete_button = button(
            "Slice is complete",
            with_key("What is not annotated in the slice in view becomes background; undo with Ctrl+Z", "complete"),
            bench.complete_slice,
        )
        self.copy_button = button(
            "Copy prediction",
            with_key(
                "Copy the predicted slice in view to where nothing is annotated, to correct it; undo with Ctrl+Z",
                "copy",
            ),
            bench.copy_prediction,
        )
        self._add_row(self.complete_button, self.copy_button)

        self.further = FurtherVolumesList(bench.further)
        self._pickers += self.further.pickers
        self.column.addWidget(Section("Further volumes", self.further))
        self.run_settings = RunSettings(is_shareable=True)
        self.minutes, self.until_better = self.run_settings.minutes, self.run_settings.until_better
        self.column.addWidget(self.run_settings)
        runner = bench.training
        self.train_button = button(
            "Train", with_key("Train a new network on what is painted, and on what will be", "train"), runner.start
        )
        self.continue_button = button(
            "Continue", "Train the present model further: what it has learnt is kept", self._on_continue
        )
        self.pause_button = button("Pause", "Wait after the present step", self._on_pause)
        self.stop_button = button("Stop", "End after the present step and keep the best model", runner.stop)
        grid = QGridLayout()
        for number, widget in enumerate((self.train_button, self.continue_button, self.pause_button, self.stop_button)):
            grid.addWidget(widget, number // 2, number % 2)
        self.column.addLayout(grid)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.column.addWidget(self.progress)
        self.status = wrapped(QLabel())
        self.column.addWidget(self.status)
        self.column.addWidget(self._message)
        self.preview = QCheckBox("Preview the slice in view while training")
        self.preview.setChecked(self._bench.shows_preview)
        self.column.addWidget(self.preview)
        self.plot = CurvesPlot()
        self.column.addWidget(self.plot)
        self.next_slices = NextSlices(bench.suggesting)
        self.column.addWidget(Section("Where to paint next", self.next_slices))
        self.files = ModelButtons(bench)
        self.load_button, self.save_button = self.files.load, self.files.save
        self.column.addWidget(self.files)

    def _add_row(self, *widgets: QWidget) -> None:
        row = QHBoxLayout()
        for widget in widgets:
            row.addWidget(widget)
        self.column.addLayout(row)

    def _connect(self) -> None:
        events, bench = self._session.events, self._bench
        self.chooser.chosen.connect(bench.choose_image)
        self.annotation_box.changed.connect(bench.choose_annotation)
        self.class_table.changed.connect(bench.edit_classes)
        self.class_table.chosen.connect(bench.paint_with)
        self.class_table.add_asked.connect(bench.add_class)
        self.run_settings.changed.connect(self._on_budget)
        self.run_settings.device_chosen.connect(bench.choose_device)
        self.offer.accepted.connect(bench.keeping.restore)
        self.offer.declined.connect(bench.keeping.dismiss)
        bench.guide.changed.connect(self._show_buttons)
        bench.further.changed.connect(self._show_buttons)
        self.preview.toggled.connect(self._on_preview)
        for signal in (events.phase, events.model, events.is_applying):
            self.follow(signal, self._show_buttons)
        self.follow(events.classes, self._show_classes)
        self.follow(events.train_config, self._show_budget)
        self.follow(events.training_progress, self._show_progress)
        self.follow(events.message, self._show_message)
        self.follow(events.curves_version, self._show_curves)
        self.follow(events.device, self._show_device)
        self.follow(events.kept, self._show_kept)
        self.follow(events.voxel_size, self.voxel_line.refresh)
        bench.layers_changed.connect(self._show_layers)
        bench.painted.connect(self._show_buttons)

    # --- what the user does -------------------------------------------------------------------------------

    def _on_budget(self, changes: dict[str, Any]) -> None:
        self._session.train_config = self._session.train_config.updated(**changes)

    def _on_preview(self, is_on: bool) -> None:
        self._bench.shows_preview = is_on

    def _on_pause(self) -> None:
        runner = self._bench.training
        if self._session.phase is Phase.PAUSED:
            runner.resume()
        else:
            runner.pause()

    def _on_continue(self) -> None:
        runner = self._bench.training
        if self._session.phase.is_running:
            runner.train_longer()
        else:
            runner.go_on()

    # --- what the session shows ---------------------------------------------------------------------------

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        super().set_colours(colours)
        self.plot.set_colours(colours)
        self.further.set_colours(colours)
        for part in (self.legend, self.offer, self.voxel_line):
            part.set_theme(colours)
        self.chooser.set_colours(colours)
        self.next_slices.set_colours(colours)
        self.run_settings.set_theme(colours)

    def reset_choices(self, *args: Any) -> None:
        """Refill the boxes, and choose the image where there is none yet."""
        super().reset_choices(*args)
        self.chooser.reset_choices()
        image = first_layer(self.image_box)
        if not self._bench.image_layers and image is not None:
            self._bench.choose_image([image])

    def _show_all(self) -> None:
        self._show_classes()
        self._show_budget()
        self._show_progress()
        self._show_message()
        self._show_curves()
        self._show_buttons()
        self._show_device()
        self._show_kept()
        self.voxel_line.refresh()

    def _show_device(self, *_: Any) -> None:
        self.run_settings.show_reason(self._session.device)

    def _show_kept(self, *_: Any) -> None:
        kept = self._session.kept
        self.offer.show_text(f"Painted slices of this image are kept: {kept}." if kept else "")

    def _show_layers(self) -> None:
        bench, box = self._bench, self.annotation_box
        self.chooser.show_choice(bench.image_layers, bench.image_axes, bench.image, bench.image_problem)
        if bench.annotation is not None and bench.annotation in box.choices and box.value != bench.annotation:
            with box.changed.blocked():
                box.value = bench.annotation
        self.voxel_line.refresh()
        self._show_buttons()

    def _show_classes(self, *_: Any) -> None:
        self.class_table.set_classes(self._session.classes)
        self.legend.set_classes(self._session.classes)
        self.plot.set_score_styles(
            [CurveStyle(str(entry.id), entry.name, entry.colour) for entry in self._session.classes]
        )

    def _show_budget(self, *_: Any) -> None:
        self.run_settings.show_config(self._session.train_config)
        self._show_buttons()

    def _show_progress(self, *_: Any) -> None:
        fraction, text = self._session.training_progress
        is_busy = fraction is None and self._session.phase.is_running
        self.progress.setRange(0, 0 if is_busy else 1000)
        self.progress.setValue(round(1000 * (fraction or 0)))
        self.status.setText(text)
        self._show_copying()

    def _show_message(self, *_: Any) -> None:
        self.show_message(self._session.message, warning=self._session.is_warning)

    def _show_buttons(self, *_: Any) -> None:
        session, bench = self._session, self._bench
        phase, is_running = session.phase, session.phase.is_running
        problem = bench.training.problem()
        self.next_slices.refresh()
        set_reason(self.train_button, problem)
        set_reason(self.stop_button, "" if is_running and phase is not Phase.STOPPING else "no training is running")
        self.pause_button.setText("Go on" if phase is Phase.PAUSED else "Pause")
        can_pause = phase in (Phase.TRAINING, Phase.PAUSED)
        set_reason(self.pause_button, "" if can_pause else "no training is running")
        self.continue_button.setText("Train longer" if is_running else "Continue")
        if is_running:
            reason = "" if can_pause else "training has not begun yet"
        else:
            reason = problem or bench.training.continuing_problem()
        set_reason(self.continue_button, reason)
        set_reason(self.new_button, "" if bench.image else bench.image_problem or "open an image first")
        set_reason(self.complete_button, self._painting_reason())
        self.files.refresh()
        self._show_guide(problem)
        self._show_progress()

    def _painting_reason(self) -> str:
        return "" if self._bench.annotation is not None else "make an annotation layer first"

    def _show_copying(self) -> None:
        layers = (self._bench.prediction, self._bench.training.preview_layer)
        reason = "there is no prediction yet: train or apply" if all(layer is None for layer in layers) else ""
        set_reason(self.copy_button, self._painting_reason() or reason)

    def _show_guide(self, problem: str) -> None:
        sentences = self._bench.guide.sentences()[:_MOST_ADVICE]
        if self._session.phase.is_running:
            sentences = []
        elif not sentences and problem:
            sentences = [problem]
        elif not problem and not sentences:
            sentences = ["click Train, and go on painting while it learns"] if self._session.model is None else []
        self.guide.setText("<br>".join(f"<b>Next:</b> {html.escape(text)}." for text in sentences))
        self.guide.setVisible(bool(sentences))

    def _show_curves(self, *_: Any) -> None:
        curves = self._session.curves
        if len(curves.losses) < self._drawn_losses or len(curves.validations) < self._drawn_scores:
            self.plot.clear()
            self._drawn_losses = self._drawn_scores = 0
        for step, seconds, loss in curves.losses[self._drawn_losses :]:
            self.plot.add_losses(CurvePoint(step, seconds, {"loss": loss}))
        for point in curves.validations[self._drawn_scores :]:
            iou: dict[str, float | None] = {str(label_id): value for label_id, value in point.iou.items()}
            self.plot.add_scores(CurvePoint(point.step, point.seconds, iou))
        self._drawn_losses, self._drawn_scores = len(curves.losses), len(curves.validations)
        self.plot.refresh()
