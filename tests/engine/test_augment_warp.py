from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet3d.engine.augment.resample import sample
from napari_unet3d.engine.augment.warp import Warp, draw_warp
from napari_unet3d.engine.config import AugmentConfig

CUBE = (1.0, 1.0, 1.0)
ALWAYS = AugmentConfig(probability=1.0)
STILL = AugmentConfig(probability=1.0, rotation=0, scaling=0, deformation=0, flips=False)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_identity_reads_the_voxels_around_the_centre() -> None:
    warp = Warp.identity((2, 3, 4))
    positions = warp.coordinates((10, 20, 30)).numpy()
    assert warp.is_grid_aligned
    assert positions[0, 0, 0].tolist() == [9, 19, 28]
    assert positions[1, 1, 2].tolist() == [10, 20, 30]
    assert positions[-1, -1, -1].tolist() == [10, 21, 31]


def test_flips_reverse_the_read_positions() -> None:
    plain = Warp.identity((3, 4, 5)).coordinates((8, 8, 8))
    flipped = Warp((3, 4, 5), flips=(True, False, True)).coordinates((8, 8, 8))
    assert torch.equal(flipped, plain.flip([0, 2]))


def test_a_larger_scale_reads_a_smaller_part() -> None:
    positions = Warp((5, 5, 5), scale=2.0).coordinates((10, 10, 10))
    assert positions[0, 0, 0].tolist() == [9, 9, 9]
    assert positions[4, 4, 4].tolist() == [11, 11, 11]


def test_flat_voxels_are_rotated_in_physical_space() -> None:
    # a quarter turn about x with z edges twice as long: one step along y becomes half a step along z
    warp = Warp((3, 3, 3), voxel=(2.0, 1.0, 1.0), rotation=(0, 0, 90))
    positions = warp.coordinates((10, 10, 10)).numpy()
    np.testing.assert_allclose(positions[1, 2, 1], [10.5, 10, 10], atol=1e-6)
    np.testing.assert_allclose(positions[2, 1, 1], [10, 8, 10], atol=1e-6)
    np.testing.assert_allclose(positions[1, 1, 2], [10, 10, 11], atol=1e-6)


