"""Labels to a file of any format, and a table of what they measure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import LazyArray, Volume
from napari_unet3d.io._stored import TimeAxis
from napari_unet3d.io.files import open_output
from napari_unet3d.io.label_blocks import id_type, slabs

_CONVENTIONAL_BACKGROUND: Final = 1


def export_labels(
    labels: LazyArray,
    path: str | os.PathLike[str],
    volume: Volume,
    *,
    classes: Mapping[int, str] | None = None,
    background_as_zero: bool = False,
    time: TimeAxis | None = None,
) -> Path:
    """Write labels with the geometry of their image, a slab at a time; there only when complete.

    Parameters
    ----------
    labels
        Z Y X, or Y X for a 2D image; with `time`, T in front. Any integer type, NumPy or lazy; ids
        0..4294967295. The file is uint8 or uint16 where the ids fit.
    path
        ``.ome.tif``, ``.tif``, ``.nii``, ``.nii.gz``, ``.ome.zarr``, ``.zarr`` or ``.npy``; an older file is
        replaced, the image's own never.
    volume
        The image: its shape has to be that of the labels. Voxel size, unit and affine are taken from it, as
        far as the format has them; `io.layer_geometry.volume_of_layer` makes one from a layer.
    classes
        Names of ids, kept where the format has a place for them.
    background_as_zero
        Write the background, the lowest id of `classes` (1 without classes), as 0.
    time
        The time axis in front.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    DataError
        If the shape is not that of the image, or a value is no label id.
    FileError
        If the file cannot be written; an older one is left as it was.
    """
    names = dict(classes or {})
    background = min(names, default=_CONVENTIONAL_BACKGROUND)
    planar = volume.spatial_dims == 2 and len(labels.shape) == 2 + (time is not None)
    shape = (() if time is None else (time.length,)) + (volume.shape[1:] if planar else volume.shape)
    if tuple(labels.shape) != shape:
        raise DataError(
            f"labels have shape {tuple(labels.shape)} but {volume.name} has {shape}; "
            "write them with the image they belong to"
        )
    spatial_dims = 2 if planar else 3
    dtype = id_type(labels, spatial_dims, "labels")
    if background_as_zero and background in names:
        names[0] = names.pop(background)
    with open_output(path, volume.shape, dtype, volume, time=time, class_names=names) as output:
        for time_point, z, block in slabs(labels, spatial_dims):
            ids = np.where(block == background, 0, block) if background_as_zero else block
            box = (z, slice(0, volume.shape[1]), slice(0, volume.shape[2]))
            output.write(box, ids.astype(dtype, copy=False), time_point)
    return Path(path)
