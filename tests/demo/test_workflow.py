"""The whole demo on a small head: every fourth voxel along each axis, two steps."""

from __future__ import annotations

import importlib.util
import json
import shlex
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import nibabel
import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet3d import demo
from napari_unet3d.demo import files
from napari_unet3d.demo.curves import iou_per_slice
from napari_unet3d.demo.head import CLASS_NAMES, DemoVolume, load_head
from napari_unet3d.demo.report import DemoReport
from napari_unet3d.demo.view import add_results
from napari_unet3d.demo.workflow import run_demo
from napari_unet3d.engine.errors import ConfigError, FileError, UNet3dError
from napari_unet3d.engine.progress import Event, Finished, Stepped

STEPS = 2


class Notebook:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[Event] = []

    def __call__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def show(self, event: Event, /) -> None:
        self.events.append(event)

    def say(self, text: str, /) -> None:
        self.lines.append(text)


@dataclass
class Run:
    folder: Path
    head: DemoVolume
    report: DemoReport
    told: Notebook
    shown: list[Path]


def load(path: Path) -> Any:
    return nibabel.load(path)  # without type hints


def small_head() -> DemoVolume:
    whole = load_head()
    every = (slice(None, None, 4),) * 3
    return DemoVolume(whole.image[every], whole.truth[every], whole.affine @ np.diag([4.0, 4.0, 4.0, 1.0]))


def show_nothing(folder: Path) -> str:
    return "nothing shown"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo") / "not" / "yet there"
    head, told, shown = small_head(), Notebook(), []

    def show(results: Path) -> str:
        shown.append(results)
        return "the viewer was asked"

    report = run_demo(folder, make_reporter=told, show=show, steps=STEPS, head=head)
    return Run(folder, head, report, told, shown)


def test_everything_promised_is_written_and_told(run: Run) -> None:
    assert {path.name for path in run.folder.iterdir()} == set(files.MEANING)
    for name in files.MEANING:
        assert any(str(run.folder / name) in line for line in run.told.lines)


def test_training_and_prediction_are_followed(run: Run) -> None:
    assert sum(isinstance(event, Stepped) for event in run.told.events) == STEPS
    assert sum(isinstance(event, Finished) for event in run.told.events) == 2


def test_the_viewer_comes_last_and_once(run: Run) -> None:
    assert run.shown == [run.folder]
    assert run.told.lines[-1] == "the viewer was asked"


@pytest.mark.parametrize("name", [files.PAINTED, files.TRUTH, files.LABELS, files.UNCERTAINTY])
def test_results_lie_on_the_image_to_the_bit(run: Run, name: str) -> None:
    image, result = load(run.folder / files.IMAGE), load(run.folder / name)

    assert result.shape == image.shape
    assert result.affine.tobytes() == image.affine.tobytes()
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units"):
        assert result.header[field].tobytes() == image.header[field].tobytes()


def test_predicted_labels_use_the_painted_ids(run: Run) -> None:
    labels = np.asanyarray(load(run.folder / files.LABELS).dataobj)

    assert set(np.unique(labels)) <= set(CLASS_NAMES)


def test_the_reported_iou_is_that_of_unpainted_voxels(run: Run) -> None:
    labels, truth, painted = (
        np.asanyarray(load(run.folder / name).dataobj) for name in (files.LABELS, files.TRUTH, files.PAINTED)
    )
    report = json.loads((run.folder / files.FIGURES).read_text(encoding="utf-8"))

    for label_id, name in ((2, "grey matter"), (3, "white matter")):
        mine, true = (ids[painted == 0] == label_id for ids in (labels, truth))
        assert report["iou"][name] == pytest.approx((mine & true).sum() / (mine | true).sum())
    assert report["evaluation"]["scored_voxels"] == np.count_nonzero(painted == 0)


def test_the_report_says_what_happened(run: Run) -> None:
    report = json.loads((run.folder / files.FIGURES).read_text(encoding="utf-8"))

    assert report["data"]["shape_zyx"] == list(run.head.image.shape)
    assert [(e["axis"], e["index"]) for e in report["data"]["painted_slices"]] == [
        ("zyx"[axis], index) for axis, index in run.head.painted_planes()
    ]
    assert report["data"]["painted_share"] == pytest.approx((run.head.painted() > 0).mean())
    assert report["training"]["record"]["steps"] == STEPS
    assert report["training"]["record"]["device"] == run.report.model.recipe.record.device  # type: ignore[union-attr]
    assert 0 < report["training"]["record"]["seconds"] <= report["training"]["seconds"]
    assert report["prediction"]["seconds"] > 0
    assert [entry["name"] for entry in report["classes"]] == list(CLASS_NAMES.values())


