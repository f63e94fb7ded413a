"""Strokes that are kept: nothing is lost, whatever happens to a file or the disk."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io import annotation_file
from napari_unet3d.io.annotation_file import pack_annotation, read_annotation
from napari_unet3d.io.autosave import AutosaveFolder, default_base

CLASSES = default_classes([1, 2, 300])
IMAGE = np.random.default_rng(0).integers(0, 255, (9, 300, 400)).astype(np.uint8)
STROKES = np.zeros((9, 300, 400), np.uint8)
STROKES[4, 100:120, 50:200] = 2
STROKES[:, 7, :] = 1


class Counting:
    """A lazy array that counts the bytes read from it."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.bytes = 0

    def __getitem__(self, index: Any) -> Any:
        part = self._array[index]
        self.bytes += part.nbytes
        return part


def folder(base: Path, image: Any = IMAGE, path: Any = "/data/kidney 1.tif") -> AutosaveFolder:
    return AutosaveFolder.for_image(base, image, path)


def files(base: Path) -> list[str]:
    return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())


def test_round_trip(tmp_path: Path) -> None:
    saved = folder(tmp_path)
    assert not saved.exists
    assert saved.describe() == "nothing saved"
    assert files(tmp_path) == []  # asking writes nothing
    saved.save_annotation(STROKES, CLASSES, annotated_slices=2)
    again = folder(tmp_path)
    assert again.exists
    loaded = again.load_annotation()
    np.testing.assert_array_equal(loaded.labels, STROKES)
    assert loaded.labels.dtype == np.uint8
    assert loaded.classes == CLASSES
    assert loaded.warning is None
    assert saved.path.parent == tmp_path
    assert saved.path.name.startswith("kidney_1.tif-")
    assert sorted(os.listdir(saved.path)) == ["about.json", "annotation.npz"]
    about = json.loads((saved.path / "about.json").read_text())
    assert (about["image"], about["path"]) == ("kidney 1.tif", str(Path("/data/kidney 1.tif").resolve()))
    assert about["annotated_voxels"] == int((STROKES > 0).sum())


@given(arrays(np.uint16, st.tuples(*[st.integers(0, 5)] * 3), elements=st.sampled_from([0, 1, 2, 300])))
def test_any_labels_come_back(tmp_path_factory: pytest.TempPathFactory, labels: Any) -> None:
    path = tmp_path_factory.mktemp("a") / "a.npz"
    content, voxels = pack_annotation(labels, CLASSES)
    path.write_bytes(content)
    loaded, _ = read_annotation(path)
    np.testing.assert_array_equal(loaded, labels)
    assert loaded.shape == labels.shape
    assert voxels == np.count_nonzero(labels)


def test_lazy_and_signed_labels_in_slabs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(annotation_file, "_SLAB_VOXELS", 2 * 300 * 400)
    (tmp_path / "a.npz").write_bytes(pack_annotation(Counting(STROKES.astype(np.int32)), CLASSES)[0])
    np.testing.assert_array_equal(read_annotation(tmp_path / "a.npz")[0], STROKES)


def test_painted_slices_of_a_large_volume_are_a_small_file() -> None:
    labels = np.zeros((256, 256, 256), np.uint8)
    for axis, index in ((0, 30), (1, 100), (2, 200)):
        labels[(slice(None),) * axis + (index,)] = 1
    assert len(pack_annotation(labels, CLASSES)[0]) < 500_000


@pytest.mark.parametrize("labels", [STROKES.astype(np.float32), np.full((2, 2), -1), np.full((2, 2), 65536)])
def test_what_are_no_labels(tmp_path: Path, labels: Any) -> None:
    saved = folder(tmp_path)
    with pytest.raises(DataError, match="annotation holds"):
        saved.save_annotation(labels, CLASSES)
    assert not saved.exists


def test_key(tmp_path: Path) -> None:
    key = folder(tmp_path).path
    assert folder(tmp_path).path == key
    assert folder(tmp_path, Volume.from_array(IMAGE)).path == key  # C Z Y X
    assert folder(tmp_path, IMAGE.astype(">u1")).path == key
    other = IMAGE.copy()
    other[4, 150, 200] ^= 1  # the middle of the middle plane
    different = [
        folder(tmp_path, path="/data/other.tif").path,
        folder(tmp_path, path=None).path,
        folder(tmp_path, IMAGE[:8]).path,
        folder(tmp_path, IMAGE.astype(np.uint16)).path,
        folder(tmp_path, other).path,
    ]
    assert len({key, *different}) == 6


