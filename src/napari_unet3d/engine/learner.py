"""One step of learning: forward, backward, update; a step that is not finite leaves no trace."""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from napari_unet3d.engine import checkpoint
from napari_unet3d.engine.compilation import interpret, is_compiled
from napari_unet3d.engine.config import TrainConfig, UNet3PlusConfig
from napari_unet3d.engine.device import Precision, autocast, memory_format
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.losses import Loss, LossValue
from napari_unet3d.engine.moving_average import MovingAverage
from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.networks.forward_pass import ForwardPass
from napari_unet3d.engine.networks.outputs import NetworkOutputs
from napari_unet3d.engine.parallel.group import ALONE, Group
from napari_unet3d.engine.presence import presence_loss
from napari_unet3d.engine.stage_times import StageTimes
from napari_unet3d.engine.training_data import Batch

_LARGEST_GRADIENT: Final = 1.0


class Outcome(NamedTuple):
    """What a step gave."""

    loss: float
    terms: Mapping[str, float]
    is_bad: bool
    """Whether loss or gradient was not finite, so that nothing was learnt."""


class Learner:
    """A network, its optimiser and the moving average of its weights.

    Parameters
    ----------
    network
        On `device`; its body is trained.
    config
        Optimiser, rate and average.
    loss
        On `device`.
    device, precision
        Where and in which arithmetic.
    group
        The processes that each learn from a part of the batch. The step is that of the whole batch: losses are
        divided by what all of them annotate.

    Raises
    ------
    ConfigError
        If statistics are to be shared that cannot be.
    """

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        loss: Loss,
        device: torch.device,
        precision: Precision,
        group: Group = ALONE,
    ) -> None:
        self._network = network
        self.config = config
        self._loss = loss
        self.device = device
        self._group = group
        network.body.to(memory_format=memory_format(network.config.dimensions))  # type: ignore[call-overload]  # torch's
        network.body.train()
        self.average = MovingAverage(network, config.average_decay)
        if config.sync_batch_norm and group.size > 1 and network.config.has_batch_statistics:
            if network.config.norm != "batch":
                raise ConfigError(
                    f"train.sync_batch_norm = true works with network.norm = batch, not {network.config.norm}; "
                    "change one of them"
                )
            nn.SyncBatchNorm.convert_sync_batchnorm(network.body)  # type: ignore[no-untyped-call]  # torch's
        self.times = StageTimes()
        """Of forward and backward passes."""
        self._forward = ForwardPass(network)
        self._shared = group.spread(self._forward)
        self.is_compiled = config.compile
        """Whether steps run in compiled code, which the first one makes."""
        self._begin(precision)

    def _begin(self, precision: Precision) -> None:
        self.precision = precision
        self._optimizer = _build_optimizer(self._network.body, self.config)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")

    # --- learning -----------------------------------------------------------------------------------------

    def learn(self, batch: Batch, rate: float, seed: int) -> Outcome:
        """Learn from a batch at a learning rate.

        Parameters
        ----------
        batch
            Network input and target.
        rate
            Learning rate.
        seed
            Of dropout. Every step has its own, so that neither validation nor anybody else's random numbers matter,
            and a resumed run goes on alike.
        """
        if not self.is_compiled:
            return self._learn(batch, rate, seed)
        with warnings.catch_warnings(action="ignore"):  # compilers warn of what users cannot change
            if not is_compiled(self._forward):
                self._forward.compile()
            return self._learn(batch, rate, seed)

    def _learn(self, batch: Batch, rate: float, seed: int) -> Outcome:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        statistics = [buffer.clone() for buffer in self._network.body.buffers()]
        has_learnt = False
        try:
            with self.times.measure("forward"), torch.random.fork_rng(devices=[]):
                torch.manual_seed((seed + self._group.rank) % 2**63)
                loss = self._loss_of(self._network, batch)
                value = float(loss.total.detach())
            with self.times.measure("backward"):
                has_learnt = math.isfinite(value) and self._update(loss.total)
        finally:  # also when memory runs out
            self._optimizer.zero_grad()
            if not has_learnt:
                for buffer, before in zip(self._network.body.buffers(), statistics, strict=True):
                    buffer.copy_(before)
        if has_learnt:
            self.average.update(self._network)
        terms = {name: float(term.detach()) for name, term in loss.terms.items()}
        return Outcome(value, terms, is_bad=not has_learnt and not self._is_calibrating(value))

    def _loss_of(self, network: Network, batch: Batch) -> LossValue:
        """What is to become smaller."""
        outputs = self._outputs(batch.input)
        summed = self._group.summed
        loss: LossValue = self._loss(outputs.logits, batch.target, summed=summed)
        if outputs.presence is None or not isinstance(network.config, UNet3PlusConfig):
            return loss
        presence = presence_loss(outputs.presence, batch.target, network.config, summed)
        return LossValue(loss.total + presence, {**loss.terms, "presence": presence})

    def _update(self, loss: Tensor) -> bool:
        """Follow the gradient, if it is finite; says whether it was."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._network.body.parameters(), _LARGEST_GRADIENT)
        is_finite = math.isfinite(float(norm))
        if is_finite:
            self._scaler.step(self._optimizer)
        self._scaler.update()
        return is_finite

    def _is_calibrating(self, loss: float) -> bool:
        """Whether a scale for float16 is still being looked for: then overflowing gradients are expected."""
        return math.isfinite(loss) and self._scaler.is_enabled() and self._scaler.get_scale() >= 1

    def stop_compiling(self) -> None:
        """Go on without compiled code."""
        self.is_compiled = False
        interpret(self._forward)

    def fall_back(self) -> None:
        """Go on in float32 from the averaged weights: they are finite, what was learnt since may not be."""
        self._network.body.load_state_dict(self.average.network.body.state_dict())
        self._begin("float32")

    # --- predicting ---------------------------------------------------------------------------------------

    def logits(self, values: Tensor) -> Tensor:
        """B K Z Y X logits of the averaged network for B F Z Y X input."""
        with autocast(self.device, self.precision):
            return self.average.network.logits_of(self._in_precision(values))

    def _outputs(self, values: Tensor) -> NetworkOutputs:
        with autocast(self.device, self.precision):
            outputs: NetworkOutputs = self._shared(self._in_precision(values))
        return outputs

    def _in_precision(self, values: Tensor) -> Tensor:
        # kept features may be of lower precision than the arithmetic, which only autocast would bridge
        return values.float() if self.precision == "float32" else values

    def copy_of_average(self, weights: Mapping[str, Tensor] | None) -> Network:
        """The averaged network on the CPU, with other weights where some are given."""
        network = copy.deepcopy(self.average.network).cpu()
        if weights is not None:
            network.load_state_dict(weights)
        return network

    # --- keeping ------------------------------------------------------------------------------------------

    def to_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `restore` goes on."""
        tensors = checkpoint.pack_module("weights", self._network.body)
        tensors |= checkpoint.pack_module("average", self.average.network.body)
        tensors |= checkpoint.pack_optimizer(self._optimizer)
        scaler = self._scaler.state_dict()
        return tensors, {"averaged": self.average.count, "precision": self.precision, "scaler": scaler}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on where another learner stood.

        Raises
        ------
        ModelFileError
            If the tensors do not fit the network.
        """
        if values["precision"] != self.precision:  # it had fallen back
            self._begin(values["precision"])
        checkpoint.unpack_module("weights", tensors, self._network.body)
        checkpoint.unpack_module("average", tensors, self.average.network.body)
        checkpoint.unpack_optimizer(tensors, self._optimizer)
        self.average.count = values["averaged"]
        if self._scaler.is_enabled() and values["scaler"]:
            self._scaler.load_state_dict(dict(values["scaler"]))


def load_optimizers() -> None:
    """Import what PyTorch's first optimiser imports, a second of work that no budget or first step should pay for.

    To be called before the clock of a training starts, as PyTorch itself is loaded before.
    """
    importlib.import_module("torch._dynamo")


def _build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters, rate, decay = module.parameters(), config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        momentum = config.momentum
        return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0)
    family = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return family(parameters, rate, betas=(config.momentum, 0.999), weight_decay=decay)
