"""Soft Dice and generalised Dice."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_unet3d.engine.losses.overlap import SMOOTH, Overlap, OverlapTerm


class SoftDice(OverlapTerm):
    """One minus the soft Dice coefficient, mean over classes.

    For each class ``D = (2 sum(p t) + s) / (sum(p) + sum(t) + s)`` over all annotated voxels of the batch
    together, p being its probability, t 1 where it is annotated and s `SMOOTH` (Milletari et al. 2016, without
    the squares). The mean is over the classes that `Overlap` counts, the background of a softmax included.
    """

    def value(self, sums: Tensor) -> Tensor:
        """Mean over the classes that count."""
        overlap = Overlap(*sums.unbind())
        dice = (2 * overlap.both + SMOOTH) / (overlap.probability + overlap.truth + SMOOTH)
        return overlap.mean_over_classes(1 - dice)


class GeneralisedDice(OverlapTerm):
    """One minus the generalised Dice coefficient, in which every class counts alike whatever its volume.

    ``(2 sum_k w_k sum(p t) + s) / (sum_k w_k (sum(p) + sum(t)) + s)`` with ``w_k = 1 / v_k^2``, v_k being the
    annotated volume of class k in the batch (Sudre et al. 2017, section 2). The weights are divided by the
    largest one, which changes nothing but rounding, and s (`SMOOTH`) is a voxel of the smallest class. A class
    that is not annotated would weigh infinitely much: it gets the largest weight of the others.
    """

    def value(self, sums: Tensor) -> Tensor:
        """One minus the coefficient; 0 where nothing is annotated."""
        overlap = Overlap(*sums.unbind())
        volume = overlap.truth
        smallest = torch.where(volume > 0, volume, torch.inf).min()
        # between the two maxima, neither 0 / 0 nor inf / inf arises where classes are missing
        weights = torch.where(volume > 0, (smallest / volume.clamp(min=torch.finfo(volume.dtype).tiny)) ** 2, 1.0)
        both = (weights * overlap.both).sum()
        total = (weights * (overlap.probability + volume)).sum()
        return 1 - (2 * both + SMOOTH) / (total + SMOOTH)
