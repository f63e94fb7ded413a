"""OME-Zarr 0.4 (zarr version 2) and 0.5 (version 3), and zarr arrays without metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from napari_unet3d.engine.axes import VoxelSize, parse_unit
from napari_unet3d.engine.errors import ConfigError, FileError
from napari_unet3d.engine.volume import LazyArray, Volume
from napari_unet3d.io._axes import check_length, given_axes
from napari_unet3d.io._stored import StoredArray, TimeAxis, unit_factor
from napari_unet3d.io.npy import array_axes

_MARKERS: Final = ("zarr.json", ".zgroup", ".zarray")
_UNIT_NAMES: Final = {
    "angstrom": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}
_SECONDS: Final = {"microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0}
_LONGEST_CHUNK: Final = 128


def is_zarr(path: Path) -> bool:
    """Whether the folder is a zarr array or group."""
    return any((path / marker).is_file() for marker in _MARKERS)


def read_zarr(path: Path, axes: str | None = None) -> StoredArray:
    """A zarr array, or the full-resolution level of an OME-Zarr image; nothing is read yet.

    Parameters
    ----------
    path
        Folder of an image group, of a single array, or of a bioformats2raw collection (its first image).
    axes
        Letters for the stored axes.

    Raises
    ------
    FileError
        If the group holds no image.
    """
    return read_pyramid(path, axes).levels[0]


@dataclass(frozen=True, eq=False)
class Pyramid:
    """An image with its smaller levels.

    Parameters
    ----------
    levels
        Full resolution first; all with the same axes.
    metadata
        What OME-Zarr says of the group: ``omero`` for display, ``image-label`` for label images; empty for a
        single array.
    seconds
        From one time point to the next, None where the file tells none.
    """

    levels: tuple[StoredArray, ...]
    metadata: Mapping[str, Any]
    seconds: float | None = None


def read_pyramid(path: Path, axes: str | None = None) -> Pyramid:
    """As `read_zarr`, with all levels; the axes of all, and voxel size and affine of each, are settled.

    Smaller levels that are missing from the folder are left out.

    Raises
    ------
    FileError
        If the group holds no image.
    """
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Group) and _ome(node).get("bioformats2raw.layout"):
        node = node["0"]
    if isinstance(node, zarr.Array):
        names = getattr(node.metadata, "dimension_names", None) or ()
        letters = "".join(str(name)[:1].upper() for name in names)
        if axes is None and len(letters) == node.ndim and set(letters) <= set("TCZYX"):
            axes = letters
        stored = StoredArray(cast(LazyArray, node), array_axes(node.shape, axes, path.name), source={"format": "zarr"})
        return Pyramid((stored,), {})
    ome = _ome(node)
    if "multiscales" not in ome:
        raise FileError(_no_image(path, node, ome))
    multiscale = ome["multiscales"][0]
    levels: list[StoredArray] = []
    for dataset in multiscale["datasets"]:  # the largest comes first
        array = node.get(dataset["path"]) if levels else node[dataset["path"]]
        if levels and not isinstance(array, zarr.Array):
            continue
        if not isinstance(array, zarr.Array):
            raise FileError(f"{path}: {dataset['path']!r} is no array; the OME-Zarr metadata is damaged")
        declared = [_Axis(axis) for axis in multiscale.get("axes", "tczyx"[-array.ndim :])]
        letters = "".join(axis.letter for axis in declared)
        check_length(letters, array.shape, path.name)
        steps = [*dataset.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())]
        if not levels:
            seconds = _seconds(declared, steps)
        voxel_size, affine = _geometry(declared, steps)
        if axes is not None:
            letters = given_axes(axes)
            check_length(letters, array.shape, path.name)
        levels.append(StoredArray(cast(LazyArray, array), letters, voxel_size, affine, {"format": "zarr"}))
    return Pyramid(tuple(levels), ome, seconds)


def label_images(path: Path) -> list[Path]:
    """Folders of the label images that an OME-Zarr image carries; none for an array or a foreign group."""
    folder = path / "labels"
    if not is_zarr(folder):
        return []
    node = zarr.open(folder, mode="r")
    names = _ome(node).get("labels", ()) if isinstance(node, zarr.Group) else ()
    inside = (folder / str(name) for name in names if ".." not in Path(str(name)).parts)
    return [place for place in inside if folder in place.parents and is_zarr(place)]


class _Axis:
    """An entry of the ``axes`` of a multiscale: a mapping, or up to version 0.3 a name."""

    def __init__(self, entry: Mapping[str, str] | str) -> None:
        values = {"name": entry} if isinstance(entry, str) else entry
        name = values["name"].strip().upper()
        kind = {"channel": "C", "time": "T"}.get(values.get("type", ""))
        self.letter = kind or (name if name in tuple("TCZYX") else "?")
        self.unit = values.get("unit", "")


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    """The OME metadata: under ``ome`` from version 0.5 on, before at the top."""
    attributes = group.attrs.asdict()
    inner = attributes.get("ome")
    return cast(Mapping[str, Any], inner if isinstance(inner, dict) else attributes)


def _no_image(path: Path, group: zarr.Group, ome: Mapping[str, Any]) -> str:
    if "plate" in ome or "well" in ome:
        return f"{path} is a plate or well of many images; give the folder of one image in it"
    inside = sorted(name for name, _ in group.members())
    if not inside:
        return f"{path} is an empty zarr group; give an OME-Zarr image or a zarr array"
    return f"{path} has no OME-Zarr metadata; give one array in it, for example {path / inside[0]}"


def _seconds(axes: Sequence[_Axis], transformations: Sequence[Mapping[str, Any]]) -> float | None:
    letters = "".join(axis.letter for axis in axes)
    if "T" not in letters:
        return None
    i = letters.index("T")
    factor = _SECONDS.get(axes[i].unit)
    scales = [step["scale"][i] for step in transformations if step.get("type") == "scale" and "scale" in step]
    return factor * float(np.prod(scales)) if factor is not None and scales else None


def _geometry(
    axes: Sequence[_Axis], transformations: Sequence[Mapping[str, Any]]
) -> tuple[VoxelSize | None, NDArray[np.float64] | None]:
    """Voxel size and affine from the transformations, which act one after the other."""
    scale, offset = np.ones(len(axes)), np.zeros(len(axes))
    for step in transformations:
        if step.get("type") == "scale" and "scale" in step:
            scale, offset = scale * step["scale"], offset * step["scale"]
        elif step.get("type") == "translation" and "translation" in step:
            offset = offset + step["translation"]
    letters = "".join(axis.letter for axis in axes)
    units = {}
    for axis in axes:
        try:
            units[axis.letter] = parse_unit(axis.unit)
        except ConfigError:  # a unit that is no length
            units[axis.letter] = "pixel"
    if not {"Y", "X"} <= set(letters):
        return None, None
    unit = units["X"]
    edges: dict[str, float] = {}
    origin: dict[str, float] = {}
    for letter in "XYZ":
        i = letters.find(letter)
        factor = unit_factor(units[letter], unit) if i >= 0 else 1.0
        edges[letter] = abs(float(scale[i])) * factor if i >= 0 else edges["X"]
        origin[letter] = float(offset[i]) * factor if i >= 0 else 0.0
    size = VoxelSize(edges["Z"], edges["Y"], edges["X"], unit)
    if size == VoxelSize() and not any(origin.values()):
        return None, None
    affine = np.diag([*size.zyx, 1.0])
    affine[:3, 3] = [origin[letter] for letter in "ZYX"]
    return size, affine


def create_zarr(
    path: Path,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    axes: str,
    image: Volume,
    class_names: Mapping[int, str] | None = None,
    time: TimeAxis | None = None,
) -> Any:
    """A new OME-Zarr 0.5 image of one level; gives its array, to be filled in any order.

    Parameters
    ----------
    path
        New folder.
    shape
        Lengths in the order `axes`.
    dtype
        An unsigned integer type makes the image a label image, unless it has channels.
    axes
        ``"ZYX"`` or ``"YX"``, with C in front for channels or T for time.
    image
        Gives scale, unit and, where its affine neither rotates nor mirrors, translation.
    class_names
        Names of label ids.
    time
        The time axis, where there is one.
    """
    size = image.voxel_size
    unit = {} if size.unit == "pixel" else {"unit": _UNIT_NAMES[size.unit]}
    seconds = time.seconds if time is not None else None
    kinds = {"C": {"type": "channel"}, "T": {"type": "time", **({"unit": "second"} if seconds else {})}}
    entries = [{"name": axis.lower(), **kinds.get(axis, {"type": "space", **unit})} for axis in axes]
    edges = dict(zip("TZYX", (seconds or 1.0, *size.zyx), strict=True))
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": [edges.get(axis, 1.0) for axis in axes]}]
    origin = _origin(image)
    if any(origin.values()):
        steps.append({"type": "translation", "translation": [origin.get(axis, 0.0) for axis in axes]})
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": entries,
                "datasets": [{"path": "0", "coordinateTransformations": steps}],
            }
        ],
    }
    if np.dtype(dtype).kind == "u" and "C" not in axes:
        ome["image-label"] = {"version": "0.5"}
        if class_names:
            ome["image-label"]["properties"] = [
                {"label-value": int(i), "name": name} for i, name in sorted(class_names.items())
            ]
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes={"ome": ome})
    return group.create_array(
        "0",
        shape=shape,
        dtype=np.dtype(dtype),
        chunks=tuple(
            1 if axis in "CT" else min(length, _LONGEST_CHUNK) for axis, length in zip(axes, shape, strict=True)
        ),
        dimension_names=[axis.lower() for axis in axes],
    )


def _origin(image: Volume) -> dict[str, float]:
    """World position of the first voxel, if the image's axes are those of the world."""
    affine = image.affine
    if affine is None:
        return {}
    edges = np.diag(affine)[:3]
    if np.any(edges <= 0) or not np.allclose(affine[:3, :3], np.diag(edges), rtol=0, atol=1e-6 * edges.min()):
        return {}
    return dict(zip("ZYX", (float(value) for value in affine[:3, 3]), strict=True))
