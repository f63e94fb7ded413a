"""Pieces, counted by hand and by SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_unet3d.engine.pieces import count_pieces


def expected(labels: Any) -> dict[int, int]:
    return {int(i): ndimage.label(labels == i)[1] for i in np.unique(labels) if i}


def test_arms_that_meet_in_a_later_plane_are_one_piece() -> None:
    arms = [[1, 0, 1, 0, 1]]
    assert count_pieces(np.array([arms, arms, [[1, 1, 1, 0, 1]]])) == {1: 2}
    assert count_pieces(np.array([[[1, 1, 1, 0, 1]], arms, arms])) == {1: 2}


def test_other_ids_and_corners_do_not_connect() -> None:
    assert count_pieces(np.array([[[1, 2], [0, 1]], [[2, 2], [1, 0]]])) == {1: 3, 2: 1}


def test_nothing() -> None:
    assert count_pieces([]) == {}
    assert count_pieces(np.zeros((3, 2, 2), np.uint8)) == {}


@given(arrays(np.uint16, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 3)))
def test_as_scipy_counts(labels: Any) -> None:
    assert count_pieces(labels) == expected(labels)


def test_as_scipy_counts_in_something_larger() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 50, 60)), 1.5)
    labels = np.digitize(noise, [-0.1, 0, 0.1]).astype(np.uint8)
    assert count_pieces(labels) == expected(labels)
