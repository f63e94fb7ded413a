"""Painting while training: what arrives in the batches, and what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.progress import HeldOut
from napari_unet3d.engine.sampling import Patch, PatchSampler
from napari_unet3d.engine.training_data import TrainingData

PLANES = ((0, 5), (0, 10), (1, 24), (2, 28))


@pytest.fixture
def data_of_run(monkeypatch: pytest.MonkeyPatch) -> list[TrainingData]:
    """What the trainer draws from, once it has begun."""
    made: list[TrainingData] = []
    build = TrainingData.__init__

    def remember(self: TrainingData, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(TrainingData, "__init__", remember)
    return made


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Patch]:
    """Patches that batches were made of so far."""
    patches: list[Patch] = []
    draw = PatchSampler.draw_batch

    def remember(self: PatchSampler, rng: np.random.Generator, size: int) -> list[Patch]:
        batch = draw(self, rng, size)
        patches.extend(batch)
        return batch

    monkeypatch.setattr(PatchSampler, "draw_batch", remember)
    return patches


def covers(patch: Patch, point: tuple[int, ...]) -> bool:
    return all(start <= at < start + n for start, n, at in zip(patch.start, patch.size, point, strict=True))


def test_strokes_on_any_axis_enter_the_batches(
    person: Any, data_of_run: list[TrainingData], drawn: list[Patch]
) -> None:
    person.session.train_config = person.session.train_config.updated(validation=0.0, patch_size=(8, 16, 16))
    person.annotate(*PLANES)
    person.trains()
    (data,) = data_of_run
    layer, new = person.bench.annotation, []
    for axis, index in ((0, 14), (1, 12), (2, 40)):
        person.look_at(axis, index)
        before = layer.data.copy()
        person.stroke(1, (4, 6), (4, 16))
        person.is_told(lambda event, axis=axis, index=index: event.box[axis] == slice(index, index + 1))
        taken = len(drawn)
        painted = [tuple(map(int, at)) for at in np.argwhere(layer.data != before)]
        assert len(painted) > 10
        assert {at[axis] for at in painted} == {index}
        person.sees(lambda taken=taken, painted=painted: any(covers(p, at) for p in drawn[taken:] for at in painted))
        new += painted
    person.pauses()
    trained = data.hold_out.training_labels(0)
    assert {int(trained[at]) for at in new} == {1}
    assert {int(data._train[0][at]) for at in new} == {1}


def test_hundreds_of_strokes_and_their_undoing_reach_the_trainer(person: Any, data_of_run: list[TrainingData]) -> None:
    person.annotate(*PLANES)
    layer = person.bench.annotation
    before = layer.data.copy()
    person.trains()
    (data,) = data_of_run
    empty = np.argwhere(before[17] == 0)[::7][:300]
    for row, column in empty:
        layer.data_setitem((np.array([17]), np.array([row]), np.array([column])), 1)
    person.sees(lambda: np.array_equal(data._labels[0], layer.data))
    for _ in empty:
        layer.undo()
    assert np.count_nonzero(layer.data != before) == 200  # napari remembers the last hundred strokes
    person.sees(lambda: np.array_equal(data._labels[0], layer.data))
    person.takes_steps(2)
    assert not person.session.is_warning


def test_strokes_on_a_held_out_slice_are_marked_and_not_trained_on(
    person: Any, data_of_run: list[TrainingData]
) -> None:
    person.annotate((0, 4), (0, 10), (0, 15), (1, 20), (1, 28))
    layer = person.bench.annotation
    layer.data[:, :12] = 0  # room for more strokes
    layer.refresh()
    person.trains()
    person.sees(lambda: person.session.held_out)
    (data,) = data_of_run
    ((_, axis, index),) = person.session.held_out
    assert axis == 0
    person.look_at(0, index)
    person.stroke(1, (5, 10), (5, 30))
    person.is_told(lambda event: event.box[0] == slice(index, index + 1))
    assert person.of_kind(HeldOut)[-1].slices == ((0, 0, index),)
    painted = layer.data[index] != 0
    assert painted[:12].any()
    assert not data.hold_out.training_labels(0)[index].any()
    marks = person.viewer.layers["held out"]
    person.sees(lambda: marks.data[index][:12][painted[:12]].any())
