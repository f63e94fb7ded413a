"""Reading and writing volumes of any known format, by the suffix of the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.engine.volume import Volume, checked_labels
from napari_unet3d.io._guard import check_complete, quiet, reading
from napari_unet3d.io._paths import check_output, file_format, file_suffix, is_supported_output
from napari_unet3d.io._stored import StoredArray, TimeAxis, same_size, stretched
from napari_unet3d.io.nifti import read_nifti
from napari_unet3d.io.npy import read_npy
from napari_unet3d.io.ome_zarr import is_zarr, read_zarr
from napari_unet3d.io.output import OutputWriter
from napari_unet3d.io.tiff import read_tiff

__all__ = [
    "OutputWriter",
    "check_output",
    "file_format",
    "file_suffix",
    "is_supported_output",
    "open_output",
    "read_labels",
    "read_volume",
    "write_labels",
]

_READERS: Final[Mapping[str, Callable[[Path, str | None], StoredArray]]] = {
    "nifti": read_nifti,
    "npy": read_npy,
    "tiff": read_tiff,
    "zarr": read_zarr,
}


def read_volume(
    path: str | os.PathLike[str], *, axes: str | None = None, voxel_size: VoxelSize | None = None
) -> Volume:
    """An image file as a `Volume`, read lazily where the format allows.

    Zarr, uncompressed TIFF in one piece, uncompressed NIfTI and NPY are not read before they are sliced;
    compressed TIFF and NIfTI are.

    Parameters
    ----------
    path
        ``.nii``, ``.nii.gz``, ``.tif(f)``, ``.ome.tif(f)``, ``.npy``, ``.zarr``, ``.ome.zarr`` or a folder
        inside one.
    axes
        One letter of T, C, Z, Y, X for each stored axis, instead of the file's; for NIfTI in the order of
        nibabel, such as XYZC. A single plane is a 2D image unless its Z axis is named here.
    voxel_size
        Instead of the file's; numbers without a unit take the file's unit.

    Raises
    ------
    ConfigError
        If `axes` are no axes.
    DataError
        If the axes cannot be told apart, time is longer than 1, or the file holds no real numbers.
    FileError
        If the file is missing, empty, damaged or of an unknown format.
    """
    path = Path(path)
    return _read_stored(path, axes).to_volume(
        path, voxel_size=voxel_size, is_stack=axes is not None and "Z" in axes.upper()
    )


def read_labels(
    path: str | os.PathLike[str],
    image: Volume,
    *,
    axes: str | None = None,
    zero_is_background: bool = False,
) -> tuple[NDArray[np.unsignedinteger], list[str]]:
    """Label ids of an image.

    Parameters
    ----------
    path
        A file of any known format. Only its shape has to be that of the image.
    image
        The image.
    axes
        As for `read_volume`.
    zero_is_background
        Every id moves up by one (see `engine.volume.checked_labels`).

    Returns
    -------
    labels
        Z Y X, uint8 or uint16.
    warnings
        Sentences about a voxel size or affine that is missing or differs from the image's, which is used.

    Raises
    ------
    ConfigError
        If `axes` are no axes.
    DataError
        If the shape is not that of the image, or a value is no label id.
    FileError
        If the file cannot be read.
    """
    path = Path(path)
    stored = _read_stored(path, axes)
    if axes is None and stored.source["format"] != "nifti" and tuple(stored.array.shape) == image.shape:
        # a stack of labels is often saved as time points, channels or colours: the shape says what it is
        stored = replace(stored, axes="ZYX")
    labels = stored.to_volume(path)
    if labels.channels != 1 or labels.shape != image.shape:
        shape = labels.shape if labels.channels == 1 else tuple(labels.data.shape)
        raise DataError(
            f"{path.name} has shape {shape} but {image.name} has {image.shape} (Z Y X): labels need the "
            "shape of their image; paint on this image, or resample the labels to it"
        )
    values = labels.read()[0]
    if "slope" in stored.source:
        values = _unscaled_ids(values, stored.source["slope"])
    ids = checked_labels(values, path.name, zero_is_background=zero_is_background)
    return ids, _geometry_warnings(stored, path.name, image)


def _unscaled_ids(values: NDArray[Any], slope: float) -> NDArray[Any]:
    """Whole numbers where a stored slope kept them from being exact (up to half its step)."""
    rounded = np.rint(values)
    tolerance = min(slope / 2, 0.01) + 1e-6 * float(np.abs(values).max(initial=0))
    return rounded if np.allclose(values, rounded, rtol=0, atol=tolerance) else values


def _geometry_warnings(labels: StoredArray, name: str, image: Volume) -> list[str]:
    used = f"that of {image.name}"
    if labels.source["format"] == "npy":
        return []
    if labels.voxel_size is None:
        if image.voxel_size == VoxelSize():
            return []
        return [f"{name} has no voxel size; {used}, {image.voxel_size}, is used"]
    if not same_size(labels.voxel_size, image.voxel_size):
        return [f"{name} has voxel size {labels.voxel_size}; {used}, {image.voxel_size}, is used"]
    if labels.affine is None or image.affine is None:
        return []
    affine = stretched(labels.affine, labels.voxel_size, image.voxel_size)
    if np.allclose(affine, image.affine, rtol=1e-3, atol=1e-2 * min(image.voxel_size.zyx)):
        return []
    return [f"{name} lies elsewhere in space than {image.name} (their affines differ); {used} is used"]


def write_labels(
    path: str | os.PathLike[str],
    labels: NDArray[np.integer[Any]],
    image: Volume,
    *,
    overwrite: bool = True,
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write label ids that lie on an image.

    Parameters
    ----------
    path
        See `check_output`.
    labels
        Z Y X, of the shape of the image; ids 0..65535.
    image
        Gives shape, voxel size and affine.
    overwrite
        Whether an older file may be replaced.
    class_names
        Names of ids, kept where the format has a place for them.

    Raises
    ------
    DataError
        If the shape is not that of the image, or a value is no label id.
    FileError
        If the file cannot be written; an older one is left as it was.
    """
    if labels.dtype not in (np.uint8, np.uint16):
        labels = checked_labels(labels, "labels")
    if tuple(labels.shape) != image.shape:
        raise DataError(
            f"labels have shape {tuple(labels.shape)} but {image.name} has {image.shape} (Z Y X); "
            "write them with the image they belong to"
        )
    output = open_output(path, image.shape, labels.dtype, image, overwrite=overwrite, class_names=class_names)
    with output:
        z, y, x = image.shape
        output.write((slice(0, z), slice(0, y), slice(0, x)), labels)


