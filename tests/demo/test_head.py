from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from napari_unet3d.demo.head import PAINTED_PER_AXIS, DemoVolume, load_head, write_image
from napari_unet3d.engine.errors import FileError, UNet3dError


@pytest.fixture(scope="module")
def head() -> DemoVolume:
    return load_head()


def load(path: Path) -> Any:
    return nibabel.load(path)  # without type hints


def template(name: str) -> Any:
    spec = importlib.util.find_spec("nilearn")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    return load(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")


def voxel_at(affine: np.ndarray, mm: tuple[float, float, float]) -> tuple[int, int, int]:
    x, y, z, _ = np.rint(np.linalg.inv(affine) @ [*mm, 1]).astype(int)
    return int(x), int(y), int(z)


@pytest.mark.parametrize("mm", [(-40, -20, 30), (0, 10, 5), (-12, 44, -10)])
def test_a_place_in_the_head_has_the_values_of_the_template(head: DemoVolume, mm: tuple[float, float, float]) -> None:
    x, y, z = voxel_at(head.affine, mm)
    grey, white = (template(name).dataobj[voxel_at(template(name).affine, mm)] / 255 for name in ("gm", "wm"))

    assert head.image[z, y, x] == template("t1").dataobj[voxel_at(template("t1").affine, mm)]
    assert head.truth[z, y, x] == 1 + np.argmax([1 - grey - white, grey, white])


def test_no_voxel_and_its_mirror_image_are_both_there(head: DemoVolume) -> None:
    x_mm = head.affine[0, 0] * np.arange(head.image.shape[2]) + head.affine[0, 3]

    assert len(set(np.abs(x_mm))) == len(x_mm)
    assert x_mm.max() == 0  # the midline, its own mirror image

    image = template("t1")
    values = np.asanyarray(image.dataobj)
    np.testing.assert_array_equal(values, values[::-1])  # why one half is all there is


def test_the_whole_left_half_of_the_brain_is_kept(head: DemoVolume) -> None:
    left = np.asanyarray(template("t1").dataobj)[:99]

    assert np.count_nonzero(head.image) == np.count_nonzero(left)
    assert head.image.size < left.size / 1.5


def test_painted_slices_divide_the_extent_evenly() -> None:
    image = np.zeros((20, 30, 14), np.uint8)
    image[4:13, 10:17, 1:8] = 9  # extents 4..12, 10..16, 1..7
    painted = DemoVolume(image, np.ones_like(image), np.eye(4)).painted_planes()

    assert painted == ((0, 6), (0, 8), (0, 10), (1, 12), (1, 14), (2, 3), (2, 5))


def test_painted_labels_are_the_truth_on_the_painted_slices_only(head: DemoVolume) -> None:
    labels = head.painted()
    on_slices = np.zeros(labels.shape, bool)
    for axis, index in head.painted_planes():
        np.moveaxis(on_slices, axis, 0)[index] = True

    np.testing.assert_array_equal(labels, np.where(on_slices, head.truth, 0))
    assert on_slices.mean() < 0.06
    assert len(head.painted_planes()) == sum(PAINTED_PER_AXIS)


def test_the_choice_of_slices_does_not_look_at_the_truth(head: DemoVolume) -> None:
    blank = DemoVolume(head.image, np.ones_like(head.truth), head.affine)

    assert blank.painted_planes() == head.painted_planes()


def test_the_written_image_is_seen_the_same_by_other_programs(head: DemoVolume, tmp_path: Path) -> None:
    write_image(tmp_path / "head.nii.gz", head)
    image = load(tmp_path / "head.nii.gz")

    assert image.get_data_dtype() == np.uint8
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(image.affine, head.affine)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), head.image.transpose(2, 1, 0))


def test_without_nilearn_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(UNet3dError, match=r'nilearn.*pip install "napari-unet3d\[demo\]"'):
        load_head()


def test_a_nilearn_without_the_template_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = ModuleSpec("nilearn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)

    with pytest.raises(FileError, match="lacks the head template"):
        load_head()
