"""The volumes under *File > Open Sample*; both work without a network connection. Needs no napari."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import default_classes
from napari_unet3d.io._stored import StoredArray
from napari_unet3d.io.layer_geometry import displayed_geometry

LayerData: TypeAlias = tuple[NDArray[Any], dict[str, Any], str]

_ZYX_FROM_XYZ: Final = [2, 1, 0, 3]


def head() -> list[LayerData]:
    """Half a head, T1-weighted, and seven painted slices; see `demo.head`.

    Raises
    ------
    UNet3dError
        If nilearn, which carries the volume, is not installed.
    """
    from napari_unet3d.demo.head import CLASS_NAMES, load_head

    volume = load_head()
    affine = volume.affine[_ZYX_FROM_XYZ][:, _ZYX_FROM_XYZ]
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    size = VoxelSize(float(edges[0]), float(edges[1]), float(edges[2]), "mm")
    place = _place(volume.image, size, affine)
    return [
        (volume.image, {"name": "head", **place}, "image"),
        _labels(volume.painted(), "head annotation", CLASS_NAMES, place),
    ]


def tubules() -> list[LayerData]:
    """Generated kidney tubules, four painted slices, and the truth as a hidden layer; see `demo.tubules`."""
    from napari_unet3d.demo.tubules import CLASS_NAMES, VOXEL_SIZE, make_tubules

    volume = make_tubules()
    place = _place(volume.image, VOXEL_SIZE, np.diag([*VOXEL_SIZE.zyx, 1.0]))
    truth, arguments, kind = _labels(volume.truth, "tubules truth", CLASS_NAMES, place)
    return [
        (volume.image, {"name": "tubules", **place}, "image"),
        (truth, {**arguments, "visible": False}, kind),
        _labels(volume.painted(), "tubules annotation", CLASS_NAMES, place),
    ]


def _place(image: NDArray[Any], size: VoxelSize, affine: NDArray[np.float64]) -> dict[str, Any]:
    stored = StoredArray(image, "ZYX", size, affine, {"format": "sample"})
    return displayed_geometry(stored, "ZYX")


def _labels(
    labels: NDArray[np.uint8], name: str, class_names: Mapping[int, str], place: Mapping[str, Any]
) -> LayerData:
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    colours |= {item.id: item.colour for item in default_classes(sorted(class_names))}
    arguments = {
        "name": name,
        "opacity": 0.5,
        "colormap": colours,
        "features": {"index": list(class_names), "class": list(class_names.values())},
        **place,
    }
    return labels, arguments, "labels"
