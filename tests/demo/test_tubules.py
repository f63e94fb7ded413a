"""The generated tubules."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_unet3d.demo.tubules import CLASS_NAMES, PAINTED_PLANES, make_tubules

SHAPE = (32, 96, 96)


def test_same_for_the_same_random_state() -> None:
    first, again, other = make_tubules(SHAPE, 1), make_tubules(SHAPE, 1), make_tubules(SHAPE, 2)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.truth, again.truth)
    assert (first.truth != other.truth).any()
    assert first.image.shape == first.truth.shape == SHAPE
    assert first.image.dtype == first.truth.dtype == np.uint8


def test_lumen_lies_inside_bright_walls() -> None:
    volume = make_tubules(SHAPE)
    assert set(np.unique(volume.truth)) == set(CLASS_NAMES)
    lumen, wall, tissue = (volume.truth == i for i in (3, 2, 1))
    shares = [float(part.mean()) for part in (lumen, wall)]
    assert 0.02 < shares[0] < shares[1] < 0.5
    # tubes end at the border of the organ, where lumen is open; elsewhere wall is around it
    around = ndimage.binary_dilation(lumen) & ~lumen
    assert (wall & around).sum() > 0.9 * around.sum()
    top = slice(0, 10)
    means = [float(volume.image[top][part[top]].mean()) for part in (lumen, wall, tissue)]
    assert means[1] > 2 * max(means[0], means[2])


def test_deeper_is_darker_and_softer() -> None:
    volume = make_tubules(SHAPE)
    wall = volume.truth == 2
    top, bottom = (float(volume.image[z][wall[z]].mean()) for z in (slice(0, 8), slice(-8, None)))
    assert bottom < 0.75 * top


def test_painted_slices_are_the_truth_there() -> None:
    volume = make_tubules(SHAPE)
    painted = volume.painted()
    left = np.ones(SHAPE, bool)
    for axis, place in PAINTED_PLANES:
        plane = (slice(None),) * axis + (round(place * (SHAPE[axis] - 1)),)
        np.testing.assert_array_equal(painted[plane], volume.truth[plane])
        left[plane] = False
    assert not painted[left].any()
