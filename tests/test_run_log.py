"""Curves in files."""

from __future__ import annotations

import csv
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from napari_unet3d.api.run_log import RunLog, TableLog, figures
from napari_unet3d.engine.errors import ConfigError, FileError
from napari_unet3d.engine.progress import ClassScore, Note, Stepped, Validated

STEP = Stepped(3, 0.5, 0.01, 1.25, None, {"dice": 0.2, "cross_entropy": 0.3})
SCORES = (ClassScore(1, 0.9, 0.95, 1, 1), ClassScore(2, math.nan, math.nan, math.nan, math.nan))
SCORED = Validated(3, 1.5, SCORES, math.nan, is_best=True)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_table_has_a_line_for_each_figure(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.csv") as log:
        log.show(STEP)
        assert len(rows(tmp_path / "log.csv")) == 5  # while the run goes on
        log.show(Note("nothing to count"))
        log.show(SCORED)
    assert rows(tmp_path / "log.csv") == [
        ["step", "seconds", "name", "value"],
        ["3", "1.250", "loss", "0.5"],
        ["3", "1.250", "loss/dice", "0.2"],
        ["3", "1.250", "loss/cross_entropy", "0.3"],
        ["3", "1.250", "learning_rate", "0.01"],
        ["3", "1.500", "iou/1", "0.9"],
        ["3", "1.500", "dice/1", "0.95"],
    ]


def test_a_resumed_run_goes_on_in_its_table(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for is_continued in (True, True, False):
        with RunLog(path, is_continued=is_continued) as log:
            log.show(STEP)
        lines = rows(path)
        assert lines.count(["step", "seconds", "name", "value"]) == 1
    assert len(lines) == 5


def test_agreement_with_a_teacher_is_a_figure() -> None:
    assert ("agreement", 0.75) in list(figures(Validated(1, 1.0, (), 0.5, True, agreement=0.75)))


def test_a_table_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the log .*missing.log\.csv cannot be written \(No such file"):
        RunLog(tmp_path / "missing" / "log.csv")


def test_a_full_disk_ends_the_log_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLog(tmp_path / "log.csv") as log:

        def fail(self: object, *figure: object) -> None:
            raise FileError("no space")

        monkeypatch.setattr(TableLog, "write", fail)
        assert log.show(STEP) == [Note("no space; going on without it", "warning")]
        assert log.show(STEP) == []


def test_tensorboard_gets_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            calls.append(folder)

        def add_scalar(self, name: str, value: float, global_step: int) -> None:
            calls.append((name, value, global_step))

        def close(self) -> None:
            calls.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with RunLog(tensorboard=tmp_path / "tb") as log:
        log.show(STEP)
    assert calls[0] == str(tmp_path / "tb")
    assert calls[1:-1] == [
        ("loss", 0.5, 3),
        ("loss/dice", 0.2, 3),
        ("loss/cross_entropy", 0.3, 3),
        ("learning_rate", 0.01, 3),
    ]
    assert calls[-1] == "closed"


def test_a_missing_tensorboard_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r'pip install "napari-unet3d\[tensorboard\]"'):
        RunLog(tmp_path / "log.csv", tmp_path / "tb")
    assert not (tmp_path / "log.csv").exists()
