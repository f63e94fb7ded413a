"""What a teacher says about a voxel, in as few numbers as will do.

::

    head              probabilities (Predictor)      scores (kept, compared)
    softmax, 2 ids    p_0, p_1                       log p_1 - log p_0               C = 1
    softmax, K ids    p_0 ... p_K-1                  log p_0 ... log p_K-1           C = K
    sigmoid, K ids    p_0, p_1 ... p_K-1             logit p_1 ... logit p_K-1       C = K - 1

Scores are logits up to a constant that softmax does not see, so they can be divided by a temperature. The logits of a
student become scores of the same form.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from napari_unet3d.engine.config import NetworkConfig
from napari_unet3d.engine.heads import Head


def score_channels(network: NetworkConfig) -> int:
    """How many scores a voxel has."""
    if network.head == "sigmoid":
        return network.classes
    return 1 if network.label_count == 2 else network.label_count


def scores_of(probabilities: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """C ... scores of K ... probabilities in 0..1, one for each label id."""
    p = np.maximum(probabilities, np.finfo(np.float32).tiny)  # in extreme cases softmax gives 0
    result: NDArray[np.float32]
    if head == "sigmoid":
        result = np.log(p[1:]) - np.log(np.maximum(1 - p[1:], np.finfo(np.float32).eps))
    elif len(p) == 2:
        result = np.log(p[1:]) - np.log(p[:1])
    else:
        result = np.log(p)
    return result


def probabilities_of(scores: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """K ... probabilities of C ... scores; the inverse of `scores_of`, but for a sigmoid head's background (NaN)."""
    if head == "sigmoid":
        return np.concatenate([np.full_like(scores[:1], np.nan), expit(scores)])
    if len(scores) == 1:
        return np.concatenate([expit(-scores), expit(scores)])
    result: NDArray[np.float32] = np.exp(scores)
    return result


def log_probabilities(logits: Tensor, head: Head, temperature: float = 1.0) -> Tensor:
    """Log probabilities at a temperature, as one distribution over the classes or several over yes and no.

    Parameters
    ----------
    logits
        B C ..., logits of a network or scores.
    head
        What they mean.
    temperature
        They are divided by it.

    Returns
    -------
    Tensor
        B D N ..., float32: D distributions over N outcomes, which sum to 1 along axis 2.
    """
    values = logits.float() / temperature
    if head == "sigmoid" or values.shape[1] == 1:
        both = torch.stack([torch.zeros_like(values), values], dim=2)
        return both.log_softmax(2)
    return values.log_softmax(1)[:, None]


def class_indices(scores: Tensor, head: Head) -> Tensor:
    """Class of each voxel, ... int64, from ... C scores (channels last)."""
    if head == "sigmoid":
        best, index = scores.max(-1)
        return torch.where(best > 0, index + 1, 0)
    if scores.shape[-1] == 1:
        return (scores[..., 0] > 0).long()
    return scores.argmax(-1)


def same_form(logits: Tensor, head: Head) -> Tensor:
    """Logits of a student (B K ...) as scores: two channels of a softmax become their difference."""
    if head == "softmax" and logits.shape[1] == 2:
        return logits[:, 1:] - logits[:, :1]
    return logits
