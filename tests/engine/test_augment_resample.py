from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from napari_unet3d.engine.augment.resample import sample
from napari_unet3d.engine.augment.warp import Warp, draw_warp
from napari_unet3d.engine.config import AugmentConfig
from napari_unet3d.engine.mirror import mirrored

ALWAYS = AugmentConfig(probability=1.0, deformation_grid=8, deformation=2)
CUBE = (1.0, 1.0, 1.0)


def volume(shape: tuple[int, int, int], channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(*shape, channels, generator=generator)
    labels = torch.randint(0, 7, shape, generator=generator, dtype=torch.uint8)
    return source, labels


def drawn(size: tuple[int, int, int], seed: int = 0) -> Warp:
    return draw_warp(ALWAYS, size, CUBE, np.random.default_rng(seed))


def test_the_identity_cuts_out_the_patch() -> None:
    source, labels = volume((8, 9, 10))
    patch, patch_labels = sample(source, labels, (4, 4, 5), Warp.identity((4, 3, 6)))
    assert torch.equal(patch, source[2:6, 3:6, 2:8].permute(3, 0, 1, 2))
    assert torch.equal(patch_labels, labels[2:6, 3:6, 2:8])


def test_patches_are_copies_with_channels_last() -> None:
    source, labels = volume((8, 8, 8))
    before, labels_before = source.clone(), labels.clone()
    for warp in (Warp.identity((4, 4, 4)), Warp((4, 4, 4), flips=(True, False, False)), drawn((4, 4, 4))):
        patch, patch_labels = sample(source, labels, (4, 4, 4), warp)
        assert patch[None].is_contiguous(memory_format=torch.channels_last_3d)
        patch.zero_()
        patch_labels.zero_()
    assert torch.equal(source, before)
    assert torch.equal(labels, labels_before)


def test_flips_equal_numpy_flip() -> None:
    source, labels = volume((8, 9, 10))
    patch, patch_labels = sample(source, labels, (4, 4, 5), Warp.identity((4, 3, 6)))
    flipped, flipped_labels = sample(source, labels, (4, 4, 5), Warp((4, 3, 6), flips=(True, False, True)))
    assert np.array_equal(flipped.numpy(), np.flip(patch.numpy(), (1, 3)))
    assert np.array_equal(flipped_labels.numpy(), np.flip(patch_labels.numpy(), (0, 2)))


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_equals_numpy_rot90(axis: int, plane: tuple[int, int]) -> None:
    source, labels = volume((8, 8, 8))
    angles = [0.0, 0.0, 0.0]
    angles[axis] = 90.0
    warp = Warp((8, 8, 8), rotation=(angles[0], angles[1], angles[2]))
    patch, patch_labels = sample(source, labels, (4, 4, 4), warp)
    turned = np.rot90(source.numpy(), axes=plane)
    np.testing.assert_allclose(patch.numpy(), np.moveaxis(turned, -1, 0), atol=1e-5)
    assert np.array_equal(patch_labels.numpy(), np.rot90(labels.numpy(), axes=plane))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(*[st.integers(1, 8)] * 3),
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    centre=st.tuples(*[st.floats(-8, 16, width=32)] * 3),
    probability=st.sampled_from([0.0, 1.0]),
)
def test_sampling_equals_scipy(
    seed: int,
    size: tuple[int, int, int],
    shape: tuple[int, int, int],
    centre: tuple[float, float, float],
    probability: float,
) -> None:
    source, labels = volume(shape, seed=seed)
    config = ALWAYS.updated(probability=probability)
    warp = draw_warp(config, size, CUBE, np.random.default_rng(seed))
    patch, patch_labels = sample(source, labels, centre, warp)
    positions = warp.coordinates(centre)
    where = positions.movedim(-1, 0).double().numpy()
    for channel in range(source.shape[-1]):
        expected = ndimage.map_coordinates(source[..., channel].numpy(), where, order=1, mode="nearest")
        np.testing.assert_allclose(patch[channel].numpy(), expected, atol=1e-4)
    nearest = ndimage.map_coordinates(labels.numpy(), where, order=0, mode="grid-constant", cval=0)
    # scipy may round a tie the other way
    tie = ((torch.frac(positions.abs()) - 0.5).abs() < 1e-4).any(-1).numpy()
    assert np.array_equal(patch_labels.numpy()[~tie], nearest[~tie])


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8])
@pytest.mark.parametrize("warp", [Warp.identity((4, 4, 4)), Warp((4, 4, 4), scale=0.5), drawn((4, 4, 4))])
def test_labels_outside_are_not_annotated_and_none_is_blended(warp: Warp, dtype: torch.dtype) -> None:
    source, _ = volume((6, 6, 6))
    labels = torch.where(source[..., 0] > 0, 2, 200).to(dtype)
    far = sample(source, labels, (40, 3, 3), warp)[1]
    assert far.dtype == dtype
    assert not far.any()
    inside = sample(source, labels, (3, 3, 3), warp)[1]
    assert set(inside.flatten().tolist()) <= {0, 2, 200}
    assert (inside > 0).any()


def test_labels_end_where_the_image_is_continued() -> None:
    source = torch.arange(4.0).reshape(1, 1, 4, 1)
    labels = torch.tensor([[[1, 2, 3, 4]]], dtype=torch.uint8)
    patch, patch_labels = sample(source, labels, (0, 0, 0), Warp.identity((1, 1, 6)))
    assert patch.flatten().tolist() == [0, 0, 0, 0, 1, 2]
    assert patch_labels.flatten().tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float16, 0.01), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("channels", [1, 5, 20])
def test_the_dtype_is_kept(dtype: torch.dtype, error: float, channels: int) -> None:
    source, labels = volume((9, 9, 9), channels)
    source = source.to(dtype)
    warp = drawn((6, 7, 8))
    patch, _ = sample(source, labels, (4, 4, 4), warp)
    assert patch.dtype == dtype
    where = warp.coordinates((4, 4, 4)).movedim(-1, 0).numpy()
    expected = ndimage.map_coordinates(source[..., -1].float().numpy(), where, order=1, mode="nearest")
    np.testing.assert_allclose(patch[-1].float().numpy(), expected, atol=error)


def test_a_plane_is_sampled_within_itself() -> None:
    source, labels = volume((1, 20, 20))
    warp = drawn((1, 12, 12))
    patch, patch_labels = sample(source, labels, (0, 10, 10), warp)
    where = warp.coordinates((0, 10, 10))[0, ..., 1:].movedim(-1, 0).numpy()
    expected = ndimage.map_coordinates(source[0, ..., 0].numpy(), where, order=1, mode="nearest")
    np.testing.assert_allclose(patch[0, 0].numpy(), expected, atol=1e-4)
    assert patch_labels.shape == (1, 12, 12)


def test_a_linear_image_is_sampled_exactly_at_its_positions() -> None:
    ramp = torch.stack(torch.meshgrid(*[torch.arange(30.0)] * 3, indexing="ij"), dim=-1)
    warp = drawn((8, 8, 8))
    patch, _ = sample(ramp, torch.zeros(30, 30, 30, dtype=torch.uint8), (15, 15, 15), warp)
    np.testing.assert_allclose(patch.movedim(0, -1).numpy(), warp.coordinates((15, 15, 15)).numpy(), atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_mirrored_equals_numpy_reflect(length: int) -> None:
    expected = np.pad(np.arange(length), 11, mode="reflect" if length > 1 else "edge")
    wanted = np.arange(-11, length + 11)
    assert mirrored(wanted, length).tolist() == expected.tolist()
    assert mirrored(torch.as_tensor(wanted).float(), length).tolist() == expected.tolist()
