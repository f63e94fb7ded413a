"""Which image is worked on: a layer, further layers as channels, and what the axes mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QLineEdit, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_unet3d.widgets._dock import layer_box
from napari_unet3d.widgets._layers.axes import data_shape, is_rgb
from napari_unet3d.widgets._layers.image import ImageChoice
from napari_unet3d.widgets._layers.prediction import PROVENANCE_KEY
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._section import Section
from napari_unet3d.widgets._theme import ThemeColours

_LAYER: Final = Qt.ItemDataRole.UserRole
_ROWS_SHOWN: Final = 4


class ImageChooser(QWidget):
    """A box for the image, a list of layers that can be its further channels, a field for the axes.

    It shows what its owner tells it (`show_choice`) and chooses nothing on its own.
    """

    chosen = Signal(object, object)
    """The user chose image layers (a list, empty for none) and axes (a string; None for guessed ones)."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[Any] = []
        self._asked: str | None = None
        self._shown_axes: str | None = None
        self.box = layer_box("Image")
        self.box.native.setToolTip("The image layer to work on")
        self.facts = wrapped(QLabel())
        self.channels = QListWidget()
        self.channels.setToolTip("Tick layers of the same shape and place to use them as further channels")
        self.channels.setAccessibleName("Further channels")
        self.channels.setSpacing(3)
        self.no_channels = wrapped(QLabel("No other image layer has the same shape."))
        self.axes = QLineEdit()
        self.axes.setToolTip(
            "One letter for each axis of the layer's data, out of T (time), C (channel), Z, Y, X, such as TZYX or "
            "ZYXC. Empty: guessed from names and shape"
        )
        self.axes.setMaxLength(8)
        self.problem = wrapped(QLabel())
        self._lay_out()
        self.box.changed.connect(self._on_box)
        self.channels.itemChanged.connect(self._on_channels)
        self.axes.editingFinished.connect(self._on_axes)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Image", self.box.native)
        more = QWidget()
        inner = QVBoxLayout(more)
        inner.setContentsMargins(0, 0, 0, 0)
        axes = QFormLayout()
        axes.addRow("Axes", self.axes)
        inner.addLayout(axes)
        inner.addWidget(self.problem)
        inner.addWidget(QLabel("Further channels"))
        inner.addWidget(self.channels)
        inner.addWidget(self.no_channels)
        self.section = Section("Axes and channels", more)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.facts)
        layout.addWidget(self.section)

    # --- what the user does -------------------------------------------------------------------------------

    def _on_box(self, layer: Any) -> None:
        self.chosen.emit([] if layer is None else [layer], None)

    def _on_channels(self, *_: Any) -> None:
        if self._layers:
            self.chosen.emit([self._layers[0], *self._ticked()], self._asked)

    def _on_axes(self) -> None:
        asked = self.axes.text().strip().upper() or None
        if asked != self._shown_axes and self._layers:
            self.chosen.emit(list(self._layers), asked)

    def _ticked(self) -> list[Any]:
        items = [self.channels.item(row) for row in range(self.channels.count())]
        return [item.data(_LAYER) for item in items if item and item.checkState() == Qt.CheckState.Checked]

    # --- what the owner tells -----------------------------------------------------------------------------

    def show_choice(self, layers: Sequence[Any], axes: str | None, image: ImageChoice | None, problem: str) -> None:
        """Show what is chosen.

        Parameters
        ----------
        layers, axes
            What was asked for.
        image
            What came of it; None where they do not fit together.
        problem
            Why they do not.
        """
        self._layers, self._asked = list(layers), axes
        first = layers[0] if layers else None
        if first is None or first in self.box.choices:
            with self.box.changed.blocked():
                self.box.value = first
        self._fill_channels()
        self._shown_axes = axes or (image.axes if image else None)
        self.axes.setText(self._shown_axes or "")
        self.axes.setEnabled(bool(layers))
        self.facts.setText(_facts(image) if image else "")
        self.facts.setVisible(image is not None)
        shown = problem if layers else ""
        self.problem.setText(shown)
        self.problem.setVisible(bool(shown))
        if shown or len(layers) > 1:
            self.section.expand(animate=False)

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        self.problem.setStyleSheet(f"color: {colours.error};")
        self.facts.setStyleSheet(f"color: {colours.faint_text};")

    def reset_choices(self, *args: Any) -> None:
        """Layers came, went or changed their names."""
        with self.box.changed.blocked():
            self.box.reset_choices()
            # a box that loses its layer shows another one, which nobody chose
            self.box.value = self._layers[0] if self._layers and self._layers[0] in self.box.choices else None
        self._fill_channels()

    def _fill_channels(self) -> None:
        first = self._layers[0] if self._layers else None
        others = [layer for layer in self.box.choices if layer is not None and layer != first]
        fitting = [layer for layer in others if first is not None and _may_join(first, layer)]
        self.channels.blockSignals(True)
        self.channels.clear()
        for layer in fitting:
            item = QListWidgetItem(str(layer.name))
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            is_ticked = layer in self._layers
            item.setCheckState(Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked)
            item.setData(_LAYER, layer)
            self.channels.addItem(item)
        self.channels.blockSignals(False)
        self.channels.setVisible(bool(fitting))
        self.no_channels.setVisible(not fitting)
        row = self.channels.sizeHintForRow(0) + 2 * self.channels.spacing() if fitting else 0
        self.channels.setFixedHeight(min(len(fitting), _ROWS_SHOWN) * row + 8)


def _may_join(first: Any, other: Any) -> bool:
    is_result = PROVENANCE_KEY in other.metadata
    return not is_result and not is_rgb(first) and not is_rgb(other) and data_shape(first) == data_shape(other)


def _facts(image: ImageChoice) -> str:
    """Such as ``Z 20 × Y 48 × X 56 voxels, 2 channels``."""
    lengths = dict(image.lengths)
    spatial = " × ".join(f"{axis} {lengths[axis]}" for axis in "ZYX" if axis in lengths)
    parts = [f"{spatial} voxels"]
    if image.channels > 1:
        parts.append(f"{image.channels} channels")
    if image.time_points > 1:
        parts.append(f"{image.time_points} time points")
    return ", ".join(parts)
