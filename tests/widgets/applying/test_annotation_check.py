"""Existing labels as annotation: what their ids mean, and that they stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.utils.colormaps import DirectLabelColormap

from napari_unet3d.widgets._workbench.annotation_check import MOST_CLASSES
from napari_unet3d.widgets._workbench.bench import Workbench

from .conftest import SHAPE, TIMEOUT, pictures


@pytest.fixture
def labels() -> Any:
    """5 everywhere, 1 in one slice, 3 in a part of it."""
    data = np.full(SHAPE, 5, np.int32)
    data[4] = 1
    data[4, 5:9, 5:9] = 3
    return data


@pytest.fixture
def ready(bench: Workbench) -> Workbench:
    bench.choose_image([bench.viewer.add_image(pictures(1)[0])])
    return bench


def choose(qtbot: Any, bench: Workbench, data: Any, **more: Any) -> Any:
    layer = bench.viewer.add_labels(data, name="mine", **more)
    bench.choose_annotation(layer)
    qtbot.waitUntil(lambda: "looking" not in bench.check.problem(), timeout=TIMEOUT)
    return layer


def test_labels_without_zeros_raise_a_question(qtbot: Any, ready: Workbench, labels: Any) -> None:
    before = labels.copy()
    layer = choose(qtbot, ready, labels)
    colours = layer.colormap
    assert ready.check.is_asking
    assert ready.check.ids == (1, 3, 5)
    assert "which id means 'not annotated'" in ready.training.problem()
    ready.check.answer(5)
    ready.take_strokes()
    assert ready.training.problem() == ""
    handed_out = ready.strokes().handed_out()
    np.testing.assert_array_equal(handed_out, np.where(before == 5, 0, before))
    assert [entry.id for entry in ready.session.classes] == [1, 3]
    np.testing.assert_array_equal(layer.data, before)
    assert layer.colormap is colours


def test_everything_may_be_annotated(qtbot: Any, ready: Workbench, labels: Any) -> None:
    choose(qtbot, ready, labels)
    ready.check.answer(0)
    ready.take_strokes()
    assert ready.training.problem() == ""
    np.testing.assert_array_equal(ready.strokes().handed_out(), labels)
    assert [entry.id for entry in ready.session.classes] == [1, 3, 5]


def test_a_slice_is_completed_where_the_id_says_not_annotated(qtbot: Any, ready: Workbench, labels: Any) -> None:
    layer = choose(qtbot, ready, labels)
    ready.check.answer(5)
    ready.viewer.dims.set_point(0, 7)
    ready.complete_slice()
    assert (layer.data[7] == 1).all()
    assert (layer.data[8] == 5).all()
    layer.undo()
    assert (layer.data[7] == 5).all()


def test_labels_with_zeros_raise_none_and_bring_their_classes(qtbot: Any, ready: Workbench, labels: Any) -> None:
    labels[labels == 5] = 0
    colours = DirectLabelColormap(color_dict={None: "black", 0: "transparent", 1: "#0000ff", 3: "#00ff00"})
    layer = choose(
        qtbot, ready, labels, colormap=colours, features={"index": [0, 1, 3], "class": ["", "ground", "tree"]}
    )
    assert not ready.check.is_asking
    found = [(entry.id, entry.name, entry.colour) for entry in ready.session.classes]
    assert found == [(1, "ground", "#0000ff"), (3, "tree", "#00ff00")]
    assert layer.colormap is colours
    ready.set_classes(ready.session.classes[:1])  # names and colours of the user's layer stay theirs
    assert layer.colormap is colours


def test_numbered_objects_are_no_classes(qtbot: Any, ready: Workbench) -> None:
    data = np.zeros(SHAPE, np.uint16)
    data.flat[: MOST_CLASSES + 5] = np.arange(1, MOST_CLASSES + 6)
    choose(qtbot, ready, data)
    assert "numbered objects" in ready.training.problem()
    assert len(ready.session.classes) == 2


def test_layers_made_here_are_not_looked_through(ready: Workbench) -> None:
    ready.new_annotation()
    assert ready.check.problem() == ""
    assert ready.check.ids == ()
    assert not ready.check.is_asking


def test_the_question_goes_with_the_layer(qtbot: Any, ready: Workbench, labels: Any) -> None:
    layer = choose(qtbot, ready, labels)
    ready.viewer.layers.remove(layer)
    assert not ready.check.is_asking
    assert ready.check.problem() == ""


def test_an_answer_of_before_is_not_taken_for_another_layer(qtbot: Any, ready: Workbench, labels: Any) -> None:
    choose(qtbot, ready, labels)
    ready.check.answer(5)
    choose(qtbot, ready, labels.copy())
    assert ready.check.not_annotated == 0
    assert "which id" in ready.training.problem()
