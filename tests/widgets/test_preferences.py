"""What is set in napari's preferences counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_unet3d.widgets import _preferences
from napari_unet3d.widgets._preferences import Preferences, preferences
from napari_unet3d.widgets._workbench.bench import workbench_of

PLUGIN = "napari-unet3d"


@pytest.fixture
def settings(plugin_settings: Any, npe2pm: Any) -> Any:
    from napari.settings import get_plugin_settings

    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    return get_plugin_settings(PLUGIN)


def test_defaults_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_preferences, "_settings", lambda: None)
    assert preferences() == Preferences()


def test_what_is_set_is_read(settings: Any) -> None:
    assert preferences() == Preferences()
    settings.compute.device = "cpu"
    settings.compute.preview_rate = 0.5
    settings.autosave.folder = "/somewhere"
    assert preferences() == Preferences("cpu", 0.5, "/somewhere")


def test_device_and_folder_reach_the_workbench(
    settings: Any, make_napari_viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    settings.compute.device = "cpu"
    settings.autosave.folder = str(tmp_path / "mine")
    viewer = make_napari_viewer(show=False)
    bench = workbench_of(viewer)
    assert bench.session.train_config.device == "cpu"
    assert bench.session.predict_config.device == "cpu"
    settings.compute.device = "auto"
    assert bench.session.train_config.device == "auto"
    bench.choose_image([viewer.add_image(np.zeros((4, 5, 6), np.uint8))])
    assert bench.keeping.folder is not None
    assert bench.keeping.folder.get().path.parent == tmp_path / "mine"
