"""Where the voxels of a napari layer lie, as plain values: what a reader gives and a writer receives.

napari shows a volume upright, in the order of its slices, so layers get scale and translation only. The true place
of the voxels, which may be turned or mirrored, travels in the layer's metadata under `GEOMETRY_KEY` together with
how the volume was displayed when it was opened. A layer that was cropped, moved or given another voxel size since
is displayed differently by a known step, and the same step leads to its true place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize, parse_unit
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.volume import LazyArray, Volume
from napari_unet3d.io._stored import StoredArray, TimeAxis, unit_factor

GEOMETRY_KEY: Final = "napari_unet3d_geometry"
"""Of a layer's metadata. Copy the entry to every layer that is made to lie on the layer."""

_SECONDS: Final = {"microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0}


def displayed_geometry(
    stored: StoredArray, axes: str, seconds: float | None = None, *, protected: Path | None = None
) -> dict[str, Any]:
    """Arguments of a layer: ``axis_labels``, ``scale``, ``units``, ``translate`` and ``metadata``.

    Parameters
    ----------
    stored
        What the file says. A NIfTI volume starts at 0; the translation of an OME-Zarr is kept.
    axes
        Axes of the layer's data: Y X, perhaps with Z, and T in front.
    seconds
        From one time point to the next.
    protected
        A file that layers which lie on this one must not be saved over.
    """
    size, affine = stored.voxel_size, stored.affine
    arguments: dict[str, Any] = {"axis_labels": tuple(axes.lower())}
    if size is None and seconds is None:
        return arguments
    edges = dict(zip("TZYX", (seconds or 1.0, *(size or VoxelSize()).zyx), strict=True))
    unit = size.unit if size is not None else "pixel"
    arguments["scale"] = tuple(edges[axis] for axis in axes)
    arguments["units"] = tuple(("second" if seconds else "pixel") if axis == "T" else unit for axis in axes)
    if size is None or affine is None:
        return arguments
    shown = np.diag([*size.zyx, 1.0])
    if stored.source["format"] == "zarr":
        shown[:3, 3] = affine[:3, 3]
        origin = dict(zip("ZYX", (float(value) for value in affine[:3, 3]), strict=True))
        arguments["translate"] = tuple(origin.get(axis, 0.0) for axis in axes)
    lengths = dict(zip(stored.axes, stored.array.shape, strict=True))
    source = {**stored.source, "axes": "".join(a if a in "ZYX" else "." for a in stored.axes)}
    if protected is not None:
        source["path"] = protected
    arguments["metadata"] = {
        GEOMETRY_KEY: {
            "affine": affine,
            "displayed": shown,
            "unit": unit,
            "shape": tuple(int(lengths.get(axis, 1)) for axis in "ZYX"),
            "source": source,
        }
    }
    return arguments


def volume_of_layer(shape: Sequence[int], meta: Mapping[str, Any], name: str) -> tuple[Volume, TimeAxis | None]:
    """The geometry of a layer, as a volume of zeros that takes no memory, and its time axis.

    Parameters
    ----------
    shape
        Y X, Z Y X or T Z Y X, in front of Z or Y perhaps axes of length 1, which `without_extra_axes` removes;
        three axes are T Y X if the first is called t or time.
    meta
        As napari hands it to a writer.
    name
        For messages.

    Raises
    ------
    DataError
        If there are other axes longer than 1.
    """
    ndim = len(shape)
    names = _axis_names(ndim, meta)
    kept = _kept_axes(shape, meta)
    if not 2 <= len(kept) <= 4 or names[kept[0]] in ("c", "channel"):
        raise DataError(
            f"{name} has shape {tuple(shape)}; labels need the axes Y X, Z Y X or T Z Y X: save one channel at a time"
        )
    has_time = len(kept) == 4 or (len(kept) == 3 and names[kept[0]] in ("t", "time"))
    spatial = len(kept) - has_time
    units = [_length_unit(unit) for unit in meta.get("units") or ("pixel",) * ndim]
    affine = displayed_matrix(meta, ndim)[-spatial - 1 :, -spatial - 1 :]
    unit = units[-1]
    affine[:-1] *= np.array([unit_factor(own, unit) for own in units[-spatial:]])[:, np.newaxis]
    if spatial == 2:  # a plane is as thick as its pixels are wide
        flat, affine = affine, np.diag([float(np.linalg.norm(affine[:2, 1])), 0.0, 0.0, 1.0])
        affine[1:, 1:] = flat
    zyx = (1, *shape[-2:]) if spatial == 2 else tuple(shape[-3:])
    source: dict[str, Any] = {"axes": "ZYX"[-spatial:]}
    reference = (meta.get("metadata") or {}).get(GEOMETRY_KEY)
    if reference is not None:
        affine, unit, source = _placed(affine, unit, zyx, reference, source)
    volume = _volume_of_zeros(zyx, affine, unit, spatial, name, source)
    return volume, _time_axis(kept[0], shape, meta) if has_time else None


def without_extra_axes(labels: LazyArray, meta: Mapping[str, Any]) -> LazyArray:
    """The labels of a layer with the axes that `volume_of_layer` tells: axes of length 1 in front are left out."""
    kept = _kept_axes(labels.shape, meta)
    if len(kept) == len(labels.shape):
        return labels
    part: LazyArray = labels[tuple(slice(None) if axis in kept else 0 for axis in range(len(labels.shape)))]
    return part


def _kept_axes(shape: Sequence[int], meta: Mapping[str, Any]) -> list[int]:
    """All but the axes of length 1 in front of space; a time axis stays, and the last two or three."""
    ndim = len(shape)
    names = _axis_names(ndim, meta)
    space = min(ndim, 3)
    if ndim >= 3 and names[-3] in ("t", "time", "c", "channel"):
        space = 2
    return [i for i in range(ndim) if i >= ndim - space or shape[i] > 1 or names[i] in ("t", "time")]


def _axis_names(ndim: int, meta: Mapping[str, Any]) -> list[str]:
    names = [str(label).lower() for label in meta.get("axis_labels") or ()]
    return names if len(names) == ndim else [""] * ndim


def _placed(
    affine: NDArray[np.float64],
    unit: str,
    shape: tuple[int, ...],
    reference: Mapping[str, Any],
    source: Mapping[str, Any],
) -> tuple[NDArray[np.float64], str, dict[str, Any]]:
    """The true affine of what is displayed with `affine`, its unit, and what a writer may use of the file."""
    displayed, true = (np.asarray(reference[key], dtype=np.float64) for key in ("displayed", "affine"))
    own = affine.copy()
    own[:3] *= unit_factor(unit, reference["unit"])
    new_unit = unit if reference["unit"] == "pixel" else reference["unit"]
    # the thickness of a plane is not displayed
    compared = slice(1 if shape[0] == 1 else 0, None)
    tolerance = 1e-5 * float(np.linalg.norm(displayed[:3, :3], axis=0).min())
    if np.allclose(own[compared, compared], displayed[compared, compared], rtol=1e-6, atol=tolerance):
        same_shape = tuple(reference["shape"]) == tuple(shape)
        return true.copy(), new_unit, dict(reference["source"] if same_shape else source)
    return true @ np.linalg.inv(displayed) @ own, new_unit, dict(source)


def _volume_of_zeros(
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    unit: str,
    spatial_dims: int,
    name: str,
    source: Mapping[str, Any],
) -> Volume:
    z, y, x = (float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    is_plain = unit == "pixel" and np.array_equal(affine, np.eye(4))
    return Volume(
        np.broadcast_to(np.zeros((), np.uint8), (1, *shape)),
        VoxelSize(z, y, x, unit),
        affine=None if is_plain else affine,
        spatial_dims=spatial_dims,
        name=name,
        source=source,
    )


def displayed_matrix(meta: Mapping[str, Any], ndim: int) -> NDArray[np.float64]:
    """The transformation from indices to napari's world: affine, translation, rotation, shear, scale in turn."""
    turn = np.asarray(meta.get("rotate", np.eye(ndim)), dtype=np.float64)
    shear = np.asarray(meta.get("shear", np.zeros(ndim * (ndim - 1) // 2)), dtype=np.float64)
    skew = np.eye(ndim)
    if shear.ndim == 2:
        skew = shear
    else:
        skew[np.triu_indices(ndim, 1)] = shear
    result = np.eye(ndim + 1)
    result[:ndim, :ndim] = turn @ skew @ np.diag(np.asarray(meta.get("scale", np.ones(ndim)), dtype=np.float64))
    result[:ndim, ndim] = meta.get("translate", np.zeros(ndim))
    affine = np.asarray(meta.get("affine", np.eye(ndim + 1)), dtype=np.float64)
    return affine @ result


def _time_axis(axis: int, shape: Sequence[int], meta: Mapping[str, Any]) -> TimeAxis:
    unit = str((meta.get("units") or ("pixel",) * len(shape))[axis])
    seconds = _SECONDS.get(unit)
    step = float(np.asarray(meta.get("scale", np.ones(len(shape))))[axis])
    return TimeAxis(int(shape[axis]), seconds * step if seconds is not None and step > 0 else None)


def _length_unit(unit: object) -> str:
    try:
        return parse_unit(str(unit))
    except ConfigError:  # time, or a length we do not write
        return "pixel"
