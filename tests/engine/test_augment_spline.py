from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from napari_unet3d.engine.augment.spline import SplineField, interpolation_matrix


def field_values(field: SplineField, positions: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = field.at(positions).numpy()
    return values


@pytest.fixture
def nodes() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(0, 4, size=(3, 4, 5, 6))


def test_the_field_meets_its_nodes(nodes: NDArray[np.float64]) -> None:
    field = SplineField(nodes, (16.0, 32.0, 32.0), (-5.0, -40.0, 0.0))
    at_nodes = [
        start + step * np.arange(n) for start, step, n in zip(field.origin, field.spacing, nodes.shape[1:], strict=True)
    ]
    np.testing.assert_allclose(field_values(field, at_nodes), nodes, atol=1e-5)


def test_the_field_is_the_cubic_b_spline_of_the_mirrored_grid(nodes: NDArray[np.float64]) -> None:
    field = SplineField(nodes, (2.0, 3.0, 2.5), (0.0, 0.0, 0.0))
    positions = [np.linspace(0, 6, 7), np.linspace(0, 12, 9), np.linspace(0, 12.5, 11)]
    grid = np.meshgrid(*(p / s for p, s in zip(positions, field.spacing, strict=True)), indexing="ij")
    expected = [ndimage.map_coordinates(part, grid, order=3, mode="mirror") for part in nodes]
    np.testing.assert_allclose(field_values(field, positions), expected, atol=1e-4)


def test_weights_are_those_of_an_interpolating_b_spline() -> None:
    positions = np.linspace(0, 5, 23)
    spline = make_interp_spline(np.arange(6), np.eye(6), k=3, bc_type="clamped")
    weights = interpolation_matrix(positions, 6)
    np.testing.assert_allclose(weights, spline(positions), atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_a_single_node_is_a_constant() -> None:
    assert interpolation_matrix(np.array([0.0, 3.0]), 1).tolist() == [[1], [1]]
