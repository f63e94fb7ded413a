"""What napari calls to save a Labels layer. Needs no napari."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_unet3d.io._paths import FORMATS, file_suffix
from napari_unet3d.io.class_names import class_names
from napari_unet3d.io.label_export import export_labels
from napari_unet3d.io.layer_geometry import volume_of_layer, without_extra_axes
from napari_unet3d.io.layer_order import in_order


def write_ome_tiff(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a Labels layer as OME-TIFF; see `save_layer`."""
    return save_layer(path, data, meta, ".ome.tif")


def write_nifti(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a Labels layer as NIfTI; see `save_layer`."""
    return save_layer(path, data, meta, ".nii.gz")


def write_ome_zarr(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a Labels layer as OME-Zarr; see `save_layer`."""
    return save_layer(path, data, meta, ".ome.zarr")


def save_layer(path: str, data: Any, meta: Mapping[str, Any], suffix: str) -> list[str]:
    """Save a Labels layer with its geometry and the names of its classes.

    Parameters
    ----------
    path
        The file.
    data
        Integers with the axes of `volume_of_layer`; of a multiscale layer the full resolution is saved.
    meta
        As napari hands it over. Class names are the columns ``index`` and ``class`` (or ``name``) of ``features``.
    suffix
        Appended where the path has no suffix of the same format.

    Returns
    -------
    list of str
        The file written.

    Raises
    ------
    DataError
        If the layer has axes or values that labels cannot have.
    FileError
        If the file cannot be written.
    """
    target = Path(path)
    if FORMATS.get(file_suffix(target)) != FORMATS[suffix]:
        target = target.with_name(target.name + suffix)
    labels, meta = in_order(data[0] if _is_multiscale(data) else data, meta)
    volume, time = volume_of_layer(labels.shape, meta, str(meta.get("name") or "the layer"))
    labels = without_extra_axes(labels, meta)
    return [str(export_labels(labels, target, volume, classes=class_names(meta), time=time))]


def _is_multiscale(data: Any) -> bool:
    return not hasattr(data, "dtype") or isinstance(data, list | tuple) or type(data).__name__ == "MultiScaleData"
