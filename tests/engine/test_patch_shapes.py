from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.patch_shapes import patch_shapes


def test_slabs_are_thin_along_the_slices_axis() -> None:
    assert patch_shapes((8, 8, 8), 8 * 64 * 64, (4, 4, 4), (160, 232, 160)) == {
        0: (8, 64, 64),
        1: (64, 8, 64),
        2: (64, 64, 8),
        None: (32, 32, 32),
    }


def test_slabs_of_a_flat_volume_grow_in_the_plane() -> None:
    shapes = patch_shapes((8, 8, 8), 8 * 96 * 96, (4, 8, 8), (20, 512, 512))

    assert shapes[0] == (8, 96, 96)
    assert shapes[1] == (20, 8, 464)  # 96 x 96 = 9216 <= 20 x 464 = 9280
    assert shapes[2] == (20, 464, 8)
    assert shapes[None] == (20, 64, 64)  # 8 x 96 x 96 = 73728 <= 81920, and 20 x 56 x 64 = 71680 is less


def test_slabs_of_a_small_volume_grow_thicker_and_end_at_its_border() -> None:
    shapes = patch_shapes((8, 8, 8), 8 * 64 * 64, (4, 4, 4), (30, 41, 100))

    assert shapes[0] == (8, 44, 96)
    assert patch_shapes((8, 8, 8), 8 * 64 * 64, (4, 4, 4), (30, 21, 30))[0] == (32, 24, 32)
    assert patch_shapes((8, 8, 8), 8 * 64 * 64, (4, 4, 4), (3, 3, 3)) == dict.fromkeys((0, 1, 2, None), (4, 4, 4))


@given(
    slab=st.tuples(st.integers(1, 16), st.integers(16, 64)),
    stride=st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3),
    extent=st.tuples(*[st.integers(1, 100)] * 3),
)
def test_shapes_are_multiples_within_the_volume_of_about_equal_count(
    slab: tuple[int, int], stride: tuple[int, int, int], extent: tuple[int, int, int]
) -> None:
    target = slab[0] * slab[1] ** 2
    limits = [-(-n // step) * step for n, step in zip(extent, stride, strict=True)]
    for size in patch_shapes((slab[0], slab[0], slab[0]), target, stride, extent).values():
        assert all(n % step == 0 and 0 < n <= limit for n, step, limit in zip(size, stride, limits, strict=True))
        assert np.prod(size) >= target or list(size) == limits


def test_thickness_is_chosen_for_each_axis() -> None:
    shapes = patch_shapes((1, 12, 12), 12 * 80 * 80, (1, 4, 4), (20, 512, 512))

    assert shapes[0] == (1, 280, 280)  # the root of 76800 is 277
    assert shapes[1] == (20, 12, 320)
