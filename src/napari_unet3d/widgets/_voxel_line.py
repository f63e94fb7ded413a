"""The voxel size of the chosen image, and the offer to set on its layer what the file tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_unet3d.widgets._dock import button
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench


class VoxelLine(QWidget):
    """Such as "voxel 0.2 x 0.1 x 0.1 um, as its file tells".

    Parameters
    ----------
    bench
        Has the image.
    """

    def __init__(self, bench: Workbench, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bench = bench
        self.text = wrapped(QLabel())
        self.text.setToolTip("Edge lengths of a voxel, Z x Y x X")
        self.button = button(
            "Set it on the layer",
            "Show the image, and what lies over it, in the voxel size that its file tells",
            bench.file_scale.set_on_layers,
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.text)
        column.addWidget(self.button)

    def refresh(self, *_: Any) -> None:
        """Show the size of the chosen image."""
        image = self._bench.image
        is_told = image is not None and image.told_size is not None and not image.has_voxel_size
        self.button.setVisible(is_told)
        self.setVisible(image is not None)
        if image is None:
            return
        if is_told or image.has_voxel_size:
            self.text.setText(f"voxel {image.voxel_size}" + (", as its file tells" if is_told else ""))
        else:
            self.text.setText("no voxel size: voxels count as cubes")

    def set_theme(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        self.text.setStyleSheet(f"color: {colours.faint_text};")
