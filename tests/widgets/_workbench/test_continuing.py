"""Training goes on: where a run stood, from the weights of a model, with classes that came later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.model_file import save_model
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import Workbench

from .conftest import SMALL, paint

TIMEOUT = 60_000
SLICES = ((0, 5), (0, 8), (1, 16))


def trained(qtbot: Any, bench: Workbench) -> Any:
    """The model after the run that is going on."""
    qtbot.waitUntil(lambda: bench.session.phase is Phase.IDLE, timeout=TIMEOUT)
    assert bench.session.model is not None, bench.session.message
    return bench.session.model


def first_run(qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]) -> Any:
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    bench.training.start()
    return trained(qtbot, bench)


def test_a_run_goes_on_where_it_stood_and_tells_how_fast_it_is(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]
) -> None:
    bench.session.train_config = bench.session.train_config.updated(steps=5)
    first_run(qtbot, bench, truth)
    assert bench.session.machine_rate is not None
    assert bench.session.machine_rate > 0
    bench.training.go_on()
    model = trained(qtbot, bench)
    assert model.recipe.record.steps == 10
    assert not model.recipe.record.from_weights


def test_a_new_class_keeps_what_was_learnt(qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]) -> None:
    model = first_run(qtbot, bench, truth)
    bench.add_class()
    bench.annotation.data_setitem((np.array([2, 2]), np.array([3, 4]), np.array([5, 6])), np.array([3, 3]))
    bench.take_strokes()
    told: list[str] = []
    bench.session.events.message.connect(told.append)
    bench.training.go_on()
    wider = trained(qtbot, bench)
    assert any("new to the model: 'class 3'" in text for text in told)
    assert [entry.id for entry in wider.classes] == [1, 2, 3]
    assert wider.recipe.record.from_weights
    before, after = model.network.state_dict(), wider.network.state_dict()
    assert after["body.head.weight"].shape[0] == 3
    # three steps away from where the first run ended, not from random weights
    name = "body.encoder.blocks.0.layers.0.weight"
    name = name if name in before else next(key for key in before if "encoder" in key and before[key].ndim == 5)
    assert (after[name] - before[name]).abs().max() < 0.1


def wait_for(qtbot: Any, bench: Workbench, phase: Phase) -> None:
    qtbot.waitUntil(lambda: bench.session.phase is phase, timeout=TIMEOUT)


def endless_run(qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]) -> None:
    bench.session.train_config = bench.session.train_config.updated(steps=None, seconds=600)
    bench.new_annotation()
    paint(bench, truth, *SLICES)
    bench.training.start()
    wait_for(qtbot, bench, Phase.TRAINING)


def paint_a_third_class(bench: Workbench) -> None:
    bench.add_class()
    bench.annotation.data_setitem((np.array([2]), np.array([3]), np.array([5])), np.array([3]))
    bench.take_strokes()


def test_a_class_painted_during_a_run_joins_it(qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]) -> None:
    endless_run(qtbot, bench, truth)
    told: list[str] = []
    bench.session.events.message.connect(told.append)
    paint_a_third_class(bench)
    assert any("class 'class 3' came after this training began and joins it" in text for text in told)
    qtbot.waitUntil(lambda: any("new to the model: 'class 3'" in text for text in told), timeout=TIMEOUT)
    wait_for(qtbot, bench, Phase.TRAINING)
    bench.training.stop()
    model = trained(qtbot, bench)
    assert [entry.id for entry in model.classes] == [1, 2, 3]
    assert model.recipe.record.from_weights  # of the run that did not know the class


def test_a_class_painted_during_a_pause_joins_after_it(qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]) -> None:
    endless_run(qtbot, bench, truth)
    bench.training.pause()
    wait_for(qtbot, bench, Phase.PAUSED)
    paint_a_third_class(bench)
    assert bench.session.phase is Phase.PAUSED
    told: list[str] = []
    bench.session.events.message.connect(told.append)
    bench.training.resume()
    qtbot.waitUntil(lambda: any("new to the model: 'class 3'" in text for text in told), timeout=TIMEOUT)
    bench.training.stop()
    wait_for(qtbot, bench, Phase.IDLE)


def test_stop_is_stronger_than_a_class_that_joins(qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]) -> None:
    endless_run(qtbot, bench, truth)
    bench.training.pause()
    wait_for(qtbot, bench, Phase.PAUSED)
    paint_a_third_class(bench)
    bench.training.stop()
    assert [entry.id for entry in trained(qtbot, bench).classes] == [1, 2]


def test_a_loaded_model_shows_its_settings_and_is_trained_further_from_its_weights(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], tmp_path: Path
) -> None:
    session = bench.session
    session.classes = (
        ClassInfo(id=1, name="outside", colour="#101010"),
        ClassInfo(id=2, name="cell", colour="#ff0000"),
    )
    path = tmp_path / "cell.safetensors"
    save_model(first_run(qtbot, bench, truth), path)
    session.network_settings = {}
    bench.set_classes([entry.updated(name=f"other {entry.id}") for entry in session.classes])
    session.curves.losses.clear()
    session.train_config = session.train_config.updated(steps=7, device="cpu")

    bench.load_model(path)
    qtbot.waitUntil(lambda: "ready" in session.message, timeout=TIMEOUT)
    assert session.network_settings["filters"] == SMALL["filters"]
    assert [entry.name for entry in session.classes] == ["outside", "cell"]
    assert session.curves.losses
    assert session.train_config.steps == 3
    assert session.train_config.device == "cpu"  # that of this machine, not of the one that trained the model
    bench.training.go_on()
    model = trained(qtbot, bench)
    assert model.recipe.record.from_weights
    assert model.recipe.record.steps == 3


def test_a_model_for_other_channels_says_what_to_do(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], image: NDArray[np.uint8]
) -> None:
    first_run(qtbot, bench, truth)
    bench.choose_image([bench.viewer.add_image(np.stack([image, image]), name="two")], "CZYX")
    problem = bench.training.continuing_problem()
    assert "takes 1 channel but two has 2 channels" in problem
    assert "click Train" in problem
    bench.training.go_on()
    assert bench.session.phase is Phase.IDLE
    assert bench.session.message == problem


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def test_an_id_painted_with_napari_becomes_a_class(bench: Workbench, truth: NDArray[np.bool_]) -> None:
    bench.new_annotation()
    bench.annotation.data_setitem((np.array([2]), np.array([3]), np.array([5])), np.array([7]))
    bench.take_strokes()
    assert [(entry.id, entry.name) for entry in bench.session.classes][-1] == (7, "class 7")
    assert len({entry.colour for entry in bench.session.classes}) == 3


def test_strokes_of_a_deleted_class_stay_and_are_not_trained_on(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_]
) -> None:
    bench.new_annotation()
    bench.add_class()
    paint(bench, truth, *SLICES)
    bench.annotation.data_setitem((np.array([2]), np.array([3]), np.array([5])), np.array([3]))
    bench.take_strokes()
    bench.edit_classes(bench.session.classes[:2])
    assert bench.painted_ids == {1, 2}
    assert bench.annotation.data[2, 3, 5] == 3
    bench.annotation.data_setitem((np.array([2, 2]), np.array([2, 4]), np.array([4, 6])), np.array([1, 1]))
    bench.take_strokes()  # the box around them holds the deleted class too
    assert [entry.id for entry in bench.session.classes] == [1, 2]
    bench.training.start()
    assert [entry.id for entry in trained(qtbot, bench).classes] == [1, 2]
    bench.add_class()
    assert bench.painted_ids == {1, 2, 3}
