"""Layers that napari gets for files written with the libraries of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels

from napari_unet3d.engine.errors import DataError, FileError, UNet3dError
from napari_unet3d.io import npe2_readers
from napari_unet3d.io.layer_geometry import GEOMETRY_KEY
from napari_unet3d.io.npe2_readers import LayerData, get_nifti_reader, get_zarr_reader

# the type hints of these are too wide, or missing
nib: Any = nibabel
zr: Any = zarr

GREY = np.random.default_rng(0).integers(0, 1000, (4, 5, 6)).astype(np.int16)  # Z Y X
TURNED = np.array([[0, 0.3, 0, 10], [-0.2, 0, 0, 20], [0, 0, 0.9, -30], [0, 0, 0, 1]], float)


def save_nifti(path: Path, values: Any, affine: Any = TURNED, **header: Any) -> Path:
    picture = nib.Nifti1Image(values, affine)
    picture.header.set_xyzt_units(header.get("unit", "mm"), header.get("time_unit"))
    if "step" in header:
        picture.header["pixdim"][4] = header["step"]
    if "intent" in header:
        picture.header.set_intent(header["intent"])
    picture.to_filename(path)
    return path


def opened(path: Path | str | list[str]) -> list[LayerData]:
    path = str(path) if isinstance(path, Path) else path
    reader = get_nifti_reader(path) or get_zarr_reader(path)
    assert reader is not None
    return reader(path)


def only(path: Path) -> Any:
    ((data, meta, kind),) = opened(path)
    return {"image": Image, "labels": Labels}[kind](data, **meta)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_image(tmp_path: Path, suffix: str) -> None:
    layer = only(save_nifti(tmp_path / f"scan{suffix}", GREY.T))
    assert isinstance(layer, Image)
    np.testing.assert_array_equal(layer.data, GREY)
    assert layer.name == "scan"
    # the columns of the affine are as long as the voxel's edges, X Y Z
    np.testing.assert_allclose(layer.scale, (0.9, 0.3, 0.2))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    place = layer.metadata[GEOMETRY_KEY]
    np.testing.assert_allclose(place["affine"] @ (3, 2, 1, 1), (TURNED @ (1, 2, 3, 1))[[2, 1, 0, 3]], rtol=1e-6)
    assert place["source"]["header"][:4] == (348).to_bytes(4, "little")


def test_nifti_series_in_seconds(tmp_path: Path) -> None:
    series = np.stack([GREY, GREY + 1])
    path = save_nifti(tmp_path / "a.nii", series.T, unit="micron", time_unit="msec", step=1500)
    layer = only(path)
    np.testing.assert_array_equal(layer.data, series)
    np.testing.assert_allclose(layer.scale, (1.5, 0.9, 0.3, 0.2))
    assert [str(unit) for unit in layer.units] == ["second"] + ["micrometer"] * 3
    assert layer.axis_labels == ("t", "z", "y", "x")


def test_nifti_of_vectors_is_a_layer_for_each(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", np.stack([GREY, -GREY]).T[:, :, :, np.newaxis])
    layers = opened(path)
    assert [meta["name"] for _, meta, _ in layers] == ["a [0]", "a [1]"]
    np.testing.assert_array_equal(layers[1][0], -GREY)
    assert layers[1][1]["axis_labels"] == ("z", "y", "x")


def test_nifti_series_of_vectors(tmp_path: Path) -> None:
    values = np.arange(6 * 5 * 4 * 2 * 3, dtype=np.float32).reshape(6, 5, 4, 2, 3)  # X Y Z T C
    layers = opened(save_nifti(tmp_path / "a.nii", values))
    assert len(layers) == 3
    np.testing.assert_array_equal(layers[2][0], values[..., 2].T)
    assert layers[2][1]["axis_labels"] == ("t", "z", "y", "x")


def test_nifti_in_colour(tmp_path: Path) -> None:
    colours = np.zeros((6, 5, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 200
    layer = only(save_nifti(tmp_path / "a.nii", colours))
    assert layer.rgb
    assert layer.data.shape == (4, 5, 6, 3)
    assert (layer.data == (0, 200, 0)).all()


def test_nifti_plane_and_scaled_values(tmp_path: Path) -> None:
    layer = only(save_nifti(tmp_path / "a.nii", GREY[0].T, np.diag([0.5, 0.25, 3, 1])))
    assert layer.axis_labels == ("y", "x")
    np.testing.assert_allclose(layer.scale, (0.25, 0.5))
    picture = nib.Nifti1Image(GREY.T, np.eye(4))
    picture.header.set_slope_inter(0.5, -3)
    picture.to_filename(tmp_path / "b.nii")
    scaled = only(tmp_path / "b.nii")
    np.testing.assert_allclose(scaled.data, np.asarray(nib.load(tmp_path / "b.nii").dataobj).T)


def test_nifti_without_a_place(tmp_path: Path) -> None:
    picture = nib.Nifti1Image(GREY.T, None)
    picture.header.set_sform(np.zeros((4, 4)), 1)
    picture.to_filename(tmp_path / "a.nii", dtype=np.int16)
    layer = only(tmp_path / "a.nii")
    np.testing.assert_array_equal(layer.scale, (1, 1, 1))
    assert layer.metadata == {}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_nifti_of_few_ids_is_labels_one_can_paint_on(tmp_path: Path, dtype: Any) -> None:
    layer = only(save_nifti(tmp_path / "a.nii", (GREY % 5).astype(dtype).T))
    assert isinstance(layer, Labels)
    assert layer.data.dtype == np.uint8
    np.testing.assert_array_equal(layer.data, GREY % 5)
    layer.paint((1, 1, 1), 3)  # a memory map of the file would refuse
    np.testing.assert_allclose(layer.scale, (0.9, 0.3, 0.2))


@pytest.mark.parametrize(
    ("values", "intent", "kind"),
    [
        (GREY, "none", "image"),  # many values
        (GREY % 3 - 1, "none", "image"),  # a negative one
        (GREY * 0, "none", "image"),
        (GREY * 0, "label", "labels"),
        (GREY, "label", "labels"),
        ((GREY % 3).astype(np.float32), "none", "image"),
    ],
)
def test_what_counts_as_labels(tmp_path: Path, values: Any, intent: str, kind: str) -> None:
    assert opened(save_nifti(tmp_path / "a.nii", values.T, intent=intent))[0][2] == kind


def write_zarr(path: Path, version: int, axes: str, arrays: list[Any], scales: list[Any], **ome: Any) -> Path:
    """An OME-Zarr image as the specification has it."""
    kinds = {"t": {"type": "time", "unit": "millisecond"}, "c": {"type": "channel"}}
    multiscale = {
        "axes": [{"name": a, **kinds.get(a, {"type": "space", "unit": "micrometer"})} for a in axes],
        "datasets": [
            {
                "path": f"s{i}",
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(scale)},
                    {"type": "translation", "translation": [5.0 if a in "zyx" else 0.0 for a in axes]},
                ],
            }
            for i, scale in enumerate(scales)
        ],
    }
    if version == 2:
        attributes: dict[str, Any] = {"multiscales": [{"version": "0.4", **multiscale}], **ome}
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [multiscale], **ome}}
    group = zr.open_group(path, mode="w", zarr_format=version, attributes=attributes)
    for i, array in enumerate(arrays):
        group.create_array(f"s{i}", data=array)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_pyramid(tmp_path: Path, version: int) -> None:
    levels = [GREY, GREY[:, ::2, ::2]]
    path = write_zarr(tmp_path / "a.ome.zarr", version, "zyx", levels, [(2, 0.5, 0.25), (2, 1, 0.5)])
    layer = only(path)
    assert layer.name == "a"
    assert layer.multiscale
    for stored, level in zip(layer.data, levels, strict=True):
        np.testing.assert_array_equal(np.asarray(stored), level)
    np.testing.assert_allclose(layer.scale, (2, 0.5, 0.25))
    np.testing.assert_allclose(layer.translate, (5, 5, 5))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_channels_and_time(tmp_path: Path, version: int) -> None:
    values = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)
    shown = [{"label": "DAPI", "color": "0000FF", "window": {"start": 3, "end": 9}}, {"label": "GFP"}]
    path = write_zarr(
        tmp_path / "a.zarr", version, "tczyx", [values], [(40, 1, 2, 0.5, 0.25)], omero={"channels": shown}
    )
    layers = [Image(data, **meta) for data, meta, _ in opened(path)]
    assert [layer.name for layer in layers] == ["a DAPI", "a GFP", "a [2]"]
    for channel, layer in enumerate(layers):
        np.testing.assert_array_equal(np.asarray(layer.data), values[:, channel])
        assert layer.axis_labels == ("t", "z", "y", "x")
        np.testing.assert_allclose(layer.scale, (0.04, 2, 0.5, 0.25))
        np.testing.assert_allclose(layer.translate, (0, 5, 5, 5))
    assert layers[0].contrast_limits == [3, 9]
    np.testing.assert_allclose(layers[0].colormap.colors[-1], (0, 0, 1, 1))


def test_zarr_in_an_odd_order_of_axes(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", 3, "xyz", [GREY.T], [(0.25, 0.5, 2)])
    layer = only(path)
    np.testing.assert_array_equal(np.asarray(layer.data), GREY)
    np.testing.assert_allclose(layer.scale, (2, 0.5, 0.25))


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_label_groups_with_names_and_colours(tmp_path: Path, version: int) -> None:
    path = write_zarr(tmp_path / "a.zarr", version, "zyx", [GREY], [(2, 0.5, 0.25)])
    described = {
        "properties": [{"label-value": 2, "class": "nucleus"}],
        "colors": [{"label-value": 2, "rgba": [255, 0, 0, 128]}],
    }
    listed: Any = {"labels": ["cells", "../../elsewhere"]}
    zr.open_group(
        path / "labels", mode="w", zarr_format=version, attributes=listed if version == 2 else {"ome": listed}
    )
    label_path = path / "labels" / "cells"
    write_zarr(label_path, version, "zyx", [GREY % 3], [(2, 0.5, 0.25)], **{"image-label": described})
    image, labels = opened(path)
    assert (image[2], labels[2], labels[1]["name"]) == ("image", "labels", "cells")
    layer = Labels(labels[0], **labels[1])
    np.testing.assert_array_equal(layer.data, GREY % 3)
    assert list(layer.features["class"]) == ["nucleus"]
    np.testing.assert_allclose(layer.colormap.map(2), (1, 0, 0, 128 / 255), atol=1e-6)
    layer.paint((1, 1, 1), 2)


def test_large_label_images_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npe2_readers, "_LARGEST_EDITABLE", 10)
    ids = GREY % 3
    path = write_zarr(tmp_path / "a.zarr", 3, "zyx", [ids], [(1, 1, 1)], **{"image-label": {}})
    layer = only(path)
    layer.paint((1, 1, 1), 3)  # in memory: the file is opened for reading
    assert np.asarray(layer.data)[1, 1, 1] == 3
    np.testing.assert_array_equal(zr.open(path, mode="r")["s0"][:], ids)
    levels = [ids, ids[:, ::2, ::2]]
    path = write_zarr(tmp_path / "b.zarr", 3, "zyx", levels, [(1, 1, 1), (1, 2, 2)], **{"image-label": {}})
    layer = only(path)
    assert layer.multiscale
    assert not layer.editable


def test_plain_zarr_array(tmp_path: Path) -> None:
    zr.create_array(tmp_path / "a.zarr", data=GREY)
    layer = only(tmp_path / "a.zarr")
    np.testing.assert_array_equal(np.asarray(layer.data), GREY)
    assert (tuple(layer.scale), layer.metadata) == ((1, 1, 1), {})


def test_several_files_at_once_and_foreign_ones(tmp_path: Path) -> None:
    paths = [str(save_nifti(tmp_path / name, GREY.T)) for name in ("a.nii", "b.nii.gz")]
    assert [meta["name"] for _, meta, _ in opened(paths)] == ["a", "b"]
    assert get_nifti_reader([*paths, "c.tif"]) is None
    assert get_nifti_reader("a.zarr") is None
    assert get_zarr_reader("a.nii") is None
    # TIFF stays with napari's own reader
    assert get_nifti_reader("a.tif") is get_zarr_reader("a.tif") is None


def damaged(tmp_path: Path) -> Path:
    path = save_nifti(tmp_path / "a.nii.gz", GREY.T)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def not_one(tmp_path: Path) -> Path:
    (tmp_path / "a.nii").write_text("hello")
    return tmp_path / "a.nii"


def of_six_axes(tmp_path: Path) -> Path:
    return save_nifti(tmp_path / "a.nii", np.zeros((2, 2, 2, 1, 1, 2), np.uint8))


def no_zarr(tmp_path: Path) -> Path:
    (tmp_path / "a.zarr").mkdir()
    return tmp_path / "a.zarr"


def a_plate(tmp_path: Path) -> Path:
    zr.open_group(tmp_path / "a.zarr", mode="w", attributes={"ome": {"plate": {}}})
    return tmp_path / "a.zarr"


def labels_of_fractions(tmp_path: Path) -> Path:
    return write_zarr(tmp_path / "a.zarr", 3, "zyx", [GREY / 3], [(1, 1, 1)], **{"image-label": {}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (damaged, "is damaged"),
        (not_one, "cannot be read"),
        (of_six_axes, "cannot be shown"),
        (no_zarr, "holds no zarr"),
        (a_plate, "plate or well"),
        (labels_of_fractions, "need whole numbers"),
        (lambda folder: folder / "gone.nii", "does not exist"),
        (lambda folder: folder / "gone.zarr", "does not exist"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, make: Any, message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(UNet3dError, match=message) as caught:
        opened(path)
    assert isinstance(caught.value, FileError | DataError)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
