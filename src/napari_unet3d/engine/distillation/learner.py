"""A step of learning from annotation and teachers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from napari_unet3d.engine.config import DistillConfig, TrainConfig
from napari_unet3d.engine.device import Precision
from napari_unet3d.engine.distillation.scores import score_channels
from napari_unet3d.engine.distillation.soft_loss import hint_loss, soft_loss
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.losses import Loss, LossValue
from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.training_data import Batch
from napari_unet3d.engine.volume import IGNORE_INDEX


class DistillationLearner(Learner):
    """Follows ``(1 - alpha) hard + alpha soft (+ feature_hint hint)``.

    The hard term is over annotated voxels, the soft one over all, deep supervision included where the student has it.
    The terms of an outcome are without their weights, and the hard one is missing in patches without annotation.

    Parameters
    ----------
    network, config, loss, device, precision
        As of `Learner`; `loss` is the hard term.
    distill
        Temperature and weights.
    """

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        loss: Loss,
        device: torch.device,
        precision: Precision,
        distill: DistillConfig,
    ) -> None:
        super().__init__(network, config, loss, device, precision)
        self._distill = distill
        self._strides = [grid.stride for grid in network.description.output_grids]

    def _loss_of(self, network: Network, batch: Batch) -> LossValue:
        assert batch.soft is not None  # a distiller's data
        settings, config = self._distill, network.config
        # one forward pass serves all terms: what reaches the hard one is seen by the others
        with _entering(self._loss) as outputs, _entering(network.body.head) as features:
            hard = super()._loss_of(network, batch)
        channels = score_channels(config)
        soft = soft_loss(outputs[0], batch.soft[:, :channels], settings.temperature, self._strides, config.head)
        total = settings.alpha * soft
        terms = {"soft": soft}
        if bool((batch.target != IGNORE_INDEX).any()):
            terms["hard"] = hard.total
            total = total + (1 - settings.alpha) * hard.total
        if settings.feature_hint:
            terms["hint"] = hint_loss(_volume(features[0], len(batch.soft)), batch.soft[:, channels:])
            total = total + settings.feature_hint * terms["hint"]
        return LossValue(total, terms)


@contextmanager
def _entering(module: nn.Module) -> Iterator[list[Any]]:
    """The first argument of each call of a module meanwhile."""
    seen: list[Any] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    handle = module.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _volume(features: Tensor, batch: int) -> Tensor:
    """B F Z Y X, also where a two-dimensional network took the planes one by one (B*Z F Y X)."""
    if features.ndim == 5:
        return features
    return features.reshape(batch, -1, *features.shape[1:]).transpose(1, 2)
