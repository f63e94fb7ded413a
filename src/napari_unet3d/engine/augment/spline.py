"""Smooth random fields: cubic B-splines through values on a coarse grid of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from napari_unet3d.engine.augment.separable import along_axes


@dataclass(frozen=True, eq=False)
class SplineField:
    """A vector field that takes given values on a regular grid of nodes and is smooth between them.

    The cubic B-spline *interpolates* the values, so at the nodes it has exactly the spread they were drawn
    with. (As control values they would be smoothed: of a standard deviation of 4 voxels about 1.4 would be
    left.) Half-way between nodes the spread is smaller by a factor of 0.87 for each axis. Beyond the outer
    nodes the grid is continued by mirroring.

    Parameters
    ----------
    nodes
        3 Z Y X: the vector (z, y, x) at each node, in voxels.
    spacing
        Z Y X distance of the nodes, in voxels.
    origin
        Z Y X position of the first node, in voxels of the patch.
    """

    nodes: NDArray[np.float64]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    def at(self, positions: Sequence[NDArray[np.float64]], device: torch.device | str = "cpu") -> Tensor:
        """The field on the grid spanned by positions along each axis.

        Parameters
        ----------
        positions
            Three vectors Z, Y, X of positions in voxels of the patch, between the outer nodes.
        device
            Where the result is wanted.

        Returns
        -------
        Tensor
            3 Z Y X, float32, voxels.
        """
        matrices = [
            interpolation_matrix((along - start) / step, count)
            for along, start, step, count in zip(
                positions, self.origin, self.spacing, self.nodes.shape[1:], strict=True
            )
        ]
        nodes = torch.as_tensor(self.nodes, dtype=torch.float32)
        return along_axes(nodes.to(device), matrices)


def interpolation_matrix(positions: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Weights of `count` node values in the interpolating cubic spline at the positions.

    Parameters
    ----------
    positions
        In units of the node distance, 0..count - 1.
    count
        Nodes; a single one makes the spline constant.

    Returns
    -------
    NDArray
        positions x nodes; every row sums to 1.
    """
    if count == 1:
        return np.ones((len(positions), 1))
    # zero slope at the outer nodes is what mirroring the grid there gives
    weights: NDArray[np.float64] = CubicSpline(np.arange(count), np.eye(count), bc_type="clamped")(positions)
    return weights
