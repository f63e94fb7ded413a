"""Whatever lies at a path, the answer is a volume or one line that names the path."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.io.files import read_volume

# the type hints of these are too wide, or missing
nib: Any = nibabel
zr: Any = zarr

ARRAY = np.random.default_rng(0).integers(0, 60000, (8, 20, 20), dtype=np.uint16)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.target),))


def good_file(path: Path) -> Path:
    if ".nii" in path.name:
        nib.Nifti1Image(ARRAY, np.eye(4)).to_filename(path)
    elif path.suffix == ".npy":
        np.save(path, ARRAY)
    else:
        options: dict[str, Any] = {"compression": "zlib"} if "zip" in path.name else {}
        tifffile.imwrite(path, ARRAY, photometric="minisblack", **options)
    return path


FILES = ["a.nii", "a.nii.gz", "a.tif", "zip.tif", "a.ome.tif", "a.npy"]


def refusal(path: Path) -> str:
    with pytest.raises(FileError) as caught:
        read_volume(path).read()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", [*FILES, "a.zarr"])
def test_missing(tmp_path: Path, name: str) -> None:
    assert "does not exist" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "is empty" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"hello", b"<html></html>" * 100, bytes(5000), b"\x89PNG\r\n\x1a\n" * 50])
def test_foreign(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "cannot be read" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.8, 0.95])
def test_truncated(tmp_path: Path, name: str, share: float, caplog: pytest.LogCaptureFixture) -> None:
    path = good_file(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with caplog.at_level(logging.DEBUG):
        assert "damaged" in refusal(path)
    assert not caplog.records


@pytest.mark.parametrize("name", FILES)
def test_folder_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert "is a folder" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_no_permission(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = good_file(tmp_path / name)

    def denied(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    # root may read everything, so the refusal of the system is played
    for module, function in ((nibabel, "load"), (tifffile, "TiffFile"), (np.lib.format, "open_memmap")):
        monkeypatch.setattr(module, function, denied)
    assert "permission denied" in refusal(path)


def test_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(tifffile, "TiffFile", too_large)
    assert "save it as .zarr" in refusal(good_file(tmp_path / "a.tif"))


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    assert ".ome.zarr" in refusal(tmp_path / "a.png")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    target = tmp_path / "made by a pickle"
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Trap(target)))
    refusal(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([Trap(target)], dtype=object), allow_pickle=True)
    refusal(tmp_path / "b.npy")
    assert not target.exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4), np.complex64), "complex"),
        (np.array([["a", "b"]]), "not numbers"),
        (np.float64(3), "shape"),
        (np.zeros(7), "shape"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        read_volume(tmp_path / "a.npy")


def test_zero_length_axis(tmp_path: Path) -> None:
    zr.create_array(tmp_path / "a.zarr", shape=(0, 3, 4), chunks=(1, 3, 4), dtype="u1")
    with pytest.raises(DataError, match=r"a\.zarr is empty"):
        read_volume(tmp_path / "a.zarr")


def damage_nothing(group: Path) -> None:
    (group / "zarr.json").unlink()


def damage_json(group: Path) -> None:
    (group / "zarr.json").write_text('{"zarr_format": 3, "node_')


def edit(group: Path, **ome: Any) -> None:
    metadata = json.loads((group / "zarr.json").read_text())
    metadata["attributes"] = {"ome": ome}
    (group / "zarr.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing, "holds no zarr array or image"),
        (damage_json, "cannot be read"),
        (lambda group: edit(group), "no OME-Zarr metadata"),
        (lambda group: edit(group, plate={}), "plate or well"),
        (lambda group: edit(group, multiscales=[]), "cannot be read"),
        (lambda group: edit(group, multiscales=[{"datasets": [{"path": "7"}]}]), "cannot be read"),
        (lambda group: edit(group, multiscales=[{"datasets": [{"path": "inner"}]}]), "is no array"),
    ],
)
def test_damaged_ome_zarr(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "a.ome.zarr"
    group = zr.open_group(path, mode="w")
    group.create_array("0", data=ARRAY)
    group.create_group("inner")
    damage(path)
    assert message in refusal(path)


def test_odd_zarr_places(tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_bytes(b"x")
    assert "is a file" in refusal(tmp_path / "file.zarr")
    zr.open_group(tmp_path / "empty.zarr", mode="w")
    assert "empty zarr group" in refusal(tmp_path / "empty.zarr")


def test_zero_scale_asks_for_a_voxel_size(tmp_path: Path) -> None:
    group = zr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=ARRAY)
    steps = [{"type": "scale", "scale": [0, 1, 1]}]
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    group.attrs["ome"] = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
    }
    with pytest.raises(DataError, match="--voxel-size"):
        read_volume(tmp_path / "a.zarr")
