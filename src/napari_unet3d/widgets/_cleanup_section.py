"""Tidying predicted labels: holes, small pieces, the largest piece, touching objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.widgets._class_volumes import unit_text
from napari_unet3d.widgets._dock import button, set_reason
from napari_unet3d.widgets._job_bar import JobBar
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours
from napari_unet3d.widgets._workbench.cleaning import Cleaning, Tidying
from napari_unet3d.widgets._workbench.labels_source import LabelsSource

_VOXELS: Final = "voxels"
_ALL: Final = "all structures"
_LARGEST: Final = 1e12
_INSET: Final = 24


class CleanUpSection(QWidget):
    """What to tidy, for which classes; each click makes a new layer.

    Parameters
    ----------
    cleaning
        Does the work.
    layer
        Gives the labels layer that the user chose, or None.
    """

    def __init__(self, cleaning: Cleaning, layer: Callable[[], Any], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._cleaning = cleaning
        self._layer = layer
        self._source: LabelsSource | None = None
        self.classes = QComboBox()
        self.classes.setToolTip("Which structures to tidy; the background is what removed pieces become")
        self.fill_holes = QCheckBox("fill holes")
        self.fill_holes.setToolTip("Background that a structure encloses becomes part of it; done first")
        self.limit_holes = QCheckBox("up to")
        self.limit_holes.setToolTip("Leave larger holes open")
        self.hole = _volume_box("Largest hole that is filled")
        self.keep_largest = QCheckBox("keep only the largest piece")
        self.keep_largest.setToolTip("Of each structure; other pieces become background")
        self.remove_small = QCheckBox("remove pieces below")
        self.remove_small.setToolTip("Smaller pieces become background; voxels that touch at a corner are one piece")
        self.piece = _volume_box("Volume that a piece needs to stay")
        self.unit = QComboBox()
        self.unit.setToolTip("Unit of both volumes")
        self.tidy_button = button("Clean up", "Make a tidied copy of the labels, as a new layer", self._on_tidy)
        self.separation = QDoubleSpinBox()
        self.separation.setRange(0, _LARGEST)
        self.separation.setDecimals(2)
        self.separation.setToolTip(
            "Least distance between the middles of two objects: about the diameter of a small one. Pieces are cut at "
            "their waists where their middles are further apart"
        )
        self.split_button = button(
            "Split and number", "Cut touching objects apart and give each a number, as a new layer", self._on_split
        )
        self.bar = JobBar(cleaning.job)
        self._lay_out()
        for box in (self.fill_holes, self.limit_holes, self.keep_largest, self.remove_small):
            box.toggled.connect(self._show_buttons)
        self.unit.activated.connect(self._on_unit)
        cleaning.job.changed.connect(self._show_buttons)
        self._unit = _VOXELS
        self._wants_voxels = False
        self.refresh()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(_row(QLabel("Of"), self.classes))
        layout.addWidget(self.fill_holes)
        inset = _row(self.limit_holes, self.hole)
        inset.setContentsMargins(_INSET, 0, 0, 0)
        layout.addLayout(inset)
        layout.addWidget(self.keep_largest)
        layout.addWidget(self.remove_small)
        inset = _row(self.piece, self.unit)
        inset.setContentsMargins(_INSET, 0, 0, 0)
        layout.addLayout(inset)
        layout.addWidget(self.tidy_button)
        layout.addWidget(wrapped(QLabel("Objects at least this far apart:")))
        layout.addLayout(_row(self.separation, self.split_button))
        layout.addWidget(self.bar)

    # --- what is shown ------------------------------------------------------------------------------------

    def refresh(self, *_: Any) -> None:
        """Another layer was chosen: its classes and its unit."""
        try:
            self._source = LabelsSource.of(self._layer())
        except UNet3dError:
            self._source = None
        chosen = self.classes.currentData()
        self.classes.clear()
        self.classes.addItem(_ALL, None)
        names = self._source.names if self._source else {}
        background = self._source.background_id if self._source else 0
        for label_id, name in sorted(names.items()):
            if label_id != background:
                self.classes.addItem(f"{name} ({label_id})", label_id)
        self.classes.setCurrentIndex(max(0, self.classes.findData(chosen)))
        unit = self._physical
        self.unit.clear()
        self.unit.addItem(_VOXELS, _VOXELS)
        if unit != "pixel":
            self.unit.addItem(unit_text(f"{unit}3"), unit)
            self.unit.setCurrentIndex(0 if self._wants_voxels else 1)
        self._unit = self.unit.currentData()
        self.separation.setSuffix(" voxels" if unit == "pixel" else f" {'µm' if unit == 'um' else unit}")
        self._show_suffixes()
        self._show_buttons()

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        self.bar.set_colours(colours)

    @property
    def _physical(self) -> str:
        return self._source.volume.voxel_size.unit if self._source else "pixel"

    @property
    def _voxel_volume(self) -> float:
        return self._source.volume.voxel_size.volume if self._source else 1.0

    def _show_suffixes(self) -> None:
        unit = _VOXELS if self._unit == _VOXELS else unit_text(f"{self._unit}3")
        other = "" if self._unit == _VOXELS else f"; one voxel is {self._voxel_volume:.4g} {unit}"
        self.hole.setSuffix(f" {unit}")  # the other one stands beside the box of units
        for box in (self.hole, self.piece):
            box.setToolTip(f"{box.property('purpose')}{other}")

    def _show_buttons(self, *_: Any) -> None:
        self.limit_holes.setEnabled(self.fill_holes.isChecked())
        self.hole.setEnabled(self.fill_holes.isChecked() and self.limit_holes.isChecked())
        self.piece.setEnabled(self.remove_small.isChecked())
        problem = self._cleaning.problem(self._layer())
        is_any = self.fill_holes.isChecked() or self.keep_largest.isChecked() or self.remove_small.isChecked()
        set_reason(self.tidy_button, problem or ("" if is_any else "tick what to do first"))
        set_reason(self.split_button, problem)

    # --- what the user does -------------------------------------------------------------------------------

    def _on_unit(self, *_: Any) -> None:
        """The same volumes in the other unit."""
        unit = self.unit.currentData()
        self._wants_voxels = unit == _VOXELS
        if unit != self._unit:
            factor = self._voxel_volume if self._unit == _VOXELS else 1 / self._voxel_volume
            self._unit = unit
            for box in (self.hole, self.piece):
                box.setValue(box.value() * factor)
            self._show_suffixes()

    def _on_tidy(self) -> None:
        factor = self._voxel_volume if self._unit == _VOXELS else 1.0
        tidying = Tidying(
            fill_holes=self.fill_holes.isChecked(),
            largest_hole=self.hole.value() * factor if self.limit_holes.isChecked() else None,
            keep_largest=self.keep_largest.isChecked(),
            minimum_volume=self.piece.value() * factor if self.remove_small.isChecked() else 0.0,
        )
        self._cleaning.tidy(self._layer(), tidying, self._classes())

    def _on_split(self) -> None:
        self._cleaning.split(self._layer(), self.separation.value(), self._classes())

    def _classes(self) -> tuple[int, ...] | None:
        label_id = self.classes.currentData()
        return None if label_id is None else (int(label_id),)


def _volume_box(purpose: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(1e-6, _LARGEST)
    box.setDecimals(3)
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    box.setValue(100.0)
    box.setProperty("purpose", purpose)
    return box


def _row(first: QWidget, second: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.addWidget(first)
    row.addWidget(second, 1)
    return row
