"""The loss of a training step: a weighted sum of terms, over all outputs of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from napari_unet3d.engine.config import TrainConfig, label_count
from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.losses.cross_entropy import CrossEntropy
from napari_unet3d.engine.losses.dice import GeneralisedDice, SoftDice
from napari_unet3d.engine.losses.iou import SoftIoU
from napari_unet3d.engine.losses.ssim import MultiScaleSSIM
from napari_unet3d.engine.losses.term import Term
from napari_unet3d.engine.losses.voxels import (
    annotated_voxels,
    centred,
    output_strides,
    pooled_voxels,
    verdict,
)
from napari_unet3d.engine.volume import IGNORE_INDEX


class LossValue(NamedTuple):
    """Value of a loss: scalars in float32 that carry gradients.

    `total` is the sum of `terms`, which have their weight in it, and are named as in `config.LOSS_TERMS`.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class Loss(nn.Module):
    """Sum of terms over annotated voxels, averaged over the outputs of a network.

    Parameters
    ----------
    terms
        The summands by name.
    strides
        For each output, finest first, the Z Y X edge lengths of its voxels in voxels of the target, as in
        ``Description.output_grids``. None takes them from the sizes, see `output_strides`.
    head
        What the logits mean, see ``NetworkConfig.head``.
    weights
        Weight of each term by name; None for 1 each.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        strides: Sequence[Sequence[int]] | None = None,
        head: Head = "softmax",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.strides = strides
        self.head = head
        self.weights = dict.fromkeys(terms, 1.0) if weights is None else dict(weights)

    def forward(
        self,
        outputs: Sequence[Tensor],
        target: Tensor,
        weight: Tensor | None = None,
        summed: Callable[[Tensor], Tensor] | None = None,
    ) -> LossValue:
        """Loss of a network's outputs.

        The output at place j weighs ``2^-j``, divided by the sum of these weights. Where nothing is annotated
        the loss is 0 and so is its gradient.

        Parameters
        ----------
        outputs
            Logits, B K Z Y X, finest first; float32, bfloat16 or float16, computed on in float32, under autocast
            too. One channel under a softmax head is the logit of class 1 against class 0; under a sigmoid head
            channel k tells whether class k + 1 is there.
        target
            B Z Y X, int64: class indices, `IGNORE_INDEX` where not annotated. Where a network without padding
            gives less than the target's extent, the target's centre counts. For coarser outputs see
            `pooled_voxels`.
        weight
            B Z Y X: weight of each voxel, at least 0, multiplied by that of its class; None for 1.
        summed
            Adds a vector up over all processes that hold a part of the batch: the loss is then that of the whole
            batch. None where this is all of it.

        Raises
        ------
        ValueError
            If the batch or the number of axes differs, or the finest output is larger than the target.
        """
        _check_shapes(outputs, target)
        strides = self.strides or output_strides([output.shape[2:] for output in outputs])
        shares = [0.5**place for place in range(len(outputs))]
        values: dict[str, Tensor] = {}
        with torch.autocast(target.device.type, enabled=False):
            pairs = zip(outputs, strides, strict=True)
            sums = [found for output, stride in pairs for found in self._sums(output, target, weight, stride)]
            totals = iter(sums if summed is None else _of_all(sums, summed))
            for share in shares:
                for name, term in self._named_terms():
                    value = self.weights[name] * term.value(next(totals))
                    values[name] = values.get(name, 0) + share / sum(shares) * value
            return LossValue(torch.stack(list(values.values())).sum(), values)

    def _named_terms(self) -> list[tuple[str, Term]]:
        return [(name, cast(Term, term)) for name, term in self.terms.items()]

    def _sums(self, output: Tensor, target: Tensor, weight: Tensor | None, stride: Sequence[int]) -> list[Tensor]:
        """The sums of every term for one output."""
        extent = [size * step for size, step in zip(output.shape[2:], stride, strict=True)]
        voxels = annotated_voxels(
            centred(target, extent, IGNORE_INDEX), None if weight is None else centred(weight, extent, 0)
        )
        if max(stride) > 1:
            voxels = pooled_voxels(voxels, extent, stride, label_count(output.shape[1], self.head))
        said = verdict(output, voxels, self.head)
        return [term.sums(said) for _, term in self._named_terms()]


def build_loss(
    config: TrainConfig,
    class_weights: Sequence[float] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    head: Head = "softmax",
) -> Loss:
    """The loss that the settings ask for: the sum of the terms named in `config.LOSS_TERMS`.

    Parameters
    ----------
    config
        Its `loss`, `loss_weights` and `focal_gamma` are read.
    class_weights
        One weight for each class, background included (two for a single channel), see `class_weights`; None for
        equal ones. They act on cross-entropy and focal loss only.
    strides, head
        As of `Loss`; strides are needed for small outputs of networks without padding.
    """
    terms = {name: _term(name, config, class_weights) for name in config.loss_terms}
    return Loss(terms, strides, head, config.loss_terms)


def _of_all(sums: Sequence[Tensor], summed: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Sums over all processes, in one message."""
    flat = summed(torch.cat([values.flatten() for values in sums]))
    parts = torch.split(flat, [values.numel() for values in sums])
    return [part.view(values.shape) for part, values in zip(parts, sums, strict=True)]


def _term(name: str, config: TrainConfig, class_weights: Sequence[float] | None) -> Term:
    match name:
        case "cross_entropy":
            return CrossEntropy(class_weights)
        case "focal":
            return CrossEntropy(class_weights, config.focal_gamma)
        case "dice":
            return SoftDice()
        case "generalised_dice":
            return GeneralisedDice()
        case "iou":
            return SoftIoU()
        case _:
            return MultiScaleSSIM()


def _check_shapes(outputs: Sequence[Tensor], target: Tensor) -> None:
    finest = tuple(outputs[0].shape)
    wanted = tuple(target.shape)
    fits = len(finest) == len(wanted) + 1 and finest[0] == wanted[0]
    if not fits or any(size > limit for size, limit in zip(finest[2:], wanted[1:], strict=True)):
        raise ValueError(f"logits {finest} (B K Z Y X) do not fit into the target {wanted} (B Z Y X)")
