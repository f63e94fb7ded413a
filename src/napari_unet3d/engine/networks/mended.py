"""Layers of PyTorch that need help on CPUs, with the same results and the same names of weights (PyTorch 2.13)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv3d(nn.Conv3d):
    """Convolution that is right for thin volumes too.

    In bfloat16 on CPUs, PyTorch gives wrong gradients of the weights, or writes beyond its memory, where a padded
    axis is shorter than the kernel (Z from 2 to kernel - 1, Y = 1), and wrong results for a single plane of a single
    channel. Zeros added at the far end, as padding adds them anyway, make the axis long enough.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and (x.dtype.itemsize == 2 or torch.is_autocast_enabled("cpu")):
            sizes = x.shape[2:]
            z, y, x_ = (max(0, taps - size) for taps, size in zip(self.kernel_size, sizes, strict=True))
            if any(self.padding) and any((z, y, x_)):
                widened = super().forward(F.pad(x, (0, x_, 0, y, 0, z)))
                return widened[..., : sizes[0], : sizes[1], : sizes[2]]
        return super().forward(x)


class GroupNorm(nn.GroupNorm):
    """Group normalisation; with as many groups as channels, instance normalisation.

    PyTorch's CPU kernel for channels-last memory takes the variance as a difference of squares, which is
    far off where the mean is large, and has a slow gradient; so the plain layout is used there, and
    restored. A group of a single value becomes its bias.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not x.is_contiguous():
            layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
            return self._normalized(x.contiguous()).contiguous(memory_format=layout)
        return self._normalized(x)

    def _normalized(self, x: Tensor) -> Tensor:
        # not F.group_norm, which refuses groups of a single value even when predicting
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class MaxPool(nn.Module):
    """Largest value of every block of voxels, in the precision of the input.

    Autocast on CPUs would compute in float32, at twice the memory and for nothing: the maximum is exact in
    any precision.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self._stride = tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._pool(x)
        return self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool3d(x, self._stride) if x.ndim == 5 else F.max_pool2d(x, self._stride)
