from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.widgets._layers.annotation import new_annotation
from napari_unet3d.widgets._layers.held_out import HeldOutMarks, plane_box
from napari_unet3d.widgets._layers.image import choose_image
from napari_unet3d.widgets._layers.view import Plane


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_held_out_strokes_only_are_outlined_and_hatched(
    viewer: ViewerModel, classes: tuple[ClassInfo, ...], axis: int
) -> None:
    choice = choose_image([viewer.add_image(np.zeros((2, 3, 20, 20, 20)))], "TCZYX")
    annotation = new_annotation(viewer, choice, classes)
    annotation.data[1, 0, 3:17, 3:17, 3:17] = 2
    before = annotation.data.copy()
    marks = HeldOutMarks(viewer, choice)
    marks.show(annotation, [])
    assert len(viewer.layers) == 2  # nothing to show, no layer

    marks.show(annotation, [(1, plane_box(choice, Plane(axis, 5))), (1, plane_box(choice, Plane((axis + 1) % 3, 9)))])
    layer = viewer.layers["held out"]
    first, second = np.take(layer.data[1, 0], 5, axis), np.take(layer.data[1, 0], 9, (axis + 1) % 3)
    for plane in (first, second):
        strokes = plane[3:17, 3:17]
        assert np.count_nonzero(plane) == np.count_nonzero(strokes)
        inner = np.zeros((14, 14), bool)
        inner[1:-1, 1:-1] = True
        assert (strokes[~inner] == 1).all()  # the rim
        for id_, share in [(0, 10 / 12), (1, 1 / 12), (2, 1 / 12)]:  # 12 x 12 voxels hold each diagonal once
            assert (strokes[inner] == id_).mean() == pytest.approx(share)
    assert not layer.data[0].any()
    assert np.count_nonzero(np.take(layer.data[1, 0], 6, axis)) <= 14  # the other plane crosses
    np.testing.assert_array_equal(annotation.data, before)
    assert viewer.layers.selection.active == annotation
    assert not layer.editable

    annotation.data[...] = 0
    marks.show(annotation, [(1, plane_box(choice, Plane(axis, 5)))])
    assert not layer.data.any()


def test_removed_by_the_user_it_stays_away(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = choose_image([viewer.add_image(np.zeros((9, 10, 11)))])
    annotation = new_annotation(viewer, choice, classes)
    annotation.data[...] = 1
    marks = HeldOutMarks(viewer, choice)
    regions = [(0, plane_box(choice, Plane(0, 5)))]
    marks.show(annotation, regions)
    viewer.layers.remove("held out")
    marks.show(annotation, regions)
    assert [layer.name for layer in viewer.layers] == ["Image", "annotation"]
    marks.remove()
    marks.show(annotation, regions)
    assert viewer.layers["held out"].data.any()
    marks.remove()
    assert "held out" not in viewer.layers
