"""Losses from the overlap of probability and truth, class by class: sums they share."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from napari_unet3d.engine.losses.term import Term
from napari_unet3d.engine.losses.voxels import Verdict

SMOOTH: Final = 1.0
"""Voxels added to both sides of a fraction, so that it has a value and a gradient for small classes too."""


class Overlap(NamedTuple):
    """Weighted sums over all annotated voxels of a batch, K of each."""

    both: Tensor
    """Of probability times truth."""
    probability: Tensor
    truth: Tensor
    at_stake: Tensor
    """See `Verdict.at_stake`."""

    def mean_over_classes(self, values: Tensor) -> Tensor:
        """Mean of K values over the classes that count: those annotated in the batch or at stake in it.

        A class that is neither is left out: it has nothing to overlap with, and its probability already counts
        against the others. 0 where none counts.
        """
        counts = (self.truth > 0) | (self.at_stake > 0)
        return torch.where(counts, values, 0.0).sum() / counts.sum().clamp(min=1)


class OverlapTerm(Term):
    """A term that is a function of `Overlap`."""

    def sums(self, verdict: Verdict) -> Tensor:
        """The four rows of `Overlap`."""
        rows = (verdict.p * verdict.truth, verdict.p, verdict.truth, verdict.at_stake)
        return torch.stack([(verdict.weights * row).sum(0) for row in rows])
