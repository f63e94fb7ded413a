"""What the channels of a network's output mean, and how they become classes.

Everywhere behind the network there is one channel for each label id, the background first::

    head      output channels          class logits          class probabilities
    softmax   a, b, c                  a, b, c               softmax
    softmax   z (one channel)          0, z                  softmax: 1 - s(z), s(z)
    sigmoid   z_1 ... z_S structures   0, z_1 ... z_S        1 - max s(z_k), s(z_1) ... s(z_S)

s is the logistic function. The class with the highest logit is that with the highest probability. With a sigmoid
head it is the background where no structure has a probability above one half.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from napari_unet3d.engine.config import NetworkConfig

Head: TypeAlias = Literal["softmax", "sigmoid"]
"""As in ``NetworkConfig.head``."""


def is_sigmoid(network: NetworkConfig) -> bool:
    """Whether every output channel of a network is a decision of its own, through the logistic function."""
    return network.head == "sigmoid" or network.classes == 1


def class_logits(logits: Tensor, head: Head) -> Tensor:
    """Output channels (first axis) as one logit for each label id."""
    if head == "softmax" and len(logits) > 1:
        return logits
    return torch.cat([torch.zeros_like(logits[:1]), logits])


def class_probabilities(logits: Tensor, head: Head) -> Tensor:
    """Probabilities in float32 from logits for each label id (first axis), see `class_logits`.

    With a sigmoid head they need not sum to 1: each structure is told by itself.
    """
    if head == "softmax":
        return logits.float().softmax(0)
    return with_background(logits.float().sigmoid(), head)


def with_background(probabilities: Tensor, head: Head) -> Tensor:
    """Set the background's probability (first of the first axis), in place, from those of the structures.

    Averages of tiles need this: that of one minus the highest is not one minus the highest average. A softmax,
    which keeps its sum under averaging, is left as it is.
    """
    if head == "sigmoid":
        probabilities[0] = 1 - probabilities[1:].amax(0)
    return probabilities
