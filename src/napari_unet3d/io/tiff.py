"""TIFF: plain, ImageJ and OME."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize, parse_unit
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io._axes import check_length, given_axes
from napari_unet3d.io._stored import StoredArray, TimeAxis, unit_factor

CLASS_NAMESPACE: Final = "napari-unet3d/label-classes"
"""Of the map annotation with the class names in an OME-TIFF."""

_OME_UNITS: Final = {"angstrom": "Å", "um": "µm"}
_IMAGEJ_UNITS: Final = {"um": "micron"}
_PRINT_DPI: Final = (72, 96, 150, 300, 600, 1200)
_LARGEST_CLASSIC: Final = 2**32 - 2**26
"""Bytes of image data that surely fit a classic TIFF, which ImageJ needs."""


def read_tiff(path: Path, axes: str | None = None) -> StoredArray:
    """The first image of a TIFF file; memory-mapped where it is one uncompressed piece.

    RGB and RGBA images have three channels. Voxel sizes come from OME-XML, from ImageJ's calibration, or from
    a resolution in centimetres (then Z counts as Y and X); a resolution in inches is one of print.

    Parameters
    ----------
    path
        The file.
    axes
        Letters for the stored axes.

    Raises
    ------
    DataError
        If the number of axes is another than that of `axes`.
    """
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        shape, letters = tuple(series.shape), str(series.axes)
        if axes is not None:
            given = given_axes(axes)
            full = tuple(series.get_shape(False))
            if len(given) != len(shape) and len(given) == len(full):
                shape, letters = full, str(series.get_axes(False))  # axes of length 1 counted
            check_length(given, shape, path.name)
        page = series.keyframe
        if series.dataoffset is not None and page.is_memmappable:
            array: NDArray[Any] = tifffile.memmap(path, mode="r", series=0)
        else:
            array = series.asarray()
        array = array.reshape(shape)
        names = letters if axes is None else given
        has_alpha = page.photometric == tifffile.PHOTOMETRIC.RGB and shape[letters.find("S")] == 4
        voxel_size = _voxel_size(tif, page, _is_planar(names))
        len(tif.pages)  # follows the chain of pages to its end, where a truncated file shows
    return StoredArray(array, names, voxel_size, source={"format": "tiff"}, has_alpha=has_alpha)


def tiff_voxel_size(path: Path) -> VoxelSize | None:
    """The voxel size alone, from the tags of the first page; None where they tell none."""
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        return _voxel_size(tif, series.keyframe, _is_planar(str(series.axes)))


def _is_planar(axes: str) -> bool:
    return set(axes) <= set("TCSYX")


def _voxel_size(tif: tifffile.TiffFile, page: tifffile.TiffPage, is_planar: bool) -> VoxelSize | None:
    try:
        if tif.is_ome and tif.ome_metadata:
            return _ome_voxel_size(tif.ome_metadata, is_planar)
        if tif.is_imagej:
            return _imagej_voxel_size(tif.imagej_metadata or {}, page, is_planar)
        if page.resolutionunit != tifffile.RESUNIT.CENTIMETER:
            return None
        y, x = _pixel_edges(page, "cm")
        return None if x is None or y is None else VoxelSize(x, y, x, "cm").to("um")
    except (ConfigError, DataError):  # an odd unit or an edge of 0: the file tells no size
        return None


def _ome_voxel_size(xml: str, is_planar: bool) -> VoxelSize | None:
    pixels = next((node for node in ElementTree.fromstring(xml).iter() if node.tag.endswith("}Pixels")), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    unit = parse_unit(pixels.get("PhysicalSizeXUnit", "um"))
    x = float(pixels.attrib["PhysicalSizeX"])

    def edge(axis: str) -> float:
        text = pixels.get(f"PhysicalSize{axis}")
        if text is None:
            return x
        own_unit = parse_unit(pixels.get(f"PhysicalSize{axis}Unit", "um"))
        return float(text) * unit_factor(own_unit, unit)

    return VoxelSize(x if is_planar else edge("Z"), edge("Y"), x, unit)


def _imagej_voxel_size(metadata: dict[str, Any], page: tifffile.TiffPage, is_planar: bool) -> VoxelSize | None:
    """ImageJ's calibration; it leaves out what is 1."""
    named = metadata.get("unit")
    if named is None and "spacing" not in metadata:
        return None
    unit = parse_unit(str(named or "pixel"))
    # without a unit of its own the resolution may be one of print
    y, x = _pixel_edges(page, unit) if named or page.resolutionunit == tifffile.RESUNIT.NONE else (1.0, 1.0)
    if x is None or y is None:
        return None
    return VoxelSize(x if is_planar else abs(float(metadata.get("spacing", 1.0))), y, x, unit)


