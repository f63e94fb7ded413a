"""What to paint next, from what is painted."""

from __future__ import annotations

import numpy as np

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.widgets._kept import PaintedLabels
from napari_unet3d.widgets._workbench.advice import PaintedUnit, advice
from napari_unet3d.widgets._workbench.guide import UnitsTask

CLASSES = (
    ClassInfo(id=1, name="outside", colour="#101010"),
    ClassInfo(id=2, name="nucleus", colour="#ff0000"),
    ClassInfo(id=3, name="vessel", colour="#00ff00"),
)


def said(painted: set[int], *units: PaintedUnit, axes: int = 3, validation: float = 0.2) -> list[str]:
    return list(advice(CLASSES, painted, units, axes=axes, validation=validation))


def unit(axis: int | None, *ids: int) -> PaintedUnit:
    return PaintedUnit(axis, frozenset(ids))


def test_at_first_everything_is_to_be_painted() -> None:
    (only,) = said(set())
    assert "classes 'nucleus' and 'vessel'" in only
    assert "'outside' around" in only


def test_background_comes_first_then_structures_without_strokes() -> None:
    sentences = said({2}, unit(0, 2))
    assert sentences[0].startswith("no 'outside' yet")
    assert "Slice is complete" in sentences[0]
    assert sentences[1].startswith("class 'vessel' has no strokes yet")


def test_one_slice_leaves_nothing_to_hold_out() -> None:
    assert "only one slice is painted" in said({1, 2, 3}, unit(0, 1, 2, 3))[0]


def test_the_slices_that_a_score_needs_are_counted() -> None:
    slices = [unit(axis, 1, 2, 3) for axis in (0, 1, 2)]
    (only,) = said({1, 2, 3}, *slices)
    assert only.startswith("3 slices are painted: 2 more, and one in 5 is held out")
    assert said({1, 2, 3}, *slices, validation=0) == []


def test_a_class_on_one_axis_only_is_told_with_the_others() -> None:
    slices = [unit(0, 1, 2, 3), unit(0, 1, 2, 3), unit(0, 1, 2), unit(1, 1, 2), unit(2, 1)]
    (only,) = said({1, 2, 3}, *slices)
    assert "class 'vessel' is painted on slices across Z only: paint a slice across Y or X" in only


def test_a_single_plane_has_no_other_axis() -> None:
    assert said({1, 2, 3}, *[unit(0, 1, 2, 3)] * 6, axes=1) == []


def test_nothing_is_said_where_enough_is_painted() -> None:
    assert said({1, 2, 3}, *[unit(axis, 1, 2, 3) for axis in (0, 0, 1, 1, 2)]) == []


def test_pieces_count_for_no_axis() -> None:
    assert said({1, 2, 3}, *[unit(None, 1, 2, 3)] * 5) == []


def test_painted_slices_are_found_with_their_classes() -> None:
    labels = np.zeros((20, 40, 40), np.uint8)
    labels[4] = 1
    labels[4, 10:20, 10:20] = 2
    labels[:, 25, :] = 3
    found = UnitsTask(PaintedLabels([labels]))()
    assert found is not None
    assert sorted((item.axis, sorted(item.ids)) for item in found) == [(0, [1, 2, 3]), (1, [3])]
    both = UnitsTask(PaintedLabels([labels, np.zeros_like(labels)]))()
    assert both == found
