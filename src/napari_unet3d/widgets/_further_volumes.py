"""A section of the Train dock: further painted volumes to train on, or to measure on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QFormLayout, QHBoxLayout, QLabel, QListWidget, QVBoxLayout, QWidget

from napari_unet3d.widgets._dock import button, layer_box, set_reason
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.further import FurtherVolumes

_ROWS_SHOWN = 3


class FurtherVolumesList(QWidget):
    """Lists layer pairs; adds and removes them.

    Parameters
    ----------
    further
        The list that is shown and changed.
    """

    def __init__(self, further: FurtherVolumes, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._further = further
        self._colours: ThemeColours | None = None
        self.image_box, self.labels_box = layer_box("Image"), layer_box("Labels")
        self.image_box.native.setToolTip("One more image to train on, with as many channels as the first")
        self.labels_box.native.setToolTip("The labels layer painted on it, of the same shape")
        self.pickers = [self.image_box, self.labels_box]
        self.is_measured = QCheckBox("only to measure on")
        self.is_measured.setToolTip(
            "Nothing is learnt from this volume: the score is measured there, instead of on held-out slices"
        )
        self.add_button = button("Add", "Put the two layers into the list", self._on_add)
        self.remove_button = button("Remove", "Take the chosen line out of the list", self._on_remove)
        self.list = QListWidget()
        self.list.setAccessibleName("Further volumes")
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMinimumWidth(1)
        self.message = wrapped(QLabel())
        self._lay_out()
        self.list.currentRowChanged.connect(self._show_buttons)
        further.changed.connect(self.refresh)
        for box in self.pickers:
            box.changed.connect(self._show_buttons)
        self.refresh()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(wrapped(QLabel("Painted volumes beside the one above:")))
        layout.addWidget(self.list)
        form = QFormLayout()
        form.addRow("Image", self.image_box.native)
        form.addRow("Labels", self.labels_box.native)
        layout.addLayout(form)
        layout.addWidget(self.is_measured)
        row = QHBoxLayout()
        row.addWidget(self.add_button)
        row.addWidget(self.remove_button)
        layout.addLayout(row)
        layout.addWidget(self.message)

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        self._colours = colours
        self.message.setStyleSheet(f"color: {colours.warning};")

    def refresh(self) -> None:
        """Show the list as it is."""
        self.list.clear()
        for entry in self._further.entries:
            use = " (measured on)" if entry.is_measured else ""
            text = f"{entry.image.name} + {entry.labels.name}{use}"
            self.list.addItem(text)
            self.list.item(self.list.count() - 1).setToolTip(text)  # type: ignore[union-attr]  # just added
        rows = min(_ROWS_SHOWN, self.list.count())
        self.list.setVisible(rows > 0)
        self.list.setFixedHeight(rows * max(self.list.sizeHintForRow(0), 20) + 2 * self.list.frameWidth() + 4)
        self._tell("")
        self._show_buttons()

    def _on_add(self) -> None:
        problem = self._further.add(
            self.image_box.value, self.labels_box.value, is_measured=self.is_measured.isChecked()
        )
        self._tell(problem)

    def _on_remove(self) -> None:
        self._further.remove(self.list.currentRow())

    def _tell(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def _show_buttons(self, *_: object) -> None:
        is_chosen = self.image_box.value is not None and self.labels_box.value is not None
        set_reason(self.add_button, "" if is_chosen else "choose an image and the labels layer painted on it first")
        set_reason(self.remove_button, "" if self.list.currentRow() >= 0 else "choose a line of the list first")
