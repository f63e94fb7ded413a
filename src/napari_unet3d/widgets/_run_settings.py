"""For how long training goes on, and where it runs."""

from __future__ import annotations

from typing import Any, Final

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLabel, QSpinBox, QWidget

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours

_DEVICES: Final = ("auto", "cpu", "cuda", "mps")
_ALL_GPUS: Final = "cuda:all"
_MOST_PROCESSES: Final = 64


class RunSettings(QWidget):
    """Budget and device of a training.

    Parameters
    ----------
    parent
        Owner in the sense of Qt.
    is_shareable
        Whether several processes may share the work.
    """

    changed = Signal(object)
    """The user wants another budget or other processes: the changed fields of `TrainConfig`."""
    device_chosen = Signal(str)
    """The user wants another device."""

    def __init__(self, parent: QWidget | None = None, *, is_shareable: bool = False) -> None:
        super().__init__(parent)
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 24 * 60)
        self.minutes.setDecimals(1)
        self.minutes.setSuffix(" min")
        self.minutes.setToolTip("Wall time of the training, from the click to the finished model")
        self.until_better = QCheckBox("until it stops improving")
        self.until_better.setToolTip("Without a fixed time: ends when the score on held-out slices stands still")
        self.steps = wrapped(QLabel())
        self.device = QComboBox()
        self.device.addItems((*_DEVICES, _ALL_GPUS) if is_shareable else _DEVICES)
        self.device.setToolTip(
            "auto takes a CUDA GPU, then Apple's MPS, then the processor. The choice at the start is that of "
            "Preferences > U-Net 3D" + (". cuda:all trains on all GPUs" if is_shareable else "")
        )
        self.processes = QSpinBox()
        self.processes.setRange(0, _MOST_PROCESSES)
        self.processes.setSpecialValueText("one for each device")
        self.processes.setToolTip(
            "Processes that share every batch: with cuda:all one for each GPU. On a processor one is best, unless it "
            "has very many cores. napari stays free in any case"
        )
        self.reason = wrapped(QLabel())
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(4)
        form.addRow("Train for", self.minutes)
        form.addRow("", self.until_better)
        form.addRow("", self.steps)
        form.addRow("Device", self.device)
        if is_shareable:
            form.addRow("Processes", self.processes)
        form.addRow(self.reason)
        self.minutes.valueChanged.connect(self._on_budget)
        self.until_better.toggled.connect(self._on_budget)
        self.device.textActivated.connect(self.device_chosen.emit)
        self.processes.valueChanged.connect(lambda count: self.changed.emit({"processes": count or None}))

    def show_config(self, config: TrainConfig) -> None:
        """Show the settings of a training."""
        with _quiet(self.minutes, self.until_better, self.device, self.processes):
            self.until_better.setChecked(config.seconds is None and config.steps is None)
            if config.seconds is not None:
                self.minutes.setValue(config.seconds / 60)
            self.minutes.setEnabled(not self.until_better.isChecked())
            if self.device.findText(config.device) < 0:  # such as cuda:1
                self.device.addItem(config.device)
            self.device.setCurrentText(config.device)
            self.processes.setValue(config.processes or 0)
        self.steps.setText(
            "" if config.steps is None else f"{config.steps} steps, as the recipe says; set a time to change"
        )
        self.steps.setVisible(config.steps is not None)

    def show_reason(self, text: str) -> None:
        """Say where the last training ran, and why there."""
        self.reason.setText(text)
        self.reason.setVisible(bool(text))

    def set_theme(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        self.reason.setStyleSheet(f"color: {colours.faint_text};")

    def _on_budget(self, *_: Any) -> None:
        seconds = None if self.until_better.isChecked() else self.minutes.value() * 60
        self.changed.emit({"seconds": seconds, "steps": None})


class _quiet:
    """Blocks the signals of some widgets."""

    def __init__(self, *widgets: QWidget) -> None:
        self._widgets = widgets
        self._blockers: list[QSignalBlocker] = []

    def __enter__(self) -> None:
        self._blockers = [QSignalBlocker(widget) for widget in self._widgets]

    def __exit__(self, *_: Any) -> None:
        for blocker in self._blockers:
            blocker.unblock()
