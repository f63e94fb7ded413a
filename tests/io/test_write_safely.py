from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile

from napari_unet3d.engine.errors import FileError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io import _paths, output
from napari_unet3d.io.files import (
    check_output,
    is_supported_output,
    open_output,
    read_labels,
    read_volume,
    write_labels,
)

nib: Any = nibabel  # its type hints are too wide, or missing

SHAPE = (3, 4, 5)
OLD = np.ones(SHAPE, np.uint8)
NEW = np.full(SHAPE, 2, np.uint8)
IMAGE = Volume(np.zeros((1, *SHAPE), np.uint8))
BOX = (slice(0, 3), slice(0, 4), slice(0, 5))
SUFFIXES = [".nii", ".nii.gz", ".tif", ".ome.tif", ".zarr", ".ome.zarr", ".npy"]


def write_and_interrupt(path: Path) -> None:
    with open_output(path, SHAPE, np.uint8, IMAGE) as writer:
        writer.write(BOX, NEW)
        raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_replaced_only_when_complete(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_labels(path, OLD, IMAGE)
    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(path)
    assert names(tmp_path) == [path.name]
    np.testing.assert_array_equal(read_labels(path, IMAGE)[0], OLD)
    write_labels(path, NEW, IMAGE)
    assert names(tmp_path) == [path.name]
    np.testing.assert_array_equal(read_labels(path, IMAGE)[0], NEW)
    with pytest.raises(FileError, match="exists already"):
        write_labels(path, OLD, IMAGE, overwrite=False)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["create", "finish"])
def test_full_disk_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, suffix: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    write_labels(path, OLD, IMAGE)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "finish":
        monkeypatch.setattr(output, "move_into_place", full)
    else:
        monkeypatch.setattr(output, "create_zarr" if "zarr" in suffix else "reserve", full)
    with pytest.raises(FileError, match=r"no space left.*a\.") as caught:
        write_labels(path, NEW, IMAGE)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == [path.name]
    monkeypatch.undo()
    np.testing.assert_array_equal(read_labels(path, IMAGE)[0], OLD)


def test_full_disk_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullArray:
        def __setitem__(self, index: Any, value: Any) -> None:
            raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(output, "create_zarr", lambda *arguments: FullArray())
    with pytest.raises(FileError, match="no space left"):
        write_labels(tmp_path / "a.zarr", NEW, IMAGE)
    assert names(tmp_path) == []


def test_space_is_claimed_with_and_without_the_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(b"head")
            file.truncate(1_000_000)
        if name == "b":
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
        _paths.reserve(path)
        content = path.read_bytes()
        assert content[:4] == b"head"
        assert content[4:] == bytes(999_996)
        if sys.platform == "linux":
            assert path.stat().st_blocks * 512 >= 1_000_000


def test_failing_swap_of_folders_brings_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    write_labels(path, OLD, IMAGE)
    replace = Path.replace

    def failing(self: Path, target: Any) -> Path:
        if ".tmp.zarr" in self.name:
            raise PermissionError(errno.EACCES, "denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(FileError, match="cannot be written"):
        write_labels(path, NEW, IMAGE)
    assert names(tmp_path) == ["a.zarr"]
    np.testing.assert_array_equal(read_labels(path, IMAGE)[0], OLD)


@pytest.mark.parametrize("inside", [False, True])
def test_image_is_never_replaced_by_its_labels(tmp_path: Path, inside: bool) -> None:
    write_labels(tmp_path / "a.zarr", OLD, IMAGE)
    volume = read_volume(tmp_path / "a.zarr" / "0" if inside else tmp_path / "a.zarr")
    with pytest.raises(FileError, match="would replace the input"):
        write_labels(tmp_path / "a.zarr", NEW, volume)
    np.save(tmp_path / "i.npy", OLD)
    (tmp_path / "link.npy").symlink_to(tmp_path / "i.npy")
    with pytest.raises(FileError, match="would replace the input"):
        check_output(tmp_path / "link.npy", inputs=[tmp_path / "i.npy"])


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.npy").symlink_to(tmp_path / "there" / "real.npy")
    write_labels(tmp_path / "link.npy", NEW, IMAGE)
    assert (tmp_path / "link.npy").is_symlink()
    np.testing.assert_array_equal(np.load(tmp_path / "there" / "real.npy"), NEW)


def test_check_makes_nothing(tmp_path: Path) -> None:
    assert check_output(tmp_path / "a.nii.gz") == tmp_path / "a.nii.gz"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "supported"),
    [
        ("a.nii", True),
        ("A.NII.GZ", True),
        ("a.ome.tiff", True),
        ("a.png", False),
        ("a.gz", False),
        ("nii", False),
    ],
)
def test_supported_suffixes(name: str, supported: bool) -> None:
    assert is_supported_output(name) == supported


def test_refused_outputs(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"known suffixes: \.nii\.gz, \.nii"):
        check_output(tmp_path / "a.png")
    with pytest.raises(FileError, match=r"folder .*missing does not exist"):
        check_output(tmp_path / "missing" / "a.nii")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(FileError, match="is a folder, but this format is a file"):
        check_output(tmp_path / "folder.nii")
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(FileError, match="is a file, but this format is a folder"):
        check_output(tmp_path / "file.zarr")
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("x")
    with pytest.raises(FileError, match="something else in it"):
        check_output(tmp_path / "mine.zarr")
    with pytest.raises(FileError, match=r"folder .*file\.zarr does not exist"):
        check_output(tmp_path / "file.zarr" / "a.nii")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder nobody can write to")
def test_unwritable_folder() -> None:
    with pytest.raises(FileError, match=r"/proc/self/a\.nii cannot be written"):
        check_output("/proc/self/a.nii")


def test_write_protected_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", OLD)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(FileError, match="write-protected"):
        check_output(tmp_path / "a.npy")


def test_same_labels_give_the_same_compressed_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, NEW, IMAGE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_wrong_block_type_is_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(TypeError), open_output(tmp_path / "a.tif", SHAPE, np.uint8, IMAGE) as writer:
        writer.write(BOX, np.zeros(SHAPE, np.float32))
    assert names(tmp_path) == []


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain.tif").touch()
    for name in ("a.tif", "a.nii.gz", "a.npy"):
        write_labels(tmp_path / name, NEW, IMAGE)
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain.tif").stat().st_mode
    assert tifffile.imread(tmp_path / "a.tif").shape == SHAPE
    assert nib.load(tmp_path / "a.nii.gz").shape == SHAPE[::-1]
