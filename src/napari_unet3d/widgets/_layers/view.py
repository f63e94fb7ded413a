"""What the user looks at, and taking them to a slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.progress import Box
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari.components import ViewerModel


@dataclass(frozen=True)
class Plane:
    """One plane of the image: `index` along `axis` (0 = Z, 1 = Y, 2 = X) at time point `t`."""

    axis: int
    index: int
    t: int = 0


def is_3d(viewer: ViewerModel) -> bool:
    """Whether the viewer renders volumes."""
    return int(viewer.dims.ndisplay) == 3


def visible_plane(viewer: ViewerModel, choice: ImageChoice) -> Plane | None:
    """The plane of the image in view.

    None in the 3D view, where two axes other than spatial ones are shown, and where the sliders stand outside
    the image.
    """
    if is_3d(viewer):
        return None
    axes = choice.layer_axes
    shown = {axes[d] for d in _displayed(viewer, choice) if d >= 0}
    hidden = set("ZYX") - shown
    if len(shown) != 2 or len(hidden) != 1:
        return None
    letter = hidden.pop()
    position = _position(viewer, choice)
    index, t = position.get(letter, 0), position.get("T", 0)
    axis = "ZYX".index(letter)
    if not (0 <= index < choice.spatial_shape[axis] and 0 <= t < choice.time_points):
        return None
    return Plane(axis, index, t)


def go_to(viewer: ViewerModel, choice: ImageChoice, axis: int, index: int, t: int | None = None) -> None:
    """Show one plane of the image in the 2D view.

    The order of the axes changes only if `axis` is on the canvas now.

    Parameters
    ----------
    viewer, choice
        Where, and of which image.
    axis, index
        0 = Z, 1 = Y, 2 = X, and the plane along it; cut to what there is.
    t
        Time point; by default the present one.
    """
    axes = choice.layer_axes
    viewer.dims.ndisplay = 2
    offset = int(viewer.dims.ndim) - len(axes)
    world = {letter: offset + i for i, letter in enumerate(axes)}
    wanted = [world[letter] for i, letter in enumerate("ZYX") if i != axis and letter in world]
    if len(wanted) == 2 and set(viewer.dims.displayed) != set(wanted):
        wanted.sort()
        rest = [d for d in range(int(viewer.dims.ndim)) if d not in wanted]
        viewer.dims.order = (*rest, *wanted)

    target = _position(viewer, choice)
    target["ZYX"[axis]] = min(max(index, 0), choice.spatial_shape[axis] - 1)
    if t is not None:
        target["T"] = min(max(t, 0), choice.time_points - 1)
    point = np.asarray(choice.layer.data_to_world([target[letter] for letter in axes]))
    moved = [i for i, letter in enumerate(axes) if letter in ("ZYX"[axis], *("T" if t is not None else ""))]
    for i in moved:
        viewer.dims.set_point(offset + i, float(point[i]))


def bring_into_view(viewer: ViewerModel, choice: ImageChoice, place: tuple[int, int, int]) -> None:
    """Move the canvas, without zooming, so that a Z Y X voxel of the slice in view lies inside; nothing if it does."""
    box = box_in_view(viewer, choice)
    if all(part.start <= at < part.stop for part, at in zip(box, place, strict=True)):
        return
    at = _position(viewer, choice) | dict(zip("ZYX", place, strict=True))
    point = np.asarray(choice.layer.data_to_world([at[letter] for letter in choice.layer_axes]))
    displayed = _displayed(viewer, choice)
    if min(displayed) < 0:
        return
    camera = getattr(viewer, "scene", viewer).camera
    camera.center = (*tuple(camera.center)[:-2], *(float(point[d]) for d in displayed))


def box_in_view(viewer: ViewerModel, choice: ImageChoice, depth: int | None = None) -> Box:
    """The part of the image inside the canvas, in the 2D view; everything in the 3D view and before napari 0.9.

    Parameters
    ----------
    viewer, choice
        Where, and of which image.
    depth
        Planes along the sliced axis, around the one in view; None for all of them.

    Returns
    -------
    Box
        Z Y X, at least one voxel along each axis.
    """
    lengths = choice.spatial_shape
    parts = [slice(0, n) for n in lengths]
    plane = visible_plane(viewer, choice)
    if plane is None:
        return (parts[0], parts[1], parts[2])
    axes = choice.layer_axes
    corners = _canvas_corners(viewer, choice)
    if corners is None:
        return (parts[0], parts[1], parts[2])
    for axis, letter in enumerate("ZYX"):
        if axis == plane.axis:
            if depth is not None:
                first = min(max(plane.index - depth // 2, 0), max(lengths[axis] - depth, 0))
                parts[axis] = slice(first, min(first + max(depth, 1), lengths[axis]))
            continue
        along = corners[:, axes.index(letter)]
        first = min(max(int(np.floor(along.min() + 0.5)), 0), lengths[axis] - 1)
        stop = max(min(int(np.ceil(along.max() + 0.5)), lengths[axis]), first + 1)
        parts[axis] = slice(first, stop)
    return (parts[0], parts[1], parts[2])


def _displayed(viewer: ViewerModel, choice: ImageChoice) -> list[int]:
    """Axes of the image on the canvas, down and across; negative where the image has none."""
    offset = int(viewer.dims.ndim) - len(choice.layer_axes)
    return [int(d) - offset for d in viewer.dims.displayed]


def _position(viewer: ViewerModel, choice: ImageChoice) -> dict[str, int]:
    """Letter -> voxel index of the sliders."""
    at = np.asarray(choice.layer.world_to_data(viewer.dims.point))
    return {letter: int(np.floor(value + 0.5)) for letter, value in zip(choice.layer_axes, at, strict=True)}


def _canvas_corners(viewer: ViewerModel, choice: ImageChoice) -> NDArray[np.float64] | None:
    """Corners of the canvas as voxel positions of the image, one in each row; None before napari 0.9."""
    if not hasattr(viewer, "canvas"):
        return None
    height, width = (float(n) for n in viewer.canvas.viewbox_size(viewer.layers))
    camera = viewer.scene.camera
    zoom = float(camera.zoom)
    down, across = (int(d) for d in viewer.dims.displayed)
    centre = np.asarray(camera.center, dtype=np.float64)[-2:]
    corners = []
    for v in (-0.5, 0.5):
        for h in (-0.5, 0.5):
            point = np.array(viewer.dims.point, dtype=np.float64)
            point[down], point[across] = centre[0] + v * height / zoom, centre[1] + h * width / zoom
            corners.append(choice.layer.world_to_data(point))
    return np.asarray(corners, dtype=np.float64)
