"""How the window of napari behaves while a network is trained in it: the table of `docs/benchmarks/gui.md`.

Opens the real viewer (under Xvfb where there is no screen), the Train dock and a volume, clicks and paints, and
measures on the thread of the window:

- *event-loop delay*: a timer is due every 5 ms; how much later than that it comes. Everything that holds up the window
  holds up the timer. Idle first, then from the click on Train to the first preview (PyTorch is loaded, layers are
  made), then while training and previewing, with strokes and the slider in use.
- from the click on Train to the dock's answer, the first step, the first preview;
- from the end of a stroke to the first batch that is drawn with it;
- from the click on Stop to idle, with the model there; from the closing of the window during a second training to the
  end of the event loop, its threads and napari's own clearing up included.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/gui_responsiveness.py [--seconds S] [--data IMAGE LABELS]
        [--json FILE] [--markdown FILE]

`--data` takes an image and a dense label file of the same shape whose lowest id is the background; seven slices of it
are painted. The default is the sample "Half a head" with its painted slices.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import napari
import numpy as np
from qtpy import QtTest
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_unet3d.engine.progress import AnnotationTaken, Previewed, Started, Stepped
from napari_unet3d.io import autosave
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import workbench_of
from napari_unet3d.widgets._workers import Job

QTest: Any = QtTest.QTest
PLUGIN: Final = "napari-unet3d"
BEAT_MS: Final = 5
IDLE_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 120.0
SLICES_OF_TRUTH: Final = 7


@dataclass
class Target:
    """What is measured, in words, the limit of DESIGN section 6 or of the issue, and the unit."""

    name: str
    limit: float | None
    unit: str = "s"


TARGETS: Final = {
    "idle_p50": Target("event-loop delay, idle, median", None, "ms"),
    "idle_p99": Target("event-loop delay, idle, p99", None, "ms"),
    "idle_max": Target("event-loop delay, idle, longest", None, "ms"),
    "loading_max": Target("event-loop delay, click on Train to the first preview, longest", None, "ms"),
    "training_p50": Target("event-loop delay, training and previewing, median", None, "ms"),
    "training_p99": Target("event-loop delay, training and previewing, p99", 50, "ms"),
    "training_max": Target("event-loop delay, training and previewing, longest", None, "ms"),
    "docks": Target("opening the Train dock", None),
    "answer": Target("click on Train to the dock's answer", 0.1),
    "torch": Target("click on Train to PyTorch loaded and the network built", None),
    "first_step": Target("then to the first step, features included", 1.0),
    "first_preview": Target("click on Train to the first preview", 10.0),
    "step": Target("a step, median", None),
    "stroke": Target("stroke to the first batch with it, longest of five", 1.0),
    "stop": Target("click on Stop to idle with the best model", 0.5),
    "close": Target("closing the window during training to the end", 1.0),
}


@dataclass
class Heart:
    """Beats every 5 ms and notes by how much each beat was late, in milliseconds."""

    late: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self._last = time.perf_counter()
        self._timer.start(BEAT_MS)

    def _beat(self) -> None:
        now = time.perf_counter()
        self.late.append(max(0.0, 1000 * (now - self._last) - BEAT_MS))
        self._last = now

    def begin(self) -> None:
        """Forget what was."""
        self.late.clear()
        self._last = time.perf_counter()

    def stop(self) -> None:
        """Beat no more."""
        self._timer.stop()


def wait(is_so: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> float:
    """Let the window live until it is so; gives the seconds that took. Looks after every event."""
    loop, begun = QEventLoop(), time.perf_counter()
    waker = QTimer()
    waker.start(1)  # an event at least this often
    while not is_so():
        if time.perf_counter() - begun > seconds:
            raise TimeoutError(f"nothing happened within {seconds:g} s")
        loop.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    return time.perf_counter() - begun


def live(seconds: float) -> None:
    """Let the window live so long."""
    end = time.perf_counter() + seconds
    wait(lambda: time.perf_counter() >= end, seconds + PATIENCE_SECONDS)


class Watch:
    """Times of what happens in the training thread and of what arrives on the thread of the window."""

    def __init__(self) -> None:
        self.arrived: list[tuple[float, Any]] = []
        self.torch_at: float | None = None
        self.batches: list[float] = []
        """When batches were drawn."""
        self.taken: list[tuple[float, Any]] = []
        """When annotation was taken over by the trainer, in its own thread."""
        start = Job.start

        def listen_and_start(job: Job) -> None:
            job.happened.connect(lambda event: self.arrived.append((time.perf_counter(), event)))
            start(job)

        Job.start = listen_and_start  # type: ignore[method-assign]

    def look_into_the_thread(self) -> None:
        """Note batches and annotation where they are handled; loads PyTorch, so call it when training runs."""
        from napari_unet3d.engine.training_data import TrainingData

        batch, annotate = TrainingData.batch, TrainingData.annotate

        def drawn(data: TrainingData, *arguments: Any) -> Any:
            self.batches.append(time.perf_counter())
            return batch(data, *arguments)

        def taken(data: TrainingData, command: Any) -> Any:
            result = annotate(data, command)
            self.taken.append((time.perf_counter(), command))
            return result

        TrainingData.batch, TrainingData.annotate = drawn, taken  # type: ignore[method-assign]

    def first(self, kind: type, since: float = 0.0) -> float | None:
        """When the first event of a kind arrived, or None."""
        return next((at for at, event in self.arrived if isinstance(event, kind) and at >= since), None)

    def count(self, kind: type) -> int:
        """How many events of a kind arrived."""
        return sum(isinstance(event, kind) for _, event in self.arrived)


def open_volume(viewer: Any, data: Sequence[str] | None) -> Any:
    """Put the image and its painted slices into the viewer; gives the layer of labels."""
    if not data:
        return viewer.open_sample(PLUGIN, "head")[1]
    (image,) = viewer.open(data[0], plugin=PLUGIN if data[0].endswith((".nii", ".gz", ".zarr")) else "napari")
    (found,) = viewer.open(
        data[1], layer_type="labels", plugin=PLUGIN if data[1].endswith((".nii", ".gz", ".zarr")) else "napari"
    )
    truth = np.asarray(found.data)
    viewer.layers.remove(found)
    painted = np.zeros(image.data.shape, np.uint8)
    for axis, count in enumerate((3, 2, SLICES_OF_TRUTH - 5)):
        for index in np.linspace(0, truth.shape[axis], count + 2)[1:-1].astype(int):
            place = (slice(None),) * axis + (index,)
            painted[place] = truth[place] + 1
    place = {"scale": image.scale, "translate": image.translate, "units": image.units}
    return viewer.add_labels(painted, name="annotation", **place)


def stroke(viewer: Any, layer: Any, down: float) -> float:
    """Draw with the mouse across the middle of the canvas, at a share of its height; gives when it ended."""
    viewer.layers.selection.active = layer
    layer.mode, layer.selected_label, layer.brush_size = "paint", 2, 6
    canvas = viewer.window._qt_viewer.canvas.native
    button, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier

    def place(share: float) -> QPoint:
        return QPoint(round((0.45 + 0.1 * share) * canvas.width()), round(down * canvas.height()))

    QTest.mousePress(canvas, button, none, place(0))
    for share in np.linspace(0, 1, 5)[1:]:
        QTest.mouseMove(canvas, place(float(share)))
        live(0.02)
    QTest.mouseRelease(canvas, button, none, place(1))
    return time.perf_counter()


def measure(seconds: float, data: Sequence[str] | None) -> dict[str, float]:
    """Everything but the closing of the window."""
    found: dict[str, float] = {}
    viewer = napari.Viewer(show=True)
    layer = open_volume(viewer, data)
    begun = time.perf_counter()
    dock = viewer.window.add_plugin_dock_widget(PLUGIN, "Train")[1]
    found["docks"] = time.perf_counter() - begun
    bench = workbench_of(viewer)
    session = bench.session
    dock.reset_choices()
    bench.choose_image([viewer.layers[0]])
    bench.choose_annotation(layer)
    session.train_config = session.train_config.updated(seconds=None)
    wait(dock.train_button.isEnabled)
    assert "torch" not in sys.modules, "PyTorch was loaded before training was asked for"
    heart, watch = Heart(), Watch()
    live(1)
    heart.begin()
    live(IDLE_SECONDS)
    found.update(delays("idle", heart.late))

    heart.begin()
    clicked = time.perf_counter()
    dock.train_button.click()
    assert session.phase is Phase.PREPARING
    QApplication.processEvents()
    found["answer"] = time.perf_counter() - clicked
    wait(lambda: watch.first(Started))
    found["torch"] = (watch.first(Started) or 0) - clicked
    wait(lambda: watch.first(Stepped))
    found["first_step"] = (watch.first(Stepped) or 0) - clicked - found["torch"]
    wait(lambda: watch.first(Previewed))
    found["first_preview"] = (watch.first(Previewed) or 0) - clicked
    found["loading_max"] = max(heart.late)
    heart.begin()
    watch.look_into_the_thread()
    found["stroke"] = max(use(viewer, layer, watch, seconds / 5) for _ in range(5))
    found.update(delays("training", heart.late))
    steps = [event.seconds for _, event in watch.arrived if isinstance(event, Stepped)]
    found["step"] = statistics.median(np.diff(steps))
    found["previews"] = watch.count(Previewed)
    found["strokes"] = watch.count(AnnotationTaken)

    clicked = time.perf_counter()
    dock.stop_button.click()
    wait(lambda: session.phase is Phase.IDLE)
    found["stop"] = time.perf_counter() - clicked
    assert session.model is not None
    assert not session.is_warning, session.message

    dock.train_button.click()
    before = watch.count(Stepped)
    wait(lambda: watch.count(Stepped) > before + 5)
    heart.stop()
    return found


def use(viewer: Any, layer: Any, watch: Watch, seconds: float) -> float:
    """Move the slider and paint for so long; gives the seconds from the end of a stroke to its first batch."""
    end = time.perf_counter() + seconds
    viewer.dims.current_step = (viewer.dims.current_step[0] + 1, *viewer.dims.current_step[1:])
    live(0.2)
    seen = len(watch.taken)
    drawn_at = stroke(viewer, layer, 0.3 + 0.4 * np.random.default_rng().random())
    wait(lambda: len(watch.taken) > seen)
    taken_at = watch.taken[seen][0]
    wait(lambda: watch.batches and watch.batches[-1] > taken_at)
    took = next(at for at in watch.batches if at > taken_at) - drawn_at
    live(max(0.0, end - time.perf_counter()))
    return took


def delays(name: str, late: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum in milliseconds."""
    return {
        f"{name}_p50": float(np.percentile(late, 50)),
        f"{name}_p99": float(np.percentile(late, 99)),
        f"{name}_max": float(np.max(late)),
    }


