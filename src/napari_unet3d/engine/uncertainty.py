"""How sure a prediction is, voxel by voxel, from its class probabilities.

Both measures are 0 where one class has probability 1 and 1 where the network cannot tell: entropy when all
classes are equally likely, margin already when the two likeliest are. They say how sure the network *is*,
which is not how often it is right (Guo et al. 2017, "On calibration of modern neural networks").

With a sigmoid head each structure is a decision of its own, present or not. Entropy is then the mean over these
decisions, and margin that of the least sure one. The background, the first class, is no decision (see `engine.heads`).
With a single structure both are the same as with a softmax over two classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_unet3d.engine.heads import Head


def entropy(probabilities: Tensor, dim: int = 1, head: Head = "softmax") -> Tensor:
    """Shannon entropy divided by the logarithm of the number of classes.

    ``-sum_k p_k log p_k / log K`` (Shannon 1948), with ``0 log 0 = 0``.

    Parameters
    ----------
    probabilities
        Any shape with the K classes along `dim`; floating point, in 0..1, summing to 1 over `dim` with a softmax head.
    dim
        Axis of the classes.
    head
        What they come from.

    Returns
    -------
    Tensor
        The shape without `dim`, in 0..1. With a single class 0 everywhere.
    """
    classes = probabilities.shape[dim]
    if classes == 1:
        return torch.zeros_like(probabilities.select(dim, 0))
    if head == "sigmoid":
        present = probabilities.narrow(dim, 1, classes - 1)
        decisions: Tensor = torch.special.entr(present) + torch.special.entr(1 - present)
        return (decisions.mean(dim) / math.log(2)).clamp_(0, 1)
    total: Tensor = torch.special.entr(probabilities).sum(dim)
    return (total / math.log(classes)).clamp_(0, 1)


def margin(probabilities: Tensor, dim: int = 1, head: Head = "softmax") -> Tensor:
    """One minus the difference between the two largest probabilities.

    Parameters
    ----------
    probabilities
        Any shape with the K classes along `dim`; floating point, in 0..1, summing to 1 over `dim` with a softmax head.
    dim
        Axis of the classes.
    head
        What they come from.

    Returns
    -------
    Tensor
        The shape without `dim`, in 0..1. With a single class 0 everywhere.
    """
    if probabilities.shape[dim] == 1:
        return torch.zeros_like(probabilities.select(dim, 0))
    if head == "sigmoid":
        present = probabilities.narrow(dim, 1, probabilities.shape[dim] - 1)
        return 1 - (2 * present - 1).abs().amin(dim)
    first, second = probabilities.topk(2, dim).values.unbind(dim)
    return 1 - (first - second)