def open_output(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    dtype: DTypeLike,
    image: Volume,
    *,
    channels: int = 0,
    time: TimeAxis | None = None,
    overwrite: bool = True,
    class_names: Mapping[int, str] | None = None,
) -> OutputWriter:
    """A writer for a result that may be larger than memory; see `OutputWriter`.

    Raises
    ------
    FileError
        As `check_output`; the image's own file is never replaced.
    """
    inputs = [image.source["path"]] if "path" in image.source else []
    target = check_output(path, overwrite=overwrite, inputs=inputs)
    return OutputWriter(target, shape, dtype, image, channels=channels, time=time, class_names=class_names)


def _read_stored(path: Path, axes: str | None) -> StoredArray:
    with reading(path):
        kind = _input_format(path)
        with quiet() as logged:
            stored = _READERS[kind](path, axes)
        check_complete(path, logged)
    return stored


def _input_format(path: Path) -> str:
    if not path.exists():
        raise FileError(f"{path} does not exist; check the spelling and the folder")
    if path.is_dir():
        if is_zarr(path):
            return "zarr"
        raise FileError(f"{path} is a folder that holds no zarr array or image; give a file or an OME-Zarr")
    kind = file_format(path)
    if kind == "zarr":
        raise FileError(f"{path} is a file, but an OME-Zarr is a folder; give the folder")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty (0 bytes); save it again")
    return kind