@pytest.mark.parametrize("shape", [(3, 4), (1, 1, 1), (600, 700), (2, 3, 40, 500, 500)])
def test_key_of_any_shape_reads_little(tmp_path: Path, shape: tuple[int, ...]) -> None:
    lazy = Counting(np.broadcast_to(np.zeros((), np.float64), shape))
    folder(tmp_path, lazy)
    assert 0 < lazy.bytes < 1_000_000


def test_key_of_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    class Broken(Counting):
        def __getitem__(self, index: Any) -> Any:
            raise OSError("bad block")

    with pytest.raises(FileError, match=r"kidney 1\.tif cannot be read"):
        folder(tmp_path, Broken(IMAGE))


def test_describe(tmp_path: Path) -> None:
    saved = folder(tmp_path)
    for slices, start in ((142, "142 annotated slices"), (1, "1 annotated slice"), (None, "6,600 annotated voxels")):
        saved.save_annotation(STROKES, CLASSES, annotated_slices=slices)
        about = json.loads((saved.path / "about.json").read_text())
        about["saved"] = "2026-11-21T10:12:33"
        (saved.path / "about.json").write_text(json.dumps(about))
        assert saved.describe() == f"{start}, saved 2026-11-21 10:12"
    for damage in ("", "[1]", '{"saved": 3, "annotated_slices": "x"}'):
        (saved.path / "about.json").write_text(damage)
        assert saved.describe().startswith("annotation, saved 20")


def test_recipe_and_model_path(tmp_path: Path) -> None:
    saved = folder(tmp_path)
    assert saved.load_recipe() is None
    saved.save_recipe("train:\n  steps: 3  # µ\n")
    assert folder(tmp_path).load_recipe() == "train:\n  steps: 3  # µ\n"
    assert saved.model_path == saved.make() / "model.safetensors"
    assert not saved.exists  # no strokes


def test_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: str(tmp_path / "user"))
    assert default_base() == tmp_path / "user" / "autosave"
    for base in (None, "", " "):
        assert AutosaveFolder.for_image(base, IMAGE, None, "my / image").path.parent == default_base()
    named = AutosaveFolder.for_image(tmp_path, IMAGE, None, "../ my / imäge").path
    assert named.parent == tmp_path
    assert named.name.startswith("my_im_ge-")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


