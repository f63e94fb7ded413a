"""Asking where labels are to be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qtpy.QtWidgets import QFileDialog, QWidget

_SUFFIXES: Final = (
    ("OME-TIFF, with voxel size (*.ome.tif)", ".ome.tif"),
    ("NIfTI, with affine (*.nii.gz)", ".nii.gz"),
    ("OME-Zarr, with voxel size (*.ome.zarr)", ".ome.zarr"),
    ("NumPy, ids only (*.npy)", ".npy"),
)
LABEL_FILTER: Final = ";;".join(text for text, _ in _SUFFIXES)
"""Of file dialogs: every format that labels can be written in."""

_KNOWN: Final = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".nii", ".nii.gz", ".zarr", ".npy")


def ask_label_file(parent: QWidget | None, layer_name: str) -> Path | None:
    """The file that the user wants labels in, its suffix that of the chosen format if they gave none; None for none."""
    name, chosen = QFileDialog.getSaveFileName(parent, "Export labels", f"{layer_name}.ome.tif", LABEL_FILTER)
    return label_path(name, chosen) if name else None


def label_path(name: str, chosen_filter: str) -> Path:
    """The file name with a suffix that can be written: its own, or that of the chosen filter."""
    if name.lower().endswith(_KNOWN):
        return Path(name)
    return Path(name + dict(_SUFFIXES).get(chosen_filter, ".ome.tif"))
