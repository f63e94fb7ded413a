"""Classification guidance (Huang et al. 2020, section 2.3), such that it can be learnt.

A classifier on the bottleneck says which classes are present, and what is said to be absent is held back in
every output. In the paper a hard decision does so, through which no gradient passes; here the probability of
presence multiplies that of the class, at every voxel.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet3d.engine.config import UNet3PlusConfig
from napari_unet3d.engine.networks.blocks import channel_dropout, convolution


class Guidance(nn.Module):
    """Logits of the classes' presence: B F Z Y X of the coarsest level -> B max(2, K) Z Y X.

    With K = 1 the two channels mean absent and present.
    """

    def __init__(self, config: UNet3PlusConfig) -> None:
        super().__init__()
        self.dropout = channel_dropout(config.unet, config.guidance_dropout)
        channels = max(2, config.classes)
        self.classifier = convolution(config.unet, config.filters_per_level[-1], channels, bias=True)

    def forward(self, bottleneck: Tensor) -> Tensor:
        presence: Tensor = self.classifier(self.dropout(bottleneck))
        return presence


def presence_of_channels(presence: Tensor, channels: int) -> Tensor:
    """Logit of the presence of each output channel, float32: B max(2, K) Z Y X -> B K Z Y X.

    Two logits for a single channel are set against each other, as a softmax over absent and present would.
    """
    presence = presence.float()
    return presence[:, 1:2] - presence[:, :1] if channels == 1 else presence


def guided(logits: Tensor, presence: Tensor, *, is_sigmoid: bool) -> Tensor:
    """Logits whose probabilities are multiplied by the probability that the class is present in the image.

    A class is as present as where it is most. With a softmax the products are made to sum to 1 again.

    Parameters
    ----------
    logits
        B K Z Y X (in two dimensions B K Y X) at any resolution.
    presence
        B max(2, K) Z Y X (B max(2, K) Y X), as `Guidance` gives them.
    is_sigmoid
        Whether every channel is a sigmoid of its own.

    Returns
    -------
    Tensor
        Of the shape and type of `logits`.
    """
    present = presence_of_channels(presence, logits.shape[1]).flatten(2).amax(2)  # B K
    present = present.reshape(*present.shape, *[1] * (logits.ndim - 2))
    if not is_sigmoid:
        return logits + F.logsigmoid(present).to(logits.dtype)
    # q = sigmoid(z) p has the logit log q - log(1 - q) = z + log p - log(1 + (1 - p) exp(z))
    wide = logits.float()
    product = wide + F.logsigmoid(present) - F.softplus(wide + F.logsigmoid(-present))
    return product.to(logits.dtype)
