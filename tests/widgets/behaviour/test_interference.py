"""What people do while training runs: nothing may be lost, and the buttons are right afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.best_model import NOISE
from napari_unet3d.engine.progress import Previewed
from napari_unet3d.widgets._session import Phase

PLANES = ((0, 5), (0, 10), (0, 14), (1, 24), (2, 28), (1, 12))


@pytest.fixture
def training(person: Any) -> Any:
    """A person whose training runs."""
    person.annotate(*PLANES)
    person.trains()
    return person


def test_a_closed_dock_is_reopened_with_everything_in_it(training: Any) -> None:
    bench, painted = training.bench, training.bench.annotation.data.copy()
    training.sees(lambda: training.session.held_out)
    training.viewer.window.remove_dock_widget(training.dock)
    losses = len(training.session.curves.losses)
    training.takes_steps(3)
    dock = training.dock = training.open_dock()
    assert training.session.phase is Phase.TRAINING
    assert not dock.train_button.isEnabled()
    assert dock.stop_button.isEnabled()
    assert dock.image_box.value == bench.image.layer
    assert dock.annotation_box.value == bench.annotation
    assert [entry.name for entry in training.session.classes] == ["background", "class 2"]
    assert dock.status.text().startswith("step ")
    assert dock._drawn_losses >= losses + 3
    np.testing.assert_array_equal(bench.annotation.data, painted)
    dock.hide()
    training.stops()
    dock.show()
    assert training.session.model is not None
    assert dock.status.text().startswith("done")
    assert dock.train_button.isEnabled()
    assert dock.save_button.isEnabled()


def test_deleted_layers_end_nothing(training: Any) -> None:
    bench = training.bench
    layers = bench.annotation, bench.image.layer
    painted = bench.annotation.data.copy()
    for layer in layers:
        training.viewer.layers.remove(layer)
        training.takes_steps(2)
        assert training.dock.stop_button.isEnabled()
    training.stops()
    assert training.session.model is not None
    assert not training.dock.train_button.isEnabled()
    assert training.dock.train_button.toolTip()
    for layer in reversed(layers):  # such a person wants them back
        training.viewer.layers.append(layer)
    training.dock.image_box.value = training.viewer.layers["cell"]
    training.dock.annotation_box.value = training.viewer.layers["annotation"]
    np.testing.assert_array_equal(bench.annotation.data, painted)
    training.sees(training.dock.train_button.isEnabled)
    training.sees(training.dock.continue_button.isEnabled)


def test_renamed_layers_stay_chosen(training: Any) -> None:
    bench = training.bench
    bench.image.layer.name = "my cell"
    bench.annotation.name = "my strokes"
    assert training.dock.image_box.value == bench.image.layer
    assert training.dock.annotation_box.value == bench.annotation
    training.look_at(0, 17)
    training.stroke(1, (4, 6), (4, 16))
    training.is_told(lambda event: event.box[0] == slice(17, 18))
    training.stops()
    assert "my cell" in training.session.model_origin


def test_the_preview_follows_the_view(training: Any) -> None:
    def previewed(axis: int, index: int) -> bool:
        return any((event.axis, event.index) == (axis, index) for event in training.of_kind(Previewed))

    for axis, index in ((0, 10), (0, 4), (1, 30), (2, 20)):
        training.look_at(axis, index)
        training.sees(lambda axis=axis, index=index: previewed(axis, index))
    shown = training.bench.training.preview_layer
    assert shown.data[:, 30].any()
    last = shown.data.copy()
    training.viewer.dims.ndisplay = 3
    training.takes_steps(2)
    assert (shown.data != 0)[last != 0].all()  # the old result stays
    training.viewer.dims.ndisplay = 2
    training.look_at(0, 12)
    training.sees(lambda: previewed(0, 12))
    training.viewer.theme = "light"
    training.takes_steps(2)
    training.viewer.theme = "dark"
    training.viewer.layers.remove(shown)
    training.takes_steps(2)
    training.stops()
    assert not training.session.is_warning


def test_stop_keeps_the_best_and_training_goes_on_from_it(training: Any) -> None:
    session, dock = training.session, training.dock
    training.pauses()
    steps = len(session.curves.losses)
    assert dock.pause_button.text() == "Go on"
    dock.pause_button.click()
    training.takes_steps(2)
    dock.continue_button.click()  # train longer
    training.takes_steps(2)
    training.stops()
    record = session.model.recipe.record
    assert record.steps >= steps + 4
    validated = [(point.mean_iou, point.step) for point in session.curves.validations]
    # NaN, where no structure is on the held-out slice, says nothing
    highest = max((score for score, _ in validated if score >= 0), default=0.0)
    good = [step for score, step in validated if score >= highest - NOISE] or [step for _, step in validated]
    good = good or [record.steps]  # stopped before the first look at the held-out slices
    assert record.best_step == max(good)
    best = session.model
    dock.continue_button.click()
    training.takes_steps(2)
    assert session.model is best  # until there is a new one
    training.stops()
    assert session.model.recipe.record.steps > record.steps
    assert len(session.curves.losses) >= session.model.recipe.record.steps - 1
