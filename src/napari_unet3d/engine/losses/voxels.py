"""Annotated voxels of an output: which they are, and what a network says there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.engine.config import label_count
from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.volume import IGNORE_INDEX


class Annotated(NamedTuple):
    """Annotated voxels of one output: position in the flattened B Z Y X, class and weight, N of each."""

    positions: Tensor
    classes: Tensor
    weights: Tensor


class Verdict(NamedTuple):
    """What a network says at annotated voxels, beside what is true there.

    K counts what the network tells: the classes of a softmax, or the structures of a sigmoid head. One channel
    under a softmax head is a softmax over (0, z), hence K = 2.
    """

    shape: tuple[int, ...]
    """Of the output without its channels: B Z Y X."""
    voxels: Annotated
    p: Tensor
    """N x K probabilities, float32."""
    truth: Tensor
    """N x K, 1 where that is annotated, else 0; of the type of `p`."""
    log_likelihood: Tensor
    """N x D log probabilities of what is annotated, for each of D decisions: 1 for a softmax, K for sigmoids."""
    at_stake: Tensor
    """N x K, 1 where the channel counts for a mean over channels though nothing of it is annotated, else 0: where a
    softmax finds it most probable, and everywhere for sigmoids, which nothing else tells that it is absent."""

    @property
    def weights(self) -> Tensor:
        """Weights of the voxels, N x 1."""
        return self.voxels.weights[:, None]


def verdict(logits: Tensor, voxels: Annotated, head: Head = "softmax") -> Verdict:
    """Gather what B K Z Y X logits say at annotated voxels; only these logits get a gradient."""
    size = logits[0, 0].numel()
    rows = logits.flatten(2)[voxels.positions // size, :, voxels.positions % size]  # N K
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    shape = (logits.shape[0], *logits.shape[2:])
    voxels = voxels._replace(weights=voxels.weights.to(rows))
    truth = functional.one_hot(voxels.classes, label_count(rows.shape[1], head)).to(rows)
    if head == "sigmoid":
        truth = truth[:, 1:]  # the background has no channel
        right = functional.logsigmoid(torch.where(truth > 0, rows, -rows))
        return Verdict(shape, voxels, rows.sigmoid(), truth, right, torch.ones_like(truth))
    if rows.shape[1] == 1:
        rows = functional.pad(rows, (1, 0))
    log_p = rows.log_softmax(1)
    at_stake = functional.one_hot(rows.detach().argmax(1), rows.shape[1]).to(rows)
    return Verdict(shape, voxels, log_p.exp(), truth, log_p.gather(1, voxels.classes[:, None]), at_stake)


def annotated_voxels(target: Tensor, weight: Tensor | None = None) -> Annotated:
    """Annotated voxels of a B Z Y X target, with the weights (B Z Y X) there; weight 1 for None.

    A voxel of weight 0 counts as not annotated.
    """
    flat = target.flatten()
    is_annotated = flat != IGNORE_INDEX
    if weight is not None:
        is_annotated &= weight.flatten() > 0
    positions = is_annotated.nonzero()[:, 0]
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


def centred(values: Tensor, extent: Sequence[int], fill: int) -> Tensor:
    """The centre of B Z Y X values, cropped or filled up to the spatial sizes `extent`."""
    for axis, size in enumerate(extent, start=1):
        missing = size - values.shape[axis]
        if missing < 0:
            values = values.narrow(axis, -missing // 2, size)
        elif missing > 0:
            later_axes = [0, 0] * (values.ndim - 1 - axis)  # pad counts from the last axis
            values = functional.pad(values, [*later_axes, missing // 2, missing - missing // 2], value=fill)
    return values
