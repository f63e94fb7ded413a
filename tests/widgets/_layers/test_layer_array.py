from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.widgets._layers.layer_array import LayerArray

SHAPE = (3, 4, 5, 6)


@given(hnp.basic_indices(SHAPE, allow_newaxis=False), st.sampled_from(["TCZYX", "XYZCT", "ZTCXY"]))
def test_indexing_is_that_of_numpy(index: Any, axes: str) -> None:
    whole = np.arange(2 * np.prod(SHAPE)).reshape(2, *SHAPE)
    stored = whole.transpose(["TCZYX".index(axis) for axis in axes])
    expected = whole[1][index]
    found = LayerArray([stored], axes, 1, 3)[index]
    np.testing.assert_array_equal(found, expected)


@given(hnp.basic_indices((3, 1, 5, 6), allow_newaxis=False))
def test_indexing_of_several_arrays_is_that_of_their_stack(index: Any) -> None:
    stack = np.arange(3 * 5 * 6).reshape(3, 1, 5, 6)
    found = LayerArray(list(stack[:, 0]), "YX", 0, 3)[index]
    np.testing.assert_array_equal(found, stack[index])


@pytest.mark.parametrize("index", [4, -5, (0, 0, 0, 0, 0)])
def test_indices_outside_are_errors(index: Any) -> None:
    with pytest.raises(IndexError):
        LayerArray([np.zeros((4, 4, 5, 6))], "CZYX", 0, 4)[index]
