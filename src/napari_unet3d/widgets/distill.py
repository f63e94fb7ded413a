"""The Distill dock: a small, fast model from a large one, and the proof that it is as good."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.engine.config import DistillConfig
from napari_unet3d.engine.networks.presets import network_presets
from napari_unet3d.widgets._comparison_table import ComparisonTable, verdict_of
from napari_unet3d.widgets._config_form import ConfigForm
from napari_unet3d.widgets._dock import Dock, button, first_layer, layer_box, set_reason
from napari_unet3d.widgets._help import Help
from napari_unet3d.widgets._image_chooser import ImageChooser
from napari_unet3d.widgets._layers.prediction import PROVENANCE_KEY
from napari_unet3d.widgets._plots import CurvePoint, CurvesPlot, CurveStyle
from napari_unet3d.widgets._run_settings import RunSettings
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._section import Section
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._theme import ThemeColours
from napari_unet3d.widgets._workbench.bench import workbench_of
from napari_unet3d.widgets._workbench.distill_tasks import StudentChoice

if TYPE_CHECKING:
    import napari

_MODEL_FILTER: Final = "Models (*.safetensors)"
_LAYER: Final = Qt.ItemDataRole.UserRole
_SHARES: Final = ("1/2", "1/4", "1/8", "1/16")
_NETWORK_DOCK: Final = "as in the Network dock"
_ROWS_SHOWN: Final = 3
_FRAME: Final = 12  # of a list, around its rows
_CHOSEN_ELSEWHERE: Final = ("student_from",)
_HELP: Final = """
<ol style='margin-left: -22px'>
<li>The <b>teacher</b> is the present model, or models from files; of several the mean counts.</li>
<li>Choose how large the <b>student</b> may be. It learns what the teacher says about every voxel of the image, and
what you painted. Further images need no paint.</li>
<li><b>Distill</b>, and watch the agreement. <b>Stop</b> keeps the best student.</li>
<li>The <b>table</b> compares both on this image and this computer; <b>Flip</b> shows their labels in turn.</li>
<li><b>Save</b> the student, or use it in the Predict dock.</li>
</ol>
"""


class DistillDock(Dock):
    """Distils a small student from large teachers on the open image, and compares them.

    Parameters
    ----------
    napari_viewer
        The viewer; its workbench keeps everything, so that closing the dock loses nothing.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._bench = workbench_of(napari_viewer)
        self._session = self._bench.session
        self._runner = self._bench.distilling
        self._drawn_losses = self._drawn_scores = 0
        self._curves: Any = None
        self._figures: Any = None
        self._shown_teachers: list[str] = []
        self._build()
        self._connect()
        self._show_layers()
        self._show_curves()
        self._show()
        self.finish()

    # --- building -----------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.column.addWidget(Help("A small, fast model that labels as a large one does.", _HELP))
        self.chooser = ImageChooser()
        self.image_box = self.chooser.box
        self.column.addWidget(self.chooser)
        self._build_teachers()
        self._build_student()
        self._build_run()
        self._build_comparison()

    def _build_teachers(self) -> None:
        self.teachers = QListWidget()
        self.teachers.setToolTip("Models to learn from; of several the mean counts")
        self.teachers.setAccessibleName("Teachers")
        self.present_button = button(
            "Add present", "The model that was trained or loaded last", self._runner.add_present_model
        )
        self.file_button = button("Add file…", "Choose a model file as a teacher", self._on_add_file)
        self.remove_button = button("Remove", "Take the selected teacher away", self._on_remove)
        self.column.addWidget(QLabel("Teacher"))
        self.column.addWidget(self.teachers)
        self._add_row(self.present_button, self.file_button, self.remove_button)

    def _build_student(self) -> None:
        self.student = QComboBox()
        shares = {f"{share} of the operations": StudentChoice(share) for share in _SHARES}
        presets = {f"preset {name}": StudentChoice(None, name) for name in network_presets()}
        self._students = shares | presets
        self.student.addItems([*shares, _NETWORK_DOCK, *presets])
        self.student.setToolTip("The student: chosen by the program to fit a share of the teacher's work, or a network")
        chosen = self._runner.student_choice
        self.student.setCurrentText(next((k for k, v in self._students.items() if v == chosen), _NETWORK_DOCK))
        self.begin = QComboBox()
        self.begin.addItem("random weights", "scratch")
        self.begin.addItem("the teacher's weights that fit", "teacher")
        self.begin.setCurrentIndex(self.begin.findData(self._runner.config.student_from))
        self.begin.setToolTip("What the student begins with")
        for box in (self.student, self.begin):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        form = QFormLayout()
        form.addRow("Student", self.student)
        form.addRow("Begins with", self.begin)
        self.column.addLayout(form)
        self.with_annotation = QCheckBox("learn on the annotation, too")
        self.with_annotation.setToolTip("What is painted counts where it is painted; the teacher counts everywhere")
        self.with_scratch = QCheckBox("also train it without a teacher")
        self.with_scratch.setToolTip("To compare: the same network, time and held-out slices, the annotation alone")
        self.column.addWidget(self.with_annotation)
        self.column.addWidget(self.with_scratch)
        self.unlabelled = QListWidget()
        self.unlabelled.setToolTip("Tick images of the same kind to learn on them too; they need no annotation")
        self.unlabelled.setAccessibleName("Further images")
        self.no_unlabelled = wrapped(QLabel("No other image is open."))
        more = QWidget()
        inner = QVBoxLayout(more)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.unlabelled)
        inner.addWidget(self.no_unlabelled)
        self.column.addWidget(Section("Further images", more))
        self.form = ConfigForm(DistillConfig, self._runner.config, hidden=_CHOSEN_ELSEWHERE)
        self.column.addWidget(Section("Settings", self.form))

    def _build_run(self) -> None:
        runner = self._runner
        self.run_settings = RunSettings()
        self.column.addWidget(self.run_settings)
        self.start_button = button("Distill", "Distil a new student from the teacher", self.start)
        self.continue_button = button("Continue", "Let the student learn further", self._on_continue)
        self.pause_button = button("Pause", "Wait after the present step", self._on_pause)
        self.stop_button = button("Stop", "End after the present step and keep the best student", runner.stop)
        grid = QGridLayout()
        for number, widget in enumerate((self.start_button, self.continue_button, self.pause_button, self.stop_button)):
            grid.addWidget(widget, number // 2, number % 2)
        self.column.addLayout(grid)
        self.guide = wrapped(QLabel())
        self.column.addWidget(self.guide)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.column.addWidget(self.progress)
        self.status = wrapped(QLabel())
        self.column.addWidget(self.status)
        self.column.addWidget(self._message)
        self.preview = QCheckBox("Preview the slice in view")
        self.column.addWidget(self.preview)
        self.plot = CurvesPlot(
            (CurveStyle("soft", "soft: teacher"), CurveStyle("hard", "hard: annotation")),
            (CurveStyle("agreement", "agreement", "#0072b2"), CurveStyle("iou", "IoU held out", "#d55e00")),
            score_title="Agreement with the teacher",
            empty_text="Curves appear once distilling starts.",
            empty_scores_text="Scores appear after the first look at the student.",
        )
        self.column.addWidget(self.plot)

    def _build_comparison(self) -> None:
        runner = self._runner
        self.truth_box = layer_box("Labels")
        self.truth_box.native.setToolTip(
            "True labels, if there are any: 0 where not known; painted voxels do not count"
        )
        self._pickers = [self.truth_box]
        form = QFormLayout()
        form.addRow("Truth", self.truth_box.native)
        self.column.addLayout(form)
        self.compare_button = button(
            "Compare", "Label the image with teacher and student, on this computer", runner.compare
        )
        self.flip_button = button("Flip", "Show the teacher's labels instead of the student's, or back", runner.flip)
        self._add_row(self.compare_button, self.flip_button)
        self.table = ComparisonTable()
        self.column.addWidget(self.table)
        self.verdict = wrapped(QLabel())
        self.column.addWidget(self.verdict)
        self.use_button = button(
            "Use the student", "Make it the present model, for the Predict and Train docks", runner.use_student
        )
        self.save_button = button("Save student…", "Write the student to a model file", self._on_save)
        self._add_row(self.use_button, self.save_button)

    def _add_row(self, *widgets: QWidget) -> None:
        row = QHBoxLayout()
        for widget in widgets:
            row.addWidget(widget)
        self.column.addLayout(row)

    def _connect(self) -> None:
        bench, runner, events = self._bench, self._runner, self._session.events
        self.chooser.chosen.connect(bench.choose_image)
        self.student.currentIndexChanged.connect(self._on_student)
        self.begin.currentIndexChanged.connect(self._on_begin)
        self.with_annotation.toggled.connect(lambda is_on: setattr(runner, "with_annotation", is_on))
        self.with_scratch.toggled.connect(lambda is_on: setattr(runner, "with_scratch", is_on))
        self.unlabelled.itemChanged.connect(self._on_unlabelled)
        self.form.changed.connect(self._on_settings)
        self.run_settings.changed.connect(self._on_budget)
        self.run_settings.device_chosen.connect(bench.choose_device)
        self.preview.toggled.connect(lambda is_on: setattr(runner, "shows_preview", is_on))
        self.truth_box.changed.connect(lambda layer: setattr(runner, "truth", layer))
        self.teachers.currentRowChanged.connect(self._show_buttons)
        for signal in (events.model, events.phase, events.train_config):
            self.follow(signal, self._show)
        self.follow(events.classes, self._show_figures)
        runner.changed.connect(self._show)
        runner.curves_changed.connect(self._show_curves)
        bench.layers_changed.connect(self._show_layers)

    # --- what the user does -------------------------------------------------------------------------------

    def start(self) -> None:
        """Distil what is chosen."""
        self.form.flush()
        self._on_student()
        self._runner.start()

    def _on_student(self, *_: Any) -> None:
        choice = self._students.get(self.student.currentText())
        if choice is None:
            settings = {k: v for k, v in self._session.network_settings.items() if k not in ("in_channels", "classes")}
            choice = StudentChoice(None, self._session.network_preset, settings)
        self._runner.student_choice = choice

    def _on_begin(self, *_: Any) -> None:
        self._runner.config = self._runner.config.updated(student_from=self.begin.currentData())

    def _on_settings(self, config: DistillConfig) -> None:
        self._runner.config = config.updated(student_from=self.begin.currentData())

    def _on_budget(self, changes: dict[str, Any]) -> None:
        self._runner.train_config = self._runner.train_config.updated(**changes)
        self._show()

    def _on_unlabelled(self, *_: Any) -> None:
        items = [self.unlabelled.item(row) for row in range(self.unlabelled.count())]
        ticked = [item.data(_LAYER) for item in items if item and item.checkState() == Qt.CheckState.Checked]
        self._runner.unlabelled = tuple(ticked)

    def _on_add_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Choose a teacher", "", _MODEL_FILTER)
        if name:
            self._runner.add_teacher_file(Path(name))

    def _on_remove(self) -> None:
        self._runner.remove_teacher(self.teachers.currentRow())

    def _on_continue(self) -> None:
        self.form.flush()
        if self._runner.phase.is_running:
            self._runner.train_longer()
        else:
            self._runner.go_on()

    def _on_pause(self) -> None:
        if self._runner.phase is Phase.PAUSED:
            self._runner.resume()
        else:
            self._runner.pause()

    def _on_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the student", "student.safetensors", _MODEL_FILTER)
        if name:
            self._runner.save_student(Path(name))

    # --- what is shown ------------------------------------------------------------------------------------

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        super().set_colours(colours)
        for part in (self.plot, self.chooser, self.form):
            part.set_colours(colours)
        self.run_settings.set_theme(colours)

    def reset_choices(self, *args: Any) -> None:
        """Refill the boxes, and choose the image where there is none yet."""
        super().reset_choices(*args)
        self.chooser.reset_choices()
        image = first_layer(self.image_box)
        if not self._bench.image_layers and image is not None:
            self._bench.choose_image([image])
        self._show_layers()

    def _show_layers(self) -> None:
        bench = self._bench
        self.chooser.show_choice(bench.image_layers, bench.image_axes, bench.image, bench.image_problem)
        others = [
            layer
            for layer in self.image_box.choices
            if layer is not None and layer not in bench.image_layers and PROVENANCE_KEY not in layer.metadata
        ]
        self.unlabelled.blockSignals(True)
        self.unlabelled.clear()
        for layer in others:
            item = QListWidgetItem(str(layer.name))
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            is_ticked = layer in self._runner.unlabelled
            item.setCheckState(Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked)
            item.setData(_LAYER, layer)
            self.unlabelled.addItem(item)
        self.unlabelled.blockSignals(False)
        self.unlabelled.setVisible(bool(others))
        self.no_unlabelled.setVisible(not others)
        _set_rows(self.unlabelled)
        self._on_unlabelled()
        truth = self._runner.truth
        if truth is not None and truth in self.truth_box.choices and self.truth_box.value != truth:
            with self.truth_box.changed.blocked():
                self.truth_box.value = truth
        self._show()

    def _show(self, *_: Any) -> None:
        runner, session = self._runner, self._session
        self._show_teachers()
        for box, is_on in (
            (self.with_annotation, runner.with_annotation),
            (self.with_scratch, runner.with_scratch),
            (self.preview, runner.shows_preview),
        ):
            box.setChecked(is_on)
        self.run_settings.show_config(runner.train_config.updated(device=session.train_config.device))
        fraction, text = runner.progress
        is_busy = runner.phase.is_running or runner.is_comparing
        self.progress.setRange(0, 0 if is_busy and fraction is None else 1000)
        self.progress.setValue(round(1000 * (fraction or 0)))
        self.progress.setVisible(is_busy)
        self.status.setText(text)
        self.status.setVisible(bool(text))
        self.show_message(runner.message, warning=runner.is_warning)
        self._show_figures()
        self._show_buttons()

    def _show_teachers(self) -> None:
        runner = self._runner
        names = [teacher.name for teacher in runner.teachers]
        shown = names or [f"{teacher.name} (present model)" for teacher in runner.effective_teachers]
        if shown != self._shown_teachers:
            self._shown_teachers = shown
            self.teachers.clear()
            for name in shown:
                item = QListWidgetItem(name)
                item.setToolTip(name)
                self.teachers.addItem(item)
        self.teachers.setEnabled(bool(names))
        self.teachers.setVisible(bool(shown))
        _set_rows(self.teachers)

    def _show_buttons(self, *_: Any) -> None:
        runner, session = self._runner, self._session
        phase, is_running = runner.phase, runner.phase.is_running
        problem = runner.problem()
        set_reason(self.start_button, problem)
        idle = "" if not is_running and not runner.is_comparing else "wait for the end, or click Stop"
        set_reason(self.present_button, idle or ("" if session.model else "train or load a model first"))
        set_reason(self.file_button, idle)
        is_chosen = bool(runner.teachers) and self.teachers.currentRow() >= 0
        set_reason(self.remove_button, idle or ("" if is_chosen else "select a teacher that was added"))
        can_stop = (is_running and phase is not Phase.STOPPING) or runner.is_comparing
        set_reason(self.stop_button, "" if can_stop else "nothing is running")
        self.pause_button.setText("Go on" if phase is Phase.PAUSED else "Pause")
        can_pause = phase in (Phase.TRAINING, Phase.PAUSED)
        set_reason(self.pause_button, "" if can_pause else "no distillation is running")
        self.continue_button.setText("Distill longer" if is_running else "Continue")
        if is_running:
            reason = "" if can_pause else "distilling has not begun yet"
        else:
            reason = problem or ("" if runner.student else "distil a student first")
        set_reason(self.continue_button, reason)
        set_reason(self.compare_button, runner.comparing_problem())
        has_layers = None not in runner.layers
        set_reason(self.flip_button, "" if has_layers else "compare first: that makes the layers")
        is_flipped = has_layers and runner.layers[0].visible
        self.flip_button.setText("Flip to student" if is_flipped else "Flip to teacher")
        missing = "" if runner.student else "distil a student first"
        set_reason(self.use_button, missing)
        set_reason(self.save_button, missing)
        self.guide.setText("" if is_running or runner.is_comparing or not problem else f"Next: {problem}.")
        self.guide.setVisible(bool(self.guide.text()))

    def _show_figures(self, *_: Any) -> None:
        figures = self._runner.figures
        if figures is self._figures:
            return
        self._figures = figures
        student = self._runner.student
        self.table.show_figures(figures, student.classes if student else (), self._runner.meanings)
        self.verdict.setText(verdict_of(figures))
        self.verdict.setVisible(bool(self.verdict.text()))

    def _show_curves(self, *_: Any) -> None:
        curves = self._runner.curves
        if curves is not self._curves:
            self.plot.clear()
            self._curves, self._drawn_losses, self._drawn_scores = curves, 0, 0
        for loss in curves.losses[self._drawn_losses :]:
            terms: dict[str, float | None] = {"soft": loss.soft, "hard": loss.hard}
            self.plot.add_losses(CurvePoint(loss.step, loss.seconds, terms))
        for found in curves.agreements[self._drawn_scores :]:
            scores: dict[str, float | None] = {"agreement": found.agreement, "iou": found.mean_iou}
            self.plot.add_scores(CurvePoint(found.step, found.seconds, scores), is_best=found.is_best)
        self._drawn_losses, self._drawn_scores = len(curves.losses), len(curves.agreements)
        self.plot.refresh()


def _set_rows(rows: QListWidget) -> None:
    """As high as its rows, up to three."""
    height = rows.sizeHintForRow(0) if rows.count() else 0
    rows.setFixedHeight(min(rows.count(), _ROWS_SHOWN) * height + _FRAME)
