"""A few sentences about a dock, shown on demand."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from napari_unet3d.widgets._scrolling import wrapped


class Help(QWidget):
    """A question mark beside a short sentence; it opens and closes the rest.

    Parameters
    ----------
    sentence
        What the dock is for; always shown.
    text
        What to do in it, in order; simple HTML.
    """

    def __init__(self, sentence: str, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = wrapped(QLabel(text))
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.hide()
        self.button = QToolButton()
        self.button.setText("?")
        self.button.setCheckable(True)
        self.button.setToolTip("How to use this dock")
        self.button.setAccessibleName("Help")
        self.button.toggled.connect(self.text.setVisible)
        row = QHBoxLayout()
        row.addWidget(wrapped(QLabel(sentence)), 1)
        row.addWidget(self.button, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.text)
