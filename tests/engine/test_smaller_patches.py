"""Where memory runs out for a single patch, patches get smaller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.engine.patch_shapes import halved_patches, planned_patches
from napari_unet3d.engine.progress import Note, Stepped

Make = Callable[..., Any]


def test_the_longest_side_is_cut() -> None:
    network = describe(UNetConfig(levels=3))  # every side is a multiple of 4
    shapes = {0: (12, 80, 80), 1: (80, 12, 72), None: (44, 44, 44)}
    assert halved_patches(network, shapes) == {0: (12, 40, 80), 1: (40, 12, 72), None: (24, 44, 44)}


def test_the_smallest_patch_stays() -> None:
    network = describe(UNetConfig(levels=2))
    assert halved_patches(network, {0: (2, 2, 4)}) is None


@given(st.sampled_from(network_presets()))
def test_patches_of_every_preset_shrink_until_they_cannot(name: str) -> None:
    network = describe(network_config(name))
    shapes = planned_patches(network, "auto", (64, 256, 256))
    for _ in range(40):
        smaller = halved_patches(network, shapes)
        if smaller is None:
            break
        for axis, shape in smaller.items():
            assert math.prod(shape) <= math.prod(shapes[axis])
            network.shapes(shape)  # does not raise: the network can take it
        assert smaller != shapes
        shapes = smaller
    else:
        pytest.fail("it goes on for ever")


def tight_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """No step may hold more voxels than `most`; gives those of the steps that were taken."""
    learn, taken = Learner.learn, []

    def guarded(self: Learner, batch: Any, rate: float, seed: int) -> Any:
        voxels = batch.input[:, 0].numel()
        if voxels > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        taken.append(voxels)
        return learn(self, batch, rate, seed)

    monkeypatch.setattr(Learner, "learn", guarded)
    return taken


def test_a_run_goes_on_with_smaller_patches_and_can_be_repeated(
    make_trainer: Make, same_weights: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(make_trainer(batch_size=1, steps=1).fit())
    assert any(isinstance(event, Stepped) for event in whole)
    trainer = make_trainer(batch_size=2, steps=4)
    with monkeypatch.context() as tight:
        tight_memory(tight, most=600)
        events = list(trainer.fit())
    told = [event.text for event in events if isinstance(event, Note) and "out of memory" in event.text]
    assert told[0].endswith("with 1 patches in a step")
    assert "going on with patches of" in told[-1]
    assert len([event for event in events if isinstance(event, Stepped)]) == 4
    model = trainer.model()
    assert model.recipe.record.patch_halvings == (0,) * (len(told) - 1)

    again = make_trainer(batch_size=2, record=model.recipe.record)
    sizes = tight_memory(monkeypatch, most=10**9)
    list(again.fit())
    assert max(sizes) <= 600
    assert same_weights(again.model(), model)
