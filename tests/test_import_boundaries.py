"""What importing a module brings along, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

VOCABULARY = ["errors", "axes", "config", "progress", "volume", "describe"]
WINDOWS = {"napari", "qtpy", "PyQt5", "PyQt6", "PySide6", "superqt", "magicgui", "pyqtgraph", "vispy"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules loaded once `statement` has run."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_probe_sees_what_is_imported() -> None:
    assert "qtpy" in modules_after("import qtpy")
    assert "qtpy" not in modules_after("import json")


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = WINDOWS | {"torch", "numpy", "scipy", "pydantic", "zarr", "nibabel"}
    assert not modules_after("import napari_unet3d") & heavy


@pytest.mark.parametrize("module", VOCABULARY)
def test_vocabulary_needs_neither_torch_nor_windows(module: str) -> None:
    assert not modules_after(f"import napari_unet3d.engine.{module}") & (WINDOWS | {"torch"})


def test_a_configuration_is_reached_without_torch() -> None:
    assert "torch" not in modules_after("from napari_unet3d import TrainConfig; TrainConfig()")
