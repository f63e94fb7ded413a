"""A part of a dock that folds away."""

from __future__ import annotations

from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QVBoxLayout, QWidget
from superqt import QCollapsible

_UNLIMITED = 16_777_215  # QWIDGETSIZE_MAX


class _NoIcon(QIcon):
    """An icon that shows nothing and nevertheless counts as given; to PySide an empty `QIcon` is false."""

    def __bool__(self) -> bool:
        return True


class Section(QCollapsible):
    """Folds its content away under a title; while open, the content may grow and shrink.

    Parameters
    ----------
    title
        On the button that opens and closes.
    content
        What is folded away.
    expanded
        Whether it is open at first.
    """

    def __init__(self, title: str, content: QWidget, *, expanded: bool = False, parent: QWidget | None = None) -> None:
        # glyphs in the text follow theme and font; the icons would be painted once, in the colours of the moment
        super().__init__(title, parent, expandedIcon=_NoIcon(), collapsedIcon=_NoIcon())
        self._title = title
        self.setDuration(0)
        placeholder = self.content()
        self.setContent(content)
        placeholder.deleteLater()
        layout = self.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        button = self.toggleButton()
        button.setStyleSheet(
            "QPushButton { text-align: left; border: none; padding: 3px 2px; background: transparent; }"
            "QPushButton:focus { text-decoration: underline; }"
        )
        font = button.font()
        font.setBold(True)
        button.setFont(font)
        self.toggled.connect(self._on_toggled)
        if expanded:
            self.expand(animate=False)
        else:
            self.collapse(animate=False)

    def _on_toggled(self, is_open: bool) -> None:
        self.setText(f"{'▾' if is_open else '▸'}  {self._title}")
        self.toggleButton().setAccessibleName(self._title)
        self.content().setVisible(is_open)
        self.content().setMaximumHeight(_UNLIMITED if is_open else 0)
