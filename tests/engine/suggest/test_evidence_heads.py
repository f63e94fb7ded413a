"""Evidence from networks that tell every structure by itself."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.suggest.cells import CellGrid
from napari_unet3d.engine.suggest.evidence import Evidence
from napari_unet3d.engine.suggest.ranking import ranked_slices

WEIGHTS = np.array([1.0, 2.0, 4.0])


def evidence(shape: tuple[int, int, int]) -> Evidence:
    return Evidence(np.zeros(shape, np.uint8), CellGrid.over(shape, VoxelSize()), WEIGHTS, "sigmoid")


def test_structures_that_overlap_count_once() -> None:
    """One voxel: both structures are there for sure, then one is, then one is undecided."""
    found = evidence((1, 1, 3))
    probabilities = np.array([[0, 0, 0.5], [1, 1, 0], [1, 0, 0.5]], np.float32).reshape(3, 1, 1, 3)
    found[:, 0:1, 0:1, 0:3] = probabilities
    # undecided: one decision of two gives an entropy of 1/2; weights 1 and 4, a share of 1/2 each
    assert found.mass.ravel().tolist() == pytest.approx([0, 0, 0.5 * (0.5 * 1 + 0.5 * 4)])
    assert found.class_mass[2][:, 2].tolist() == pytest.approx([0.25, 0, 1.0])
    assert np.isfinite(found.mass).all()


def test_two_undecided_structures_beat_one() -> None:
    found = evidence((1, 1, 2))
    # 0: both undecided; 1: the heavier one undecided, the other absent
    found[:, 0:1, 0:1, 0:2] = np.array([[0.5, 0.5], [0.5, 0], [0.5, 0.5]], np.float32).reshape(3, 1, 1, 2)
    # 1 * (1 + 2 + 4) / 3, and 1/2 * (1 + 4) / 2
    assert found.mass.ravel().tolist() == pytest.approx([7 / 3, 5 / 4])


def test_slices_are_ranked_by_it() -> None:
    found = evidence((6, 6, 6))
    probabilities = np.zeros((3, 6, 6, 6), np.float32)
    probabilities[1] = 1.0
    probabilities[2, 4] = 0.5
    found[:, 0:6, 0:6, 0:6] = probabilities
    best = next(ranked_slices(found))
    assert (best.axis, best.index) == (0, 4)
    assert best.class_shares[2] > 0
