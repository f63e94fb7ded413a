"""Batch renormalisation: training sees the features that prediction will see, also with one patch in a batch.

With plain batch normalisation and a single patch, training normalises every patch by itself, prediction all of them
alike; what a network learns about absolute grey values while it trains is then wrong when it predicts, the more so
the more a patch differs from the next. Ioffe 2017 ("Batch Renormalization", equations 1-3) corrects the normalised
features by r and d, so that they come out as with the running statistics, while gradients still flow through the
statistics of the batch.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PLAIN_BATCHES: Final = 100
"""Batches that are normalised plainly at first, while weights change faster than the running statistics follow; over as
many again the limits widen. See docs/decisions/renormalization.md."""
_LARGEST_SCALE: Final = 3.0  # r, Ioffe 2017, section 4
_LARGEST_SHIFT: Final = 5.0  # d


class _BatchRenorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation in evaluation mode; in training corrected towards it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None  # as they always are here
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            trust = ((self.num_batches_tracked - _PLAIN_BATCHES) / _PLAIN_BATCHES).clamp(0, 1)
            before_mean = self.running_mean.clone()
            before_deviation = (self.running_var + self.eps).sqrt()
            mean, var = self._update(x)
            largest_scale, largest_shift = 1 + (_LARGEST_SCALE - 1) * trust, _LARGEST_SHIFT * trust
            scale = ((var + self.eps).sqrt() / before_deviation).clamp(1 / largest_scale, largest_scale)
            shift = ((mean - before_mean) / before_deviation).clamp(-largest_shift, largest_shift)
        return F.batch_norm(
            x, None, None, self.weight * scale, self.weight * shift + self.bias, training=True, eps=self.eps
        )

    def _update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of every channel of the batch, after the running ones have followed them."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        is_first = self.num_batches_tracked == 0
        momentum = torch.where(is_first, 1.0, self.momentum or 0.0)
        self.num_batches_tracked += 1
        if x.device.type == "cpu":  # ten times faster there than var_mean
            mean, var = torch.batch_norm_update_stats(x, self.running_mean, self.running_var, float(momentum))
            return mean, var
        var, mean = torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)
        return mean, var


class BatchRenorm2d(_BatchRenorm, nn.BatchNorm2d):
    """Of B C Y X."""


class BatchRenorm3d(_BatchRenorm, nn.BatchNorm3d):
    """Of B C Z Y X."""
