"""Budget and device of a training, as a form."""

from __future__ import annotations

from typing import Any

import pytest

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.widgets._run_settings import RunSettings


@pytest.fixture
def settings(qtbot: Any) -> RunSettings:
    widget = RunSettings()
    qtbot.addWidget(widget)
    return widget


def test_showing_a_configuration_changes_nothing(qtbot: Any, settings: RunSettings) -> None:
    with qtbot.assertNotEmitted(settings.changed), qtbot.assertNotEmitted(settings.device_chosen):
        settings.show_config(TrainConfig(seconds=150, device="cuda:1"))
    assert settings.minutes.value() == 2.5
    assert settings.minutes.isEnabled()
    assert not settings.until_better.isChecked()
    assert settings.device.currentText() == "cuda:1"
    assert settings.steps.isHidden()


def test_without_budget_it_trains_until_it_stops_improving(qtbot: Any, settings: RunSettings) -> None:
    settings.show_config(TrainConfig())
    assert settings.until_better.isChecked()
    assert not settings.minutes.isEnabled()
    with qtbot.waitSignal(settings.changed) as emitted:
        settings.until_better.setChecked(False)
    assert emitted.args == [{"seconds": settings.minutes.value() * 60, "steps": None}]


def test_a_budget_in_steps_is_told(qtbot: Any, settings: RunSettings) -> None:
    settings.show_config(TrainConfig(steps=40))
    assert settings.steps.text().startswith("40 steps")
    assert not settings.steps.isHidden()
    with qtbot.waitSignal(settings.changed) as emitted:
        settings.minutes.setValue(3)
    assert emitted.args == [{"seconds": 180.0, "steps": None}]


def test_a_device_is_chosen_by_hand_only(qtbot: Any, settings: RunSettings) -> None:
    with qtbot.waitSignal(settings.device_chosen) as emitted:
        settings.device.textActivated.emit("cpu")
    assert emitted.args == ["cpu"]


def test_processes_are_shown_and_chosen(qtbot: Any) -> None:
    widget = RunSettings(is_shareable=True)
    qtbot.addWidget(widget)
    with qtbot.assertNotEmitted(widget.changed):
        widget.show_config(TrainConfig(processes=3, device="cuda:all"))
    assert widget.processes.value() == 3
    assert widget.device.count() == 5  # cuda:all is one of them
    with qtbot.waitSignal(widget.changed) as emitted:
        widget.processes.setValue(0)
    assert emitted.args == [{"processes": None}]
    assert widget.processes.text() == "one for each device"


def test_work_of_one_process_offers_no_others(settings: RunSettings) -> None:
    assert settings.device.findText("cuda:all") < 0
    assert settings.processes.parent() is None
