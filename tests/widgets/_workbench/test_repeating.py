"""The recipe as a file, and the command line that trains the same model again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from numpy.typing import NDArray
from qtpy.QtGui import QGuiApplication

from napari_unet3d.cli import main
from napari_unet3d.engine.model_file import load_model
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import Workbench, workbench_of

from .conftest import SMALL, paint

TIMEOUT = 60_000
SLICES = ((0, 5), (0, 8), (1, 16))


def run(qtbot: Any, bench: Workbench) -> Any:
    bench.training.start()
    return finished(qtbot, bench)


def finished(qtbot: Any, bench: Workbench) -> Any:
    qtbot.waitUntil(lambda: bench.session.phase is Phase.IDLE, timeout=TIMEOUT)
    assert bench.session.model is not None, bench.session.message
    return bench.session.model


def copied(qtbot: Any, bench: Workbench) -> list[str]:
    """Words of the command on the clipboard."""
    bench.repeating.copy_command()
    qtbot.waitUntil(lambda: "copied" in bench.session.message, timeout=TIMEOUT)
    clipboard = QGuiApplication.clipboard()
    assert clipboard is not None
    words = shlex.split(clipboard.text())
    assert words[:4] == [sys.executable, "-m", "napari_unet3d", "train"]
    return words[3:]


def assert_same_weights(one: Any, other: Any) -> None:
    given = other.network.state_dict()
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(tensor, given[name], rtol=0, atol=0, msg=name)


def repeated(words: list[str]) -> Any:
    assert main(words) == 0
    return load_model(words[words.index("--out") + 1])


def test_the_command_trains_the_same_weights(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], autosaves: Path
) -> None:
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    model = run(qtbot, bench)
    paint(bench, truth, (0, 10))  # after the run: not part of it
    words = copied(qtbot, bench)
    assert all(Path(word).is_relative_to(autosaves) for word in words if word.endswith((".npy", ".yaml")))
    assert "same model again" in bench.session.message
    assert_same_weights(repeated(words), model)


def test_a_run_that_went_on_is_repeated_as_well(qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]) -> None:
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    run(qtbot, bench)
    bench.training.go_on()
    model = finished(qtbot, bench)
    words = copied(qtbot, bench)
    assert "same model again" in bench.session.message
    assert_same_weights(repeated(words), model)


def test_a_file_with_odd_name_is_used_as_it_is(
    qtbot: Any, viewer: Any, truth: NDArray[np.bool_], image: NDArray[np.uint8], tmp_path: Path
) -> None:
    folder = tmp_path / "it's mine & yours"
    folder.mkdir()
    path = folder / "a cell $HOME.ome.tif"
    tifffile.imwrite(
        path,
        image,
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 0.1,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.1,
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZ": 0.4,
            "PhysicalSizeZUnit": "µm",
        },
    )
    bench = workbench_of(viewer)
    session = bench.session
    bench.choose_image(viewer.open(path, plugin="napari"))
    qtbot.waitUntil(lambda: session.voxel_size is not None and session.voxel_size.unit == "um", timeout=TIMEOUT)
    session.network_settings = dict(SMALL)
    session.train_config = session.train_config.updated(seconds=None, steps=2, threads=1, precision="float32")
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    model = run(qtbot, bench)
    words = copied(qtbot, bench)
    assert words[1] == str(path)
    assert "--voxel-size" not in words
    assert model.voxel_size.zyx == pytest.approx((0.4, 0.1, 0.1))
    assert_same_weights(repeated(words), model)


def test_strokes_during_the_run_leave_the_settings_and_the_annotation_of_now(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]
) -> None:
    bench.session.train_config = bench.session.train_config.updated(steps=None)
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    bench.training.start()
    qtbot.waitUntil(lambda: bench.session.phase is Phase.TRAINING, timeout=TIMEOUT)
    paint(bench, truth, (0, 12))
    bench.training.stop()
    finished(qtbot, bench)
    words = copied(qtbot, bench)
    assert "same settings" in bench.session.message
    recipe = yaml.safe_load(Path(words[words.index("--config") + 1]).read_text())
    assert recipe["network"]["filters"] == SMALL["filters"]
    assert "record" not in recipe
    np.testing.assert_array_equal(np.load(words[2]), bench.annotation.data)


def test_the_recipe_is_that_of_the_model_else_of_the_settings(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], tmp_path: Path
) -> None:
    bench.repeating.save_recipe(tmp_path / "settings")
    qtbot.waitUntil((tmp_path / "settings.yaml").exists, timeout=TIMEOUT)
    assert "record" not in yaml.safe_load((tmp_path / "settings.yaml").read_text())
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    run(qtbot, bench)
    bench.repeating.save_recipe(tmp_path / "model.yaml")
    qtbot.waitUntil((tmp_path / "model.yaml").exists, timeout=TIMEOUT)
    assert yaml.safe_load((tmp_path / "model.yaml").read_text())["record"]["steps"] == 3


def test_there_is_no_command_without_strokes(bench: Workbench) -> None:
    assert "paint something" in bench.repeating.problem()
    bench.repeating.copy_command()
    assert bench.session.is_warning


def test_further_volumes_are_part_of_the_command(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], image: NDArray[np.uint8]
) -> None:
    viewer = bench.viewer
    painted = np.where(truth[::-1], 2, 1).astype(np.uint8)
    other, labels = viewer.add_image(image[::-1].copy(), name="other"), viewer.add_labels(painted, name="its labels")
    assert bench.further.add(other, labels, is_measured=True) == ""
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    model = run(qtbot, bench)
    words = copied(qtbot, bench)
    assert "--validate-on" in words
    assert_same_weights(repeated(words), model)


def test_volumes_of_different_size_and_no_file_are_refused(
    bench: Workbench, image: NDArray[np.uint8], autosaves: Path
) -> None:
    from napari_unet3d.engine.axes import VoxelSize
    from napari_unet3d.engine.errors import DataError
    from napari_unet3d.engine.volume import Volume
    from napari_unet3d.widgets._repeating import AnnotatedImage, CommandTask

    assert bench.keeping.folder is not None
    labels = np.ones(image.shape, np.uint8)
    volumes = [AnnotatedImage(Volume.from_array(image, VoxelSize(z, 1, 1)), None, labels) for z in (1, 2)]
    with pytest.raises(DataError, match="save them as OME-TIFF"):
        CommandTask(bench.keeping.folder, volumes, "train: {steps: 1}\n")()
