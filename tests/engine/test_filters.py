from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_unet3d.engine.filters import ScaleSpace
from napari_unet3d.engine.scales import TRUNCATE, feature_radius

CUBE = (1.0, 1.0, 1.0)


def _image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _smoothed(grey: NDArray[np.float64], scale: float, voxel: tuple[float, ...]) -> NDArray[np.float64]:
    sigma = [scale / edge for edge in voxel]
    radius = [int(np.ceil(TRUNCATE * s)) for s in sigma]
    return np.asarray(ndimage.gaussian_filter(grey, sigma, mode="nearest", radius=radius))


def _difference(values: NDArray[np.float64], weights: list[float], axis: int) -> NDArray[np.float64]:
    return np.asarray(ndimage.correlate1d(values, weights, axis=axis, mode="nearest"))


def _hessian(smooth: NDArray[np.float64], scale: float, voxel: tuple[float, ...]) -> NDArray[np.float64]:
    """Z Y X 3 3, by central differences times the scale squared."""
    hessian = np.empty((*smooth.shape, 3, 3))
    for i in range(3):
        for j in range(3):
            if i == j:
                second = _difference(smooth, [1, -2, 1], i)
            else:
                second = _difference(_difference(smooth, [-0.5, 0, 0.5], i), [-0.5, 0, 0.5], j)
            hessian[..., i, j] = second * scale**2 / (voxel[i] * voxel[j])
    return hessian


@pytest.mark.parametrize("voxel", [CUBE, (3.0, 1.0, 1.5)])
@pytest.mark.parametrize("scale", [0.7, 2.0])
def test_features_agree_with_scipy_and_eigenvalues(voxel: tuple[float, float, float], scale: float) -> None:
    image = _image(1, 1, 9, 10, 11)
    grey, smooth, gradient, mean, spread, shape = ScaleSpace(1, [scale], voxel)(image)[0].double().numpy()
    expected = _smoothed(image[0, 0].double().numpy(), scale, voxel)
    slopes = [_difference(expected, [-0.5, 0, 0.5], axis) * scale / voxel[axis] for axis in range(3)]

    np.testing.assert_array_equal(grey, image[0, 0].numpy())
    np.testing.assert_allclose(smooth, expected, atol=1e-5)
    np.testing.assert_allclose(gradient, np.sqrt(np.square(slopes).sum(0)), atol=1e-5)

    # the three curvatures hold the eigenvalues: m + 2 p cos(arccos(r) / 3 + 2 pi k / 3)
    eigenvalues = np.linalg.eigvalsh(_hessian(expected, scale, voxel))
    angle = np.arccos(np.clip(shape / spread, -1, 1)) / 3
    ours = [mean + 2 * spread * np.cos(angle + 2 * np.pi * k / 3) for k in range(3)]
    np.testing.assert_allclose(np.sort(np.stack(ours, axis=-1)), eigenvalues, atol=2e-3)
    np.testing.assert_allclose(mean, eigenvalues.mean(-1), atol=1e-4)
    np.testing.assert_allclose(spread, eigenvalues.std(-1) / np.sqrt(2), atol=1e-4)


def test_larger_scales_continue_from_smaller_ones() -> None:
    # two truncated Gaussians in a row are nearly one; far from the border, where they repeat voxels twice
    image = torch.zeros(1, 1, 41, 41, 41)
    image[0, 0, 20, 20, 20] = 1000
    smooth = ScaleSpace(1, [2.0, 1.0])(image)[0, 6].double().numpy()
    np.testing.assert_allclose(smooth, _smoothed(image[0, 0].double().numpy(), 2.0, CUBE), atol=0.05)


@pytest.mark.parametrize("sign", [1, -1])
def test_shape_tells_a_sheet_from_its_negative(sign: int) -> None:
    sheet = torch.zeros(1, 1, 15, 15, 15)
    sheet[:, :, 7] = sign
    *_, spread, shape = ScaleSpace(1, [2.0])(sheet)[0, :, 7, 7, 7].tolist()
    assert shape == pytest.approx(-sign * spread, rel=1e-4)
    assert spread > 0.01


