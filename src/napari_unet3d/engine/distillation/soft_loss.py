r"""How far a student is from its teacher.

Hinton et al. 2015, "Distilling the knowledge in a neural network", section 2: with :math:`p = softmax(t / T)` of the
teacher and :math:`q = softmax(s / T)` of the student, the soft term is

.. math:: T^2 \; KL(p \,\|\, q) = T^2 \sum_k p_k (\log p_k - \log q_k),

mean over all voxels. The gradient of KL shrinks with 1 / T^2, which the factor undoes, so that the temperature may be
changed without changing the balance with the annotation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.engine.distillation.scores import log_probabilities, same_form
from napari_unet3d.engine.heads import Head


def soft_loss(
    outputs: Sequence[Tensor],
    teacher: Tensor,
    temperature: float,
    strides: Sequence[Sequence[int]] | None = None,
    head: Head = "softmax",
) -> Tensor:
    """Mean of ``T^2 KL(teacher || student)`` over voxels, and over the outputs of a network with deep supervision.

    Parameters
    ----------
    outputs
        Logits of the student, B K Z Y X, finest first; any floating type, compared in float32. The output at place j
        weighs ``2^-j``, as in `losses.Loss`.
    teacher
        B C Z Y X scores (see `distillation.scores`); where the student has no padding its output stands for their
        centre. For a coarser output the softened probabilities are averaged over its voxels.
    temperature
        T, above 0.
    strides
        For each output the Z Y X edges of its voxels in voxels of `teacher`; None: all outputs are as fine as that.
    head
        What logits and scores mean.

    Returns
    -------
    Tensor
        Scalar, float32, at least 0; 0 where student and teacher are equal.
    """
    total = teacher.new_zeros(())
    shares = [0.5**place for place in range(len(outputs))]
    for place, output in enumerate(outputs):
        stride = [1, 1, 1] if strides is None else list(strides[place])
        extent = [size * step for size, step in zip(output.shape[2:], stride, strict=True)]
        log_p = log_probabilities(centre_of(teacher, extent), head, temperature)  # B D N Z Y X
        log_q = log_probabilities(same_form(output, head), head, temperature)
        if max(stride) > 1:
            log_p = _pooled(log_p, stride)
        divergence = (log_p.exp() * (log_p - log_q)).sum((1, 2)).mean()
        total = total + shares[place] / sum(shares) * temperature**2 * divergence
    return total


def hint_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between maps of where student and teacher are active (Zagoruyko and Komodakis 2017, eq. 2).

    A map is the mean of the squared features over the channels, divided by its length (the 2-norm over a patch).

    Parameters
    ----------
    features
        B F Z Y X of the student, in front of its head.
    teacher
        B 1 Z Y X, logarithm of the teacher's map, of any length; its centre counts.

    Returns
    -------
    Tensor
        Scalar in 0..2, mean over the patches.
    """
    own = functional.normalize(features.float().pow(2).mean(1).flatten(1), dim=1)
    wanted = centre_of(teacher, features.shape[2:]).flatten(1).exp()
    return (own - functional.normalize(wanted, dim=1)).pow(2).sum(1).mean()


def centre_of(values: Tensor, extent: Sequence[int]) -> Tensor:
    """The centre of B C Z Y X values with the spatial sizes `extent`, which are no larger."""
    for axis, size in enumerate(extent, start=2):
        values = values.narrow(axis, (values.shape[axis] - size) // 2, size)
    return values


def _pooled(log_p: Tensor, stride: Sequence[int]) -> Tensor:
    """B D N Z Y X log probabilities averaged, as probabilities, over blocks."""
    mean = functional.avg_pool3d(log_p.exp().flatten(1, 2), tuple(stride), tuple(stride))
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log().reshape(*log_p.shape[:3], *mean.shape[2:])