def test_the_readable_report_has_the_same_figures_and_finds_its_pictures(run: Run) -> None:
    text = (run.folder / files.REPORT).read_text(encoding="utf-8")

    for label_id, iou in run.report.iou.items():
        assert f"| {CLASS_NAMES[label_id]} | **{iou:.3f}** |" in text
        assert f"{CLASS_NAMES[label_id]} {iou:.3f}" in run.report.summary()
    for name in (files.PICTURE, files.CURVES):
        assert f"]({name})" in text
    for command in run.report.commands:
        assert command in text


def test_the_commands_told_name_the_files_written(run: Run) -> None:
    words = [shlex.split(command) for command in run.report.commands]

    assert [(line[0], line[1]) for line in words] == [
        ("napari-unet3d", "train"),
        ("napari-unet3d", "predict"),
        ("napari-unet3d", "evaluate"),
    ]
    assert words[0][-2:] == ["--steps", str(STEPS)]
    named = {word for line in words for word in line if "." in word}
    assert named == {
        files.IMAGE,
        files.PAINTED,
        files.TRUTH,
        files.MODEL,
        files.LABELS,
        files.UNCERTAINTY,
    }


def test_the_quick_start_tells_the_same_commands_and_files(run: Run) -> None:
    text = (Path(__file__).parents[2] / "docs" / "quick-start-command-line.md").read_text(encoding="utf-8")

    for command in replace(run.report, budget="--seconds 60").commands:
        assert f"\n{command}\n" in text
    for name in files.MEANING:
        assert f"`{name}`" in text


@pytest.mark.parametrize("name", [files.PICTURE, files.CURVES])
def test_pictures_are_wide_enough_to_read(run: Run, name: str) -> None:
    head = (run.folder / name).read_bytes()[:24]
    width, height = struct.unpack(">II", head[16:24])

    assert head.startswith(b"\x89PNG")
    assert width == 1800
    assert 500 < height < 1800


def test_napari_shows_every_layer_at_its_place_in_mm(run: Run) -> None:
    viewer = ViewerModel()
    add_results(viewer, run.folder)

    assert [layer.name for layer in viewer.layers] == [
        "head",
        "uncertainty",
        "truth",
        "prediction",
        "painted slices",
    ]
    flip = np.eye(4)[[2, 1, 0, 3]]  # NIfTI's x y z to z y x
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.affine.affine_matrix, flip @ run.head.affine @ flip)
        assert {str(unit) for unit in layer.units} == {"millimeter"}
    assert [layer.visible for layer in viewer.layers] == [True, False, False, True, True]
    np.testing.assert_array_equal(viewer.layers["truth"].data, run.head.truth)


def test_iou_of_each_slice_by_hand() -> None:
    truth = np.full((4, 1, 8), 1, np.uint8)
    truth[0, 0, :4] = 2
    truth[1, 0, :4] = 2
    truth[2, 0, :2] = 3
    prediction = truth.copy()
    prediction[0, 0, 2:6] = 2  # 2 of 6 wrong
    prediction[0, 0, :2] = 1
    painted = np.zeros_like(truth)
    painted[1] = truth[1]  # all of it painted

    scores = iou_per_slice(prediction, truth, painted)

    np.testing.assert_allclose(scores[2], [2 / 6, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(scores[3], [np.nan, np.nan, 1, np.nan])


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_budget_that_makes_no_sense_is_refused_before_anything_is_written(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        run_demo(tmp_path / "out", make_reporter=Notebook(), show=show_nothing, seconds=seconds)
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()

    with pytest.raises(FileError, match="taken cannot be made"):
        run_demo(tmp_path / "taken", make_reporter=Notebook(), show=show_nothing, steps=1)


@pytest.mark.parametrize("package", ["matplotlib", "nilearn"])
def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    find = importlib.util.find_spec

    def find_other(name: str, *rest: Any) -> Any:
        return None if name == package else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_other)

    with pytest.raises(UNet3dError, match=rf'{package}.*pip install "napari-unet3d\[demo\]"'):
        run_demo(tmp_path / "out", make_reporter=Notebook(), show=show_nothing, seconds=1)
    assert not (tmp_path / "out").exists()


def test_run_takes_the_head_template_the_budget_and_opens_napari(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet3d.demo import viewer_process, workflow

    asked: dict[str, Any] = {}
    monkeypatch.setattr(workflow, "run_demo", lambda out, **rest: asked.update(rest, out=out))
    told = Notebook()

    demo.run(tmp_path, 7.0, make_reporter=told)

    assert asked == {
        "out": tmp_path,
        "seconds": 7.0,
        "make_reporter": told,
        "show": viewer_process.open_viewer,
    }
