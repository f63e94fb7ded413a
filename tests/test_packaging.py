"""What is inside the wheel, and what installing it asks for."""

from __future__ import annotations

import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from npe2 import PluginManifest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
QT_BINDINGS = {"pyqt5", "pyqt6", "pyside2", "pyside6"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def requirements(metadata: Message) -> list[Requirement]:
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def test_wheel_holds_the_code_and_the_data_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {"napari_unet3d/napari.yaml", "napari_unet3d/py.typed", "napari_unet3d/engine/trainer.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"napari_unet3d"}
    assert "napari-unet3d = napari_unet3d:napari.yaml" in entry_points
    assert "napari-unet3d = napari_unet3d.cli:main" in entry_points


def test_dependencies_have_lower_bounds_only(metadata: Message) -> None:
    operators = {spec.operator for requirement in requirements(metadata) for spec in requirement.specifier}
    assert operators == {">="}


def test_installing_the_package_alone_brings_no_qt_binding(metadata: Message) -> None:
    base = [r for r in requirements(metadata) if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert "napari" in {r.name for r in base}
    assert not {r.name.lower() for r in base} & QT_BINDINGS
    assert not any(r.extras for r in base)


def test_extras_are_those_promised(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == {"all", "onnx", "bioimageio", "demo", "bench", "tensorboard"}


def test_manifest_is_valid_and_carries_the_name_of_the_distribution(metadata: Message) -> None:
    manifest = PluginManifest.from_file(ROOT / "src" / "napari_unet3d" / "napari.yaml")
    manifest.validate_imports()
    assert manifest.name == metadata["Name"] == "napari-unet3d"
