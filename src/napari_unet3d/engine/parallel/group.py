"""The processes that train one network together.

::

    first process    inbox, clock, schedule, validation, files ──orders──> every other process: obeys
                          └──────────── each: its share of the batch, forward ────────────┘
                                 sums of the loss added up, gradients averaged (DDP)

The first process decides everything and tells the others what to do next: take over these strokes, take a step at
this learning rate, end. The others have no clock, no inbox and no files, so nothing can be decided differently in two
places.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from napari_unet3d.engine.errors import DeviceError, TrainingError
from napari_unet3d.engine.memory_errors import is_out_of_memory
from napari_unet3d.engine.progress import Annotate

_STEP_LIMIT: Final = timedelta(minutes=10)
"""Longest wait of one process for another within a step."""
_ORDER_LIMIT: Final = timedelta(days=30)
"""Longest pause: waiting for the next order ends at once where the first process dies."""


@dataclass(frozen=True)
class TakeStep:
    """Take a training step at a learning rate, `step` having been taken before."""

    step: int
    rate: float


Order: TypeAlias = TakeStep | Annotate
T = TypeVar("T")


class PartnerLost(TrainingError):
    """Another process of the training is gone, or does not answer; its own message tells why."""


class Group:
    """A process that trains alone; `ProcessGroup` is one of several.

    Attributes
    ----------
    rank
        Number of this process, from 0.
    size
        Number of processes.
    device
        Where this process computes; None: where the configuration says.
    """

    rank = 0
    size = 1
    device: torch.device | None = None

    @property
    def leads(self) -> bool:
        """Whether this process decides."""
        return self.rank == 0

    def share(self, patches: int) -> slice:
        """Which patches of a batch are this process's; sizes differ by one at most."""
        return slice(patches * self.rank // self.size, patches * (self.rank + 1) // self.size)

    def tell(self, order: Order | None) -> None:
        """Give an order to the other processes; None ends their part."""

    def orders(self) -> Iterator[Order]:
        """What the first process tells, until it ends."""
        return iter(())

    def told(self, value: T) -> T:
        """The first process's value, in all of them."""
        return value

    def spread(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over the processes, beginning with the first one's weights."""
        return module

    def is_any(self, flag: bool) -> bool:
        """Whether a flag is set in any of the processes, which all have to ask."""
        return flag

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step inside; where one process runs out of memory before the first `summed`, all do."""
        yield

    def meet(self) -> None:
        """Wait until all processes have come so far in this step.

        Raises
        ------
        MemoryError
            If another one ran out of memory.
        """

    def summed(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the processes, through which gradients flow into those of `spread` modules."""
        return values


ALONE: Final = Group()


class ProcessGroup(Group):
    """One of several processes, connected through `torch.distributed`.

    Parameters
    ----------
    rank, size
        Number of this process, and of all.
    device
        Where this process computes. NCCL connects GPUs, gloo everything else.
    meeting_point
        URL of the place where the processes find each other: ``file:///...`` with a path that none of them made before,
        or ``env://`` for what torchrun has put into the environment.
    limit
        Longest wait for another process within a step.
    """

    def __init__(
        self, rank: int, size: int, device: torch.device, meeting_point: str, limit: timedelta = _STEP_LIMIT
    ) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self._device = device
        self._has_summed = False
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not dist.is_initialized():  # a second training of the same processes
            dist.init_process_group(backend, init_method=meeting_point, rank=rank, world_size=size, timeout=limit)
        self._orders = dist.new_group(backend="gloo", timeout=_ORDER_LIMIT)

    def close(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def tell(self, order: Order | None) -> None:
        with _noticing_loss():
            dist.broadcast_object_list([order], src=0, group=self._orders)

    def orders(self) -> Iterator[Order]:
        while (order := self._next_order()) is not None:
            yield order

    def _next_order(self) -> Order | None:
        received: list[Any] = [None]
        with _noticing_loss():
            dist.broadcast_object_list(received, src=0, group=self._orders)
        order: Order | None = received[0]
        return order

    def told(self, value: T) -> T:
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._orders)
        return values[0]

    def spread(self, module: nn.Module) -> nn.Module:
        devices = [self._device] if self._device.type == "cuda" else None
        # buffers are running statistics: those of the first process are kept, the others' are read by nobody
        return DistributedDataParallel(module, devices, broadcast_buffers=False)

    def is_any(self, flag: bool) -> bool:
        found = torch.tensor(int(flag))
        dist.all_reduce(found, group=self._orders)
        return bool(found)

    @contextmanager
    def step(self) -> Iterator[None]:
        self._has_summed = False
        try:
            with _noticing_loss():
                yield
        except _OtherRanOut:
            raise
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if self._has_summed:  # the others wait for gradients that will not come
                raise DeviceError(
                    f"{self._device} ran out of memory in the middle of a step of {self.size} processes; give a "
                    "smaller train.batch_size or train.patch_size"
                ) from None
            self.is_any(True)
            raise

    def meet(self) -> None:
        if self.is_any(False):
            raise _OtherRanOut

    def summed(self, values: Tensor) -> Tensor:
        if not self._has_summed:
            self.meet()
            self._has_summed = True
        total: Tensor = _Sum.apply(values, self.size)  # type: ignore[no-untyped-call]  # torch's
        return total


@contextmanager
def _noticing_loss() -> Iterator[None]:
    """Turn what the libraries below say where another process is gone into `PartnerLost`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PartnerLost("another process of this training ended, or does not answer") from error
        raise


class _OtherRanOut(MemoryError):
    """Another process ran out of memory in this step."""


class _Sum(torch.autograd.Function):
    """Sum over the processes.

    Each process takes the gradient of the same loss towards its own summand. The sum of these gradients is wanted,
    while `DistributedDataParallel` takes their mean: hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, size: int) -> Tensor:
        ctx.size = size
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.size, None
