"""What a summand of a loss is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from napari_unet3d.engine.losses.voxels import Verdict


class Term(nn.Module, ABC):
    """One summand of a loss, in two steps: sums, which add up over batches and processes, and their value."""

    @abstractmethod
    def sums(self, verdict: Verdict) -> Tensor:
        """Sums over what a network says at annotated voxels."""

    @abstractmethod
    def value(self, sums: Tensor) -> Tensor:
        """Scalar from (added) sums; 0 where nothing is annotated."""
