"""Further painted volumes: layer pairs to train on, or to measure on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_unet3d.widgets._further_volumes import FurtherVolumesList
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import Workbench

from .conftest import paint

TIMEOUT = 60_000


@pytest.fixture
def second(viewer: Any, image: NDArray[np.uint8], truth: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Another image with a labels layer, of another shape and painted on two slices."""
    labels = np.zeros_like(truth[:12], np.uint8)
    labels[[3, 8]] = 1 + truth[[3, 8]]
    return viewer.add_image(image[:12], name="other"), viewer.add_labels(labels, name="painted")


def test_pairs_are_listed_those_to_measure_on_last(bench: Workbench, viewer: Any, second: Any) -> None:
    image, labels = second
    more = viewer.add_labels(labels.data.copy(), name="more")
    assert bench.further.add(image, labels, is_measured=True) == ""
    assert bench.further.add(image, more) == ""
    assert [(entry.labels.name, entry.is_measured) for entry in bench.further.entries] == [
        ("more", False),
        ("painted", True),
    ]
    assert bench.further.measured_count == 1
    bench.further.remove(0)
    assert bench.further.measured_count == len(bench.further.entries) == 1
    viewer.layers.remove(image)
    assert not bench.further.key


def test_what_cannot_be_used_is_told(bench: Workbench, viewer: Any, second: Any) -> None:
    image, labels = second
    add = bench.further.add
    assert add(None, labels) == "choose an image layer and the labels layer painted on it"
    assert "shape" in add(bench.image.layer, labels)  # type: ignore[union-attr]  # there is an image
    empty = viewer.add_labels(np.zeros_like(labels.data), name="empty")
    assert add(image, empty) == "'empty' is empty; paint a few slices on it first"
    colours = viewer.add_image(
        np.zeros((2, *labels.data.shape), np.uint8), name="two", axis_labels=("c", "z", "y", "x")
    )
    assert "'two' has 2 channels but 'cell' has 1" in add(colours, labels)
    assert add(image, labels) == ""
    assert add(image, labels) == "'painted' is used already; choose another labels layer"


@pytest.mark.parametrize("is_measured", [False, True])
def test_training_takes_them_along(
    bench: Workbench, second: Any, truth: NDArray[np.bool_], qtbot: Any, is_measured: bool
) -> None:
    bench.new_annotation()
    paint(bench, truth, (0, 4), (0, 8))
    assert bench.further.add(*second, is_measured=is_measured) == ""
    bench.training.start()
    qtbot.waitUntil(lambda: bench.session.phase is Phase.IDLE, timeout=TIMEOUT)
    record = bench.session.model.recipe.record  # type: ignore[union-attr]  # it was trained
    assert record is not None
    assert record.held_out == (((1, 0, 3), (1, 0, 8)) if is_measured else ())
    if is_measured:
        assert bench.session.curves.validations


def test_the_section_adds_and_removes(bench: Workbench, second: Any, qtbot: Any) -> None:
    image, labels = second
    section = FurtherVolumesList(bench.further)
    qtbot.addWidget(section)
    assert not section.add_button.isEnabled()
    for box, layer in ((section.image_box, image), (section.labels_box, labels)):
        box.choices = [None, layer]
        box.value = layer
    assert section.add_button.isEnabled()
    section.is_measured.setChecked(True)
    section.add_button.click()
    (line,) = (section.list.item(i) for i in range(section.list.count()))
    assert line is not None
    assert line.text() == "other + painted (measured on)"
    section.add_button.click()
    assert section.message.text() == "'painted' is used already; choose another labels layer"
    assert not section.remove_button.isEnabled()
    section.list.setCurrentRow(0)
    section.remove_button.click()
    assert not bench.further.key
    assert section.list.count() == 0