@pytest.mark.parametrize("plane", [(2, 3), (2, 4), (3, 4)])
def test_turning_the_image_turns_the_features(plane: tuple[int, int]) -> None:
    module, image = ScaleSpace(1, [1.0, 2.0]), _image(1, 1, 12, 12, 12)
    torch.testing.assert_close(module(image.rot90(1, plane)), module(image).rot90(1, plane), atol=1e-4, rtol=1e-4)


def test_gain_of_the_image_is_gain_of_the_features() -> None:
    module, image = ScaleSpace(2, [1.0, 2.0]), _image(1, 2, 6, 7, 8)
    torch.testing.assert_close(module(4 * image), 4 * module(image), atol=1e-4, rtol=1e-4)


def test_a_constant_image_has_no_derivatives() -> None:
    features = ScaleSpace(1, [1.0, 4.0])(torch.full((1, 1, 5, 6, 7), 3.0))[0]
    torch.testing.assert_close(features[[0, 1, 6]], torch.full((3, 5, 6, 7), 3.0))
    torch.testing.assert_close(features[[2, 3, 4, 5, 7, 8, 9, 10]], torch.zeros(8, 5, 6, 7), atol=1e-4, rtol=0)


def test_a_single_plane_is_like_a_prism_of_it() -> None:
    module, plane = ScaleSpace(1, [1.0, 2.0]), _image(1, 1, 1, 9, 10)
    prism = module(plane.expand(1, 1, 7, 9, 10))
    torch.testing.assert_close(module(plane)[:, :, 0], prism[:, :, 3], atol=1e-5, rtol=1e-4)
    assert torch.isfinite(module(_image(1, 1, 1, 1, 1))).all()


@pytest.mark.parametrize("voxel", [CUBE, (4.0, 1.0, 1.0)])
def test_a_crop_with_context_has_the_features_of_the_whole(voxel: tuple[float, float, float]) -> None:
    scales = [1.0, 2.0]
    module, image = ScaleSpace(1, scales, voxel), _image(1, 1, 27, 30, 31)
    dz, dy, dx = feature_radius(scales, voxel)
    z, y, x = slice(12, 14), slice(14, 17), slice(15, 16)
    wide = image[:, :, z.start - dz : z.stop + dz, y.start - dy : y.stop + dy, x.start - dx : x.stop + dx]
    inner = module(wide)[:, :, dz:-dz, dy:-dy, dx:-dx]
    torch.testing.assert_close(inner, module(image)[:, :, z, y, x], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("box", [(slice(2, 5), slice(0, 3), slice(7, 9)), (slice(0, 6), slice(3, 7), slice(4, 5))])
def test_features_of_a_box_are_those_of_the_whole(box: tuple[slice, slice, slice]) -> None:
    module, image = ScaleSpace(2, [1.0, 2.0], (2.0, 1.0, 1.0)), _image(3, 2, 6, 7, 9)
    torch.testing.assert_close(module(image, box), module(image)[:, :, *box])


def test_channels_and_images_do_not_mix() -> None:
    module, image = ScaleSpace(2, [1.5]), _image(3, 2, 5, 6, 7)
    alone = ScaleSpace(1, [1.5])
    together = module(image)
    assert together.shape == (3, 12, 5, 6, 7)
    torch.testing.assert_close(together[2, 6:], alone(image[2:, 1:])[0], atol=1e-5, rtol=1e-4)


def test_gain_multiplies_features() -> None:
    module, image = ScaleSpace(1, [1.0]), _image(1, 1, 4, 5, 6)
    before = module(image)
    module.gain.copy_(torch.tensor([1.0, 2, 3, 4, 5, 6]))
    torch.testing.assert_close(module(image)[0, 5], 6 * before[0, 5])
    assert list(module.state_dict()) == ["gain"]
    assert not list(module.parameters())


def test_stays_float32_in_mixed_precision() -> None:
    module, image = ScaleSpace(1, [1.0]), _image(1, 1, 6, 7, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(image)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, module(image))
    assert module(image.to(torch.bfloat16)).dtype == torch.float32


def test_is_a_fixed_graph() -> None:
    module, image = ScaleSpace(1, [1.0, 2.0], (2.0, 1.0, 1.0)), _image(1, 1, 4, 8, 8)
    exported = torch.export.export(module, (image,)).module()
    torch.testing.assert_close(exported(image), module(image), atol=1e-6, rtol=1e-5)
