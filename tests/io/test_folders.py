"""Which files of a folder are images, and which belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_unet3d.engine.errors import FileError
from napari_unet3d.io.folders import images_in, is_plain_folder, matched, partner


def touched(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_images_in_the_order_of_their_numbers_without_results(tmp_path: Path) -> None:
    folder = touched(
        tmp_path / "in",
        *("a10.tif", "a9.tif", "a9_labels.tif", "b.nii.gz", "b_uncertainty.nii.gz", "c_labels.tif"),
        *(".hidden.tif", "notes.txt"),
    )
    (folder / "d.zarr").mkdir()
    assert [path.name for path in images_in(folder)] == ["a9.tif", "a10.tif", "b.nii.gz", "c_labels.tif", "d.zarr"]


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds no image; known suffixes: \.nii\.gz"):
        images_in(touched(tmp_path / "in", "notes.txt"))


def test_zarr_images_are_no_plain_folders(tmp_path: Path) -> None:
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)
    (touched(tmp_path / "odd") / "zarr.json").touch()
    assert [is_plain_folder(tmp_path / name) for name in (".", "a.zarr", "a.zarr/0", "odd", "none")] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_names_that_belong_together(tmp_path: Path) -> None:
    predictions = touched(tmp_path / "p", "x_labels.tif", "y.nii.gz", "z2_labels.tif", "z2_probabilities.tif")
    truths = touched(tmp_path / "t", "x.tif", "y_truth.nii", "w.tif")
    pairs, alone = matched(predictions, truths)
    assert [(a.name, b.name) for a, b in pairs] == [("x_labels.tif", "x.tif"), ("y.nii.gz", "y_truth.nii")]
    assert [path.name for path in alone] == ["z2_labels.tif", "w.tif"]
    assert partner(predictions / "y.nii.gz", truths) == truths / "y_truth.nii"
    assert partner(predictions / "z2_labels.tif", truths) is None


def test_names_that_fit_twice_or_never_are_told(tmp_path: Path) -> None:
    twice = touched(tmp_path / "p", "x.tif", "x_labels.tif")
    other = touched(tmp_path / "t", "q.tif")
    with pytest.raises(FileError, match=r"x.tif and x_labels.tif in .* could both be 'x'"):
        matched(twice, other)
    (twice / "x.tif").unlink()
    with pytest.raises(FileError, match=r"no file in .*t belongs to one in .*p, such as x_labels.tif"):
        matched(twice, other)
    with pytest.raises(FileError, match="holds no image"):
        matched(twice, touched(tmp_path / "empty"))
