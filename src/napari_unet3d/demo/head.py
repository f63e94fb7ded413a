"""Half a head: image, truth and the few slices that count as painted.

The template is the average of 152 T1 scans (ICBM 2009a, non-linear, symmetric; Fonov et al. 2011, "Unbiased
average age-appropriate atlases for pediatric studies"), which nilearn carries at 1 mm with the brain cut out, and with
maps of the share of grey and of white matter in each voxel. It is its own mirror image, so the left half
holds all there is to know: a network that saw a slice on the right would have seen the same slice on the left.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import nibabel
import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import FileError, UNet3dError
from napari_unet3d.engine.volume import NOT_ANNOTATED

Plane: TypeAlias = tuple[int, int]
"""Axis (0 = Z, 1 = Y, 2 = X) and index."""

CLASS_NAMES: Final = {1: "background", 2: "grey matter", 3: "white matter"}
"""Label ids of painted, predicted and true labels."""

AXIS_NAMES: Final = ("axial", "coronal", "sagittal")
"""What slices along Z, Y and X are called."""

PAINTED_PER_AXIS: Final = (3, 2, 2)
"""Painted slices along Z, Y and X."""

INSTALL_HINT: Final = 'pip install "napari-unet3d[demo]"'

_Nifti1Image: Any = nibabel.Nifti1Image  # its constructor carries no type hints

_MARGIN: Final = 8  # voxels kept around the brain
_FILE_NAME: Final = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True, eq=False)
class DemoVolume:
    """An image with dense truth.

    Parameters
    ----------
    image
        Z Y X, uint8 grey values, 0 outside the brain.
    truth
        Z Y X, uint8, ids of `CLASS_NAMES`.
    affine
        4 x 4, as NIfTI has it: from (x, y, z, 1) voxel indices to mm, x to the right, y to the front, z upwards.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    affine: NDArray[np.float64]

    def painted_planes(self) -> tuple[Plane, ...]:
        """The painted slices: at even distances over the extent of the brain.

        The n slices along an axis divide the extent into n + 1 equal parts; the truth plays no role.
        """
        planes: list[Plane] = []
        for axis, count in enumerate(PAINTED_PER_AXIS):
            others = tuple(other for other in range(3) if other != axis)
            inside = np.flatnonzero(self.image.any(axis=others))
            first, last = int(inside[0]), int(inside[-1])
            planes += [(axis, first + round((last - first) * (i + 1) / (count + 1))) for i in range(count)]
        return tuple(planes)

    def painted(self) -> NDArray[np.uint8]:
        """Sparse labels, Z Y X uint8: the truth on the painted slices, 0 = not annotated elsewhere."""
        labels = np.full_like(self.truth, NOT_ANNOTATED)
        for axis, index in self.painted_planes():
            plane = (slice(None),) * axis + (index,)
            labels[plane] = self.truth[plane]
        return labels


def load_head() -> DemoVolume:
    """The left half of the template, midline included, cropped to the brain.

    A voxel is of the class with the largest share: grey matter, white matter or the rest. Ties go to the
    rest, then to grey matter.

    Raises
    ------
    UNet3dError
        If nilearn is not installed.
    FileError
        If this release of nilearn does not carry the template.
    """
    folder = _template_folder()
    image, affine = _read(folder / _FILE_NAME.format("t1"))
    grey, white = (_read(folder / _FILE_NAME.format(name))[0].astype(np.int16) for name in ("gm", "wm"))
    truth = np.argmax([255 - grey - white, grey, white], axis=0).astype(np.uint8) + np.uint8(1)

    x_mm = affine[0, 3] + affine[0, 0] * np.arange(image.shape[0])
    left = np.flatnonzero(x_mm <= 0)
    start = np.array([left[0], 0, 0])
    end = np.array([left[-1] + 1, *image.shape[1:]])
    brain = np.argwhere(image[left[0] : left[-1] + 1]) + start
    start = np.maximum(start, brain.min(axis=0) - _MARGIN)
    end = np.minimum(end, brain.max(axis=0) + 1 + _MARGIN)

    box = tuple(slice(int(a), int(b)) for a, b in zip(start, end, strict=True))
    cropped = affine.copy()
    cropped[:3, 3] += affine[:3, :3] @ start
    return DemoVolume(
        image=np.ascontiguousarray(image[box].T, dtype=np.uint8),  # X Y Z -> Z Y X
        truth=np.ascontiguousarray(truth[box].T),
        affine=cropped,
    )


def write_image(path: Path, head: DemoVolume) -> None:
    """Write the image as NIfTI, in mm."""
    image = _Nifti1Image(head.image.T, head.affine)  # Z Y X -> X Y Z
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _template_folder() -> Path:
    """Where nilearn keeps the template; nilearn itself, which is slow to import, is not needed."""
    try:
        spec = importlib.util.find_spec("nilearn")
    except ValueError:  # imported by hand, without a specification
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UNet3dError(f"the demo needs nilearn, which carries the head template: {INSTALL_HINT}")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    missing = [name for key in ("t1", "gm", "wm") if not (folder / (name := _FILE_NAME.format(key))).is_file()]
    if missing:
        raise FileError(
            f"{folder} has no {missing[0]}; the installed nilearn lacks the head template, get another release "
            f"with {INSTALL_HINT}"
        )
    return folder


def _read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """X Y Z values and affine."""
    stored: Any = nibabel.load(path)
    return np.asanyarray(stored.dataobj), np.asarray(stored.affine, dtype=np.float64)
