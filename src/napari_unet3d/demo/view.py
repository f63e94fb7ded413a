"""The results in napari: ``python -m napari_unet3d.demo.view FOLDER``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import napari
from napari.components import ViewerModel

from napari_unet3d.demo import files
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io.files import read_volume


def add_results(viewer: ViewerModel, folder: Path) -> None:
    """Add the image and all labels as layers that lie on each other, in mm.

    The prediction is on top; truth and uncertainty are there, hidden.
    """
    classes = json.loads((folder / files.FIGURES).read_text(encoding="utf-8"))["classes"]
    colours = {None: "transparent", 0: "transparent", **{entry["id"]: entry["colour"] for entry in classes}}
    colours[classes[0]["id"]] = "transparent"  # the background would hide the image
    image = read_volume(folder / files.IMAGE)
    viewer.add_image(image.read()[0], name="head", **_geometry(image))
    uncertainty = read_volume(folder / files.UNCERTAINTY)
    viewer.add_image(
        uncertainty.read()[0],
        name="uncertainty",
        colormap="magma",
        contrast_limits=(0, 1),
        blending="additive",
        visible=False,
        **_geometry(uncertainty),
    )
    for name, file, visible in (
        ("truth", files.TRUTH, False),
        ("prediction", files.LABELS, True),
        ("painted slices", files.PAINTED, True),
    ):
        labels = read_volume(folder / file)
        viewer.add_labels(
            labels.read()[0], name=name, opacity=0.5, visible=visible, colormap=colours, **_geometry(labels)
        )
    scene = getattr(viewer, "scene", viewer)  # napari before 0.9 has no scene
    scene.camera.orientation2d = ("up", "right")  # the front of the head, or its top, is up


def _geometry(volume: Volume) -> Mapping[str, Any]:
    return {
        "affine": volume.affine,
        "units": (volume.voxel_size.unit,) * 3,
        "axis_labels": ("z", "y", "x"),
    }


def main() -> None:
    """Show the folder named on the command line until the window is closed."""
    viewer = napari.Viewer(title="napari-unet3d: demo")
    add_results(viewer, Path(sys.argv[1]))
    viewer.scale_bar.visible = True
    napari.run()


if __name__ == "__main__":
    main()
