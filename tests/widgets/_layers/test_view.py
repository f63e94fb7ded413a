from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet3d.widgets._layers.image import ImageChoice, choose_image
from napari_unet3d.widgets._layers.view import Plane, box_in_view, go_to, is_3d, visible_plane

SIZES = {"T": 3, "C": 2, "Z": 10, "Y": 12, "X": 14}


def opened(viewer: ViewerModel, axes: str, **arguments: Any) -> ImageChoice:
    shape = [SIZES[axis] for axis in axes]
    return choose_image([viewer.add_image(np.zeros(shape), rgb=False, **arguments)], axes)


@pytest.mark.parametrize(
    ("axes", "axis"),
    [*product(["ZYX", "XYZ", "TCZYX", "CZYX", "ZTYX"], [0, 1, 2]), ("TYX", 0)],  # a 2D image has planes along Z only
)
def test_a_slice_gone_to_is_the_slice_in_view(viewer: ViewerModel, axes: str, axis: int) -> None:
    n = len(axes)
    scale = 0.5 + np.arange(n)
    choice = opened(viewer, axes, scale=scale, translate=10.0 * np.arange(n))
    viewer.add_points(np.zeros((1, n + 1)))  # the world has one more axis
    for index in (0, 7, 3):
        wanted = Plane(axis, index if "Z" in axes else 0, 1 if "T" in axes else 0)
        viewer.dims.ndisplay = 3
        go_to(viewer, choice, axis, index, 1)
        assert visible_plane(viewer, choice) == wanted
    assert not is_3d(viewer)


def test_every_order_of_axes_shows_its_plane(viewer: ViewerModel) -> None:
    choice = opened(viewer, "ZYX")
    viewer.dims.set_point((0, 1, 2), (4.0, 5.0, 6.0))
    for order in permutations(range(3)):
        viewer.dims.order = order
        assert visible_plane(viewer, choice) == Plane(order[0], 4 + order[0])


def test_order_changes_only_where_needed(viewer: ViewerModel) -> None:
    choice = opened(viewer, "ZYX")
    viewer.dims.order = (0, 2, 1)
    go_to(viewer, choice, 0, 5)
    assert viewer.dims.order == (0, 2, 1)
    go_to(viewer, choice, 2, 5)
    assert viewer.dims.order == (2, 0, 1)


def test_slices_outside_are_cut_to_the_image(viewer: ViewerModel) -> None:
    choice = opened(viewer, "TZYX")
    go_to(viewer, choice, 1, 99, -4)
    assert visible_plane(viewer, choice) == Plane(1, 11, 0)


def test_going_to_a_slice_keeps_time_and_the_other_sliders(viewer: ViewerModel) -> None:
    choice = opened(viewer, "TCZYX")
    viewer.dims.set_point((0, 1, 3), (2.0, 1.0, 9.0))
    go_to(viewer, choice, 0, 5)
    assert viewer.dims.point[:4] == (2.0, 1.0, 5.0, 9.0)


def test_no_plane_where_none_is_shown(viewer: ViewerModel) -> None:
    choice = opened(viewer, "TZYX")
    viewer.dims.order = (1, 2, 0, 3)  # time and X on the canvas
    assert visible_plane(viewer, choice) is None
    viewer.dims.order = (0, 1, 2, 3)
    viewer.dims.ndisplay = 3
    assert visible_plane(viewer, choice) is None
    assert is_3d(viewer)


def test_no_plane_beside_the_image(viewer: ViewerModel) -> None:
    choice = opened(viewer, "ZYX")
    viewer.add_image(np.zeros((40, 12, 14)))
    viewer.dims.set_point(0, 20.0)
    assert visible_plane(viewer, choice) is None


def look_at(viewer: ViewerModel, centre: tuple[float, float], zoom: float) -> None:
    viewer.canvas.size = (600, 800)
    viewer.scene.camera.center = (0.0, *centre)
    viewer.scene.camera.zoom = zoom


def test_box_in_view_is_what_the_canvas_shows(viewer: ViewerModel) -> None:
    choice = opened(viewer, "ZYX", scale=(3, 0.5, 1), translate=(0, 0, 100))
    # 600 / 300 = 2 high around 3, that is 2 to 4, rows 4 to 8; 800 / 300 = 2.67 wide around 105, columns 3.67 to 6.33
    look_at(viewer, (3.0, 105.0), 300.0)
    assert box_in_view(viewer, choice) == (slice(0, 10), slice(4, 9), slice(4, 7))


def test_depth_is_cut_at_the_ends(viewer: ViewerModel) -> None:
    choice = opened(viewer, "ZYX")
    look_at(viewer, (6.0, 7.0), 1.0)
    for index, expected in [(0, slice(0, 4)), (5, slice(3, 7)), (9, slice(6, 10))]:
        go_to(viewer, choice, 0, index)
        assert box_in_view(viewer, choice, depth=4) == (expected, slice(0, 12), slice(0, 14))
    assert box_in_view(viewer, choice, depth=99)[0] == slice(0, 10)


def test_box_follows_the_axes_on_the_canvas(viewer: ViewerModel) -> None:
    choice = opened(viewer, "ZYX")
    viewer.dims.order = (1, 2, 0)  # X down, Z across
    look_at(viewer, (2.0, 8.0), 150.0)
    # 4 high around X = 2, 5.33 wide around Z = 8
    assert box_in_view(viewer, choice) == (slice(5, 10), slice(0, 12), slice(0, 5))


def test_looking_away_still_gives_a_box(viewer: ViewerModel) -> None:
    choice = opened(viewer, "ZYX")
    look_at(viewer, (-100.0, 100.0), 100.0)
    z, y, x = box_in_view(viewer, choice)
    assert (z, y, x) == (slice(0, 10), slice(0, 1), slice(13, 14))


def test_everything_in_the_3d_view(viewer: ViewerModel) -> None:
    choice = opened(viewer, "TZYX")
    viewer.dims.ndisplay = 3
    assert box_in_view(viewer, choice, depth=2) == (slice(0, 10), slice(0, 12), slice(0, 14))
