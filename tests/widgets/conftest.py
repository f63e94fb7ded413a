"""Autosaves of tests go into a folder of the test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def autosaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "autosave"
    monkeypatch.setattr("napari_unet3d.io.autosave.default_base", lambda: base)
    return base
