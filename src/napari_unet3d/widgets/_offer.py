"""A framed sentence with two answers."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours


class Offer(QFrame):
    """Hidden until there is something to offer.

    Parameters
    ----------
    yes, no
        Texts of the buttons.
    """

    accepted = Signal()
    """The user wants it."""
    declined = Signal()
    """The user does not want it now."""

    def __init__(self, yes: str, no: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("offer")
        self.text = wrapped(QLabel())
        self.yes, self.no = QPushButton(yes), QPushButton(no)
        self.yes.clicked.connect(lambda: self.accepted.emit())
        self.no.clicked.connect(lambda: self.declined.emit())
        buttons = QHBoxLayout()
        buttons.addWidget(self.yes)
        buttons.addWidget(self.no)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        self.hide()

    def set_theme(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        self.setStyleSheet(f"#offer {{ border: 1px solid {colours.accent}; border-radius: 3px; }}")

    def show_text(self, text: str) -> None:
        """Offer this; without a text nothing is offered."""
        self.text.setText(text)
        self.setVisible(bool(text))
