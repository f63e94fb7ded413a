"""What napari calls to open NIfTI and OME-Zarr. Needs no napari.

A reader that has been asked for a file gives its layers or raises an error that says why it cannot; napari shows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import nibabel
import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import FileError
from napari_unet3d.engine.volume import LazyArray
from napari_unet3d.io._guard import check_complete, quiet, reading
from napari_unet3d.io._paths import FORMATS, file_suffix
from napari_unet3d.io._stored import StoredArray
from napari_unet3d.io.layer_geometry import displayed_geometry
from napari_unet3d.io.nifti import nifti_label_names, nifti_seconds, read_nifti
from napari_unet3d.io.ome_zarr import Pyramid, is_zarr, label_images, read_pyramid

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]
Reader: TypeAlias = Callable[[str | Sequence[str]], list[LayerData]]

_MOST_LABELS: Final = 64
"""A NIfTI file of at most so many distinct whole numbers from 0 on counts as labels."""
_LARGEST_EDITABLE: Final = 2**29
"""Bytes of a label image that is read into memory, where it can be painted on."""


def get_nifti_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader of ``.nii`` and ``.nii.gz``, or None for another suffix."""
    return _reader(path, "nifti", _nifti_layers)


def get_zarr_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader of ``.zarr`` and ``.ome.zarr`` folders, or None for another suffix."""
    return _reader(path, "zarr", _zarr_layers)


def _reader(path: str | Sequence[str], kind: str, layers: Callable[[Path], list[LayerData]]) -> Reader | None:
    if not all(FORMATS.get(file_suffix(item)) == kind for item in _paths(path)):
        return None

    def read(path: str | Sequence[str]) -> list[LayerData]:
        found: list[LayerData] = []
        for item in _paths(path):
            if not item.exists():
                raise FileError(f"{item} does not exist; check the spelling and the folder")
            with reading(item):
                with quiet() as logged:
                    found += layers(item)
                check_complete(item, logged)
        return found

    return read


def _paths(path: str | Sequence[str]) -> list[Path]:
    return [Path(item) for item in ([path] if isinstance(path, str | os.PathLike) else path)]


def _nifti_layers(path: Path) -> list[LayerData]:
    shape = tuple(int(length) for length in nibabel.load(path).shape)  # type: ignore[attr-defined]
    if len(shape) < 2 or 0 in shape:
        raise FileError(f"{path} has shape {shape}; an image needs at least the axes X and Y")
    if max(shape[5:], default=1) > 1:
        raise FileError(f"{path} has shape {shape}; axes after X Y Z, time and one of values cannot be shown")
    is_series = max(shape[3:], default=1) > 1
    stored = read_nifti(path, "XYZTC"[: len(shape)] if is_series and len(shape) <= 5 else None)
    names = nifti_label_names(path)
    data = np.asarray(stored.array[...])
    if "S" in stored.axes:
        axes = _axes(stored)
        return [(_ordered(data, stored.axes, axes + "S"), {**_described(path, stored, axes), "rgb": True}, "image")]
    axes = _axes(stored)
    values = _ordered(data, stored.axes, ("C" if "C" in axes else "") + axes.replace("C", ""))
    seconds = nifti_seconds(path) if "T" in axes else None
    axes = axes.replace("C", "")
    channels = [values] if values.ndim == len(axes) else list(values)
    if len(channels) == 1 and _are_labels(data, names):
        meta = _described(path, stored, axes, seconds, is_image=False)
        return [(_editable(channels[0]), meta | _classes(names or {}), "labels")]
    described = [_described(path, stored, axes, seconds) for _ in channels]
    for i, meta in enumerate(described if len(channels) > 1 else ()):
        meta["name"] += f" [{i}]"
    return [(channel, meta, "image") for channel, meta in zip(channels, described, strict=True)]


def _axes(stored: StoredArray) -> str:
    """Axes of the layer: those of space, and T and C where they are longer than 1."""
    lengths = dict(zip(stored.axes, stored.array.shape, strict=True))
    return "".join(a for a in "TCZYX" if lengths.get(a, 0) > (1 if a in "TC" else 0))


def _ordered(data: NDArray[Any], stored: str, wanted: str) -> NDArray[Any]:
    """A view with the axes in another order; those that are not wanted have length 1."""
    kept = data[tuple(slice(None) if axis in wanted else 0 for axis in stored)]
    left = [axis for axis in stored if axis in wanted]
    return kept.transpose([left.index(axis) for axis in wanted])


def _are_labels(data: NDArray[Any], names: Mapping[int, str] | None) -> bool:
    if names is not None:
        return bool(data.dtype.kind in "iu" and data.min() >= 0)
    if data.dtype.kind not in "iu":
        return False
    ids: set[int] = set()
    for plane in data.T:  # in the order of the file
        ids.update(np.unique(plane).tolist())
        if len(ids) > _MOST_LABELS:
            return False
    return min(ids) >= 0 and max(ids) > 0


def _editable(labels: NDArray[Any]) -> NDArray[Any]:
    """A copy in memory of the smallest unsigned type, on which napari paints without converting."""
    kind = np.promote_types(np.min_scalar_type(int(labels.max(initial=0))), np.uint8)
    return np.array(labels, dtype=kind, order="C")


def _described(
    path: Path, stored: StoredArray, axes: str, seconds: float | None = None, *, is_image: bool = True
) -> dict[str, Any]:
    name = path.name[: -len(file_suffix(path))] or path.name
    return {"name": name, **displayed_geometry(stored, axes, seconds, protected=path if is_image else None)}


def _classes(names: Mapping[int, str], colours: Mapping[int, Any] | None = None) -> dict[str, Any]:
    """Arguments of a Labels layer for its class names and colours."""
    arguments: dict[str, Any] = {}
    if names:
        arguments["features"] = {"index": list(names), "class": list(names.values())}
    if colours:
        arguments["colormap"] = {None: "transparent", 0: "transparent", **colours}
    return arguments


def _zarr_layers(path: Path) -> list[LayerData]:
    if not path.is_dir() or not is_zarr(path):
        raise FileError(f"{path} holds no zarr array or group; give the folder of an OME-Zarr image")
    layers = _pyramid_layers(path, read_pyramid(path))
    for place in label_images(path):
        layers += _label_layers(place, read_pyramid(place))
    return layers


def _pyramid_layers(path: Path, pyramid: Pyramid) -> list[LayerData]:
    if "image-label" in pyramid.metadata:
        return _label_layers(path, pyramid)
    first = pyramid.levels[0]
    axes = _axes(first)
    channels = dict(zip(first.axes, first.array.shape, strict=True))["C"] if "C" in axes else 0
    layers: list[LayerData] = []
    for i in range(channels or 1):
        levels = _levels(pyramid, axes, i)
        meta = _described(path, first, axes.replace("C", ""), pyramid.seconds)
        if channels:
            meta |= {"name": f"{meta['name']} [{i}]", "blending": "additive"}
        meta |= _display(pyramid, i, meta["name"])
        if len(levels) > 1:
            layers.append((levels, {**meta, "multiscale": True}, "image"))
        else:
            layers.append((levels[0], meta, "image"))
    return layers


def _label_layers(path: Path, pyramid: Pyramid) -> list[LayerData]:
    first = pyramid.levels[0]
    if np.dtype(first.array.dtype).kind not in "biu":
        raise FileError(f"{path} calls itself labels but holds {first.array.dtype}; labels need whole numbers")
    axes = _axes(first).replace("C", "")
    described = pyramid.metadata.get("image-label") or {}
    names = {
        int(entry["label-value"]): str(entry.get("name") or entry.get("class"))
        for entry in described.get("properties") or ()
        if "label-value" in entry and (entry.get("name") or entry.get("class"))
    }
    colours = {
        int(entry["label-value"]): [channel / 255 for channel in entry["rgba"]]
        for entry in described.get("colors") or ()
        if entry.get("label-value") and entry.get("rgba")
    }
    meta = _described(path, first, axes, pyramid.seconds, is_image=False) | _classes(names, colours)
    levels = _levels(pyramid, _axes(first), 0)
    size = int(np.prod(levels[0].shape)) * np.dtype(levels[0].dtype).itemsize
    if size <= _LARGEST_EDITABLE:
        return [(_editable(np.asarray(levels[0][...])), meta, "labels")]
    if len(levels) > 1:  # napari does not offer to paint on a pyramid
        return [(levels, {**meta, "multiscale": True}, "labels")]
    return [(_as_dask(levels[0]), meta, "labels")]  # paint stays in memory, the file is only read


def _levels(pyramid: Pyramid, axes: str, channel: int) -> list[Any]:
    return [_lazy(level.array, level.axes, axes, channel) for level in pyramid.levels]


def _lazy(array: LazyArray, stored: str, axes: str, channel: int) -> Any:
    """The stored array as it is where its axes are those of the layer, else a dask view of it."""
    wanted = axes.replace("C", "")
    if stored == wanted:
        return array
    part = _as_dask(array)[
        tuple(slice(None) if axis in wanted else channel if axis == "C" and "C" in axes else 0 for axis in stored)
    ]
    left = [axis for axis in stored if axis in wanted]
    return part.transpose([left.index(axis) for axis in wanted])


def _as_dask(array: LazyArray) -> Any:
    import dask.array as da  # comes with napari

    return da.from_array(array, chunks=getattr(array, "chunks", "auto"))


def _display(pyramid: Pyramid, channel: int, name: str) -> dict[str, Any]:
    """Channel name, contrast and colour where the file tells them."""
    channels = (pyramid.metadata.get("omero") or {}).get("channels") or ()
    if channel >= len(channels):
        return {}
    entry = channels[channel]
    shown: dict[str, Any] = {}
    if entry.get("label"):
        shown["name"] = f"{name.rpartition(' [')[0] or name} {entry['label']}"
    window = entry.get("window") or {}
    start, end = window.get("start"), window.get("end")
    if isinstance(start, int | float) and isinstance(end, int | float) and start < end:
        shown["contrast_limits"] = (start, end)
    if isinstance(entry.get("color"), str) and len(entry["color"]) >= 6:
        shown["colormap"] = f"#{entry['color'][:6]}"
    return shown
