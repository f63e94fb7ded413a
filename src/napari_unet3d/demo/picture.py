"""The demo's picture: image, painted slices, prediction, truth, errors and uncertainty on three axes.

Each of the six views is laid out like an engineering drawing, in mm::

    z ┌──────────────┐ ┌──────┐
      │   sagittal   │ │ cor. │      sagittal and coronal share z,
      └──────────────┘ └──────┘      sagittal and axial share y,
    x ┌──────────────┐               coronal and axial show x
      │    axial     │  legend
      └──────────────┘
            y             x

matplotlib is imported by the functions that draw, so that its absence can be told in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.demo.head import AXIS_NAMES, CLASS_NAMES, Plane
from napari_unet3d.demo.report import COLOURS

Axes: TypeAlias = Any  # matplotlib ships no type hints that mypy accepts
Colours: TypeAlias = NDArray[np.float64]

_BACKGROUND, *_STRUCTURES = CLASS_NAMES
_INCHES: Final = 12.0
_DPI: Final = 150
_PAGE: Final = "#101216"
_INK: Final = "#f2f2f2"
_FAINT: Final = "#a7adb8"
_ERROR: Final = "#ff3b5c"
_GAP_MM: Final = 6.0
_SCALE_BAR_MM: Final = 50.0
_DASHES: Final = (0, (4, 3))
_CROSSING: Final = {"color": _INK, "linewidth": 0.7, "linestyle": _DASHES, "alpha": 0.8}


@dataclass(frozen=True, eq=False)
class PictureData:
    """What the picture shows; all arrays Z Y X, of one shape.

    Parameters
    ----------
    image
        Grey values.
    painted, prediction, truth
        Label ids; 0 in `painted` = not annotated.
    uncertainty
        0..1.
    affine
        4 x 4, from NIfTI (x, y, z, 1) indices to mm.
    planes
        The painted slices.
    iou
        Of each structure over voxels of no painted slice.
    """

    image: NDArray[Any]
    painted: NDArray[np.unsignedinteger]
    prediction: NDArray[np.unsignedinteger]
    truth: NDArray[np.unsignedinteger]
    uncertainty: NDArray[np.floating[Any]]
    affine: NDArray[np.float64]
    planes: Sequence[Plane]
    iou: Mapping[int, float]

    @property
    def edges(self) -> tuple[float, float, float]:
        """Z Y X voxel edges, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(z), float(y), float(x))

    def painted_along(self, axis: int) -> list[int]:
        """Indices of the painted slices of one axis."""
        return [index for plane_axis, index in self.planes if plane_axis == axis]

    def shown(self) -> tuple[int, int, int]:
        """Z Y X indices of the planes shown: halfway between the first two painted ones of each axis."""
        z, y, x = (sum(self.painted_along(axis)[:2]) // 2 for axis in range(3))
        return (z, y, x)

    def shown_painted(self) -> tuple[int, int, int]:
        """Z Y X indices of a painted plane of each axis: the middle one."""
        middle = [self.painted_along(axis) for axis in range(3)]
        z, y, x = (planes[len(planes) // 2] for planes in middle)
        return (z, y, x)

    def position(self, axis: int, index: int) -> float:
        """Coordinate of a plane along its axis, mm."""
        column = 2 - axis
        return float(self.affine[column, 3] + self.affine[column, column] * index)


# --- the picture ------------------------------------------------------------------------------------------


class _View(NamedTuple):
    """One of the six: colours (Z Y X 3), the planes shown, what stands in its empty corner."""

    title: str
    colours: Colours
    planes: tuple[int, int, int]
    legend: Callable[[Axes, PictureData], None]


def draw_picture(data: PictureData, path: Path) -> None:
    """Draw the six views as a PNG, 1800 px wide."""
    from matplotlib.figure import Figure

    z, y, x = (edge * length for edge, length in zip(data.edges, data.image.shape, strict=True))
    view_width, view_height = y + _GAP_MM + x, z + _GAP_MM + x
    title, border, between = 0.085 * view_height, 0.04 * view_width, 0.05 * view_width
    width = 2 * border + 3 * view_width + 2 * between
    height = 2 * border + 2 * (view_height + title) + between
    figure = Figure(figsize=(_INCHES, _INCHES * height / width), dpi=_DPI, facecolor=_PAGE)

    def place(left: float, bottom: float, w: float, h: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, w / width, h / height))

    for number, view in enumerate(_views(data)):
        row, column = divmod(number, 3)
        left = border + column * (view_width + between)
        bottom = height - border - (row + 1) * (view_height + title) - row * between
        figure.text(
            left / width,
            (bottom + view_height + 0.45 * title) / height,
            view.title,
            color=_INK,
            fontsize=13,
            weight="bold",
            va="center",
        )
        right, upper = left + y + _GAP_MM, bottom + x + _GAP_MM
        _show_plane(place(left, bottom, y, x), data, view, axis=0)
        _show_plane(place(right, upper, x, z), data, view, axis=1)
        _show_plane(place(left, upper, y, z), data, view, axis=2)
        legend = place(right, bottom, x, x)
        legend.set(xlim=(0, 1), ylim=(0, 1))
        legend.axis("off")
        view.legend(legend, data)
    figure.savefig(path, facecolor=_PAGE)


def _views(data: PictureData) -> tuple[_View, ...]:
    grey, shown = _grey(data.image), data.shown()
    wrong = _blended(grey * 0.6, data.prediction != data.truth, _ERROR, 0.95)
    painted = _overlaid(grey, data.painted, with_background=True)
    return (
        _View("Image", grey, shown, _image_legend),
        _View(f"What was painted: {len(data.planes)} slices", painted, data.shown_painted(), _painted_legend),
        _View("Uncertainty", _heat(data.uncertainty), shown, _uncertainty_legend),
        _View("Prediction", _overlaid(grey, data.prediction), shown, _score_legend),
        _View("Truth", _overlaid(grey, data.truth), shown, _class_legend),
        _View("Errors", wrong, shown, _error_legend),
    )


def _plane_of(values: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """One plane as rows (upwards) and columns (to the right) of its view; further axes stay."""
    plane: NDArray[Any] = values.take(index, axis=axis)
    return np.swapaxes(plane, 0, 1) if axis == 0 else plane  # axial: Y X -> X Y, to lie under the sagittal


def _show_plane(axes: Axes, data: PictureData, view: _View, axis: int) -> None:
    from matplotlib.patheffects import withStroke

    index = view.planes[axis]
    up, across = {0: (2, 1), 1: (0, 2), 2: (0, 1)}[axis]
    height, width = (data.edges[a] * data.image.shape[a] for a in (up, across))
    axes.imshow(
        np.clip(_plane_of(view.colours, axis, index), 0, 1),
        origin="lower",
        extent=(0, width, 0, height),
        interpolation="nearest",
    )
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(0, height))
    axes.spines[:].set_visible(False)
    mm = data.position(axis, index)
    at_bottom = axis == 0  # the corner that a head leaves free
    axes.text(
        2.5,
        2.5 if at_bottom else height - 2.5,
        f"{AXIS_NAMES[axis]}\n{'zyx'[axis]} = {'−' if mm < 0 else ''}{abs(mm):.0f} mm",
        color=_INK,
        fontsize=7.5,
        linespacing=1.25,
        va="bottom" if at_bottom else "top",
        path_effects=[withStroke(linewidth=2, foreground=_PAGE)],
    )
    if view.legend is _image_legend:  # where the painted slices of the two other axes cross this plane
        for painted in data.painted_along(across):
            axes.axvline((painted + 0.5) * data.edges[across], **_CROSSING)
        for painted in data.painted_along(up):
            axes.axhline((painted + 0.5) * data.edges[up], **_CROSSING)


# --- colours, Z Y X 3 in 0..1 -----------------------------------------------------------------------------


def _grey(image: NDArray[Any]) -> Colours:
    low, high = float(image.min()), float(np.percentile(image, 99.8))
    values = np.clip((image - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat(values[..., np.newaxis], 3, axis=-1)


def _blended(colours: Colours, where: NDArray[np.bool_], colour: str, opacity: float) -> Colours:
    from matplotlib.colors import to_rgb

    result = colours.copy()
    result[where] = (1 - opacity) * result[where] + opacity * np.array(to_rgb(colour))
    return result


def _overlaid(grey: Colours, labels: NDArray[np.unsignedinteger], with_background: bool = False) -> Colours:
    for label_id in _STRUCTURES:
        grey = _blended(grey, labels == label_id, COLOURS[label_id], 0.62)
    return _blended(grey, labels == _BACKGROUND, COLOURS[_BACKGROUND], 0.5) if with_background else grey


def _heat(values: NDArray[np.floating[Any]]) -> Colours:
    from matplotlib import colormaps

    return np.asarray(colormaps["magma"](np.asarray(values, dtype=np.float64))[..., :3])


# --- legends, drawn in the empty corner of each view, 0..1 both ways ---------------------------------------


def _image_legend(axes: Axes, data: PictureData) -> None:
    side = data.edges[2] * data.image.shape[2]  # of the corner, mm
    bar = min(_SCALE_BAR_MM, 10 * (side // 12))
    line = {"color": _INK, "solid_capstyle": "butt"}
    axes.plot([0.05, 0.05 + bar / side], [0.32, 0.32], linewidth=2.5, **line)
    axes.text(0.05, 0.26, f"{bar:.0f} mm", color=_INK, fontsize=8.5, va="top")
    axes.plot([0.05, 0.21], [0.62, 0.62], linewidth=1, linestyle=_DASHES, **line)
    axes.text(0.26, 0.62, "painted slice", color=_INK, fontsize=8.5, va="center")


def _painted_legend(axes: Axes, data: PictureData) -> None:
    _swatches(axes, CLASS_NAMES)


def _class_legend(axes: Axes, data: PictureData) -> None:
    _swatches(axes, {label_id: CLASS_NAMES[label_id] for label_id in _STRUCTURES})


def _score_legend(axes: Axes, data: PictureData) -> None:
    axes.text(0.05, 0.88, "IoU, unpainted", color=_FAINT, fontsize=8.5, va="center")
    _swatches(axes, {label_id: f"{iou:.3f}" for label_id, iou in data.iou.items()})


def _error_legend(axes: Axes, data: PictureData) -> None:
    unpainted = data.painted == 0
    brain = unpainted & ((data.truth != _BACKGROUND) | (data.prediction != _BACKGROUND))
    share = float((data.prediction != data.truth)[brain].mean()) if brain.any() else 0.0
    axes.text(0.05, 0.62, f"{share:.1%}", color=_ERROR, fontsize=15, weight="bold", va="center")
    text = "of unpainted grey\nand white matter"
    axes.text(0.05, 0.46, text, color=_FAINT, fontsize=8, va="top", linespacing=1.3)


def _uncertainty_legend(axes: Axes, data: PictureData) -> None:
    ramp = _heat(np.linspace(0, 1, 256))[np.newaxis]
    axes.imshow(ramp, extent=(0.05, 0.95, 0.5, 0.6), aspect="auto")
    axes.set(xlim=(0, 1), ylim=(0, 1))  # imshow moved them
    axes.text(0.05, 0.44, "0 sure", color=_INK, fontsize=8.5, va="top")
    axes.text(0.95, 0.44, "1 unsure", color=_INK, fontsize=8.5, va="top", ha="right")


def _swatches(axes: Axes, names: Mapping[int, str]) -> None:
    from matplotlib.patches import Rectangle

    for row, (label_id, name) in enumerate(names.items()):
        y = 0.64 - 0.2 * row
        axes.add_patch(Rectangle((0.05, y - 0.05), 0.12, 0.1, color=COLOURS[label_id]))
        axes.text(0.21, y, name, color=_INK, fontsize=8.5, va="center")
