"""A session in a process of its own: open every dock, paint, train, close the window in the middle. Prints facts.

Run by `test_closing`, with each binding of Qt.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
import qtpy
from npe2 import PluginManager
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_unet3d.io import autosave

PLUGIN = "napari-unet3d"
autosave.default_base = lambda: Path.cwd() / "autosave"
facts: dict[str, Any] = {"binding": qtpy.API_NAME}

viewer = napari.Viewer(show=True)
facts["torch at the start"] = "torch" in sys.modules
image = np.random.default_rng(0).normal(100, 10, (20, 48, 56)).astype(np.float32)
image[6:14, 14:34, 18:38] += 60
viewer.add_image(image, name="cell", scale=(2, 0.5, 0.5))

begun = time.perf_counter()
manifest = PluginManager.instance().get_manifest(PLUGIN)
facts["docks"] = [widget.display_name for widget in manifest.contributions.widgets or ()]
docks = {name: viewer.window.add_plugin_dock_widget(PLUGIN, name)[1] for name in facts["docks"]}
facts["seconds to open the docks"] = time.perf_counter() - begun
viewer.theme = "light"
QApplication.processEvents()
facts["torch with all docks open"] = "torch" in sys.modules

from napari_unet3d.engine.config import TrainConfig  # noqa: E402
from napari_unet3d.widgets._session import Phase  # noqa: E402
from napari_unet3d.widgets._workbench.bench import workbench_of  # noqa: E402

bench = workbench_of(viewer)
session = bench.session
session.network_settings = {"levels": 2, "filters": 4}
session.train_config = TrainConfig(threads=1)
bench.new_annotation()
assert bench.annotation is not None, session.message
for index in (4, 10, 15):
    bench.annotation.data[index] = np.where(image[index] > 130, 2, 1)
bench.annotation.refresh()


def look() -> None:
    """Do what is next as soon as it can be done."""
    train = docks["Train"]
    if session.phase is Phase.IDLE and not facts.get("clicked") and train.train_button.isEnabled():
        facts["clicked"] = True
        train.train_button.click()
    elif session.is_warning:
        facts["message"] = session.message
        viewer.window.close()
    elif len(session.curves.losses) >= 5 and bench.training.preview_layer is not None:
        facts["steps"] = len(session.curves.losses)
        facts["closed at"] = time.perf_counter()
        timer.stop()
        viewer.window.close()


timer = QTimer()
timer.timeout.connect(look)
timer.start(50)
napari.run()
facts["seconds to close"] = time.perf_counter() - facts.pop("closed at", time.perf_counter())
print(json.dumps(facts))
