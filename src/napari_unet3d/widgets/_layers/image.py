"""The image a user chose, and its voxels as the engine's volume, without reading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize, parse_unit
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.widgets._layers.axes import check_axes, data_shape, guess_axes, is_rgb
from napari_unet3d.widgets._layers.layer_array import as_czyx
from napari_unet3d.widgets._layers.world import world_matrix

if TYPE_CHECKING:
    from napari.layers import Image, Layer

GEOMETRY_KEY: Final = "napari_unet3d_geometry"
"""Of a layer's metadata: where our readers leave the true place of the voxels, and our writers look for it."""

_COLOURS: Final = 3


@dataclass(frozen=True, eq=False)
class ImageChoice:
    """One image layer, or several single-channel ones as channels.

    Parameters
    ----------
    layers
        At least one image layer; several need equal shape and geometry and no channel axis of their own.
    axes
        One letter of ``TCZYX`` for each axis of the (first) layer's data.
    told_size
        Voxel size that the layer's file tells, where the layer has none; None where nobody asked the file.

    Raises
    ------
    DataError
        If a layer is no image, holds no real numbers, is empty, or the layers do not fit together.
    ConfigError
        If `axes` do not fit.
    """

    layers: tuple[Image, ...]
    axes: str
    told_size: VoxelSize | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise DataError("no image is chosen; open an image and choose its layer")
        for layer in self.layers:
            _check_image(layer)
        check_axes(self.layers[0], self.axes)
        for layer in self.layers[1:]:
            self._check_channel(layer)
        _ = self.voxel_size

    def _check_channel(self, layer: Image) -> None:
        first = self.layers[0]
        if "C" in self.axes or is_rgb(layer):
            name = (first if "C" in self.axes else layer).name
            raise DataError(
                f"{name!r} has several channels already; to use several layers as channels, "
                "choose layers without a channel axis"
            )
        if data_shape(layer) != data_shape(first):
            raise DataError(
                f"{layer.name!r} has shape {data_shape(layer)} but {first.name!r} has {data_shape(first)}; "
                "layers used as channels need the same shape"
            )
        if layer.units != first.units or not np.allclose(world_matrix(layer), world_matrix(first), rtol=1e-5):
            raise DataError(
                f"{layer.name!r} lies elsewhere than {first.name!r}; layers used as channels need the same "
                "scale, translation, rotation and units"
            )

    @property
    def layer(self) -> Image:
        """The layer whose geometry counts: the first."""
        return self.layers[0]

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for equal choices: the layers' identities and the axes."""
        return (*(str(layer.unique_id) for layer in self.layers), self.axes)

    @property
    def name(self) -> str:
        """Names of the layers."""
        return " + ".join(str(layer.name) for layer in self.layers)

    @property
    def source_path(self) -> str | None:
        """File of the (first) layer; None for data that came from elsewhere."""
        path = self.layer.source.path
        return None if path is None else str(path)

    @cached_property
    def lengths(self) -> Mapping[str, int]:
        """Letter -> length of that axis of the data."""
        return dict(zip(self.axes, data_shape(self.layer), strict=True))

    @property
    def layer_axes(self) -> str:
        """Letters of the axes napari counts: those of the data without the colours of an RGB layer."""
        return self.axes[:-1] if is_rgb(self.layer) else self.axes

    @property
    def time_points(self) -> int:
        """Length of the T axis; 1 without one."""
        return self.lengths.get("T", 1)

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Z Y X; Z is 1 for a 2D image."""
        return (self.lengths.get("Z", 1), self.lengths["Y"], self.lengths["X"])

    @property
    def spatial_dims(self) -> int:
        """2 for a single plane, else 3."""
        return 2 if self.spatial_shape[0] == 1 else 3

    @property
    def channels(self) -> int:
        """Number of channels; the opacity of an RGBA image is none."""
        if len(self.layers) > 1:
            return len(self.layers)
        count = self.lengths.get("C", 1)
        return min(count, _COLOURS) if is_rgb(self.layer) else count

    @property
    def voxel_size(self) -> VoxelSize:
        """Edge lengths of a voxel: those of the layer, or what its file tells where the layer has none."""
        return self.told_size if self.told_size is not None and not self.has_voxel_size else self.layer_voxel_size

    @property
    def has_voxel_size(self) -> bool:
        """Whether the layer tells more than that a voxel is a voxel."""
        return self.layer_voxel_size != VoxelSize()

    @cached_property
    def layer_voxel_size(self) -> VoxelSize:
        """Edge lengths in world units; lengths of different units are brought to that of X.

        Without a Z axis the Z edge is that of X. Units that are no lengths count as pixels.

        Raises
        ------
        DataError
            If the layer is scaled by zero or a number that is not finite.
        """
        columns = [self.layer_axes.index(axis if axis in self.layer_axes else "X") for axis in "ZYX"]
        edges = np.linalg.norm(world_matrix(self.layer)[:-1, columns], axis=0)
        if not (np.isfinite(edges) & (edges > 0)).all():
            raise DataError(
                f"{self.name!r} has the scale {tuple(float(s) for s in self.layer.scale)}; voxel edges need positive "
                "finite numbers: set the layer's scale"
            )
        units = [_unit_name(self.layer.units[i]) for i in columns]
        if "pixel" in units:
            z, y, x = (float(edge) for edge in edges)
            return VoxelSize(z, y, x)
        z, y, x = (VoxelSize(1, 1, float(e), unit).to(units[-1]).x for e, unit in zip(edges, units, strict=True))
        return VoxelSize(z, y, x, units[-1])

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """4 x 4 from voxel indices Z Y X to the file's world, as in `Volume`.

        None where the file told none, or the layer was moved or rescaled since it was opened.
        """
        place = self._file_geometry()
        return None if place is None else np.asarray(place["affine"], dtype=np.float64).copy()

    @property
    def source(self) -> Mapping[str, Any]:
        """What a writer of the same format needs, as in `Volume`; empty where `affine` is None."""
        place = self._file_geometry()
        return {} if place is None else place["source"]

    def _file_geometry(self) -> Mapping[str, Any] | None:
        """What our readers left in the layer's metadata, if it still is true."""
        place = self.layer.metadata.get(GEOMETRY_KEY)
        if place is None or tuple(place["shape"]) != self.spatial_shape or "Z" not in self.axes:
            return None
        spatial = [self.layer_axes.index(axis) for axis in "ZYX"]
        shown = world_matrix(self.layer)[np.ix_([*spatial, -1], [*spatial, -1])]
        is_as_opened = self.voxel_size.unit == place["unit"] and np.allclose(shown, place["displayed"], rtol=1e-6)
        return place if is_as_opened else None

    def volume(self, t: int = 0) -> Volume:
        """The image at one time point; nothing is read.

        The finest level of a multiscale layer. The volume keeps the array, not the layer, so it may be read
        in another thread, and after the layer is gone.

        Raises
        ------
        DataError
            If there is no time point `t`.
        """
        if not 0 <= t < self.time_points:
            raise DataError(f"{self.name!r} has {self.time_points} time points; there is no number {t}")
        arrays = [layer.data[0] if layer.multiscale else layer.data for layer in self.layers]
        return Volume(
            as_czyx(arrays, self.axes, t, self.channels),
            self.voxel_size,
            affine=self.affine,
            spatial_dims=self.spatial_dims,
            name=self.name,
            source=self.source,
        )


