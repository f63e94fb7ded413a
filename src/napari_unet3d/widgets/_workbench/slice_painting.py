"""Whole slices of the annotation filled at once, each as one action that undo takes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_unet3d.widgets._layers.annotation import complete_slice, copy_slice, spatial_view
from napari_unet3d.widgets._layers.view import Plane, visible_plane

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench


class SlicePainting(QObject):
    """Paints into the slice in view.

    Parameters
    ----------
    bench
        Has viewer, image, annotation and predictions.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session

    def complete(self) -> None:
        """Paint what is not annotated as background."""
        bench, plane = self._bench, self._plane()
        if bench.image is None or plane is None:
            return
        count = complete_slice(
            bench.annotation,
            bench.image,
            plane.axis,
            plane.index,
            plane.t,
            background_id=self._session.classes[0].id,
            not_annotated=bench.check.not_annotated,
        )
        self._session.tell(f"{count} voxels of the slice are background now" if count else "the slice is complete")

    def copy_prediction(self) -> None:
        """Copy the prediction to where nothing is annotated."""
        bench, plane = self._bench, self._plane()
        if bench.image is None or plane is None:
            return
        source = bench.prediction if bench.prediction is not None else bench.training.preview_layer
        if source is None:
            self._session.tell("there is no prediction yet: train or apply first", warning=True)
            return
        labels = spatial_view(source, bench.image, plane.t).take(plane.index, axis=plane.axis)
        count = copy_slice(
            labels,
            bench.annotation,
            bench.image,
            plane.axis,
            plane.index,
            plane.t,
            not_annotated=bench.check.not_annotated,
        )
        self._session.tell(f"{count} voxels copied; correct them with the brush")

    def _plane(self) -> Plane | None:
        """The slice in view; None, with a sentence, without one."""
        bench, session = self._bench, self._session
        if bench.image is None or bench.annotation is None:
            session.tell("make an annotation layer first", warning=True)
            return None
        plane = visible_plane(bench.viewer, bench.image)
        if plane is None:
            session.tell("no slice of the image is in view: switch to 2D and move the slider there", warning=True)
        return plane
