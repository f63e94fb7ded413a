"""Eight-bit convolutions: made, measured, and taken only if they pay."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from napari_unet3d.api import export_events, export_model, open_model, predict
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.errors import ConfigError, ExportError
from napari_unet3d.engine.model_file import save_model
from napari_unet3d.engine.model_header import ModelHeader
from napari_unet3d.engine.progress import Note
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import Volume
from napari_unet3d.exports import quantization
from napari_unet3d.exports.quantization import QuantizationReport, calibration_tiles

pytestmark = pytest.mark.usefixtures("traced_once")

GOOD = QuantizationReport(
    method="static",
    agreement=0.999,
    iou=((1, 0.9991), (2, 0.98), (7, math.nan)),
    mean_iou=0.98,
    truth_before=None,
    truth_after=None,
    seconds_before=0.4,
    seconds_after=0.2,
    bytes_before=4000,
    bytes_after=1200,
)


@pytest.fixture
def plane() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Y X grey values: smooth blobs, half of them bright."""
    y, x = np.mgrid[:70, :90]
    waves = np.sin(y / 5) * np.cos(x / 7)
    noise = np.random.default_rng(0).normal(0, 5, waves.shape)
    return np.asarray(100 + 60 * waves + noise, np.float32)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Decides how long the models take: tests do not depend on the machine."""

    def set_seconds(before: float, after: float) -> None:
        monkeypatch.setattr(quantization, "_seconds", lambda models, header: [before, after])

    return set_seconds


# --- the decision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"seconds_after": 0.4}, "static int8 is not faster on this machine (0.4 s instead of 0.4 s for a tile)"),
        ({"mean_iou": 0.969}, "its structures have an IoU of 0.969 with those of the model; 0.97 is needed"),
        ({"mean_iou": math.nan}, "no structure is found in the image"),
        ({"mean_iou": 0.5, "truth_before": 0.8, "truth_after": 0.795}, None),
        ({"truth_before": 0.8, "truth_after": 0.85}, None),
        ({"truth_before": 0.8, "truth_after": 0.78}, "it costs 0.020 of IoU with the truth; 0.01 is allowed"),
        ({"truth_before": math.nan, "truth_after": math.nan}, "the truth shows no structure"),
    ],
)
def test_objections(changes: dict[str, Any], message: str | None) -> None:
    objection = dataclasses.replace(GOOD, **changes).objection
    assert (objection is None) if message is None else str(objection).startswith(message)


def test_the_report_in_words() -> None:
    lines = dataclasses.replace(GOOD, truth_before=0.81, truth_after=0.8).lines()
    assert lines == [
        "static int8: the same label in 99.9000% of the voxels; IoU with float32: class 1 0.9991, class 2 0.9800",
        "mean IoU of the structures with the truth: 0.8100 in float32, 0.8000 in int8",
        "seconds for a tile: 0.4 in float32, 0.2 in int8 (2.00 times as fast); file: 4,000 and 1,200 bytes",
    ]


# --- the model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_quantized_models_are_smaller_run_and_label_about_alike(
    plain_model: TrainedModel, tmp_path: Path, plane: Any, timed: Any, method: Any
) -> None:
    timed(2.0, 1.0)
    path = export_model(plain_model, tmp_path / "int8.onnx", "onnx", image=plane, quantize=method, force=True)
    proto = onnx.load(path)
    kinds = {node.op_type for node in proto.graph.node}
    assert kinds & {"QLinearConv", "ConvInteger", "QuantizeLinear", "DynamicQuantizeLinear"}
    assert {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} & {tensor.data_type for tensor in proto.graph.initializer}
    config = PredictConfig(device="cpu", precision="float32")
    own, other = (np.asarray(predict(model, plane, config=config)) for model in (plain_model, open_model(path)))
    assert set(np.unique(own)) == {1, 2}
    assert np.mean(own == other) > 0.9


def test_tiles_for_calibration_come_from_all_over_the_image(model: TrainedModel) -> None:
    grey = np.broadcast_to(np.arange(200, dtype=np.float32)[:, None, None], (200, 40, 40))
    header = ModelHeader.of(model, with_state=False)
    tiles = calibration_tiles(header, Volume.from_array(grey))
    assert len(tiles) == 8
    assert {tile.shape[:2] for tile in tiles} == {(1, 1)}
    assert min(tile.min() for tile in tiles) == 0
    assert max(tile.max() for tile in tiles) == 199


def test_calibration_on_an_image_smaller_than_a_tile(model: TrainedModel) -> None:
    (tile,) = calibration_tiles(ModelHeader.of(model, with_state=False), Volume.from_array(np.ones((3, 4, 5))))
    assert (tile == 1).all()


# --- exporting --------------------------------------------------------------------------------------------


def notes(*arguments: Any, **options: Any) -> list[Note]:
    return list(export_events(*arguments, **options))


def test_a_slower_model_is_refused_after_its_figures(
    plain_model: TrainedModel, tmp_path: Path, plane: Any, timed: Any
) -> None:
    timed(1.0, 2.0)
    events = export_events(plain_model, tmp_path / "int8.onnx", "onnx", image=plane, quantize="dynamic")
    told: list[str] = []
    with pytest.raises(ExportError, match=r"not quantised: dynamic int8 is not faster .* --force"):
        told.extend(event.text for event in events)
    assert any("the same label in" in text for text in told)
    assert not (tmp_path / "int8.onnx").exists()


def test_force_takes_it_all_the_same(plain_model: TrainedModel, tmp_path: Path, plane: Any, timed: Any) -> None:
    timed(1.0, 2.0)
    found = notes(plain_model, tmp_path / "int8.onnx", "onnx", image=plane, quantize="dynamic", force=True)
    texts = [note.text for note in found]
    assert any("the same label in" in text for text in texts)
    assert any("0.50 times as fast" in text for text in texts)
    assert next(note for note in found if note.level == "warning").text.startswith("taken because of --force, although")
    assert open_model(tmp_path / "int8.onnx").label_ids == (1, 2)


def test_truth_decides_through_the_program(
    run: Any, plain_model: TrainedModel, tmp_path: Path, plane: Any, timed: Any
) -> None:
    timed(2.0, 1.0)
    save_model(plain_model, tmp_path / "model.safetensors")
    np.save(tmp_path / "image.npy", plane)
    own = np.asarray(predict(plain_model, plane, config=PredictConfig(device="cpu", precision="float32")))
    np.save(tmp_path / "truth.npy", own.astype(np.uint8))
    given = ("--quantize", "static", "--image", "image.npy", "--truth", "truth.npy")
    outcome = run("export", "model.safetensors", "--format", "onnx", "--out", "int8.onnx", *given, "--force")
    assert outcome.code == 0, outcome.err
    assert "mean IoU of the structures with the truth: 1.0000 in float32" in outcome.out
    assert (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("onnx", {"quantize": "static"}, "--image"),
        ("onnx", {"quantize": "int4", "image": "x.npy"}, "known: static, dynamic"),
        ("pt2", {"quantize": "static", "image": "x.npy"}, "--quantize is for --format onnx"),
        ("onnx", {"force": True}, "--truth and --force are for --quantize"),
        ("onnx", {"truth": "x.npy"}, "--truth and --force are for --quantize"),
    ],
)
def test_options_that_contradict_each_other(
    model: TrainedModel, tmp_path: Path, format: Any, options: Any, message: str
) -> None:
    suffix = {"onnx": "onnx", "pt2": "pt2"}[format]
    with pytest.raises(ConfigError, match=message):
        notes(model, tmp_path / f"x.{suffix}", format, **options)
