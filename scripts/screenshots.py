"""The pictures of the documentation: the way from a volume to labels in napari, and every dock in both themes.

    make screenshots

or, with a display (Xvfb will do),

    python scripts/screenshots.py [--out docs/pictures] [--seconds 60]

Opens the real viewer, paints with the mouse, clicks Train and Apply, and writes `napari-*.png` and `dock-*.png`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import napari
import numpy as np
from qtpy import QtTest
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow, QScrollArea

from napari_unet3d.io import autosave
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import workbench_of

QTest: Any = QtTest.QTest
PLUGIN: Final = "napari-unet3d"
THEMES: Final = ("dark", "light")
WINDOW: Final = (1360, 860)
DOCK_WIDTH: Final = 300
STROKES: Final = {2: ((0.42, 0.41), (0.41, 0.46)), 3: ((0.41, 0.50), (0.50, 0.52)), 1: ((0.18, 0.31), (0.12, 0.40))}
"""Label id -> from where to where on the canvas, as shares of its height and width."""
PATIENCE_SECONDS: Final = 900


def wait(is_so: Callable[[], Any]) -> None:
    """Let the window live until it is so."""
    loop, end, waker = QEventLoop(), time.monotonic() + PATIENCE_SECONDS, QTimer()
    waker.start(20)
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened within {PATIENCE_SECONDS} s")
        loop.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)


def settle(seconds: float = 0.5) -> None:
    """Let everything be drawn."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


class Photographer:
    """Takes pictures of one viewer.

    Parameters
    ----------
    viewer
        The viewer.
    out
        Folder for the pictures.
    """

    def __init__(self, viewer: Any, out: Path) -> None:
        self._viewer = viewer
        self._out = out

    def window(self, name: str) -> None:
        """The whole window."""
        settle()
        self._viewer.screenshot(str(self._out / f"napari-{name}.png"), canvas_only=False, flash=False)

    def dock(self, name: str, widget: Any) -> None:
        """All of a dock, also what is scrolled away, in both themes."""
        before = self._viewer.theme
        for theme in THEMES:
            self._viewer.theme = theme
            settle()
            content = widget.findChild(QScrollArea).widget()
            content.grab().save(str(self._out / f"dock-{name}-{theme}.png"))
        self._viewer.theme = before
        settle()


def show_dock(viewer: Any, name: str) -> Any:
    """Open a dock as the menu does, 300 pixels wide; one that is open comes to the front."""
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    dock = widget.parentWidget()
    while not isinstance(dock, QDockWidget):
        dock = dock.parentWidget()
    dock.raise_()
    window = dock.parentWidget()
    assert isinstance(window, QMainWindow)
    settle()
    window.resizeDocks([dock], [DOCK_WIDTH], Qt.Orientation.Horizontal)
    settle()
    return widget


def stroke(viewer: Any, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """Draw with the left button from one place of the canvas to another."""
    canvas = viewer.window._qt_viewer.canvas.native
    button, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier

    def place(share: float) -> QPoint:
        down, across = np.asarray(start) + share * (np.asarray(stop) - start)
        return QPoint(round(across * canvas.width()), round(down * canvas.height()))

    QTest.mousePress(canvas, button, none, place(0))
    for share in np.linspace(0, 1, 12)[1:]:
        QTest.mouseMove(canvas, place(float(share)))
        settle(0.03)
    QTest.mouseRelease(canvas, button, none, place(1))


def take_pictures(out: Path, seconds: float) -> None:
    """Go the whole way and take the pictures."""
    viewer = napari.Viewer(show=True)
    viewer.theme = "dark"
    viewer.window.resize(*WINDOW)
    image, annotation = viewer.open_sample(PLUGIN, "head")
    photographer = Photographer(viewer, out)
    bench = workbench_of(viewer)
    session = bench.session

    train = show_dock(viewer, "Train")
    bench.choose_image([image])
    bench.choose_annotation(annotation)
    wait(train.train_button.isEnabled)
    viewer.dims.set_point(0, float(annotation.data_to_world([annotation.data.shape[0] * 0.58, 0, 0])[0]))
    viewer.layers.selection.active = annotation
    viewer.reset_view()
    settle()
    photographer.window("open")

    for label, (start, stop) in STROKES.items():
        bench.paint_with(label)
        annotation.brush_size = 4
        stroke(viewer, start, stop)
    settle(1)
    photographer.window("paint")

    session.train_config = session.train_config.updated(seconds=seconds)
    train.train_button.click()
    wait(lambda: session.phase is Phase.TRAINING and session.training_progress.fraction is not None)
    wait(lambda: session.training_progress.fraction > 0.6 or session.phase is Phase.IDLE)
    wait(lambda: bench.training.preview_layer is not None)
    photographer.window("train")
    bench.training.pause()
    wait(lambda: session.phase in (Phase.PAUSED, Phase.IDLE))
    photographer.dock("train", train)
    if session.phase is Phase.PAUSED:
        bench.training.resume()
    wait(lambda: session.phase is Phase.IDLE)

    for layer in list(viewer.layers):
        layer.visible = layer in (image, annotation)
    annotation.mode, annotation.visible = "pan_zoom", False
    predict = show_dock(viewer, "Predict")
    predict.apply_button.click()
    wait(lambda: session.is_applying)
    wait(lambda: not session.is_applying)
    photographer.window("apply")
    photographer.dock("predict", predict)

    for name in ("Network", "Distill"):
        if name in docks_of_plugin():
            photographer.dock(name.lower(), show_dock(viewer, name))
    viewer.close()


def docks_of_plugin() -> list[str]:
    """Names of the docks that the manifest declares."""
    from npe2 import PluginManager

    manifest = PluginManager.instance().get_manifest(PLUGIN)
    return [widget.display_name for widget in manifest.contributions.widgets or ()]


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "pictures")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training")
    arguments = parser.parse_args()
    arguments.out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # nothing of the user's is offered back, and nothing is left behind
        autosave.default_base = lambda: Path(folder)
        take_pictures(arguments.out, arguments.seconds)
    QApplication.processEvents()


if __name__ == "__main__":
    main()
