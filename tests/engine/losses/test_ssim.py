"""Structural similarity against scikit-image and MONAI on full masks, and its meaning on sparse ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.losses import Loss, build_loss
from napari_unet3d.engine.losses.ssim import WINDOW, has_window, images, ms_ssim, positive, similarity_maps
from napari_unet3d.engine.losses.voxels import annotated_voxels, verdict
from napari_unet3d.engine.volume import IGNORE_INDEX

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim_loss(head: Head = "softmax") -> Loss:
    return build_loss(TrainConfig(loss="ms_ssim"), head=head)


def smooth_case(seed: int, shape: Sequence[int], coarse: int = 4) -> tuple[Tensor, Tensor]:
    """Logits of two classes, B 2 and the axes, that follow a target of blobs, more or less."""
    random = np.random.default_rng(seed)
    batch, *space = shape
    seeds = random.normal(size=(batch, *(-(-size // coarse) for size in space)))
    for axis in range(1, len(shape)):
        seeds = seeds.repeat(coarse, axis)
    blobs = seeds[(slice(None), *(slice(size) for size in space))]
    target = torch.from_numpy((blobs > 0).astype(np.int64))
    z = torch.from_numpy(2 * blobs + random.normal(size=shape)).float()
    return torch.stack([-z, z], 1), target


def value_and_gradient(loss: Loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    total = loss([leaf], target).total
    torch.autograd.backward(total)
    assert leaf.grad is not None
    return total.detach(), leaf.grad


def foreground(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of class 1 and the truth, B 1 and the axes."""
    return logits.softmax(1)[:, 1:], target[:, None].float()