def test_rotations_keep_physical_distances() -> None:
    edges = np.array([1.5, 1.0, 1.2])
    matrix = Warp((3, 3, 3), voxel=(1.5, 1.0, 1.2), rotation=(20, -10, 30)).matrix
    physical = edges[:, None] * matrix / edges
    np.testing.assert_allclose(physical @ physical.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(physical) == pytest.approx(1)


def test_zero_magnitudes_draw_the_identity() -> None:
    warp = draw_warp(STILL, (4, 6, 6), CUBE, rng())
    assert warp.is_grid_aligned
    assert warp.flips == (False, False, False)


def test_drawn_values_cover_their_range_and_stay_in_it() -> None:
    generator = rng()
    config = AugmentConfig(probability=0.5, rotation=30, scaling=0.2)
    warps = [draw_warp(config, (8, 8, 8), CUBE, generator) for _ in range(800)]
    moved = [warp for warp in warps if not warp.is_grid_aligned]
    assert 340 < len(moved) < 460  # 400 expected, sd 14
    angles = np.array([warp.rotation for warp in moved])
    assert (np.abs(angles) <= 30).all()
    assert (np.abs(angles).max(axis=0) > 28).all()
    scales = np.array([warp.scale for warp in moved])
    assert 0.8 <= scales.min() < 0.82
    assert 1.18 < scales.max() <= 1.2
    flips = np.array([warp.flips for warp in warps]).mean(axis=0)
    assert (np.abs(flips - 0.5) < 0.07).all()  # sd 0.018


def test_nodes_are_spread_as_configured_in_edges_of_the_finest_axis() -> None:
    generator = rng()
    config = AugmentConfig(probability=1, deformation=4, deformation_grid=32)
    fields = [draw_warp(config, (32, 64, 64), (2.0, 1.0, 1.0), generator).field for _ in range(60)]
    assert all(field is not None and field.spacing == (16, 32, 32) for field in fields)
    nodes = np.concatenate([field.nodes.reshape(3, -1) for field in fields if field is not None], axis=1)
    np.testing.assert_allclose(nodes.std(axis=1), [2, 4, 4], rtol=0.03)  # about 6000 nodes: sd of it 0.9 %
    np.testing.assert_allclose(nodes.mean(axis=1), 0, atol=0.2)


@pytest.mark.parametrize(
    ("size", "voxel", "turns"),
    [
        ((8, 8, 8), (1.0, 1.0, 1.0), (True, True, True)),
        ((8, 8, 8), (2.0, 1.0, 1.0), (True, True, True)),
        ((8, 8, 8), (2.5, 1.0, 1.0), (True, False, False)),
        ((8, 8, 8), (1.0, 1.0, 4.0), (False, False, True)),
        ((8, 8, 8), (9.0, 3.0, 1.0), (False, False, False)),
        ((1, 8, 8), (1.0, 1.0, 1.0), (True, False, False)),
        ((8, 1, 8), (1.0, 1.0, 1.0), (False, True, False)),
        ((8, 1, 1), (1.0, 1.0, 1.0), (False, False, False)),
    ],
)
def test_rotation_stays_within_thin_patches_and_flat_voxels(
    size: tuple[int, int, int], voxel: tuple[float, float, float], turns: tuple[bool, ...]
) -> None:
    warp = draw_warp(ALWAYS, size, voxel, rng())
    assert tuple(angle != 0 for angle in warp.rotation) == turns


def test_a_patch_of_one_plane_stays_in_it() -> None:
    warp = draw_warp(ALWAYS, (1, 40, 50), CUBE, rng())
    positions = warp.coordinates((7, 30, 30))
    assert warp.field is not None
    assert warp.field.nodes.shape[1] == 1
    assert (positions[..., 0] == 7).all()
    assert positions[..., 1].std() > 5
    assert not torch.equal(positions[..., 1:], positions[..., 1:].round())


def test_the_same_generator_draws_the_same_warp() -> None:
    first, again, other = (draw_warp(ALWAYS, (6, 8, 8), CUBE, rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.coordinates((9, 9, 9)), again.coordinates((9, 9, 9)))
    assert not torch.equal(first.coordinates((9, 9, 9)), other.coordinates((9, 9, 9)))


lengths = st.integers(1, 9)
triples = st.tuples(lengths, lengths, lengths)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=triples,
    shape=triples,
    centre=st.tuples(*[st.floats(-12, 20)] * 3),
    probability=st.sampled_from([0.0, 1.0]),
)
def test_bounds_hold_all_that_is_read(
    seed: int,
    size: tuple[int, int, int],
    shape: tuple[int, int, int],
    centre: tuple[float, float, float],
    probability: float,
) -> None:
    generator = rng(seed)
    warp = draw_warp(AugmentConfig(probability=probability, deformation_grid=8), size, CUBE, generator)
    source = torch.as_tensor(generator.normal(size=(*shape, 2)), dtype=torch.float32)
    labels = torch.as_tensor(generator.integers(0, 5, shape), dtype=torch.uint8)
    box = warp.bounds(centre, shape)
    assert all(0 <= part.start < part.stop <= length for part, length in zip(box, shape, strict=True))

    moved = [c - part.start for c, part in zip(centre, box, strict=True)]
    patch, patch_labels = sample(source, labels, centre, warp)
    cut, cut_labels = sample(source[box].contiguous(), labels[box].contiguous(), moved, warp)
    np.testing.assert_allclose(cut.numpy(), patch.numpy(), atol=1e-4)
    # a label may differ only where a position lies half-way between two voxels
    half_way = (torch.frac(warp.coordinates(centre).abs()) - 0.5).abs().amin(-1) < 1e-4
    assert torch.equal(cut_labels[~half_way], patch_labels[~half_way])


def test_bounds_of_a_patch_inside_are_tight() -> None:
    box = Warp.identity((4, 4, 4)).bounds((10, 10, 10), (100, 100, 100))
    assert all(7 <= part.start <= 8 and 12 <= part.stop <= 13 for part in box)


def test_an_oblique_rotation_turns_by_its_angle() -> None:
    positions = Warp((1, 3, 3), rotation=(30, 0, 0)).coordinates((0, 0, 0))
    step = (positions[0, 1, 2] - positions[0, 1, 1]).numpy()
    np.testing.assert_allclose(step, [0, 0.5, math.sqrt(3) / 2], atol=1e-6)
