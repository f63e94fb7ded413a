"""The voxel size of the file behind a layer that has none of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.widgets._layers.image import ImageChoice
from napari_unet3d.widgets._layers.scaling import set_voxel_size
from napari_unet3d.widgets._workers import Ended, Job

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench


@dataclass(frozen=True)
class VoxelSizeTask:
    """A file to ask."""

    path: str

    def __call__(self, *_: Any) -> VoxelSize | None:
        """What it tells; None where it tells nothing."""
        from napari_unet3d.io.voxel_size import voxel_size_of_file

        return voxel_size_of_file(self.path)


class FileScale(QObject):
    """Asks the file; the layer is changed only if the user says so.

    Parameters
    ----------
    bench
        Has the image and the session.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._followed: Any = None
        self._is_setting = False

    def follow_image(self) -> None:
        """Another image may be chosen, or none."""
        image = self._bench.image
        if self._followed is not None:
            for event in (self._followed.events.scale, self._followed.events.units):
                event.disconnect(self._on_scaled)
        self._followed = None if image is None else image.layer
        self._show()
        if image is None:
            return
        image.layer.events.scale.connect(self._on_scaled)
        image.layer.events.units.connect(self._on_scaled)
        if image.has_voxel_size or image.source_path is None:
            return
        job = Job(VoxelSizeTask(image.source_path), self)

        def use(ended: Ended) -> None:
            job.deleteLater()
            self._use(image, ended.result)

        job.ended.connect(use)
        job.start()

    def set_on_layers(self) -> None:
        """Give the image's layers, and those that lie over it, the voxel size of the file."""
        bench, image = self._bench, self._bench.image
        if image is None or image.told_size is None:
            return
        over = (bench.annotation, bench.prediction, bench.training.preview_layer, bench.held_out_layer)
        self._is_setting = True
        set_voxel_size(image, [layer for layer in over if layer is not None])
        self._is_setting = False
        bench.choose_image(image.layers, bench.image_axes)

    def _use(self, image: ImageChoice, size: VoxelSize | None) -> None:
        bench = self._bench
        if size is None or size == VoxelSize() or bench.image is not image:
            return
        bench.image = replace(image, told_size=size)
        self._show()
        bench.layers_changed.emit()

    def _show(self) -> None:
        image = self._bench.image
        self._bench.session.voxel_size = None if image is None else image.voxel_size

    def _on_scaled(self, *_: Any) -> None:
        bench = self._bench
        if not self._is_setting and bench.image is not None:
            bench.choose_image(bench.image.layers, bench.image_axes)
