"""Commands of napari's menus, its command palette and our keys. Each needs no dock to be open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari

    from napari_unet3d.widgets._workbench.bench import Workbench


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
    """Ask for a file and write the selected labels layer with its geometry and class names."""
    from napari.layers import Labels
    from napari.utils.notifications import show_warning

    from napari_unet3d.widgets._label_files import ask_label_file

    layer = viewer.layers.selection.active
    if not isinstance(layer, Labels):
        show_warning("select the labels layer to export")
        return
    path = ask_label_file(None, str(layer.name))
    if path is not None:
        bench = _bench(viewer)
        bench.export_labels(layer, path, background_as_zero=False)
        _tell(bench)


def complete_slice(viewer: napari.viewer.Viewer) -> None:
    """What is not annotated in the slice in view becomes background."""
    bench = _bench(viewer)
    bench.complete_slice()
    _tell(bench)


def copy_prediction(viewer: napari.viewer.Viewer) -> None:
    """Copy the predicted slice in view to where nothing is annotated."""
    bench = _bench(viewer)
    bench.copy_prediction()
    _tell(bench)


def next_slice(viewer: napari.viewer.Viewer) -> None:
    """Go to the next slice that is worth painting; the first time they are looked for."""
    bench = _bench(viewer)
    bench.suggesting.go_to_next()
    _tell(bench)


def show_or_hide_prediction(viewer: napari.viewer.Viewer) -> None:
    """Hide preview and prediction if one is seen, else show them."""
    bench = _bench(viewer)
    results = [
        layer
        for layer in (bench.training.preview_layer, bench.applying.result)
        if layer is not None and layer in viewer.layers
    ]
    is_seen = any(layer.visible for layer in results)
    for layer in results:
        layer.visible = not is_seen


def train(viewer: napari.viewer.Viewer) -> None:
    """Train on what is painted, or go on where training paused."""
    from napari_unet3d.widgets._session import Phase

    bench = _bench(viewer)
    if bench.session.phase is Phase.PAUSED:
        bench.training.resume()
    else:
        bench.training.start()
    _tell(bench)


def apply_model(viewer: napari.viewer.Viewer) -> None:
    """Predict the chosen image into a new labels layer."""
    from napari_unet3d.widgets._workbench.applying import ApplyOptions

    bench = _bench(viewer)
    bench.applying.start(ApplyOptions())
    _tell(bench)


def _bench(viewer: Any) -> Workbench:
    """The workbench of a viewer; where no image is chosen it takes the selected one, else the first."""
    from napari.layers import Image

    from napari_unet3d.widgets._workbench.bench import workbench_of

    bench = workbench_of(viewer)
    if not bench.image_layers:
        images = [layer for layer in viewer.layers if isinstance(layer, Image)]
        selected = [layer for layer in images if layer in viewer.layers.selection]
        if images:
            bench.choose_image((selected or images)[:1])
    return bench


def _tell(bench: Workbench) -> None:
    """Show a warning to who has no dock open; other sentences go to napari's status bar."""
    from napari.utils.notifications import show_warning

    session = bench.session
    if session.is_warning and session.message:
        show_warning(session.message)
    elif session.message:
        bench.viewer.status = session.message
