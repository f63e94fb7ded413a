"""A few sentences about a dock, shown on demand."""

from __future__ import annotations

from typing import Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.widgets._scrolling import wrapped

_BUTTON_WIDTH: Final = 26

TRAIN_HELP: Final = """
<ol style='margin-left: -22px'>
<li>Choose the <b>image</b>, and make a <b>new annotation layer</b> or choose labels that you have.</li>
<li>Click a class and <b>paint</b> it on a few slices, on any axis; paint some background too. What you leave free
teaches nothing.</li>
<li><b>Train</b>, and go on painting where the preview is wrong: new strokes count at once.</li>
<li><b>Where to paint next</b> tells which slices would teach most.</li>
<li><b>Apply</b> the model in the Predict dock (Plugins › U-Net 3D › Predict).</li>
</ol>
Keys: Shift+B the slice is complete, Shift+C copy the prediction, Shift+N next slice, Shift+H show or hide the
prediction, Shift+T train, Shift+G apply.
"""

NETWORK_HELP: Final = """
<ol style='margin-left: -22px'>
<li>Choose a <b>preset</b>; <i>fast</i> suits a laptop and a few painted slices.</li>
<li>Change <b>settings</b> if you like. Each field tells what it does; what is wrong is said beside it.</li>
<li>The drawing shows the data on each level; below it stand memory, time, and how far the network sees.</li>
<li><b>Train</b> in the Train dock (Plugins › U-Net 3D › Train) uses what is set here.</li>
</ol>
<b>Save…</b> and <b>Load…</b> a recipe to use the same settings again, also on the command line.
"""

PREDICT_HELP: Final = """
<ol style='margin-left: -22px'>
<li>Train a model (Plugins › U-Net 3D › Train) or <b>load</b> a model file.</li>
<li>Choose the <b>image</b>: the one that was trained on, or any open one with as many channels.</li>
<li><b>Apply</b>: labels appear block by block, the slice in view first.</li>
<li><b>Clean up</b> and <b>measure</b> the labels; each clean-up is a new layer.</li>
<li><b>Export</b>: voxel size and affine of the image go along.</li>
</ol>
Your own layers are never changed. Closing the dock ends nothing.
"""


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
        self.button = QPushButton("?")
        self.button.setFixedWidth(_BUTTON_WIDTH)
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
