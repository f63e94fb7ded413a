"""The demo's curves: loss and IoU during training, and IoU of each axial slice afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.demo.head import CLASS_NAMES
from napari_unet3d.demo.report import COLOURS
from napari_unet3d.engine.metrics import class_scores, confusion_matrix
from napari_unet3d.engine.trained_model import History

Axes: TypeAlias = Any  # matplotlib ships no type hints

_STRUCTURES: Final = list(CLASS_NAMES)[1:]
_INK: Final = "#22252b"
_FAINT: Final = "#8a909c"
_SMALLEST_SHARE: Final = 0.01
"""Slices where a structure has less than this share of its largest slice say nothing and are left out."""


def iou_per_slice(
    prediction: NDArray[np.unsignedinteger],
    truth: NDArray[np.unsignedinteger],
    painted: NDArray[np.unsignedinteger],
) -> Mapping[int, NDArray[np.float64]]:
    """IoU of each structure in each axial slice, over voxels that are not painted.

    Parameters
    ----------
    prediction, truth, painted
        Z Y X label ids of one shape; 0 in `painted` = not annotated.

    Returns
    -------
    Mapping
        From label id to one value for each Z index; NaN where a structure is (almost) absent or all is painted.
    """
    ids = list(CLASS_NAMES)
    unpainted = painted == 0
    result = {label_id: np.full(len(truth), math.nan) for label_id in _STRUCTURES}
    area = {label_id: np.count_nonzero((truth == label_id) & unpainted, axis=(1, 2)) for label_id in _STRUCTURES}
    for z in range(len(truth)):
        confusion = confusion_matrix(prediction[z], truth[z], ids, unpainted[z])
        for score in class_scores(confusion, ids):
            size = area.get(score.class_id)
            if size is not None and size[z] > _SMALLEST_SHARE * size.max():
                result[score.class_id][z] = score.iou
    return result


def draw_curves(
    history: History,
    slice_iou: Mapping[int, NDArray[np.float64]],
    slice_mm: NDArray[np.float64],
    painted_mm: Sequence[float],
    path: Path,
) -> None:
    """Draw the curves; 1800 px wide.

    Parameters
    ----------
    history
        Of the training; without validation its place says so.
    slice_iou
        From `iou_per_slice`.
    slice_mm
        Height of each axial slice.
    painted_mm
        Heights of the painted axial slices.
    path
        PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), dpi=150, facecolor="white", layout="constrained")
    loss, held_out, slices = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    _draw_loss(loss, history)
    _draw_held_out(held_out, history)
    _draw_slices(slices, slice_iou, slice_mm, painted_mm)
    figure.savefig(path)


def _draw_loss(axes: Axes, history: History) -> None:
    _style(axes, "Training loss", "seconds")
    points = [(record.seconds, record.loss) for record in history.steps if math.isfinite(record.loss)]
    if points:
        axes.plot(*zip(*points, strict=True), color=_INK, linewidth=1.6, marker="." if len(points) < 20 else "")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _draw_held_out(axes: Axes, history: History) -> None:
    _style(axes, "IoU on held-out painted slices", "seconds")
    axes.set_ylim(0, 1)
    if not history.validations:
        axes.text(0.5, 0.5, "no slice was held out", transform=axes.transAxes, color=_FAINT, ha="center")
        return
    seconds = [record.seconds for record in history.validations]
    for label_id in _STRUCTURES:
        position = list(CLASS_NAMES).index(label_id)
        values = [_or_nan(record.iou[position]) for record in history.validations]
        axes.plot(seconds, values, color=COLOURS[label_id], linewidth=2, marker="o", markersize=3.5)
    axes.set_xlim(left=0)
    _legend(axes, {label_id: CLASS_NAMES[label_id] for label_id in _STRUCTURES})


def _draw_slices(
    axes: Axes,
    slice_iou: Mapping[int, NDArray[np.float64]],
    slice_mm: NDArray[np.float64],
    painted_mm: Sequence[float],
) -> None:
    _style(axes, "IoU of each axial slice, unpainted voxels", "height z, mm")
    axes.set_ylim(0, 1)
    for height in painted_mm:
        axes.axvline(height, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
    for label_id, values in slice_iou.items():
        axes.plot(slice_mm, values, color=COLOURS[label_id], linewidth=2)
    means = {
        label_id: f"{CLASS_NAMES[label_id]}, mean {np.nanmean(values):.3f}"
        for label_id, values in slice_iou.items()
        if not np.isnan(values).all()
    }
    _legend(axes, means, dashed="painted axial slice")


def _legend(axes: Axes, names: Mapping[int, str], dashed: str = "") -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=COLOURS[label_id], linewidth=2, label=name) for label_id, name in names.items()]
    if dashed:
        lines.append(Line2D([], [], color=_FAINT, linewidth=1, linestyle=(0, (4, 3)), label=dashed))
    axes.legend(handles=lines, loc="lower center", fontsize=9, edgecolor="none", framealpha=0.85, labelcolor=_INK)


def _style(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=_INK)
    axes.set_xlabel(x_label, color=_INK, fontsize=10)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(axis="y", color="#e3e6eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
