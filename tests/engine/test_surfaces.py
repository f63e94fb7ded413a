from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.surfaces import surface_distance

Mask = NDArray[np.bool_]

ANISOTROPIC = VoxelSize(3.0, 1.0, 0.5, "um")


def box_mask(shape: tuple[int, int, int], *box: tuple[int, int]) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*edges) for edges in box)] = True
    return mask


def surface_points(mask: Mask, known: Mask) -> list[tuple[int, int, int]]:
    """Voxel by voxel: known, in the mask, with a known neighbour that is not in it."""
    points = []
    for z, y, x in np.argwhere(mask & known).tolist():
        neighbours = [
            (z - 1, y, x),
            (z + 1, y, x),
            (z, y - 1, x),
            (z, y + 1, x),
            (z, y, x - 1),
            (z, y, x + 1),
        ]
        inside = [n for n in neighbours if all(0 <= i < size for i, size in zip(n, mask.shape, strict=True))]
        if any(known[n] and not mask[n] for n in inside):
            points.append((z, y, x))
    return points


def brute_force(
    prediction: Mask, truth: Mask, edges: Sequence[float], known: Mask, scored: Mask
) -> tuple[float, float]:
    surfaces = [surface_points(mask, known) for mask in (prediction, truth)]
    found = []
    for start, end in (surfaces, surfaces[::-1]):
        from_points = [p for p in start if scored[p]]
        physical = [[math.dist(np.multiply(p, edges), np.multiply(q, edges)) for q in end] for p in from_points]
        found.append([min(row, default=math.inf) for row in physical])
    both = found[0] + found[1]
    if not both or math.inf in both:
        nothing = math.inf if both else math.nan
        return nothing, nothing
    return float(np.mean(both)), max(float(np.percentile(d, 95)) for d in found if d)


def test_parallel_faces_lie_as_far_apart_as_their_planes() -> None:
    shape = (12, 4, 4)
    near, far = box_mask(shape, (0, 4), (0, 4), (0, 4)), box_mask(shape, (0, 9), (0, 4), (0, 4))
    # one face each, at planes 3 and 8, 5 planes of 3 um apart
    distance = surface_distance(near, far, ANISOTROPIC)
    assert distance.mean == distance.hausdorff95 == 15


def test_mean_pools_both_surfaces_and_hausdorff_takes_the_worse_side() -> None:
    shape = (1, 1, 41)
    prediction = box_mask(shape, (0, 1), (0, 1), (0, 5))  # surface voxel 4
    truth = prediction | box_mask(shape, (0, 1), (0, 1), (24, 25))  # surface voxels 4 and 24, 20 x 0.5 um further
    distance = surface_distance(prediction, truth, ANISOTROPIC)
    assert distance.mean == pytest.approx((0 + 0 + 10) / 3)
    assert distance.hausdorff95 == pytest.approx(9.5)


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    shares=st.tuples(*[st.sampled_from([0.03, 0.2, 0.6])] * 2),
    known_share=st.sampled_from([0.6, 1.0]),
    scored_share=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150)
def test_equals_brute_force(
    shape: tuple[int, int, int],
    shares: tuple[float, float],
    known_share: float,
    scored_share: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    prediction, truth = (random.random(shape) < share for share in shares)
    known = random.random(shape) < known_share
    scored = known & (random.random(shape) < scored_share)
    distance = surface_distance(prediction, truth, ANISOTROPIC, known, scored)
    expected = brute_force(prediction, truth, ANISOTROPIC.zyx, known, scored)
    assert (distance.mean, distance.hausdorff95) == pytest.approx(expected, nan_ok=True)


def blobs(seed: int, noise: float = 0.0) -> tuple[Mask, Mask]:
    """Two smooth random masks that stay off the border, the first with salt and pepper."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.standard_normal((2, 20, 40, 60)), (0, 3, 6, 9))
    masks = smooth > 0.3 * smooth.std()
    masks[0] ^= random.random(masks[0].shape) < noise
    masks[:, [0, -1]] = masks[:, :, [0, -1]] = masks[..., [0, -1]] = False
    return masks[0], masks[1]


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_equals_scipy_distance_transforms(noise: float) -> None:
    masks = blobs(0, noise)
    surfaces = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in masks]
    fields = [ndimage.distance_transform_edt(~surface, sampling=ANISOTROPIC.zyx) for surface in surfaces]
    found = [fields[1][surfaces[0]], fields[0][surfaces[1]]]
    distance = surface_distance(*masks, ANISOTROPIC)
    assert distance.mean == pytest.approx(np.concatenate(found).mean())
    assert distance.hausdorff95 == pytest.approx(max(np.percentile(d, 95) for d in found))


@pytest.mark.filterwarnings("ignore")
def test_equals_monai() -> None:
    monai = pytest.importorskip("monai.metrics", reason="MONAI is a second opinion, not a requirement")
    torch = pytest.importorskip("torch")
    masks = blobs(1)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in masks]
    settings = {"include_background": True, "spacing": ANISOTROPIC.zyx}
    mean = monai.compute_average_surface_distance(*tensors, symmetric=True, **settings)
    worst = monai.compute_hausdorff_distance(*tensors, percentile=95, **settings)
    distance = surface_distance(*masks, ANISOTROPIC)
    assert distance.mean == pytest.approx(mean.item(), rel=1e-4)
    assert distance.hausdorff95 == pytest.approx(worst.item(), rel=1e-4)


def test_a_single_plane_has_a_contour() -> None:
    shape = (1, 9, 9)
    small, large = box_mask(shape, (0, 1), (3, 6), (3, 6)), box_mask(shape, (0, 1), (2, 7), (2, 7))
    # 8 voxels of the small contour: 1 um away in y or 0.5 um in x (nearer at corners); 16 of the large one
    distance = surface_distance(small, large, VoxelSize())
    corner, edge = 2**0.5, 1.0
    assert distance.mean == pytest.approx((8 * 1 + 12 * edge + 4 * corner) / 24)


def test_a_truth_of_single_planes_is_compared_by_its_contours_there() -> None:
    prediction = box_mask((7, 9, 9), (2, 5), (3, 6), (3, 6))
    truth, known = np.zeros_like(prediction), np.zeros_like(prediction)
    known[4] = True
    truth[4, 3:6, 3:6] = True
    assert surface_distance(prediction, truth, ANISOTROPIC, known).mean == 0


def test_distances_count_from_scored_voxels_only() -> None:
    shape = (1, 1, 30)
    prediction = box_mask(shape, (0, 1), (0, 1), (0, 10))  # surface voxel 9
    truth = box_mask(shape, (0, 1), (0, 1), (0, 14))  # surface voxel 13
    scored = box_mask(shape, (0, 1), (0, 1), (12, 30))
    prediction[0, 0, 20] = True  # 7 voxels from the truth's surface
    assert surface_distance(prediction, truth, VoxelSize(), scored=scored).mean == pytest.approx((7 + 4) / 2)


def test_empty_and_endless_masks() -> None:
    some = box_mask((4, 4, 4), (1, 3), (1, 3), (1, 3))
    none, everything = np.zeros_like(some), np.ones_like(some)
    for first, second in ((some, none), (none, some), (some, everything)):
        distance = surface_distance(first, second, ANISOTROPIC)
        assert distance.mean == distance.hausdorff95 == math.inf
    for first, second in ((none, none), (everything, everything)):
        distance = surface_distance(first, second, ANISOTROPIC)
        assert math.isnan(distance.mean)
        assert math.isnan(distance.hausdorff95)
