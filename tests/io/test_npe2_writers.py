"""Labels layers saved as napari saves them, and laid over the image they were painted on, in every pair of formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image, Labels

from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.io.layer_geometry import GEOMETRY_KEY
from napari_unet3d.io.npe2_readers import get_nifti_reader, get_zarr_reader
from napari_unet3d.io.npe2_writers import write_nifti, write_ome_tiff, write_ome_zarr

# the type hints of these are too wide, or missing
nib: Any = nibabel
zr: Any = zarr

SHAPE = (4, 5, 6)
LABELS = (np.arange(4 * 5 * 6).reshape(SHAPE) % 4).astype(np.uint8)
GREY = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
# X Y Z: turned about Z, X mirrored, edges 0.2, 0.3, 0.9
TURNED = np.array([[0, 0.3, 0, 10], [-0.2, 0, 0, 20], [0, 0, 0.9, -30], [0, 0, 0, 1]], float)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.diag([0.2, 0.3, 0.9])
OBLIQUE[:3, 3] = (7, 8, 9)


def painted(image: Any, labels: Any = LABELS, **changes: Any) -> Labels:
    """A labels layer with the whole geometry of an image layer."""
    place = {
        "scale": image.scale,
        "translate": image.translate,
        "units": image.units,
        "axis_labels": image.axis_labels,
        "metadata": {key: image.metadata[key] for key in (GEOMETRY_KEY,) if key in image.metadata},
    }
    return Labels(labels, **{**place, **changes})


def save(writer: Any, path: Path, layer: Labels) -> Path:
    data, meta, _ = layer.as_layer_data_tuple()
    assert writer(str(path), data, meta) == [str(path)]
    return path


def nifti_layer(path: Path, affine: Any = TURNED, values: Any = GREY) -> Any:
    picture = nib.Nifti1Image(values.T, None)
    picture.header.set_xyzt_units("mm")
    picture.set_qform(affine, 1)
    picture.set_sform(affine, 4)
    picture.to_filename(path)
    return opened(path)


def zarr_layer(path: Path) -> Any:
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    steps = [{"type": "scale", "scale": [2.0, 0.5, 0.25]}, {"type": "translation", "translation": [10.0, 20.0, 30.0]}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    zr.open_group(path, mode="w", attributes={"ome": ome}).create_array("0", data=GREY)
    return opened(path)


def tiff_layer() -> Any:
    """As napari opens a TIFF, after the user took the voxel size over."""
    return Image(GREY, scale=(2, 0.5, 0.25), units=("um", "um", "um"), name="tiff")


def opened(path: Path) -> Any:
    reader = get_nifti_reader(str(path)) or get_zarr_reader(str(path))
    assert reader is not None
    ((data, meta, kind),) = reader(str(path))
    return {"image": Image, "labels": Labels}[kind](data, **meta)


def image_layer(kind: str, folder: Path) -> Any:
    if kind == "tiff":
        return tiff_layer()
    return zarr_layer(folder / "i.zarr") if kind == "zarr" else nifti_layer(folder / "i.nii.gz")


def tiff_edges(path: Path) -> tuple[list[float], str]:
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.ome_metadata is not None
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    return [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"], pixels["PhysicalSizeXUnit"]


def zarr_steps(path: Path) -> tuple[Any, str]:
    (multiscale,) = zr.open_group(path, mode="r").attrs["ome"]["multiscales"]
    return multiscale["datasets"][0]["coordinateTransformations"], multiscale["axes"][-1]["unit"]


EXPECTED: dict[str, tuple[list[float], str, str, str, list[float]]] = {
    "nifti": ([0.9, 0.3, 0.2], "mm", "millimeter", "mm", [0, 0, 0]),
    "zarr": ([2, 0.5, 0.25], "µm", "micrometer", "micron", [10, 20, 30]),
    "tiff": ([2, 0.5, 0.25], "µm", "micrometer", "micron", [0, 0, 0]),
}


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_ome_tiff_over_the_image(tmp_path: Path, kind: str) -> None:
    path = save(write_ome_tiff, tmp_path / "l.ome.tif", painted(image_layer(kind, tmp_path)))
    np.testing.assert_array_equal(tifffile.imread(path), LABELS)
    edges, unit = tiff_edges(path)
    np.testing.assert_allclose(edges, EXPECTED[kind][0], rtol=1e-6)
    assert unit == EXPECTED[kind][1]


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_ome_zarr_over_the_image(tmp_path: Path, kind: str) -> None:
    path = save(write_ome_zarr, tmp_path / "l.ome.zarr", painted(image_layer(kind, tmp_path)))
    np.testing.assert_array_equal(zr.open(path, mode="r")["0"][:], LABELS)
    steps, unit = zarr_steps(path)
    edges, _, name, _, origin = EXPECTED[kind]
    np.testing.assert_allclose(steps[0]["scale"], edges, rtol=1e-6)
    assert unit == name
    if any(origin):
        assert steps[1:] == [{"type": "translation", "translation": origin}]
    else:
        assert len(steps) == 1


@pytest.mark.parametrize("kind", list(EXPECTED))
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_over_the_image(tmp_path: Path, kind: str, suffix: str) -> None:
    path = save(write_nifti, tmp_path / f"l{suffix}", painted(image_layer(kind, tmp_path)))
    saved = nib.load(path)
    np.testing.assert_array_equal(np.asarray(saved.dataobj).T, LABELS)
    edges, _, _, unit, origin = EXPECTED[kind]
    assert saved.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(saved.header.get_zooms(), edges[::-1], rtol=1e-6)
    if kind == "nifti":
        image = nib.load(tmp_path / "i.nii.gz")
        for get in ("get_qform", "get_sform"):
            (affine, code), (wanted, wanted_code) = (getattr(x.header, get)(coded=True) for x in (saved, image))
            np.testing.assert_array_equal(affine, wanted)
            assert code == wanted_code
    else:
        expected = np.diag([*edges[::-1], 1.0])
        expected[:3, 3] = origin[::-1]
        np.testing.assert_allclose(saved.affine, expected, rtol=1e-6)


@pytest.mark.parametrize("affine", [TURNED, OBLIQUE])
def test_each_voxel_of_a_crop_keeps_its_place(tmp_path: Path, affine: Any) -> None:
    image = nifti_layer(tmp_path / "i.nii", affine)
    offset = np.array([1, 2, 3])
    crop = painted(image, LABELS[1:, 2:, 3:], translate=image.translate + offset * image.scale)
    saved = nib.load(save(write_nifti, tmp_path / "l.nii", crop))
    # voxel 0 of the crop is voxel (3, 2, 1), X Y Z, of the image
    np.testing.assert_allclose(saved.affine[:, 3], affine @ (3, 2, 1, 1), rtol=1e-5)
    np.testing.assert_allclose(saved.affine[:3, :3], affine[:3, :3], rtol=1e-5, atol=1e-6)


def test_labels_on_a_coarser_grid(tmp_path: Path) -> None:
    image = nifti_layer(tmp_path / "i.nii", OBLIQUE)
    scale = np.asarray(image.scale) * (1, 2, 2)
    coarse = painted(image, LABELS[:, :2, :3], scale=scale, translate=(scale - image.scale) / 2)
    saved = nib.load(save(write_nifti, tmp_path / "l.nii", coarse))
    np.testing.assert_allclose(saved.header.get_zooms(), (0.4, 0.6, 0.9), rtol=1e-6)
    # the middle of the first coarse voxel lies between four fine ones
    np.testing.assert_allclose(saved.affine[:, 3], OBLIQUE @ (0.5, 0.5, 0, 1), rtol=1e-5)


def test_a_corrected_voxel_size_counts(tmp_path: Path) -> None:
    layer = painted(nifti_layer(tmp_path / "i.nii"), scale=(900, 600, 200), units=("um", "um", "um"))
    saved = nib.load(save(write_nifti, tmp_path / "l.nii", layer))
    np.testing.assert_allclose(saved.header.get_zooms(), (0.2, 0.6, 0.9), rtol=1e-6)
    assert saved.header.get_xyzt_units()[0] == "mm"
    expected = TURNED.copy()
    expected[:, 1] *= 2
    np.testing.assert_allclose(saved.affine, expected, rtol=1e-5, atol=1e-6)


def test_rotation_shear_and_affine_of_a_layer(tmp_path: Path) -> None:
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    outer = np.diag([1.0, 1, 1, 1])
    outer[:3, 3] = (1, 2, 3)
    layer = Labels(
        LABELS, scale=(3, 2, 1), translate=(4, 5, 6), rotate=turn, shear=(0, 0, 0.5), affine=outer, units=("mm",) * 3
    )
    saved = nib.load(save(write_nifti, tmp_path / "l.nii", layer))
    for zyx in ((0, 0, 0), (1, 2, 3)):
        world = layer.data_to_world(zyx)  # what napari makes of it
        np.testing.assert_allclose((saved.affine @ (*zyx[::-1], 1))[:3][::-1], world, rtol=1e-5)


@pytest.mark.parametrize("writer", [write_ome_tiff, write_nifti, write_ome_zarr])
def test_time_series(tmp_path: Path, writer: Any) -> None:
    series = np.stack([LABELS, LABELS + 1])
    layer = Labels(series, scale=(2, 3, 2, 1), units=("minute", "um", "um", "um"), axis_labels=tuple("tzyx"))
    suffix = {write_ome_tiff: ".ome.tif", write_nifti: ".nii.gz", write_ome_zarr: ".ome.zarr"}[writer]
    path = save(writer, tmp_path / f"l{suffix}", layer)
    if writer is write_ome_tiff:
        np.testing.assert_array_equal(tifffile.imread(path), series)
        assert tiff_edges(path) == ([3, 2, 1], "µm")
        return
    again = opened(path)
    assert isinstance(again, Labels)
    np.testing.assert_array_equal(again.data, series)
    np.testing.assert_allclose(again.scale, (120, 3, 2, 1))
    assert [str(unit) for unit in again.units] == ["second"] + ["micrometer"] * 3


@pytest.mark.parametrize(
    ("shape", "labels", "saved"),
    [
        ((5, 6), "yx", (1, 5, 6)),
        ((3, 5, 6), "tyx", (3, 1, 5, 6)),
        ((1, 4, 5, 6), "czyx", (4, 5, 6)),
        ((2, 1, 4, 5, 6), "tczyx", (2, 4, 5, 6)),
        ((1, 4, 5, 6), "tzyx", (1, 4, 5, 6)),
        ((1, 5, 6), "zyx", (1, 5, 6)),
        ((1, 1, 4, 5, 6), None, (4, 5, 6)),
    ],
)
def test_axes(tmp_path: Path, shape: tuple[int, ...], labels: str | None, saved: tuple[int, ...]) -> None:
    values = (np.arange(np.prod(shape)).reshape(shape) % 7).astype(np.uint8)
    layer = Labels(values, axis_labels=tuple(labels) if labels else None)
    path = save(write_nifti, tmp_path / "l.nii", layer)
    stored = np.asarray(nib.load(path).dataobj).T
    np.testing.assert_array_equal(stored.reshape(saved), values.reshape(saved))
    path = save(write_ome_zarr, tmp_path / "l.ome.zarr", layer)
    assert zr.open(path, mode="r")["0"][:].size == values.size


@pytest.mark.parametrize(("shape", "labels"), [((2, 4, 5, 6), "czyx"), ((2, 2, 4, 5, 6), "tczyx"), ((5,), "x")])
def test_axes_that_labels_cannot_have(tmp_path: Path, shape: tuple[int, ...], labels: str) -> None:
    meta = {"axis_labels": tuple(labels), "name": "cells"}
    with pytest.raises(DataError, match=r"cells has shape .* labels need the axes"):
        write_ome_tiff(str(tmp_path / "l.ome.tif"), np.zeros(shape, np.uint8), meta)


def test_names_and_suffixes(tmp_path: Path) -> None:
    table = {"index": [0, 1, 2, 3], "class": ["not annotated", "background", "cell", None]}
    data, meta, _ = Labels(LABELS, features=table).as_layer_data_tuple()
    assert write_ome_tiff(str(tmp_path / "a"), data, meta) == [str(tmp_path / "a.ome.tif")]
    assert write_nifti(str(tmp_path / "a.v2"), data, meta) == [str(tmp_path / "a.v2.nii.gz")]
    assert write_ome_zarr(str(tmp_path / "a"), data, meta) == [str(tmp_path / "a.ome.zarr")]
    assert list(opened(tmp_path / "a.ome.zarr").features["class"]) == ["background", "cell"]
    again = opened(tmp_path / "a.v2.nii.gz")
    assert isinstance(again, Labels)
    assert list(again.features["index"]) == [1, 2]
    assert list(again.features["class"]) == ["background", "cell"]


def test_labels_without_a_size_stay_without(tmp_path: Path) -> None:
    path = save(write_ome_tiff, tmp_path / "l.ome.tif", Labels(LABELS))
    with tifffile.TiffFile(path) as file:
        assert "PhysicalSize" not in (file.ome_metadata or "")


def test_full_resolution_of_a_pyramid(tmp_path: Path) -> None:
    path = save(write_nifti, tmp_path / "l.nii", Labels([LABELS, LABELS[:, ::2, ::2]], multiscale=True))
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj).T, LABELS)


def test_labels_are_saved_over_their_own_file_but_never_over_the_image(tmp_path: Path) -> None:
    image = nifti_layer(tmp_path / "i.nii")
    before = (tmp_path / "i.nii").read_bytes()
    data, meta, _ = painted(image).as_layer_data_tuple()
    with pytest.raises(FileError, match="would replace the input"):
        write_nifti(str(tmp_path / "i.nii"), data, meta)
    assert (tmp_path / "i.nii").read_bytes() == before
    path = save(write_nifti, tmp_path / "l.nii", painted(image))
    again = opened(path)
    again.data[0, 0, 0] = 9
    save(write_nifti, path, again)
    assert np.asarray(nib.load(path).dataobj)[0, 0, 0] == 9
    np.testing.assert_allclose(nib.load(path).affine, TURNED, rtol=1e-6)
