"""Linear maps that work along one axis at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def along_axes(values: Tensor, matrices: Sequence[NDArray[Any]]) -> Tensor:
    """Multiply along Z, Y and X with one matrix each.

    Parameters
    ----------
    values
        C Z Y X, floating point.
    matrices
        Three of shape (new length, old length), in the order Z Y X.

    Returns
    -------
    Tensor
        C Z Y X with the new lengths, of the dtype and on the device of `values`.
    """
    z, y, x = (torch.as_tensor(m, dtype=values.dtype).to(values.device) for m in matrices)
    return torch.einsum("cijk,zi,yj,xk->czyx", values, z, y, x)