def reference_ssim(p: np.ndarray, truth: np.ndarray) -> float:
    """Mean over complete windows, from scikit-image."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, values = structural_similarity(p.astype(np.float64), truth.astype(np.float64), full=True, **settings)
    return float(values[(slice(5, -5),) * p.ndim].mean())


# --- full masks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(15, 20), (12, 15, 13)], ids=["2D", "3D"])
def test_one_scale_equals_scikit_image(shape: tuple[int, ...]) -> None:
    logits, target = smooth_case(0, (1, *shape))
    p, truth = foreground(logits, target)
    expected = reference_ssim(p[0, 0].numpy(), truth[0, 0].numpy())
    assert 0.1 < expected < 0.9
    similarity, windows = ms_ssim(p, truth, torch.ones_like(target, dtype=torch.bool))
    assert similarity.item() == pytest.approx(expected, abs=1e-5)
    assert windows.item() == np.prod([size - 10 for size in shape])
    # the two channels of a softmax are as similar to their truth
    background = reference_ssim(1 - p[0, 0].numpy(), 1 - truth[0, 0].numpy())
    both = 1 - (expected + background) / 2
    assert ssim_loss()([logits], target).total.item() == pytest.approx(both, abs=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(1, 15, 20), (1, 12, 15, 13)], ids=["2D", "3D"])
def test_one_scale_equals_monai(shape: tuple[int, ...]) -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is a second opinion, not a requirement")
    logits, target = smooth_case(1, shape)
    p, truth = foreground(logits, target)
    similarity, _ = ms_ssim(p, truth, torch.ones_like(target, dtype=torch.bool))
    torch.testing.assert_close(1 - similarity[0], monai.SSIMLoss(len(shape) - 1)(p, truth), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_five_scales_equal_monai() -> None:
    monai = pytest.importorskip("monai.metrics.regression", reason="MONAI is a second opinion, not a requirement")
    logits, target = smooth_case(2, (2, 177, 190), coarse=25)
    p, truth = foreground(logits, target)
    expected = monai.compute_ms_ssim(p, truth, spatial_dims=2)
    similarity, _ = ms_ssim(p, truth, torch.ones_like(target, dtype=torch.bool))
    assert 0.2 < expected.mean() < 0.95
    torch.testing.assert_close(similarity, expected[:, 0], atol=2e-6, rtol=0)
    mirrored = monai.compute_ms_ssim(1 - p, 1 - truth, spatial_dims=2)
    both = 1 - (expected.mean() + mirrored.mean()) / 2
    torch.testing.assert_close(ssim_loss()([logits], target).total, both, atol=2e-6, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("shape", "scales"), [((1, 24, 25, 27), 2), ((1, 50, 90), 3), ((1, 87, 120), 3)])
def test_fewer_scales_equal_monai_with_renormalised_weights(shape: tuple[int, ...], scales: int) -> None:
    monai = pytest.importorskip("monai.metrics.regression", reason="MONAI is a second opinion, not a requirement")
    logits, target = smooth_case(3, shape, coarse=8)
    p, truth = foreground(logits, target)
    weights = [weight * sum(WEIGHTS) / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales]]  # of a sum of 1.0001
    expected = monai.compute_ms_ssim(p, truth, spatial_dims=len(shape) - 1, weights=weights)
    similarity, _ = ms_ssim(p, truth, torch.ones_like(target, dtype=torch.bool))
    # MONAI rounds its window to float32, which in three dimensions shows
    torch.testing.assert_close(similarity, expected[:, 0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 50, 60), (1, 12, 24, 26)], ids=["2D", "3D"])
def test_a_perfect_prediction_has_no_loss_and_an_inverted_one_a_large_one(shape: tuple[int, ...]) -> None:
    _, target = smooth_case(4, shape)
    sure = torch.stack([30 - 60.0 * target, 60.0 * target - 30], 1)
    assert ssim_loss()([sure], target).total.item() == pytest.approx(0, abs=1e-5)
    total, gradient = value_and_gradient(ssim_loss(), -sure / 30, target)
    assert total > 0.95
    # the slope leads back even from the wrong side of 0
    step = gradient / gradient.norm()
    assert total - ssim_loss()([-sure / 30 - step], target).total > 0.5 * (step * gradient).sum() > 0


def test_factors_below_zero_stay_positive_and_keep_a_slope() -> None:
    values = torch.tensor([-1.0, 0.0, 0.05, 0.5], requires_grad=True)
    bent = positive(values)
    torch.autograd.backward(bent.sum())
    assert values.grad is not None
    assert bent.tolist() == pytest.approx([0.0025 / 1.1, 0.025, 0.05, 0.5])
    assert values.grad.tolist() == pytest.approx([0.0025 / 1.21, 0.25, 1, 1])


def test_gradients_are_derivatives() -> None:
    logits, target = smooth_case(5, (1, 22, 23))
    target[0, :, 22] = IGNORE_INDEX
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ssim_loss()([x], target).total, (leaf,), fast_mode=True)


# --- partial annotation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_painted_slice_is_compared_in_its_plane(axis: int) -> None:
    logits, target = smooth_case(6, (1, 24, 25, 26))
    flat = ssim_loss()([logits.select(axis + 2, 7)], target.select(axis + 1, 7))
    sparse = torch.full_like(target, IGNORE_INDEX)
    sparse.select(axis + 1, 7).copy_(target.select(axis + 1, 7))
    torch.testing.assert_close(ssim_loss()([logits], sparse).total, flat.total)


def test_crossing_slices_count_by_their_windows() -> None:
    logits, target = smooth_case(7, (1, 12, 15, 20))
    sparse = torch.full_like(target, IGNORE_INDEX)
    sparse[:, 3], sparse[:, :, 5] = target[:, 3], target[:, :, 5]
    in_z, in_y = (
        ssim_loss()([logits.select(axis + 2, i)], target.select(axis + 1, i)).total for axis, i in ((0, 3), (1, 5))
    )
    expected = (5 * 10 * in_z + 2 * 10 * in_y) / 70
    torch.testing.assert_close(ssim_loss()([logits], sparse).total, expected)


def test_a_dense_piece_is_compared_in_three_dimensions() -> None:
    logits, target = smooth_case(8, (1, 14, 16, 18))
    sparse = torch.full_like(target, IGNORE_INDEX)
    piece = (slice(None), slice(1, 13), slice(2, 15), slice(3, 17))
    sparse[piece] = target[piece]
    alone = ssim_loss()([logits[:, :, 1:13, 2:15, 3:17]], target[piece]).total
    torch.testing.assert_close(ssim_loss()([logits], sparse).total, alone)


def test_patches_of_a_batch_are_dense_or_sliced_each_by_itself() -> None:
    logits, target = smooth_case(9, (3, 12, 13, 14))
    sliced, nothing = (torch.full_like(target[:1], IGNORE_INDEX) for _ in range(2))
    sliced[0, 4] = target[0, 4]
    mixed = torch.cat([sliced, target[1:2], nothing])
    dense = ssim_loss()([logits[1:2]], target[1:2]).total
    flat = ssim_loss()([logits[:1, :, 4]], target[:1, 4]).total
    # 2 x 3 x 4 cubic windows, 3 x 4 flat ones
    torch.testing.assert_close(ssim_loss()([logits], mixed).total, (24 * dense + 12 * flat) / 36)


def test_a_hole_takes_out_the_windows_around_it() -> None:
    logits, target = smooth_case(10, (1, 13, 30))
    holed = target.clone()
    holed[0, 6, 14] = IGNORE_INDEX
    p, truth = foreground(logits, target)
    _, maps = similarity_maps(p, truth)
    # windows begin in 3 rows and 20 columns; the hole is in those that begin in columns 4 to 14
    left = torch.cat([maps[..., :4], maps[..., 15:]], -1)
    seen = holed != IGNORE_INDEX
    similarity, windows = ms_ssim(torch.where(seen[:, None], p, 0.0), truth, seen)
    assert windows.item() == 3 * 9
    torch.testing.assert_close(similarity[0], left.mean())


def test_scales_are_those_with_complete_windows() -> None:
    _, target = smooth_case(11, (1, 60, 60))
    logits = torch.stack([-target, target], 1).float()
    holed = target.clone()
    holed[0, ::24] = IGNORE_INDEX  # strips of 23 rows: two scales
    strip = ssim_loss()([logits[:, :, 1:24]], target[:, 1:24]).total
    assert ssim_loss()([logits], holed).total.item() == pytest.approx(float(strip), abs=0.1)
    ((p, truth, seen),) = images(verdict(logits, annotated_voxels(holed)))
    first_only, _ = ms_ssim(p[..., :21, :], truth[..., :21, :], seen[..., :21, :])
    both, _ = ms_ssim(p, truth, seen)
    assert not torch.isclose(first_only, both)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("shape", [(2, 12, 14), (2, 5, 12, 14)], ids=["2D", "3D"])
def test_no_complete_window_gives_zero_with_zero_gradient(shape: tuple[int, ...], head: Head) -> None:
    logits, target = smooth_case(12, shape)
    target = target.clone()
    target[..., ::10] = IGNORE_INDEX
    for labels in (target, torch.full_like(target, IGNORE_INDEX)):
        total, gradient = value_and_gradient(ssim_loss(head), logits, labels)
        assert total == 0
        assert torch.count_nonzero(gradient) == 0
        assert gradient.shape == logits.shape


def test_a_small_patch_gives_zero() -> None:
    logits, target = smooth_case(13, (1, 10, 40, 10))
    assert ssim_loss()([logits], target).total == 0


@given(
    seed=st.integers(0, 2**31),
    axis=st.integers(0, 2),
    classes=st.sampled_from([1, 2, 3]),
    head=st.sampled_from(["softmax", "sigmoid"]),
    elsewhere=st.sampled_from([float("nan"), float("inf"), -1e30, 5.0]),
    name=st.sampled_from(["ms_ssim", "hybrid"]),
    holes=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_predictions_at_unannotated_voxels_change_nothing(
    seed: int, axis: int, classes: int, head: Head, elsewhere: float, name: str, holes: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = [24, 24, 24]
    shape[axis] = 3
    logits = 2 * torch.randn((2, classes, *shape), generator=random)
    target = torch.full((2, *shape), IGNORE_INDEX)
    painted = torch.randint(0, classes + (head == "sigmoid" or classes == 1), (24, 24), generator=random)
    for row, column in torch.randint(0, 5, (holes, 2), generator=random).tolist():
        painted[row, column] = IGNORE_INDEX
    target[0].select(axis, 1).copy_(painted)

    hidden = (target == IGNORE_INDEX)[:, None].expand_as(logits)
    loss = build_loss(TrainConfig.model_validate({"loss": name}), head=head)
    total, gradient = value_and_gradient(loss, logits, target)
    changed_total, changed_gradient = value_and_gradient(loss, torch.where(hidden, elsewhere, logits), target)
    assert torch.equal(total, changed_total)
    assert torch.equal(gradient, changed_gradient)
    assert torch.count_nonzero(gradient[hidden]) == 0
    assert 0 < total < 10
    assert torch.isfinite(gradient).all()
    assert torch.count_nonzero(gradient) > 0


@given(seed=st.integers(0, 2**31), share=st.floats(0.95, 1), dims=st.sampled_from([2, 3]))
@settings(max_examples=30, deadline=None)
def test_a_window_fits_where_a_loop_finds_one(seed: int, share: float, dims: int) -> None:
    random = torch.Generator().manual_seed(seed)
    space = (13, 14, 12)[:dims]
    seen = torch.rand((3, *space), generator=random) < (share if dims == 2 else 1 - (1 - share) / 20)
    expected = [
        any(
            bool(image[tuple(slice(i, i + WINDOW) for i in corner)].all())
            for corner in np.ndindex(*(size - WINDOW + 1 for size in space))
        )
        for image in seen
    ]
    assert has_window(seen).tolist() == expected
