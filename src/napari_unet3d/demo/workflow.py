"""The demo, stage by stage."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import numpy as np

from napari_unet3d import api
from napari_unet3d.demo import files
from napari_unet3d.demo.curves import draw_curves, iou_per_slice
from napari_unet3d.demo.head import AXIS_NAMES, INSTALL_HINT, DemoVolume, load_head, write_image
from napari_unet3d.demo.picture import PictureData, draw_picture
from napari_unet3d.demo.report import DemoReport
from napari_unet3d.engine.config import TrainConfig, validated
from napari_unet3d.engine.errors import FileError, UNet3dError
from napari_unet3d.engine.progress import Event
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.io.files import read_volume, write_labels


class Reporter(Protocol):
    """What shows the progress of one stage."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, event: Event, /) -> None:
        """Show one event."""

    def say(self, text: str, /) -> None:
        """Show one line."""


MakeReporter: TypeAlias = Callable[[], Reporter]


def run_demo(
    out: Path,
    *,
    make_reporter: MakeReporter,
    show: Callable[[Path], str],
    seconds: float | None = None,
    steps: int | None = None,
    head: DemoVolume | None = None,
) -> DemoReport:
    """Write inputs, train, predict, evaluate, draw and report.

    Parameters
    ----------
    out
        Folder for the results (names in `files`), made if missing.
    make_reporter
        A reporter for each stage.
    show
        Shows the folder in a viewer if it can; returns what happened.
    seconds, steps
        Budget of the training; one of them.
    head
        Instead of the head template.

    Raises
    ------
    UNet3dError
        If a package is missing, the budget makes no sense or a file cannot be written; before any training.
    """
    config = validated(TrainConfig, {"seconds": seconds, "steps": steps})
    if importlib.util.find_spec("matplotlib") is None:
        raise UNet3dError(f"the demo needs matplotlib for its pictures: {INSTALL_HINT}")
    head = head or load_head()
    _make_folder(out)
    with make_reporter() as reporter:
        _write_inputs(out, head)
        slices = ", ".join(f"{AXIS_NAMES[axis]} {index}" for axis, index in head.painted_planes())
        reporter.say(f"head: {' x '.join(str(edge) for edge in head.image.shape)} voxels (z, y, x)")
        reporter.say(f"painted slices: {slices}")

    model, training_seconds = _train(out, config, make_reporter)
    prediction_seconds = _predict(out, model, make_reporter)
    with make_reporter() as reporter:
        reporter.say("comparing with the truth, drawing")
        report = DemoReport(
            head=head,
            model=model,
            budget=f"--seconds {seconds:g}" if seconds is not None else f"--steps {steps}",
            training_seconds=training_seconds,
            prediction_seconds=prediction_seconds,
            evaluation=api.evaluate(out / files.LABELS, out / files.TRUTH, exclude=out / files.PAINTED),
        )
        _draw(out, report)
        (out / files.FIGURES).write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
        (out / files.REPORT).write_text(report.as_markdown(), encoding="utf-8")
        for line in (*_where(out), report.summary(), show(out)):
            reporter.say(line)
    return report


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"the folder {out} cannot be made ({error.strerror}); choose another --out") from None


def _write_inputs(out: Path, head: DemoVolume) -> None:
    try:
        write_image(out / files.IMAGE, head)
    except OSError as error:
        raise FileError(
            f"{out / files.IMAGE} cannot be written ({error.strerror}); free some space or choose another --out"
        ) from None
    image = read_volume(out / files.IMAGE)
    write_labels(out / files.PAINTED, head.painted(), image)
    write_labels(out / files.TRUTH, head.truth, image)


def _train(out: Path, config: TrainConfig, make_reporter: MakeReporter) -> tuple[TrainedModel, float]:
    """The model, read back from its file, and the seconds from reading the input to the saved model."""
    with make_reporter() as reporter:
        begun = time.monotonic()
        run = api.train_events(out / files.IMAGE, out / files.PAINTED, config=config, out=out / files.MODEL)
        with closing(iter(run)) as events:  # an interruption saves the best model so far
            for event in events:
                reporter.show(event)
        seconds = time.monotonic() - begun
    return api.load_model(out / files.MODEL), seconds


def _predict(out: Path, model: TrainedModel, make_reporter: MakeReporter) -> float:
    """Write labels and uncertainty; the seconds it took."""
    with make_reporter() as reporter:
        begun = time.monotonic()
        run = api.predict_events(model, out / files.IMAGE, out / files.LABELS, uncertainty=out / files.UNCERTAINTY)
        with closing(run) as events:
            for event in events:
                reporter.show(event)
        return time.monotonic() - begun


def _draw(out: Path, report: DemoReport) -> None:
    head = report.head
    labels = read_volume(out / files.LABELS).read()[0]
    painted = head.painted()
    picture = PictureData(
        image=head.image,
        painted=painted,
        prediction=labels,
        truth=head.truth,
        uncertainty=read_volume(out / files.UNCERTAINTY).read()[0],
        affine=head.affine,
        planes=head.painted_planes(),
        iou=report.iou,
    )
    draw_picture(picture, out / files.PICTURE)
    draw_curves(
        report.model.history,
        iou_per_slice(labels, head.truth, painted),
        np.array([picture.position(0, z) for z in range(len(labels))]),
        [picture.position(0, z) for z in picture.painted_along(0)],
        out / files.CURVES,
    )


def _where(out: Path) -> Iterator[str]:
    for name, what in files.MEANING.items():
        yield f"{what:<24} {out / name}"
