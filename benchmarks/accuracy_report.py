"""Tables and plot of the scoreboard in `accuracy`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from machine import markdown_table

Row = dict[str, Any]


def report(rows: list[Row]) -> str:
    """What each contender reached, ours against the forest, and how true the shown estimate was."""
    parts = [_table(rows), _against_forest(rows), _estimates(rows)]
    return "\n\n".join(part for part in parts if part)


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _label(row: Row) -> tuple[str, float]:
    return row["contender"], row["seconds"] or 0.0


def _named(label: tuple[str, float]) -> str:
    contender, seconds = label
    return f"{contender}, {seconds:g} s" if seconds else contender


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for volume, slices in dict.fromkeys((row["volume"], row["slices"]) for row in rows):
        for label in dict.fromkeys(map(_label, rows)):
            these = [row for row in rows if (row["volume"], row["slices"], _label(row)) == (volume, slices, label)]
            if not these:
                continue
            ious = [row["mean_iou"] for row in these]
            per_class = zip(*(row["iou"] for row in these), strict=True)
            lines.append(
                (
                    volume,
                    slices,
                    _named(label),
                    f"{_mean(ious):.3f}",
                    f"{min(ious):.3f} .. {max(ious):.3f}" if len(ious) > 1 else "",
                    " ".join(f"{_mean(values):.2f}" for values in per_class),
                    f"{_mean(row['train_seconds'] for row in these):.0f}",
                    f"{_mean(row['predict_seconds'] for row in these):.0f}",
                    f"{_mean(row['memory_mb'] for row in these):.0f}",
                )
            )
    heading = ("volume", "slices Z,Y,X", "method", "IoU", "range", "IoU of classes", "train s", "predict s", "MB")
    return markdown_table(heading, lines)


def _against_forest(rows: Sequence[Row]) -> str:
    forest = {
        (row["volume"], row["slices"], row["state"]): row["mean_iou"] for row in rows if _label(row)[0] == "forest"
    }
    lines = []
    for label in dict.fromkeys(_label(row) for row in rows if row["contender"] == "ours"):
        gains: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            place = (row["volume"], row["slices"], row["state"])
            if _label(row) == label and place in forest:
                gains.setdefault(place[:2], []).append(row["mean_iou"] - forest[place])
        means = {place: _mean(values) for place, values in gains.items()}
        if means:
            worst = min(means, key=lambda place: means[place])
            lines.append(
                (
                    _named(label),
                    f"{_mean(means.values()):+.3f}",
                    f"{sum(gain > 0 for gain in means.values())} of {len(means)}",
                    f"{means[worst]:+.3f} ({', '.join(worst)})",
                )
            )
    if not lines:
        return ""
    heading = ("against the forest", "mean gain", "better on", "worst")
    return markdown_table(heading, lines)


def _estimates(rows: Sequence[Row]) -> str:
    lines = []
    for label in dict.fromkeys(_label(row) for row in rows if row["contender"] == "ours"):
        gaps = [
            abs(row["estimated_iou"] - row["mean_iou"])
            for row in rows
            if _label(row) == label and row.get("estimated_iou") is not None
        ]
        if gaps:
            lines.append((_named(label), f"{_mean(gaps):.3f}", f"{max(gaps):.3f}", str(len(gaps))))
    return (
        markdown_table(("shown estimate against the rest", "mean difference", "largest", "runs"), lines)
        if lines
        else ""
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """IoU against seconds of training and prediction, one field for each volume and choice of slices."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    volumes = list(dict.fromkeys(row["volume"] for row in rows))
    choices = list(dict.fromkeys(row["slices"] for row in rows))
    figure, fields = plt.subplots(
        len(volumes), len(choices), figsize=(3.2 * len(choices), 2.6 * len(volumes)), squeeze=False, sharex=True
    )
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    for line, volume in zip(fields, volumes, strict=True):
        for field, slices in zip(line, choices, strict=True):
            for number, contender in enumerate(contenders):
                these = [r for r in rows if (r["volume"], r["slices"], r["contender"]) == (volume, slices, contender)]
                points = sorted(
                    (
                        _mean(r["train_seconds"] + r["predict_seconds"] for r in these if r["seconds"] == seconds),
                        _mean(r["mean_iou"] for r in these if r["seconds"] == seconds),
                    )
                    for seconds in {r["seconds"] for r in these}
                )
                if points:
                    field.plot(*zip(*points, strict=True), "o-", color=f"C{number}", label=contender)
            field.set_xscale("log")
            field.set_title(f"{volume}, {slices}", fontsize=8)
    fields[-1][0].set_xlabel("seconds, prediction included")
    fields[0][0].set_ylabel("mean IoU, unpainted voxels")
    fields[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
