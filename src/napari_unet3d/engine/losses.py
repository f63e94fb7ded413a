"""Partial losses: only annotated voxels count, exactly.

::

    logits  B K Z Y X ──┐  annotated voxels only      terms         total
    target  B Z Y X   ──┴─> log p, N x K ──> sums ──> value ──┐
    coarser logits and the target pooled to them ... ──> value ┴─> weighted mean over the outputs

Annotated voxels are gathered before anything is computed. As slices are a small part of a patch this is fast,
and what a network says elsewhere, be it NaN, cannot reach the loss or its gradient.

Every spatial shape may also be Y X. In the comments B is the batch, K the classes, N the annotated voxels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.volume import IGNORE_INDEX

DICE_SMOOTH: Final = 1.0
"""Voxels added to both sides of the Dice fraction."""


class LossValue(NamedTuple):
    """Value of a loss: scalars in float32 that carry gradients.

    `total` is the sum of `terms`, which are named ``cross_entropy``, ``dice`` or ``focal``.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class Annotated(NamedTuple):
    """Annotated voxels of one output: position in the flattened B Z Y X, class and weight, N of each."""

    positions: Tensor
    classes: Tensor
    weights: Tensor


# --- terms ------------------------------------------------------------------------------------------------


class Term(nn.Module, ABC):
    """One summand of a loss, in two steps: sums over voxels, which add up over processes, and their value."""

    @abstractmethod
    def sums(self, log_p: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Sums over N voxels from log probabilities (N x K), classes (N) and voxel weights (N)."""

    @abstractmethod
    def value(self, sums: Tensor) -> Tensor:
        """Scalar from (added) sums; 0 where nothing is annotated."""


class CrossEntropy(Term):
    """Weighted mean of ``(1 - p)^gamma * (-log p)``, p being the probability of the annotated class.

    With gamma 0 it is the weighted softmax cross-entropy (Çiçek et al. 2016), with a greater one the focal
    loss (Lin et al. 2017, eq. 5). The sum over voxels is divided by the sum of their weights, so neither the
    number of annotated voxels nor the scale of the weights changes the step.

    Parameters
    ----------
    class_weights
        One weight for each class; None for equal ones.
    gamma
        Focus on voxels that are still wrong.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None, gamma: float = 0.0) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(tuple(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.gamma = gamma

    def sums(self, log_p: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the losses, and sum of the weights."""
        if self.class_weights is not None:
            weights = weights * self.class_weights[classes]
        log_true = log_p.gather(1, classes[:, None])[:, 0]
        losses = -log_true
        if self.gamma > 0:
            # below gamma 1 the power has no gradient at 0, where a voxel has nothing left to learn
            wrong = (-torch.expm1(log_true)).clamp(min=torch.finfo(log_p.dtype).tiny)
            losses = wrong**self.gamma * losses
        return torch.stack([(weights * losses).sum(), weights.sum()])

    def value(self, sums: Tensor) -> Tensor:
        """Sum of the losses over sum of the weights."""
        numerator, denominator = sums.unbind()
        return numerator / torch.where(denominator > 0, denominator, 1.0)


class SoftDice(Term):
    """One minus the soft Dice coefficient, mean over classes.

    For each class ``D = (2 sum(p t) + s) / (sum(p) + sum(t) + s)`` over all annotated voxels of the batch
    together, p being its probability, t 1 where it is annotated and s `DICE_SMOOTH` (Milletari et al. 2016,
    without the squares). The mean is over the classes, background included, that are annotated in the batch
    or the most probable one at an annotated voxel. A class that is neither is left out: it has nothing to
    overlap with, and its probability already counts against the others.
    """

    def sums(self, log_p: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Four rows of K: overlap, sum of probabilities, annotated weight, weight where most probable."""
        count = log_p.shape[1]
        weight = weights[:, None]
        p = log_p.exp()
        truth = functional.one_hot(classes, count)
        winner = functional.one_hot(log_p.detach().argmax(1), count)
        rows = [weight * p * truth, weight * p, weight * truth, weight * winner]
        return torch.stack([row.sum(0) for row in rows])

    def value(self, sums: Tensor) -> Tensor:
        """Mean over the classes that count."""
        overlap, probability, truth, winner = sums.unbind()
        counts = (truth > 0) | (winner > 0)
        dice = (2 * overlap + DICE_SMOOTH) / (probability + truth + DICE_SMOOTH)
        return torch.where(counts, 1 - dice, 0.0).sum() / counts.sum().clamp(min=1)


# --- the loss ---------------------------------------------------------------------------------------------


class Loss(nn.Module):
    """Sum of terms over annotated voxels, averaged over the outputs of a network.

    Parameters
    ----------
    terms
        The summands by name.
    strides
        For each output, finest first, the Z Y X edge lengths of its voxels in voxels of the target, as in
        ``Description.output_grids``. None takes them from the sizes, see `output_strides`.
    """

    def __init__(self, terms: Mapping[str, Term], strides: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.strides = strides

    def forward(self, outputs: Sequence[Tensor], target: Tensor, weight: Tensor | None = None) -> LossValue:
        """Loss of a network's outputs.

        The output at place j weighs ``2^-j``, divided by the sum of these weights. Where nothing is annotated
        the loss is 0 and so is its gradient.

        Parameters
        ----------
        outputs
            Logits, B K Z Y X, finest first; float32, bfloat16 or float16, computed on in float32. K = 1 is
            one sigmoid channel: the logit of class 1 against class 0.
        target
            B Z Y X, int64: class indices, `IGNORE_INDEX` where not annotated. Where a network without padding
            gives less than the target's extent, the target's centre counts. For coarser outputs see
            `pooled_voxels`.
        weight
            B Z Y X: weight of each voxel, at least 0, multiplied by that of its class; None for 1.

        Raises
        ------
        ValueError
            If the batch or the number of axes differs, or the finest output is larger than the target.
        """
        _check_shapes(outputs, target)
        strides = self.strides or output_strides([output.shape[2:] for output in outputs])
        shares = [0.5**place for place in range(len(outputs))]
        values: dict[str, Tensor] = {}
        for share, output, stride in zip(shares, outputs, strides, strict=True):
            extent = [size * step for size, step in zip(output.shape[2:], stride, strict=True)]
            centred = _centred(target, extent, IGNORE_INDEX)
            centred_weight = None if weight is None else _centred(weight, extent, 0)
            voxels = annotated_voxels(centred, centred_weight)
            if max(stride) > 1:
                voxels = pooled_voxels(voxels, extent, stride, max(output.shape[1], 2))
            log_p = _log_probabilities(output, voxels.positions)
            for name, module in self.terms.items():
                term = cast(Term, module)
                value = term.value(term.sums(log_p, voxels.classes, voxels.weights.to(log_p)))
                values[name] = values.get(name, 0) + share / sum(shares) * value
        return LossValue(torch.stack(list(values.values())).sum(), values)


def build_loss(
    config: TrainConfig,
    class_weights: Sequence[float] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
) -> Loss:
    """The loss that the settings ask for.

    ``cross_entropy_dice`` is the plain sum of both terms. Class weights act on cross-entropy and focal loss
    only.

    Parameters
    ----------
    config
        Its `loss` and `focal_gamma` are read.
    class_weights
        One weight for each class (two for a sigmoid channel), see `class_weights`; None for equal ones.
    strides
        As of `Loss`; needed for small outputs of networks without padding.
    """
    terms: dict[str, Term] = {}
    if config.loss in ("cross_entropy", "cross_entropy_dice"):
        terms["cross_entropy"] = CrossEntropy(class_weights)
    if config.loss == "focal":
        terms["focal"] = CrossEntropy(class_weights, config.focal_gamma)
    if config.loss in ("dice", "cross_entropy_dice"):
        terms["dice"] = SoftDice()
    return Loss(terms, strides)


def _check_shapes(outputs: Sequence[Tensor], target: Tensor) -> None:
    finest = tuple(outputs[0].shape)
    wanted = tuple(target.shape)
    fits = len(finest) == len(wanted) + 1 and finest[0] == wanted[0]
    if not fits or any(size > limit for size, limit in zip(finest[2:], wanted[1:], strict=True)):
        raise ValueError(f"logits {finest} (B K Z Y X) do not fit into the target {wanted} (B Z Y X)")


def _log_probabilities(logits: Tensor, positions: Tensor) -> Tensor:
    """Log probabilities (N x K, K at least 2, float32) at flat positions of B K Z Y X logits."""
    voxels = logits[0, 0].numel()
    rows = logits.flatten(2)[positions // voxels, :, positions % voxels]  # N K
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if rows.shape[1] == 1:  # a sigmoid channel z is a softmax over (0, z)
        rows = functional.pad(rows, (1, 0))
    return rows.log_softmax(1)


def annotated_voxels(target: Tensor, weight: Tensor | None = None) -> Annotated:
    """Annotated voxels of a B Z Y X target, with the weights (B Z Y X) there; weight 1 for None."""
    flat = target.flatten()
    positions = (flat != IGNORE_INDEX).nonzero()[:, 0]
    weights = torch.ones(positions.shape, device=flat.device) if weight is None else weight.flatten()[positions]
    return Annotated(positions, flat[positions].long(), weights)


# --- coarser outputs --------------------------------------------------------------------------------------


def output_strides(shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Edge lengths of a voxel of each output, in voxels of the finest.

    From each output to the next the step is the ratio of the sizes, rounded up. For padded networks the ratio
    is whole. A network without padding loses a margin in its finer level, and rounding up puts that right as
    long as a coarse output is larger than this margin (4 voxels for two convolutions of 3).

    Parameters
    ----------
    shapes
        Spatial sizes (Z Y X), finest first.
    """
    strides = [(1,) * len(shapes[0])]
    for finer, coarser in pairwise(shapes):
        step = [-(-fine // coarse) for fine, coarse in zip(finer, coarser, strict=True)]
        strides.append(tuple(a * b for a, b in zip(strides[-1], step, strict=True)))
    return strides


def pooled_voxels(voxels: Annotated, extent: Sequence[int], stride: Sequence[int], classes: int) -> Annotated:
    """Annotated voxels of a coarser output, whose voxels are blocks of `stride` voxels.

    A block is annotated if any of its voxels is. Its class is that of most of its annotated voxels; a tie
    goes to the higher class, so that thin structures survive beside the background. Its weight is the mean
    over its annotated voxels.

    Parameters
    ----------
    voxels
        Annotated voxels of a B Z Y X target, classes below `classes`.
    extent
        Z Y X sizes of that target, multiples of `stride`.
    stride
        Z Y X edge lengths of a block.
    classes
        Number of classes.
    """
    rest, block, scale = voxels.positions, torch.zeros_like(voxels.positions), 1
    for size, step in zip(reversed(extent), reversed(stride), strict=True):  # X, then Y, then Z
        block = block + rest % size // step * scale
        rest = rest // size
        scale *= size // step
    block = block + rest * scale  # what is left is the place in the batch
    positions, place = torch.unique(block, return_inverse=True)
    votes = torch.bincount(place * classes + voxels.classes, minlength=len(positions) * classes)
    votes = votes.reshape(len(positions), classes)
    winner = (votes * classes + torch.arange(classes, device=votes.device)).argmax(1)
    weights = voxels.weights.new_zeros(len(positions)).index_add_(0, place, voxels.weights)
    return Annotated(positions, winner, weights / votes.sum(1))


def _centred(values: Tensor, extent: Sequence[int], fill: int) -> Tensor:
    """The centre of B Z Y X values, cropped or filled up to the spatial sizes `extent`."""
    for axis, size in enumerate(extent, start=1):
        missing = size - values.shape[axis]
        if missing < 0:
            values = values.narrow(axis, -missing // 2, size)
        elif missing > 0:
            later_axes = [0, 0] * (values.ndim - 1 - axis)  # pad counts from the last axis
            values = functional.pad(values, [*later_axes, missing // 2, missing - missing // 2], value=fill)
    return values
