"""Commands of napari's menus that need no dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari


def new_annotation_layer(viewer: napari.viewer.Viewer) -> None:
    """Add an annotation layer over the selected image layers, with the brush ready."""
    from napari.layers import Image
    from napari.utils.notifications import show_warning

    from napari_unet3d.widgets._workbench.bench import workbench_of

    bench = workbench_of(viewer)
    selected = [layer for layer in viewer.layers if layer in viewer.layers.selection and isinstance(layer, Image)]
    bench.choose_image(selected)
    if bench.image is None:
        show_warning(bench.image_problem)
        return
    bench.new_annotation()


def export_labels(viewer: napari.viewer.Viewer) -> None:
    """Ask for a file and write the selected labels layer with the geometry of its image."""
    from napari.utils.notifications import show_info, show_warning
    from qtpy.QtWidgets import QFileDialog

    from napari_unet3d.widgets._workbench.bench import workbench_of

    bench = workbench_of(viewer)
    layer = viewer.layers.selection.active
    if layer is None or bench.image is None:
        show_warning("choose the image in the Predict dock and select the labels layer to export")
        return
    filters = "OME-TIFF (*.ome.tif);;NIfTI (*.nii.gz);;NumPy (*.npy);;OME-Zarr (*.ome.zarr)"
    name, _ = QFileDialog.getSaveFileName(None, "Export labels", f"{layer.name}.ome.tif", filters)
    if name:
        bench.export_labels(layer, Path(name), background_as_zero=False)
        show_info(f"saving {name}")
