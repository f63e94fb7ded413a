from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.threshold_iou import THRESHOLDS, threshold_counts, threshold_iou


def test_thresholds() -> None:
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_by_hand(dtype: type[np.float32] | type[np.float64]) -> None:
    # class 5: true at the first two voxels; .55 itself does not exceed .55
    probabilities = np.array([[0.55, 1.0, 0.6, 0.2]], dtype)
    truth = np.array([5, 5, 1, 1])
    counts = threshold_counts(probabilities, truth, (5,))
    assert counts[0, 1].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert counts[0, 0].tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    # at .5: 2 of 3; at .55: 1 of 3; from .6 on: 1 of 2
    assert threshold_iou(counts) == pytest.approx([(2 / 3 + 1 / 3 + 8 / 2) / 10])
    assert threshold_iou(threshold_counts(probabilities, truth, (5,), truth == 5)) == pytest.approx([(1 + 9 / 2) / 10])


def test_a_class_in_neither_does_not_count() -> None:
    truth = np.array([1, 1])
    never, sometimes = np.array([0.1, 0.5]), np.array([0.62, 0.1])
    counts = threshold_counts(np.stack([never, sometimes]), truth, (2, 3))
    values = threshold_iou(counts)
    assert np.isnan(values[0])
    assert values[1] == 0
    assert np.isnan(threshold_iou(threshold_counts(np.zeros((1, 0)), np.zeros(0, int), (1,)))).all()


@given(seed=st.integers(0, 2**31), cut=st.integers(0, 40))
def test_equal_to_a_loop_and_blocks_add_up(seed: int, cut: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, truth = random.random((3, 40)), random.integers(0, 4, 40)
    where = random.random(40) < 0.8
    ids = (1, 2, 3)
    counts = threshold_counts(probabilities, truth, ids, where)
    parts = [
        threshold_counts(probabilities[:, part], truth[part], ids, where[part])
        for part in (slice(cut), slice(cut, None))
    ]
    assert np.array_equal(parts[0] + parts[1], counts)
    for label_id, p, found in zip(ids, probabilities, threshold_iou(counts), strict=True):
        true = (truth == label_id) & where
        pairs = [((p > t) & where & true, ((p > t) & where) | true) for t in THRESHOLDS]
        expected = [both.sum() / either.sum() for both, either in pairs if either.any()]
        assert found == pytest.approx(np.mean(expected) if expected else np.nan, nan_ok=True)
