"""Where a layer made from an image has to lie: the image's geometry without its channel (and time) axis.

napari aligns the axes of layers at the end. An axis can therefore be left out only where every axis before it
is left out too; one in the middle stays, as a single voxel stretched over the whole axis::

    image  C Z Y X            labels    Z Y X
    image  T C Z Y X, C = 3   labels  T 1 Z Y X, the 1 as long as three channels
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.io.layer_order import AXES_KEY
from napari_unet3d.widgets._layers.image import GEOMETRY_KEY, ImageChoice
from napari_unet3d.widgets._layers.world import world_matrix

_TOLERANCE: Final = 1e-9


def new_axes(choice: ImageChoice, *, with_time: bool = True) -> str:
    """Letters of the axes of a layer made from the image.

    Parameters
    ----------
    choice
        The image.
    with_time
        Whether the layer holds a value for each time point.
    """
    unwanted = "C" if with_time else "TC"
    return choice.layer_axes.lstrip(unwanted)


def new_shape(choice: ImageChoice, *, with_time: bool = True) -> tuple[int, ...]:
    """Shape of a layer made from the image; stretched axes have length 1."""
    unwanted = "C" if with_time else "TC"
    axes = new_axes(choice, with_time=with_time)
    return tuple(1 if axis in unwanted else choice.lengths[axis] for axis in axes)


def geometry_of(choice: ImageChoice, *, with_time: bool = True) -> dict[str, Any]:
    """Keyword arguments that put a new layer of shape `new_shape` exactly over the image.

    Scale, translate, rotate, shear, affine, units and axis labels, less those of axes left out, and metadata
    with the axes and what our writers need to know of the image's file. What cannot be told by scale, rotation
    and shear of the axes kept alone goes into the affine.
    """
    layer = choice.layer
    axes = new_axes(choice, with_time=with_time)
    kept = np.arange(layer.ndim)[layer.ndim - len(axes) :]
    stretch = np.array(
        [choice.lengths[axis] / n for axis, n in zip(axes, new_shape(choice, with_time=with_time), strict=True)]
    )

    whole = world_matrix(layer)
    outer = np.asarray(layer.affine.affine_matrix, dtype=np.float64)
    inner = np.linalg.solve(outer, whole)  # scale, shear, rotation and translation, without the affine
    to_kept = np.append(kept, layer.ndim)
    inner, outer = (_stretched(inner[np.ix_(to_kept, to_kept)], stretch), outer[np.ix_(to_kept, to_kept)])

    n = len(axes)
    scale = np.asarray(layer.scale, dtype=np.float64)[kept] * stretch
    rotate = np.asarray(layer.rotate, dtype=np.float64)[np.ix_(kept, kept)]
    shear = rotate.T @ inner[:n, :n] / scale
    if not (_is_rotation(rotate) and _is_unit_triangular(shear)):
        rotate, shear = np.eye(n), np.eye(n)
        outer = outer @ inner @ np.linalg.inv(_matrix(np.diag(scale), inner[:n, n]))
    return {
        "scale": scale,
        "translate": inner[:n, n],
        "rotate": rotate,
        "shear": shear,
        "affine": outer,
        "units": tuple(layer.units[i] for i in kept),
        "axis_labels": tuple(layer.axis_labels[i] for i in kept),
        "metadata": {key: layer.metadata[key] for key in (GEOMETRY_KEY,) if key in layer.metadata}
        | {AXES_KEY: "".join("1" if axis in ("C" if with_time else "TC") else axis for axis in axes)},
    }


def _stretched(matrix: NDArray[np.float64], stretch: NDArray[np.float64]) -> NDArray[np.float64]:
    """`matrix` for voxels longer by `stretch`, the first voxel covering the first ``stretch`` old ones."""
    n = len(stretch)
    result = matrix.copy()
    result[:n, n] += matrix[:n, :n] @ ((stretch - 1) / 2)
    result[:n, :n] *= stretch
    return result


def _matrix(linear: NDArray[np.float64], translate: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.eye(len(translate) + 1)
    result[:-1, :-1] = linear
    result[:-1, -1] = translate
    return result


def _is_rotation(matrix: NDArray[np.float64]) -> bool:
    return bool(np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=_TOLERANCE))


def _is_unit_triangular(matrix: NDArray[np.float64]) -> bool:
    below, above = np.tril(matrix, -1), np.triu(matrix, 1)
    is_triangular = min(np.abs(below).max(initial=0), np.abs(above).max(initial=0)) < _TOLERANCE
    return is_triangular and bool(np.allclose(np.diag(matrix), 1, atol=_TOLERANCE))
