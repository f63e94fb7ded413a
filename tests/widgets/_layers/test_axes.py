from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.widgets._layers.axes import check_axes, guess_axes


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((30, 40), "YX"),
        ((3, 30, 40), "ZYX"),
        ((2, 20, 30, 40), "CZYX"),
        ((20, 3, 30, 40), "ZCYX"),
        ((20, 10, 30, 40), "TZYX"),
        ((4, 6, 6, 6), "TZYX"),  # hardly shorter than the others
        ((5, 2, 20, 30, 40), "TCZYX"),
        ((5, 20, 2, 30, 40), "TZCYX"),
        ((5, 6, 20, 30, 40), "TCZYX"),
    ],
)
def test_number_of_axes_and_short_axes_decide(shape: tuple[int, ...], axes: str) -> None:
    assert guess_axes(Image(np.zeros(shape), rgb=False)) == axes


@pytest.mark.parametrize(
    ("shape", "axes"), [((30, 40, 3), "YXC"), ((9, 30, 40, 4), "ZYXC"), ((3, 9, 30, 40, 3), "TZYXC")]
)
def test_colours_of_an_rgb_layer_are_its_channels(shape: tuple[int, ...], axes: str) -> None:
    assert guess_axes(Image(np.zeros(shape, np.uint8), rgb=True)) == axes


def test_pyramid_has_the_axes_of_its_finest_level() -> None:
    pyramid = [np.zeros((2, 64, 64, 64), np.uint8), np.zeros((2, 32, 32, 32), np.uint8)]
    assert guess_axes(Image(pyramid, multiscale=True)) == "CZYX"


@pytest.mark.parametrize(
    ("labels", "axes"),
    [
        (("time", "y", "x"), "TYX"),
        (("X", "Y", "Z"), "XYZ"),
        (("channel", "row", "column"), "CYX"),
        (("a", "y", "x"), "ZYX"),  # one unknown name says nothing
        (("y", "y", "x"), "ZYX"),
        (("t", "z", "y"), "ZYX"),  # no X
    ],
)
def test_names_of_axes_go_before_their_number(labels: tuple[str, ...], axes: str) -> None:
    assert guess_axes(Image(np.zeros((20, 30, 40)), axis_labels=labels)) == axes


def test_too_many_axes_are_told() -> None:
    with pytest.raises(DataError, match="has 6 axes"):
        guess_axes(Image(np.zeros((2, 2, 2, 2, 9, 9)), rgb=False))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("ZYX", "names 3"),
        ("QZYX", "hold 'Q'"),
        ("ZZYX", "Z more than once"),
        ("TCZX", "lack Y"),
        ("TCZZ", "more than once"),
    ],
)
def test_wrong_axes_are_told(axes: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_axes(Image(np.zeros((2, 3, 30, 40))), axes)


def test_rgb_needs_its_colours_last() -> None:
    layer = Image(np.zeros((9, 30, 40, 3), np.uint8), rgb=True)
    check_axes(layer, "TYXC")
    with pytest.raises(ConfigError, match="colour image"):
        check_axes(layer, "CZYX")
