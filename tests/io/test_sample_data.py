"""The sample volumes as layers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_unet3d.demo import tubules as generated
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.io.layer_geometry import GEOMETRY_KEY
from napari_unet3d.io.sample_data import head, tubules


def layers(found: list[Any]) -> list[Any]:
    return [{"image": Image, "labels": Labels}[kind](data, **meta) for data, meta, kind in found]


def check_annotation(image: Any, annotation: Any, names: dict[int, str]) -> None:
    for attribute in ("scale", "translate", "units", "axis_labels"):
        assert list(getattr(annotation, attribute)) == list(getattr(image, attribute))
    assert annotation.metadata[GEOMETRY_KEY]["unit"] == image.metadata[GEOMETRY_KEY]["unit"]
    assert dict(zip(annotation.features["index"], annotation.features["class"], strict=True)) == names
    assert set(np.unique(annotation.data)) == {0, *names}
    assert annotation.data.dtype == np.uint8
    assert 0 < (annotation.data > 0).mean() < 0.1
    np.testing.assert_allclose(annotation.colormap.map(0), 0)
    colours = [tuple(annotation.colormap.map(i)) for i in names]
    assert len(set(colours)) == len(names)
    annotation.paint((1, 1, 1), 2)


def test_head() -> None:
    pytest.importorskip("nilearn")
    image, annotation = layers(head())
    assert (image.name, annotation.name) == ("head", "head annotation")
    np.testing.assert_array_equal(image.scale, (1, 1, 1))
    assert [str(unit) for unit in image.units] == ["millimeter"] * 3
    check_annotation(image, annotation, {1: "background", 2: "grey matter", 3: "white matter"})
    # the left half: x of the first voxel is left of x = 0, and the last lies at the midline, in mm
    affine = image.metadata[GEOMETRY_KEY]["affine"]
    assert affine[2, 3] < -50
    np.testing.assert_allclose((affine @ (0, 0, image.data.shape[2] - 1, 1))[2], 0, atol=1)


def test_head_without_nilearn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(UNet3dError, match=r'pip install "napari-unet3d\[demo\]"'):
        head()


def test_tubules(monkeypatch: pytest.MonkeyPatch) -> None:
    make = generated.make_tubules
    monkeypatch.setattr(generated, "make_tubules", lambda: make((32, 96, 96)))
    image, truth, annotation = layers(tubules())
    assert [layer.name for layer in (image, truth, annotation)] == ["tubules", "tubules truth", "tubules annotation"]
    assert [layer.visible for layer in (image, truth, annotation)] == [True, False, True]
    np.testing.assert_allclose(image.scale, (1.76, 0.88, 0.88))
    assert [str(unit) for unit in image.units] == ["micrometer"] * 3
    assert set(np.unique(truth.data)) == {1, 2, 3}
    check_annotation(image, annotation, {1: "background", 2: "tubule wall", 3: "lumen"})
