"""Positions beyond the border of an image, mirrored back into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from numpy import int64
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

PositionsT = TypeVar("PositionsT", NDArray[int64], "Tensor")


def mirrored(positions: PositionsT, length: int) -> PositionsT:
    """Positions in 0..length - 1 that hold the values of an image continued by mirroring.

    The border voxel is the mirror and is not repeated: ``... 2 1 [0 1 2 ... n-1] n-2 n-3 ...``.

    Parameters
    ----------
    positions
        Voxel positions along one axis, an array or tensor of whole or real numbers.
    length
        Voxels along that axis, at least 1; with a single one every position maps to 0.
    """
    if length == 1:
        return positions * 0
    last = length - 1
    return last - abs(abs(positions) % (2 * last) - last)
