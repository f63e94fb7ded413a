"""Every format is read back with the library of other programs, not with our own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io import ome_zarr, tiff
from napari_unet3d.io.files import open_output, read_volume, write_labels

# the type hints of these are too wide, or missing
nib: Any = nibabel
zr: Any = zarr

SHAPE = (5, 6, 7)
LABELS = (np.arange(5 * 6 * 7).reshape(SHAPE) % 4 + 1).astype(np.uint8)
SUFFIXES = [".nii", ".nii.gz", ".tif", ".ome.tif", ".zarr", ".ome.zarr", ".npy"]
SIZE = VoxelSize(0.5, 0.25, 0.125, "um")
AFFINE = np.array([[0.5, 0, 0, 10.0], [0, 0.25, 0, 20], [0, 0, 0.125, 30], [0, 0, 0, 1]])


def image(affine: Any = None, size: VoxelSize = SIZE) -> Volume:
    return Volume(np.zeros((1, *SHAPE), np.float32), size, affine=affine)


def stored_values(path: Path) -> Any:
    """Values in Z Y X (C Z Y X) order, read without our package."""
    if ".nii" in path.name:
        return np.asarray(nib.load(path).dataobj).T
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".zarr":
        return zr.open(path, mode="r")["0"][:]
    return np.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_in_every_format(tmp_path: Path, suffix: str, dtype: Any) -> None:
    path = tmp_path / f"a{suffix}"
    write_labels(path, LABELS.astype(dtype), image())
    values = stored_values(path)
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, LABELS)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_maps_in_every_format_block_by_block(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    maps = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    with open_output(path, SHAPE, np.float32, image(), channels=3) as output:
        for z in (slice(0, 2), slice(2, 5)):
            for x in (slice(0, 4), slice(4, 7)):
                output.write((z, slice(0, 6), x), maps[:, z, :, x])
    values = stored_values(path)
    assert values.dtype == np.float32
    if suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            assert file.is_imagej
            assert file.series[0].axes == "ZCYX"
        values = values.transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(values, maps)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_from_nifti_keeps_the_geometry_to_the_bit(tmp_path: Path, suffix: str, kind: Any) -> None:
    affine = np.array([[-1.1, 0.02, 0, 90.3], [0.02, 1.1, 0.1, -126], [0, -0.2, 2.2, -72.7], [0, 0, 0, 1]])
    source = kind(np.zeros((7, 6, 5), np.int16), None)
    source.header.set_sform(affine, "mni")
    source.header.set_qform(affine, "scanner", strip_shears=True)
    source.header.set_xyzt_units("micron", "sec")
    source.header["cal_max"] = 1000
    source.header.set_slope_inter(2, 1)
    source.to_filename(tmp_path / "image.nii")
    path = tmp_path / f"labels{suffix}"
    write_labels(path, LABELS, read_volume(tmp_path / "image.nii"))
    labels = nib.load(path)
    assert type(labels) is kind
    expected = nib.load(tmp_path / "image.nii").header
    for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        np.testing.assert_array_equal(labels.header[field], expected[field])
    for field in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        np.testing.assert_array_equal(labels.header[field], expected[field])
    np.testing.assert_array_equal(labels.header["pixdim"][:4], expected["pixdim"][:4])
    assert (labels.dataobj.slope, labels.dataobj.inter) == (1, 0)
    assert labels.header["cal_max"] == 0  # the window of the image would hide the ids
    assert labels.header.get_intent()[0] == "label"
    np.testing.assert_array_equal(np.asarray(labels.dataobj).T, LABELS)


def test_nifti_in_another_axis_order_is_written_in_that_order(tmp_path: Path) -> None:
    nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([0.5, 2, 3, 1])).to_filename(tmp_path / "i.nii")
    write_labels(tmp_path / "l.nii", LABELS, read_volume(tmp_path / "i.nii", axes="ZYX"))
    labels = nib.load(tmp_path / "l.nii")
    np.testing.assert_array_equal(np.asarray(labels.dataobj), LABELS)
    np.testing.assert_array_equal(labels.affine, np.diag([0.5, 2, 3, 1]))


def test_nifti_image_of_big_endian_and_two_dimensions(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    flat = nib.Nifti1Image(np.zeros((7, 6), np.uint8), np.eye(4), header)
    flat.to_filename(tmp_path / "i.nii")
    source = read_volume(tmp_path / "i.nii")
    write_labels(tmp_path / "l.nii", LABELS[:1].astype(np.uint16), source)
    labels = nib.load(tmp_path / "l.nii")
    assert labels.shape == (7, 6)
    np.testing.assert_array_equal(np.asarray(labels.dataobj).T, LABELS[0])
    with open_output(tmp_path / "p.nii", (1, 6, 7), np.float32, source, channels=2) as output:
        output.write((slice(0, 1), slice(0, 6), slice(0, 7)), np.ones((2, 1, 6, 7), np.float32))
    assert nib.load(tmp_path / "p.nii").shape == (7, 6, 1, 2)


@pytest.mark.parametrize(
    ("unit", "code", "factor"),
    [("um", "micron", 1), ("nm", "micron", 1e-3), ("mm", "mm", 1), ("cm", "mm", 10), ("pixel", "unknown", 1)],
)
def test_nifti_from_other_images(tmp_path: Path, unit: str, code: str, factor: float) -> None:
    path = tmp_path / "a.nii"
    write_labels(path, LABELS, image(AFFINE, VoxelSize(0.5, 0.25, 0.125, unit)))
    labels = nib.load(path)
    assert labels.header.get_xyzt_units()[0] == code
    np.testing.assert_allclose(labels.header.get_zooms(), np.array([0.125, 0.25, 0.5]) * factor)
    # voxel x=1, y=0, z=1
    np.testing.assert_allclose(labels.affine @ [1, 0, 1, 1], [30.125 * factor, 20 * factor, 10.5 * factor, 1])
    np.testing.assert_allclose(labels.get_qform(), labels.affine, atol=1e-6)


def test_nifti_without_affine_and_with_a_long_axis(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.nii", LABELS, image())
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").affine, np.diag([0.125, 0.25, 0.5, 1]))
    long = Volume(np.zeros((1, 1, 2, 40000), np.uint8))
    write_labels(tmp_path / "b.nii", np.ones((1, 2, 40000), np.uint8), long)
    assert nib.load(tmp_path / "b.nii").shape == (40000, 2, 1)


def test_imagej_calibration(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_labels(path, LABELS, image())
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["spacing"] == 0.5
        assert file.imagej_metadata["unit"] == "micron"
        assert file.series[0].axes == "ZYX"
        tags = file.pages.first.tags
        assert tags["XResolution"].value == (8, 1)
        assert tags["YResolution"].value == (4, 1)
        assert tags["Compression"].value == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_tiff_from_nifti_carries_the_voxel_size(tmp_path: Path) -> None:
    nib.Nifti1Image(np.zeros((7, 6, 5)), np.diag([0.125, 0.25, 0.5, 1])).to_filename(tmp_path / "i.nii")
    write_labels(tmp_path / "a.tif", LABELS, read_volume(tmp_path / "i.nii"))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["spacing"], file.imagej_metadata["unit"]) == (0.5, "mm")
        assert file.pages.first.tags["XResolution"].value == (8, 1)


def test_ome_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_labels(path, LABELS, image())
    with tifffile.TiffFile(path) as file:
        assert file.ome_metadata is not None
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == [0.5, 0.25, 0.125]
    assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "ZYX"} == {"µm"}
    assert [pixels[f"Size{axis}"] for axis in "ZYX"] == [5, 6, 7]


def test_image_without_voxel_size_gives_a_file_without(tmp_path: Path) -> None:
    for name in ("a.tif", "a.ome.tif"):
        write_labels(tmp_path / name, LABELS, image(size=VoxelSize()))
        with tifffile.TiffFile(tmp_path / name) as file:
            assert "spacing" not in (file.imagej_metadata or {})
            assert "PhysicalSize" not in (file.ome_metadata or "")


def test_too_large_for_imagej_becomes_ome_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "_LARGEST_CLASSIC", 100)
    write_labels(tmp_path / "a.tif", LABELS, image())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
        assert file.is_ome
    assert read_volume(tmp_path / "a.tif").voxel_size == SIZE


def test_ome_zarr_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    write_labels(path, LABELS, image(AFFINE), class_names={2: "nucleus", 1: "background"})
    group = zr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3
    ome = group.attrs.asdict()["ome"]
    assert ome["version"] == "0.5"
    assert ome["image-label"]["properties"] == [
        {"label-value": 1, "name": "background"},
        {"label-value": 2, "name": "nucleus"},
    ]
    (multiscale,) = ome["multiscales"]
    assert multiscale["axes"] == [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    (dataset,) = multiscale["datasets"]
    assert dataset["coordinateTransformations"] == [
        {"type": "scale", "scale": [0.5, 0.25, 0.125]},
        {"type": "translation", "translation": [10.0, 20.0, 30.0]},
    ]
    assert group[dataset["path"]].metadata.dimension_names == ("z", "y", "x")


def test_ome_zarr_maps_and_rotated_images(tmp_path: Path) -> None:
    turned = AFFINE.copy()
    turned[:2, :2] = [[0, 0.25], [0.5, 0]]
    path = tmp_path / "a.zarr"
    with open_output(path, SHAPE, np.float32, image(turned), channels=2) as output:
        output.write((slice(0, 5), slice(0, 6), slice(0, 7)), np.ones((2, *SHAPE), np.float32))
    ome: Any = zr.open_group(path, mode="r").attrs["ome"]
    assert "image-label" not in ome
    assert ome["multiscales"][0]["axes"][0] == {"name": "c", "type": "channel"}
    (step,) = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert step == {"type": "scale", "scale": [1.0, 0.5, 0.25, 0.125]}


def test_ome_zarr_has_chunks_of_bounded_size(tmp_path: Path) -> None:
    array = ome_zarr.create_zarr(tmp_path / "a.zarr", (2, 300, 64, 1000), "f4", "CZYX", image())
    assert array.chunks == (1, 128, 64, 128)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_dimensional_image_gives_two_dimensional_labels(tmp_path: Path, suffix: str) -> None:
    flat = Volume.from_array(np.zeros((6, 7), np.uint8), VoxelSize(1, 2, 3, "um"))
    path = tmp_path / f"a{suffix}"
    write_labels(path, LABELS[:1], flat)
    values = stored_values(path)
    # NIfTI labels keep a Z axis of length 1, which every program reads
    np.testing.assert_array_equal(values, LABELS[:1] if ".nii" in suffix else LABELS[0])
    np.testing.assert_array_equal(read_volume(path).read()[0], LABELS[:1])


def test_stack_of_one_plane_stays_a_stack(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.zeros((1, 6, 7), np.uint8))
    write_labels(tmp_path / "l.npy", LABELS[:1], read_volume(tmp_path / "i.npy"))
    assert np.load(tmp_path / "l.npy").shape == (1, 6, 7)


def test_other_integer_types_and_wrong_shapes(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.npy", LABELS.astype(np.int64) + 300, image())
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), LABELS.astype(np.uint16) + 300)
    with pytest.raises(DataError, match="negative"):
        write_labels(tmp_path / "b.npy", LABELS.astype(np.int64) - 2, image())
    with pytest.raises(DataError, match=r"\(4, 6, 7\) but image has \(5, 6, 7\)"):
        write_labels(tmp_path / "b.npy", LABELS[1:], image())
    assert not (tmp_path / "b.npy").exists()


edges = st.floats(0.01, 100).map(lambda value: float(f"{value:.4g}"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.builds(VoxelSize, edges, edges, edges, st.sampled_from(["nm", "um", "mm"])),
    origin=st.tuples(*[st.floats(-1000, 1000)] * 3),
    suffix=st.sampled_from(SUFFIXES[:-1]),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
)
def test_geometry_survives_a_round_trip(
    tmp_path: Path, size: VoxelSize, origin: tuple[float, ...], suffix: str, shape: tuple[int, int, int]
) -> None:
    affine = np.diag([*size.zyx, 1.0])
    affine[:3, 3] = origin
    labels = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
    source = Volume(np.zeros((1, *shape), np.uint8), size, affine=affine)
    path = tmp_path / f"a{suffix}"
    write_labels(path, labels, source)
    volume = read_volume(path, axes="XYZ" if "nii" in suffix else None)
    np.testing.assert_array_equal(volume.read()[0], labels)
    planar = shape[0] == 1 and "tif" in suffix  # which tells nothing of Z
    np.testing.assert_allclose(volume.voxel_size.to(size.unit).zyx[planar:], size.zyx[planar:], rtol=1e-5)
    if volume.affine is not None:
        in_um = [edge.to("um").z / edge.z for edge in (volume.voxel_size, size)]
        np.testing.assert_allclose(volume.affine[:3] * in_um[0], affine[:3] * in_um[1], rtol=1e-5, atol=1e-9)
