"""A tiny painted volume, trainings of a tiny network on it, and a clock to hold in the hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import TrainConfig, UNetConfig
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

NETWORK = UNetConfig(levels=2, filters=4, norm="batch")
CONFIG = TrainConfig(steps=6, device="cpu", precision="float32", patch_size=(4, 16, 16), batch_size=1)


class FakeClock:
    """Time passes only where it is told to, or a little at every look."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 100.0
        self.tick = tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


@pytest.fixture
def make_clock() -> Callable[..., FakeClock]:
    return FakeClock


@pytest.fixture
def make_volume() -> Callable[..., AnnotatedVolume]:
    """A bright cylinder along Z in noise, 24 x 20 x 20, painted on some planes; from five on, one is held out."""

    def make(
        planes: tuple[int, ...] = (1, 5, 9, 13, 17, 21), ids: tuple[int, int] = (1, 2), seed: int = 0
    ) -> AnnotatedVolume:
        _, y, x = np.indices((24, 20, 20))
        inside = (y - 10) ** 2 + (x - 8) ** 2 < 30
        image = inside + np.random.default_rng(seed).normal(0, 0.2, inside.shape)
        labels = np.zeros(inside.shape, np.uint8 if max(ids) < 256 else np.uint16)
        for plane in planes:
            labels[plane] = np.where(inside[plane], ids[1], ids[0])
        return AnnotatedVolume(Volume.from_array(image.astype(np.float32)), labels)

    return make


@pytest.fixture
def make_trainer(make_volume: Callable[..., AnnotatedVolume]) -> Callable[..., Trainer]:
    """A trainer of a tiny network: fields of `TrainConfig` and `UNetConfig` and arguments of `Trainer` by name."""

    def make(volumes: list[AnnotatedVolume] | None = None, **values: Any) -> Trainer:
        def taken(names: Any) -> dict[str, Any]:
            return {name: values.pop(name) for name in list(values) if name in names}

        config = CONFIG.updated(
            **{**({"steps": None} if "seconds" in values else {}), **taken(TrainConfig.model_fields)}
        )
        network = NETWORK.updated(**taken(UNetConfig.model_fields))
        return Trainer(volumes or [make_volume()], network, config, **values)

    return make


@pytest.fixture
def same_weights() -> Callable[[TrainedModel, TrainedModel], bool]:
    """Whether two models are equal to the bit."""

    def same(first: TrainedModel, second: TrainedModel) -> bool:
        one, other = first.network.state_dict(), second.network.state_dict()
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    return same


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of threads may differ in the last bit; and tiny networks are slower with them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
