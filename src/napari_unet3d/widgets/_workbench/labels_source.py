"""A labels layer as plain values that outlive it: its ids in the order T Z Y X, where they lie, what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import LazyArray, Volume, checked_labels
from napari_unet3d.io.class_names import class_names
from napari_unet3d.io.layer_geometry import volume_of_layer, without_extra_axes
from napari_unet3d.io.layer_order import axis_order, in_order

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unet3d.io._stored import TimeAxis


@dataclass(frozen=True, eq=False)
class LabelsSource:
    """The voxels of a labels layer. Nothing is read before it is asked for, so that a worker may do it.

    Parameters
    ----------
    name
        Of the layer.
    array
        Y X or Z Y X, with `time` T in front.
    volume
        The place of the labels, as a volume of zeros.
    time
        The axis in front; None without.
    names
        Label id -> name of its class; empty where the layer has none.
    layer_shape, layer_order
        Shape of the layer's data, and its axes in the order single, T, Z, Y, X.
    geometry
        Keyword arguments that put a new layer with the result of `layer_data` exactly over this one.
    """

    name: str
    array: LazyArray
    volume: Volume
    time: TimeAxis | None
    names: Mapping[int, str]
    layer_shape: tuple[int, ...]
    layer_order: tuple[int, ...]
    geometry: Mapping[str, Any]

    @classmethod
    def of(cls, layer: Labels | None) -> LabelsSource:
        """What a layer holds at its finest level.

        Raises
        ------
        DataError
            If there is no layer, or it has axes that labels cannot have.
        """
        if layer is None:
            raise DataError("no labels layer is chosen; apply a model or open labels")
        data = layer.data[0] if layer.multiscale else layer.data
        geometry = {
            "scale": layer.scale,
            "translate": layer.translate,
            "rotate": layer.rotate,
            "shear": layer.shear,
            "affine": layer.affine.affine_matrix,
            "units": layer.units,
            "axis_labels": layer.axis_labels,
            "metadata": dict(layer.metadata),
        }
        array, meta = in_order(data, geometry)
        volume, time = volume_of_layer(array.shape, meta, repr(layer.name))
        return cls(
            name=str(layer.name),
            array=without_extra_axes(array, meta),
            volume=volume,
            time=time,
            names=class_names({"features": layer.features}),
            layer_shape=tuple(int(n) for n in data.shape),
            layer_order=axis_order(layer.ndim, layer.metadata),
            geometry=geometry,
        )

    @property
    def background_id(self) -> int:
        """The lowest named id; 0 where classes have no names, as in labels of other programs."""
        return min(self.names, default=0)

    @property
    def time_points(self) -> int:
        """Length of the time axis; 1 without one."""
        return 1 if self.time is None else self.time.length

    def read(self, t: int = 0) -> NDArray[np.unsignedinteger]:
        """Z Y X ids at one time point, uint8 or uint16; a copy.

        Raises
        ------
        DataError
            If an id is negative or above 65534.
        """
        part = np.asarray(self.array[t] if self.time is not None else self.array)
        return checked_labels(part if part.ndim == 3 else part[np.newaxis], repr(self.name))

    def layer_data(self, times: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Z Y X arrays, one for each time point, as one array with the axes of the layer."""
        shape = [self.layer_shape[axis] for axis in self.layer_order]
        return np.stack(times).reshape(shape).transpose(np.argsort(self.layer_order))