def rewritten(path: Path, **changes: Any) -> None:
    with np.load(path) as content:
        arrays_ = dict(content)
    about = json.loads(arrays_["about"].tobytes()) | changes.pop("about", {})
    arrays_["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(path, **{**arrays_, **changes})


def pickled(path: Path) -> None:
    np.savez(path, about=np.array([{"format_version": 1}], dtype=object), ids=0, lengths=0)


def without_a_part(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", b"")


DAMAGES = [
    truncated,
    flipped,
    pickled,
    without_a_part,
    lambda path: path.write_bytes(b""),
    lambda path: rewritten(path, about={"shape": [9, 300, 401]}),
    lambda path: rewritten(path, about={"classes": [{"id": 0, "name": "x", "colour": "red"}]}),
    lambda path: rewritten(path, ids=np.array([1.5])),
    lambda path: rewritten(path, lengths=np.array([-1, 2])),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_one_line_and_stays(tmp_path: Path, damage: Any) -> None:
    saved = folder(tmp_path)
    saved.save_annotation(STROKES, CLASSES)
    damage(saved.path / "annotation.npz")
    before = (saved.path / "annotation.npz").read_bytes()
    with pytest.raises(FileError, match="cannot be read: the file is damaged") as caught:
        folder(tmp_path).load_annotation()
    assert "\n" not in str(caught.value)
    assert (saved.path / "annotation.npz").read_bytes() == before


@pytest.mark.parametrize("damage", DAMAGES[:3])
def test_damaged_file_falls_back_to_the_session_before(tmp_path: Path, damage: Any) -> None:
    folder(tmp_path).save_annotation(STROKES, CLASSES)
    second = folder(tmp_path)
    second.save_annotation(STROKES * 0, CLASSES)
    second.save_annotation(STROKES // 2, CLASSES)
    damage(second.path / "annotation.npz")
    loaded = folder(tmp_path).load_annotation()
    np.testing.assert_array_equal(loaded.labels, STROKES)
    assert loaded.warning is not None
    assert "the strokes of the session before are used, from 20" in loaded.warning
    # the next session does not put the damaged file in the place of the good one
    folder(tmp_path).save_annotation(STROKES // 2, CLASSES)
    np.testing.assert_array_equal(read_annotation(second.path / "annotation-earlier.npz")[0], STROKES)


def test_both_damaged(tmp_path: Path) -> None:
    folder(tmp_path).save_annotation(STROKES, CLASSES)
    saved = folder(tmp_path)
    saved.save_annotation(STROKES, CLASSES)
    for name in ("annotation.npz", "annotation-earlier.npz"):
        truncated(saved.path / name)
    with pytest.raises(FileError, match=r"annotation\.npz cannot be read"):
        folder(tmp_path).load_annotation()


def test_other_version_and_nothing_saved(tmp_path: Path) -> None:
    saved = folder(tmp_path)
    with pytest.raises(FileError, match="no strokes were saved"):
        saved.load_annotation()
    saved.save_annotation(STROKES, CLASSES)
    rewritten(saved.path / "annotation.npz", about={"format_version": 2})
    with pytest.raises(FileError, match="have format 2, needed is 1; update"):
        saved.load_annotation()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_full_disk_leaves_the_good_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    saved = folder(tmp_path)
    saved.save_annotation(STROKES, CLASSES)
    before = files(tmp_path)

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match="cannot be written"):
            saved.save_annotation(STROKES * 0, CLASSES)
    assert files(tmp_path) == before
    np.testing.assert_array_equal(saved.load_annotation().labels, STROKES)
    saved.save_annotation(STROKES // 2, CLASSES)  # there is room again
    np.testing.assert_array_equal(saved.load_annotation().labels, STROKES // 2)


def test_base_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(FileError, match="cannot be written"):
        folder(tmp_path / "taken").save_annotation(STROKES, CLASSES)


def test_two_programs_at_once(tmp_path: Path) -> None:
    first, second = folder(tmp_path), folder(tmp_path)
    for number in range(3):
        first.save_annotation(STROKES, CLASSES)
        second.save_annotation(STROKES // 2 + number, CLASSES)
    np.testing.assert_array_equal(folder(tmp_path).load_annotation().labels, STROKES // 2 + 2)
    assert sorted(os.listdir(first.path)) == ["about.json", "annotation-earlier.npz", "annotation.npz"]


def test_folder_removed_meanwhile(tmp_path: Path) -> None:
    saved = folder(tmp_path)
    saved.save_annotation(STROKES, CLASSES)
    for path in saved.path.iterdir():
        path.unlink()
    saved.path.rmdir()
    saved.save_annotation(STROKES, CLASSES)
    np.testing.assert_array_equal(saved.load_annotation().labels, STROKES)


def test_another_annotation_of_the_same_session_puts_the_one_before_aside(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.save_annotation(STROKES, CLASSES)
    kept.begin_another()
    kept.save_annotation(np.zeros_like(STROKES), CLASSES)
    (kept.path / "annotation.npz").unlink()
    np.testing.assert_array_equal(kept.load_annotation().labels, STROKES)


def test_the_model_of_the_run_before_is_put_aside(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.make()
    kept.put_model_aside()  # there is none: nothing happens
    assert not kept.model_paths
    kept.model_path.write_bytes(b"first")
    kept.put_model_aside()
    assert [path.read_bytes() for path in kept.model_paths] == [b"first"]
    kept.model_path.write_bytes(b"second")
    assert [path.read_bytes() for path in kept.model_paths] == [b"second", b"first"]
    kept.put_model_aside()
    assert [path.read_bytes() for path in kept.model_paths] == [b"second"]


def test_packed_annotation_is_unpacked(tmp_path: Path) -> None:
    labels, classes = annotation_file.unpack_annotation(pack_annotation(STROKES, CLASSES)[0])
    np.testing.assert_array_equal(labels, STROKES)
    assert classes == CLASSES
