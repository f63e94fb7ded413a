from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image, Labels

from napari_unet3d.io.layer_order import AXES_KEY
from napari_unet3d.widgets._layers.geometry import geometry_of, new_axes, new_shape
from napari_unet3d.widgets._layers.image import GEOMETRY_KEY, ImageChoice
from napari_unet3d.widgets._layers.world import world_matrix

pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")

LENGTHS = {"T": 3, "C": 4, "Z": 5, "Y": 6, "X": 7}
numbers = st.floats(-5, 5).map(lambda value: round(value, 3))
scales = st.one_of(st.floats(0.1, 5), st.floats(-5, -0.1)).map(lambda value: round(value, 3))


def rotations(n: int) -> st.SearchStrategy[Any]:
    """Any rotation of two axes out of `n`."""

    def turned(axes: list[int], angle: float) -> Any:
        matrix = np.eye(n)
        i, j = axes
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        return matrix

    pairs = st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True)
    return st.builds(turned, pairs, st.floats(0, 3))


def sheared(values: list[float], lower: bool) -> Any:
    matrix = np.eye(3)
    matrix[np.tril_indices(3, -1) if lower else np.triu_indices(3, 1)] = values
    return matrix


def embedded(matrix: Any, at: list[int], n: int) -> Any:
    result = np.eye(n)
    result[np.ix_(at, at)] = matrix
    return result


@st.composite
def choices(draw: st.DrawFn) -> ImageChoice:
    """Images whose spatial axes are mixed among themselves only, as slices of time and channel need."""
    axes = draw(st.sampled_from(["ZYX", "TZYX", "CZYX", "TCZYX", "ZCYX", "CTZYX", "XYZ", "ZYXC"]))
    rgb = axes.endswith("C")
    counted = axes[:-1] if rgb else axes
    n = len(counted)
    spatial = [i for i, axis in enumerate(counted) if axis in "ZYX"]
    arguments: dict[str, Any] = {
        "scale": draw(st.lists(scales, min_size=n, max_size=n)),
        "translate": draw(st.lists(numbers, min_size=n, max_size=n)),
        "axis_labels": tuple(axis.lower() for axis in counted),
        "units": tuple({"T": "second", "C": "pixel"}.get(axis, "um") for axis in counted),
    }
    if draw(st.booleans()):
        arguments["rotate"] = embedded(draw(rotations(3)), spatial, n)
    if draw(st.booleans()):
        shear = draw(st.builds(sheared, st.lists(numbers, min_size=3, max_size=3), st.booleans()))
        arguments["shear"] = embedded(shear, spatial, n)
    if draw(st.booleans()):
        affine = np.eye(n + 1)
        affine[:n, :n] = embedded(draw(rotations(3)) @ np.diag(draw(st.tuples(scales, scales, scales))), spatial, n)
        affine[:n, n] = draw(st.lists(numbers, min_size=n, max_size=n))
        arguments["affine"] = affine
    shape = tuple(3 if rgb and axis == "C" else LENGTHS[axis] for axis in axes)
    return ImageChoice((Image(np.zeros(shape, np.uint8), rgb=rgb, **arguments),), axes)


@settings(max_examples=40)
@given(choices(), st.booleans())
def test_the_same_voxel_lies_at_the_same_place(choice: ImageChoice, with_time: bool) -> None:
    shape = new_shape(choice, with_time=with_time)
    layer = Labels(np.zeros(shape, np.uint8), **geometry_of(choice, with_time=with_time))
    axes = new_axes(choice, with_time=with_time)
    is_single = np.array([n == 1 for n in shape])
    left_out = choice.layer.ndim - layer.ndim
    # napari aligns axes at the end
    for corner in np.ndindex(*(2,) * layer.ndim):
        ours = np.array(corner) * (np.array(shape) - 1)
        middle = np.array([(choice.lengths[axis] - 1) / 2 for axis in axes])
        theirs = np.concatenate([np.zeros(left_out), np.where(is_single, middle, ours)])
        expected = np.asarray(choice.layer.data_to_world(theirs))[left_out:]
        np.testing.assert_allclose(layer.data_to_world(ours), expected, atol=1e-7)
    assert layer.units == choice.layer.units[left_out:]
    assert layer.axis_labels == choice.layer.axis_labels[left_out:]


@settings(max_examples=20)
@given(choices())
def test_a_stretched_voxel_is_there_at_every_channel(choice: ImageChoice) -> None:
    layer = Labels(np.zeros(new_shape(choice), np.uint8), **geometry_of(choice))
    for c in range(choice.lengths.get("C", 1)):
        at = [c if axis == "C" else 0 for axis in choice.layer_axes]
        data = np.asarray(layer.world_to_data(choice.layer.data_to_world(at)))
        np.testing.assert_allclose(np.round(data), 0, atol=1e-9)


def test_scale_rotation_and_shear_are_told_as_such() -> None:
    turned = np.array([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
    image = Image(np.zeros((5, 6, 7)), scale=(3, 2, 1), rotate=turned, translate=(1, 2, 3))
    found = geometry_of(ImageChoice((image,), "ZYX"))
    np.testing.assert_allclose(found["scale"], (3, 2, 1))
    np.testing.assert_allclose(found["rotate"], turned)
    np.testing.assert_allclose(found["affine"], np.eye(4), atol=1e-12)


def test_channels_before_time_are_left_out_and_between_are_stretched() -> None:
    ahead = ImageChoice((Image(np.zeros((4, 3, 5, 6, 7))),), "CTZYX")
    assert (new_axes(ahead), new_shape(ahead)) == ("TZYX", (3, 5, 6, 7))
    between = ImageChoice((Image(np.zeros((3, 4, 5, 6, 7))),), "TCZYX")
    assert (new_axes(between), new_shape(between)) == ("TCZYX", (3, 1, 5, 6, 7))
    assert (new_axes(between, with_time=False), new_shape(between, with_time=False)) == ("ZYX", (5, 6, 7))
    found = geometry_of(between)
    np.testing.assert_array_equal(found["scale"], (1, 4, 1, 1, 1))
    np.testing.assert_array_equal(found["translate"], (0, 1.5, 0, 0, 0))


def test_time_mixed_with_space_goes_into_the_affine() -> None:
    mixed = np.eye(4)
    mixed[0, 0] = mixed[1, 1] = 0
    mixed[0, 1], mixed[1, 0] = -1, 1
    image = Image(np.zeros((3, 5, 6, 7)), rotate=mixed, scale=(1, 2, 1, 1))
    choice = ImageChoice((image,), "TZYX")
    found = geometry_of(choice)
    np.testing.assert_allclose(world_matrix(Labels(np.zeros((3, 5, 6, 7), np.uint8), **found)), world_matrix(image))


def test_place_in_the_file_goes_along() -> None:
    image = Image(np.zeros((5, 6, 7)), metadata={GEOMETRY_KEY: {"shape": (1, 1, 1)}, "other": 1})
    assert geometry_of(ImageChoice((image,), "ZYX"))["metadata"] == {
        GEOMETRY_KEY: {"shape": (1, 1, 1)},
        AXES_KEY: "ZYX",
    }