def _pixel_edges(page: tifffile.TiffPage, unit: str) -> tuple[float | None, float | None]:
    """Y and X edges from the resolution tags, 1 where there are none; None for a resolution of print."""
    edges: list[float | None] = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        count, length = tag.value if tag is not None else (1, 1)
        if count == 0 or length == 0:
            edges.append(1.0)
            continue
        per_inch = 2.54 * count / length
        is_print = unit == "cm" and any(math.isclose(per_inch, dpi, rel_tol=1e-3) for dpi in _PRINT_DPI)
        edges.append(None if is_print else length / count)
    return edges[0], edges[1]


def write_tiff(
    path: Path,
    array: NDArray[Any],
    axes: str,
    image: Volume,
    *,
    time: TimeAxis | None = None,
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write labels or maps, compressed page by page.

    A name that ends in ``.ome.tif(f)`` gives OME-TIFF, any other an ImageJ TIFF; what the latter cannot hold
    (4 GiB and more, ids above 65535) becomes an OME TIFF under the same name.

    Parameters
    ----------
    path
        The new file.
    array
        uint8, uint16, uint32 or float32 in the order `axes`; may be a memory map, one plane at a time is read.
    axes
        ``"ZYX"`` or ``"YX"``, with C in front for channels or T for time.
    image
        Gives the voxel size.
    time
        The time axis, where there is one.
    class_names
        Names of label ids; OME-TIFF keeps them as a map annotation.
    """
    size = image.voxel_size
    has_size = size != VoxelSize()
    is_large = array.nbytes > _LARGEST_CLASSIC
    # tifffile mistakes ImageJ images one voxel wide for lines of samples
    is_ome = is_large or ".ome." in path.name.lower() or array.shape[-1] == 1 or array.dtype == np.uint32
    if not is_ome and axes == "CZYX":
        array, axes = np.moveaxis(array, 0, 1), "ZCYX"  # the order of an ImageJ hyperstack
    metadata: dict[str, Any] = {"axes": axes}
    resolution = None
    if has_size and is_ome:
        for axis, edge in zip("ZYX", size.zyx, strict=True):
            metadata[f"PhysicalSize{axis}"] = edge
            metadata[f"PhysicalSize{axis}Unit"] = _OME_UNITS.get(size.unit, size.unit)
    elif has_size:
        metadata |= {"spacing": size.z, "unit": _IMAGEJ_UNITS.get(size.unit, size.unit)}
        resolution = (1 / size.x, 1 / size.y)
    if time is not None and time.seconds and is_ome:
        metadata |= {"TimeIncrement": time.seconds, "TimeIncrementUnit": "s"}
    elif time is not None and time.seconds:
        metadata["finterval"] = time.seconds
    if class_names and is_ome:
        names = {str(i): name for i, name in sorted(class_names.items())}
        metadata["MapAnnotation"] = {"Namespace": CLASS_NAMESPACE, **names}
    with tifffile.TiffWriter(path, bigtiff=is_large, ome=is_ome, imagej=not is_ome) as tif:
        tif.write(
            _planes(array),
            shape=array.shape,
            dtype=array.dtype,
            photometric="minisblack",
            compression="zlib",
            resolution=resolution,
            metadata=metadata,
        )


def _planes(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for index in np.ndindex(array.shape[:-2]):
        yield np.ascontiguousarray(array[index])
