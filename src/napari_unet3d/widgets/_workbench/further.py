"""Further painted volumes: layer pairs that are trained on beside the chosen image, or measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.widgets._layers.annotation import annotation_problem, spatial_view
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench


@dataclass(frozen=True, eq=False)
class FurtherVolume:
    """An image with a labels layer.

    Parameters
    ----------
    image
        The image, without a time axis.
    labels
        The labels layer, of the image's shape.
    is_measured
        Whether it is measured on, not trained on.
    """

    image: ImageChoice
    labels: Any
    is_measured: bool

    @property
    def key(self) -> str:
        """Equal for equal pairs of one use."""
        return f"{'/'.join(self.image.key)}+{self.labels.unique_id}{'!' if self.is_measured else ''}"

    def pair(self) -> tuple[Volume, NDArray[Any]]:
        """The image and Z Y X label ids, a view where the layer holds an array."""
        return self.image.volume(), spatial_view(self.labels, self.image)


class FurtherVolumes(QObject):
    """The list of further volumes; those to measure on come last. It follows layers that are removed.

    Parameters
    ----------
    bench
        Has the chosen image and annotation.
    """

    changed = Signal()

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self.entries: tuple[FurtherVolume, ...] = ()
        bench.viewer.layers.events.removed.connect(self._on_removed)

    def add(self, image_layer: Any, labels_layer: Any, *, is_measured: bool = False) -> str:
        """Put a pair into the list; gives the reason, with what to do, if that cannot be."""
        problem = self._problem(image_layer, labels_layer)
        if problem:
            return problem
        entry = FurtherVolume(choose_image([image_layer]), labels_layer, is_measured)
        self._set(sorted((*self.entries, entry), key=lambda entry: entry.is_measured))
        return ""

    def remove(self, index: int) -> None:
        """Take a pair out of the list."""
        self._set([entry for i, entry in enumerate(self.entries) if i != index])

    @property
    def measured_count(self) -> int:
        """How many volumes, the last ones, are measured on."""
        return sum(entry.is_measured for entry in self.entries)

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for equal lists."""
        return tuple(entry.key for entry in self.entries)

    def problem(self) -> str:
        """Why the list does not fit the chosen image (any more), with what to do; empty if it does."""
        main = self._bench.image
        for entry in self.entries:
            if main is not None and entry.image.channels != main.channels:
                return (
                    f"{entry.image.name!r} has {entry.image.channels} channels but {main.name!r} has {main.channels}; "
                    "take it out of the further volumes"
                )
        return ""

    def _problem(self, image_layer: Any, labels_layer: Any) -> str:
        if image_layer is None or labels_layer is None:
            return "choose an image layer and the labels layer painted on it"
        taken = [self._bench.annotation, *(entry.labels for entry in self.entries)]
        if any(labels_layer == layer for layer in taken):
            return f"{labels_layer.name!r} is used already; choose another labels layer"
        try:
            choice = choose_image([image_layer])
        except UNet3dError as error:
            return str(error)
        if choice.time_points > 1:
            return f"{choice.name!r} has a time axis; choose an image without one, or split it with napari"
        main = self._bench.image
        if main is not None and choice.channels != main.channels:
            return f"{choice.name!r} has {choice.channels} channels but {main.name!r} has {main.channels}"
        problem = annotation_problem(labels_layer, choice)
        if problem:
            return problem
        if not np.any(spatial_view(labels_layer, choice)):
            return f"{labels_layer.name!r} is empty; paint a few slices on it first"
        return ""

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        left = [e for e in self.entries if layer != e.labels and all(layer != own for own in e.image.layers)]
        if len(left) < len(self.entries):
            self._set(left)

    def _set(self, entries: list[FurtherVolume]) -> None:
        self.entries = tuple(entries)
        self.changed.emit()
