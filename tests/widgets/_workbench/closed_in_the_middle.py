"""A session in a process of its own: paint, train, paint once more and close the window at once.

Run by `test_keeping` with the autosave folder as its argument.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.io import autosave
from napari_unet3d.widgets._workbench.bench import workbench_of
from napari_unet3d.widgets.train import TrainDock

autosave.default_base = lambda: Path(sys.argv[1])
viewer = napari.Viewer(show=True)
image = np.random.default_rng(0).normal(100, 10, (16, 32, 40)).astype(np.float32)
image[4:12, 10:22, 12:28] += 60
viewer.add_image(image, name="cell")
dock = TrainDock(viewer)
viewer.window.add_dock_widget(dock, name="Train", area="right")
dock.reset_choices()
bench = workbench_of(viewer)
bench.session.network_settings = {"levels": 2, "filters": 4, "features": "none"}
bench.session.train_config = TrainConfig(threads=1, precision="float32")
bench.new_annotation()
grid: tuple[NDArray[np.intp], ...] = tuple(np.indices(image.shape))
for index in (5, 9):
    at = tuple(axis[index].ravel() for axis in grid)
    bench.annotation.data_setitem(at, np.where(image[at] > 130, 2, 1).astype(np.uint8))


def look() -> None:
    """Do what is next as soon as it can be done."""
    if not bench.session.phase.is_running and dock.train_button.isEnabled():
        dock.train_button.click()
    elif len(bench.session.curves.losses) >= 2:
        timer.stop()
        bench.annotation.data_setitem((np.array([15]), np.array([31]), np.array([39])), np.array([2]))
        viewer.window.close()


timer = QTimer()
timer.timeout.connect(look)
timer.start(20)
napari.run()
