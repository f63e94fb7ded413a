"""The voxel size of a file, without reading its voxels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.io._guard import quiet, reading
from napari_unet3d.io._paths import FORMATS, file_suffix
from napari_unet3d.io.nifti import nifti_voxel_size
from napari_unet3d.io.ome_zarr import is_zarr, read_zarr
from napari_unet3d.io.tiff import tiff_voxel_size


def voxel_size_of_file(path: str | os.PathLike[str]) -> VoxelSize | None:
    """The voxel size that a TIFF, OME-TIFF, ImageJ, NIfTI or OME-Zarr file tells, from its metadata alone.

    Returns
    -------
    VoxelSize or None
        None where the file tells none, is of another format, or cannot be read.
    """
    path = Path(path)
    kind = "zarr" if path.is_dir() and is_zarr(path) else FORMATS.get(file_suffix(path), "")
    if kind not in _SIZES:
        return None
    try:
        with reading(path), quiet():
            return _SIZES[kind](path)
    except UNet3dError:
        return None


def _zarr_voxel_size(path: Path) -> VoxelSize | None:
    return read_zarr(path).voxel_size


_SIZES: Final[Mapping[str, Callable[[Path], VoxelSize | None]]] = {
    "nifti": nifti_voxel_size,
    "tiff": tiff_voxel_size,
    "zarr": _zarr_voxel_size,
}
