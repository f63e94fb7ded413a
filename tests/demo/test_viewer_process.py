from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from napari_unet3d.demo import viewer_process
from napari_unet3d.demo.viewer_process import has_display, open_viewer


class Launcher:
    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ""}, "linux", False),
        ({}, "linux", False),
        ({}, "darwin", True),
        ({}, "win32", True),
        ({"DISPLAY": ":0", "QT_QPA_PLATFORM": "offscreen"}, "linux", False),
        ({"QT_QPA_PLATFORM": "minimal:x=1"}, "win32", False),
        ({"DISPLAY": ":0", "QT_QPA_PLATFORM": "xcb"}, "linux", True),
    ],
)
def test_display(environment: dict[str, str], platform: str, expected: bool) -> None:
    assert has_display(environment, platform) is expected


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    monkeypatch.setattr(viewer_process, "has_napari", lambda: True)
    monkeypatch.setattr(viewer_process, "has_display", lambda environment: "DISPLAY" in environment)
    return Launcher()


def test_with_a_display_napari_is_started_on_the_folder(launcher: Launcher) -> None:
    text = open_viewer(Path("results"), environment={"DISPLAY": ":1"}, launch=launcher)

    assert launcher.commands == [[sys.executable, "-m", "napari_unet3d.demo.view", "results"]]
    assert "opens" in text


def test_without_a_display_nothing_is_started_but_the_command_is_told(launcher: Launcher) -> None:
    text = open_viewer(Path("results"), environment={}, launch=launcher)

    assert launcher.commands == []
    assert "python -m napari_unet3d.demo.view results" in text


def test_without_napari_nothing_is_started(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_process, "has_napari", lambda: False)
    text = open_viewer(Path("results"), environment={"DISPLAY": ":1"}, launch=launcher)

    assert launcher.commands == []
    assert 'pip install "napari-unet3d[all]"' in text


def test_napari_counts_only_with_a_qt_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"napari"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in installed else None)
    assert not viewer_process.has_napari()
    installed.add("PySide6")
    assert viewer_process.has_napari()
    installed.remove("napari")
    assert not viewer_process.has_napari()
