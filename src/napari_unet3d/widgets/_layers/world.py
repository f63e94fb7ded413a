"""From a layer's voxel indices to napari's world and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Layer


def world_matrix(layer: Layer) -> NDArray[np.float64]:
    """(N + 1) x (N + 1) matrix from voxel indices to world coordinates of a layer of N axes.

    Scale, translation, rotation, shear and affine together; colours of an RGB layer are no axis.
    """
    n = int(layer.ndim)
    origin = np.asarray(layer.data_to_world(np.zeros(n)), dtype=np.float64)
    matrix = np.eye(n + 1)
    matrix[:n, n] = origin
    for axis, step in enumerate(np.eye(n)):
        matrix[:n, axis] = np.asarray(layer.data_to_world(step)) - origin
    return matrix
