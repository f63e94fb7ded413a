"""Cross-entropy and focal loss, weighted by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_unet3d.engine.losses.term import Term
from napari_unet3d.engine.losses.voxels import Verdict


class CrossEntropy(Term):
    """Weighted mean of ``(1 - p)^gamma * (-log p)``, p being the probability of what is annotated.

    With gamma 0 it is the weighted softmax cross-entropy (Çiçek et al. 2016), with a greater one the focal
    loss (Lin et al. 2017, eq. 5). The sum over voxels is divided by the sum of their weights, so neither the
    number of annotated voxels nor the scale of the weights changes the step.

    For a sigmoid head the mean runs over the structures too: p is then, for each, the probability that the
    structure is there where it is annotated, and that it is not elsewhere.

    Parameters
    ----------
    class_weights
        One weight for each class, background included: that of the voxels where the class is annotated. None
        for equal ones.
    gamma
        Focus on voxels that are still wrong.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None, gamma: float = 0.0) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(tuple(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.gamma = gamma

    def sums(self, verdict: Verdict) -> Tensor:
        """Weighted sum of the losses, and sum of the weights."""
        weights = verdict.weights
        if self.class_weights is not None:
            weights = weights * self.class_weights[verdict.voxels.classes][:, None]
        log_p = verdict.log_likelihood
        losses = -log_p
        if self.gamma > 0:
            # below gamma 1 the power has no gradient at 0, where a voxel has nothing left to learn
            wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
            losses = wrong**self.gamma * losses
        return torch.stack([(weights * losses).sum(), weights.sum() * log_p.shape[1]])

    def value(self, sums: Tensor) -> Tensor:
        """Sum of the losses over sum of the weights."""
        numerator, denominator = sums.unbind()
        return numerator / torch.where(denominator > 0, denominator, 1.0)
