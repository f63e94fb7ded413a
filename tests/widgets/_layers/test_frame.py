from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image, Labels

from napari_unet3d.engine.errors import DataError
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image

SIZES = {"T": 3, "C": 2, "Z": 4, "Y": 5, "X": 6}


def choice_of(axes: str) -> ImageChoice:
    return choose_image([Image(np.zeros([SIZES[axis] for axis in axes]), rgb=False)], axes)


@settings(max_examples=60)
@given(st.sampled_from(["ZYX", "XYZ", "TCZYX", "ZTCYX", "YX", "TYX", "CZYX", "YXT"]), st.data())
def test_a_box_is_found_again_where_it_was_written(axes: str, data: st.DataObject) -> None:
    choice = choice_of(axes)
    frame = Frame.new(choice)
    t = data.draw(st.integers(0, choice.time_points - 1))
    starts = [data.draw(st.integers(0, n - 1)) for n in choice.spatial_shape]
    edges = [(i, data.draw(st.integers(i + 1, n))) for i, n in zip(starts, choice.spatial_shape, strict=True)]
    box = tuple(slice(*pair) for pair in edges)
    block = np.arange(1, 1 + np.prod([stop - start for start, stop in edges])).reshape([b - a for a, b in edges])
    array = np.zeros(frame.shape, int)
    array[frame.region((box[0], box[1], box[2]), t)] = frame.from_zyx(block)
    expected = np.zeros(choice.spatial_shape, int)
    expected[box] = block
    np.testing.assert_array_equal(frame.view(array, t), expected)
    assert np.count_nonzero(array) == block.size
    assert frame.box_of(frame.region((box[0], box[1], box[2]), t)) == (t, box)


@pytest.mark.parametrize(
    ("axes", "shape", "found"),
    [
        ("ZYX", (4, 5, 6), "ZYX"),
        ("ZYX", (1, 4, 5, 6), "1ZYX"),
        ("CZYX", (4, 5, 6), "ZYX"),
        ("TCZYX", (3, 1, 4, 5, 6), "T1ZYX"),
        ("TCZYX", (3, 4, 5, 6), "TZYX"),
        ("YX", (5, 6), "YX"),
        ("YX", (1, 5, 6), "1YX"),
        ("XYZ", (6, 5, 4), "XYZ"),
    ],
)
def test_shapes_of_other_labels(axes: str, shape: tuple[int, ...], found: str) -> None:
    assert Frame.of(Labels(np.zeros(shape, np.uint8)), choice_of(axes)).axes == found
    assert Frame.of(np.zeros(shape, np.uint8), choice_of(axes)).axes == found


def test_result_of_one_time_point() -> None:
    choice = choice_of("TCZYX")
    array = np.zeros((4, 5, 6), np.uint8)
    assert Frame.of(array, choice, any_time=True).axes == "ZYX"
    with pytest.raises(DataError, match=r"the array of labels has shape .* needs \(3, 4, 5, 6\) \(T Z Y X\)"):
        Frame.of(array, choice)


def test_planes() -> None:
    frame = Frame.new(choice_of("TCZYX"))
    assert frame.plane(1, 2, 2) == (slice(2, 3), slice(0, 1), slice(0, 4), slice(2, 3), slice(0, 6))
    for axis, index, t in [(0, 4, 0), (1, -1, 0), (2, 0, 3)]:
        with pytest.raises(IndexError, match="no plane"):
            frame.plane(axis, index, t)