def table(found: dict[str, float]) -> str:
    """Measured values beside what is wanted, as a Markdown table."""
    from machine import markdown_table

    rows = []
    for key, target in TARGETS.items():
        if key not in found:
            continue
        digits = 1 if target.unit == "ms" else 2
        limit = "" if target.limit is None else f"< {target.limit:g} {target.unit}"
        kept = "" if target.limit is None else "yes" if found[key] < target.limit else "no"
        rows.append([target.name, f"{found[key]:.{digits}f} {target.unit}", limit, kept])
    return markdown_table(["what", "measured", "wanted", "kept"], rows)


def main() -> None:
    """Measure, print, and write where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of training that are looked at")
    parser.add_argument("--data", nargs=2, metavar=("IMAGE", "LABELS"), help="instead of the sample")
    parser.add_argument("--json", type=Path, dest="json_file")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    with tempfile.TemporaryDirectory() as folder:  # nothing of the user's is offered back, and nothing is left behind
        autosave.default_base = lambda: Path(folder)
        found = measure(arguments.seconds, arguments.data)
        viewer = napari.current_viewer()
        closed = time.perf_counter()
        QTimer.singleShot(0, viewer.window.close)
        napari.run()  # ends with the last window, after waiting for threads
        found["close"] = time.perf_counter() - closed

    from machine import describe_machine, machine, write_reports

    facts = {**machine(), "load": round(load, 1)}
    import torch

    volume = "the sample 'Half a head'" if not arguments.data else Path(arguments.data[0]).parent.name
    text = "\n\n".join(
        [
            describe_machine(facts, torch.get_num_threads()),
            f"{volume}, {found['previews']:.0f} previews and {found['strokes']:.0f} strokes in "
            f"{arguments.seconds:g} s of training",
            table(found),
        ]
    )
    write_reports(text, {"machine": facts, "measured": found}, arguments.markdown, arguments.json_file)


if __name__ == "__main__":
    main()
