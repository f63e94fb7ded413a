"""What a labels layer without zeros makes us ask: which of its ids means "not annotated"."""

from __future__ import annotations

import html
from typing import Any, Final

from qtpy.QtWidgets import QComboBox, QLabel, QVBoxLayout, QWidget

from napari_unet3d.engine.volume import NOT_ANNOTATED
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._workbench.annotation_check import AnnotationCheck

_CHOOSE: Final = "choose…"
_NONE: Final = "none: everything is annotated"


class NotAnnotatedQuestion(QWidget):
    """Asks once for each chosen layer; hidden while there is nothing to ask.

    Parameters
    ----------
    check
        What is asked about; told the answer.
    """

    def __init__(self, check: AnnotationCheck, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._check = check
        self._offered: tuple[int, ...] = ()
        self.text = wrapped(QLabel())
        self.box = QComboBox()
        self.box.setToolTip(
            "Voxels with this id are not learnt from. The layer itself stays as it is; 0 always means 'not annotated'"
        )
        self.box.setAccessibleName("Id that means not annotated")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addWidget(self.box)
        self.box.activated.connect(self._on_answered)
        check.changed.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Ask what there is to ask."""
        check = self._check
        self.setVisible(check.is_asking)
        if not check.is_asking:
            self._offered = ()
            return
        self.text.setText(
            f"No voxel of <b>{html.escape(check.layer_name)}</b> is 0. Which id means <i>not annotated</i>?"
        )
        if check.ids != self._offered:
            self._offered = check.ids
            self.box.clear()
            self.box.addItem(_CHOOSE, None)
            self.box.addItem(_NONE, NOT_ANNOTATED)
            for label_id in check.ids:
                self.box.addItem(str(label_id), label_id)
        answer = check.not_annotated if check.is_answered else None
        self.box.setCurrentIndex(self.box.findData(answer) if answer is not None else 0)

    def _on_answered(self, index: int) -> None:
        answer = self.box.itemData(index)
        if answer is not None:
            self._check.answer(int(answer))