def choose_image(layers: Sequence[Layer | None], axes: str | None = None) -> ImageChoice:
    """The image made of `layers`, with guessed axes unless they are given.

    Raises
    ------
    DataError, ConfigError
        As `ImageChoice` and `guess_axes`.
    """
    chosen = tuple(layer for layer in layers if layer is not None)
    if not chosen:
        raise DataError("no image is chosen; open an image and choose its layer")
    for layer in chosen:
        _check_image(layer)
    return ImageChoice(chosen, axes.upper() if axes else guess_axes(chosen[0]))


def _check_image(layer: Layer) -> None:
    from napari.layers import Image

    if not isinstance(layer, Image):
        raise DataError(f"{layer.name!r} is a {type(layer).__name__} layer; choose an image layer")
    dtype = np.dtype(layer.dtype)
    if dtype.kind == "c":
        raise DataError(f"{layer.name!r} is complex ({dtype}); open its magnitude or phase and choose that")
    if dtype.kind not in "biuf":
        raise DataError(f"{layer.name!r} holds {dtype}; an image needs real numbers")
    if 0 in data_shape(layer):
        raise DataError(f"{layer.name!r} is empty: its shape is {data_shape(layer)}; choose an image with voxels")


def _unit_name(unit: object) -> str:
    """Unit of a layer's axis as the engine calls it; pixel for what is no length."""
    try:
        return parse_unit(str(unit))
    except ConfigError:
        return "pixel"
