"""The window is closed while training runs: everything ends, and nothing is said that sounds like a crash."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from qtpy.QtCore import QThreadPool

from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench import bench
from napari_unet3d.widgets._workers import Job

MANIFEST = Path(bench.__file__).parents[2] / "napari.yaml"


@pytest.mark.parametrize("binding", ["PyQt6", "PySide6"])
def test_a_session_with_all_docks_ends_with_its_window(binding: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(binding) is None:
        pytest.skip(f"{binding} is not installed")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("QT_API", "PYTEST"))}
    environment = {**own, "QT_API": binding.lower(), "NAPARI_CONFIG": ""}
    program = [sys.executable, str(Path(__file__).with_name("whole_session.py"))]
    ended = subprocess.run(program, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts["binding"].lower() == binding.lower()
    declared = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["contributions"]["widgets"]
    assert facts["docks"] == [widget["display_name"] for widget in declared]
    assert not facts["torch at the start"]
    assert not facts["torch with all docks open"]
    assert "message" not in facts
    assert facts["steps"] >= 5


def test_a_closed_viewer_ends_its_training(person: Any) -> None:
    person.annotate((0, 5), (0, 10))
    person.trains()
    (job,) = [job for job in person.bench.findChildren(Job) if job.is_running]
    person.viewer.close()
    assert person.bench not in bench._BENCHES.values()
    pool: Any = QThreadPool.globalInstance()
    assert pool.waitForDone(60_000)
    assert not job.is_running
    person.session.phase = Phase.IDLE  # nobody listens any more


def test_stopping_before_the_first_step_is_obeyed(person: Any) -> None:
    person.annotate((0, 5), (0, 10))
    person.sees(person.dock.train_button.isEnabled)
    person.dock.train_button.click()
    person.stops()
    assert not person.session.is_warning
    assert person.dock.train_button.isEnabled()
