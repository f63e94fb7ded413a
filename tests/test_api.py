"""The headless verbs, from arrays and from files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_unet3d
from napari_unet3d import api
from napari_unet3d.api import training
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet3d.engine.errors import ConfigError, DataError, FileError, TrainingError
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.model_file import save_model
from napari_unet3d.engine.progress import Finished, Inbox, Note, Saved, Stepped, Stop
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io.files import read_volume

SMALL = UNetConfig(levels=2, filters=4)
QUICK = TrainConfig(steps=6, device="cpu", precision="float32", patch_size=(4, 16, 16))


@pytest.fixture
def scene() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Image, sparse labels and truth, 12 x 32 x 32."""
    _, y, x = np.indices((12, 32, 32))
    truth = (1 + ((y - 16) ** 2 + (x - 12) ** 2 < 60)).astype(np.uint8)
    image = (50 * truth + np.random.default_rng(0).normal(0, 10, truth.shape)).astype(np.float32)
    labels = np.zeros_like(truth)
    labels[[1, 6, 10]] = truth[[1, 6, 10]]
    return image, labels, truth


@pytest.fixture
def files(scene: Any, tmp_path: Path) -> Path:
    for name, array in zip(("image", "labels", "truth"), scene, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


@pytest.fixture
def start(files: Path) -> Callable[..., api.TrainingRun]:
    """A run of files; by default it writes model.safetensors."""

    def make(**options: Any) -> api.TrainingRun:
        settings = {"network": SMALL, "config": QUICK, "out": files / "model.safetensors", **options}
        return api.train_events(files / "image.npy", files / "labels.npy", **settings)

    return make


class Ticking:
    """Time that passes at every look."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def hurried(run: api.TrainingRun, tick: float = 6.0) -> api.TrainingRun:
    """The run, with so much time between two looks at its clock that it saves at every other step."""
    run._clock = Ticking(tick)
    run._tried_at = 0.0
    return run


# --- train ------------------------------------------------------------------------------------------------


def test_two_lines_are_enough(scene: Any) -> None:
    image, labels, truth = scene
    model = napari_unet3d.train(image, labels, network=SMALL, config=QUICK.updated(steps=60))
    found = napari_unet3d.predict(model, image, config=PredictConfig(device="cpu", precision="float32"))
    assert found.shape == truth.shape
    assert found.dtype == np.uint8
    scores = {
        entry.score.class_id: entry.score.iou for entry in napari_unet3d.evaluate(found, truth, exclude=labels).classes
    }
    assert min(scores.values()) > 0.7


def test_default_network_takes_channels_and_classes_from_the_data(scene: Any) -> None:
    image, labels, _ = scene
    labels[1, :4, :4] = 9
    model = api.train(np.stack([image, image]), labels, config=QUICK.updated(steps=1), network="fast")
    assert (model.in_channels, model.label_ids) == (2, (1, 2, 9))
    assert model.recipe.network == training._settled_network(None, {}, [], model)


def test_a_sigmoid_head_has_no_channel_for_the_background(scene: Any) -> None:
    image, labels, _ = scene
    labels[1, :4, :4] = 9
    options: dict[str, Any] = {"network_settings": {"levels": 2, "filters": 3, "head": "sigmoid"}}
    model = api.train(image, labels, config=QUICK.updated(steps=1), **options)
    assert (model.recipe.network.classes, model.label_ids) == (2, (1, 2, 9))
    assert set(np.unique(api.predict(model, image))) <= {1, 2, 9}


def test_settings_override_the_preset(scene: Any) -> None:
    image, labels, _ = scene
    options: dict[str, Any] = {"network_settings": {"levels": 2, "filters": 3}, "voxel_size": VoxelSize(4.0, 1.0, 1.0)}
    model = api.train(image, labels, config=QUICK.updated(steps=1), **options)
    assert model.recipe.network.filters_per_level == (3, 6)
    assert model.voxel_size.z == 4
    assert model.recipe.network.kernel_per_level[0] == (1, 3, 3)


def test_flat_arrays(scene: Any) -> None:
    image, labels, truth = scene
    network = SMALL.updated(dimensions=2)
    model = api.train(image[6], labels[6], network=network, config=QUICK.updated(patch_size="auto"))
    assert api.predict(model, image[6]).shape == truth[6].shape


def test_more_volumes(scene: Any, start: Any) -> None:
    image, labels, _ = scene
    run = start(also=[(image, labels)], out=None)
    assert any("6 annotated slices" in event.text for event in run if isinstance(event, Note))


def test_zero_may_be_the_background(scene: Any) -> None:
    image, _, truth = scene
    run = api.train_events(image, truth - 1, network=SMALL, config=QUICK, zero_is_background=True)
    for _ in run:
        pass
    assert run.model().label_ids == (1, 2)


def test_values_that_are_not_finite_are_told_once(scene: Any) -> None:
    image, labels, _ = scene
    image[0, 0, :3] = np.nan
    image[5, 5, 5] = np.inf
    run = api.train_events(image, labels, network=SMALL, config=QUICK)
    notes = [event.text for event in run if isinstance(event, Note) and event.level == "warning"]
    assert len([text for text in notes if "NaN or infinite" in text]) == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda image, labels: (image, labels * 0), DataError),
        (lambda image, labels: (image, (labels > 0) * 1), DataError),
        (lambda image, labels: (image, labels[:5]), DataError),
        (lambda image, labels: (image, labels * -1.0), DataError),
        (lambda image, labels: (image, labels + 0.5), DataError),
        (lambda image, labels: (image + 1j, labels), DataError),
        (lambda image, labels: (image * 0, labels), DataError),
        (lambda image, labels: (image[0], labels[1]), ConfigError),
    ],
)
def test_bad_arrays_are_refused_before_anything_is_written(
    scene: Any, tmp_path: Path, change: Any, error: type[Exception]
) -> None:
    image, labels = change(scene[0], scene[1].astype(np.float32))
    with pytest.raises(error):
        api.train_events(image, labels, network=SMALL, config=QUICK, out=tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_one_beginning_is_enough(start: Any) -> None:
    run = start()
    list(run)
    with pytest.raises(ConfigError, match="give one of them"):
        start(resume=run.model(with_state=True), weights_from=run.model())


# --- the model file ---------------------------------------------------------------------------------------


def test_finished_file_drops_the_state(start: Any, files: Path) -> None:
    events = list(start())
    assert isinstance(events[-1], Finished)
    assert events[-2] == Saved(files / "model.safetensors", 6)
    assert api.load_model(files / "model.safetensors").state is None


def test_finished_file_keeps_the_state_on_request(start: Any, files: Path) -> None:
    list(start(keep_state=True))
    model = api.load_model(files / "model.safetensors")
    assert model.state is not None
    longer = start(resume=model, network=None, config=QUICK.updated(steps=9))
    assert [event.step for event in longer if isinstance(event, Stepped)] == [7, 8, 9]


def test_stopped_file_keeps_the_state(start: Any, files: Path) -> None:
    inbox = Inbox()
    for event in start(inbox=inbox, config=QUICK.updated(steps=1000)):
        if isinstance(event, Stepped) and event.step == 2:
            inbox.put(Stop())
    model = api.load_model(files / "model.safetensors")
    assert model.state is not None
    assert model.recipe.record is not None
    assert model.recipe.record.steps == 2


def test_file_is_saved_meanwhile_with_all_that_resuming_needs(start: Any, files: Path) -> None:
    saved = []
    for event in hurried(start()):
        if isinstance(event, Saved):
            saved.append(event.step)
            model = api.load_model(files / "model.safetensors")
            assert (model.state is None) is (event.step == 6 and len(saved) == 4)
    assert saved == [2, 4, 6, 6]
    assert training._SAVE_EVERY < 15


def test_full_disk_meanwhile_is_a_warning(start: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def full_at_first(*arguments: Any) -> Path:
        calls.append(1)
        if len(calls) < 3:
            raise FileError("cannot write model.safetensors: No space left on device; free some space")
        return save_model(*arguments)

    monkeypatch.setattr(training, "save_model", full_at_first)
    events = list(hurried(start()))
    warnings = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    assert len(warnings) == 2
    assert warnings[0].endswith("training goes on")
    assert len([event for event in events if isinstance(event, Stepped)]) == 6
    assert (files / "model.safetensors").exists()


def test_full_disk_at_the_end_is_an_error_that_leaves_the_model(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise FileError("cannot write model.safetensors: No space left on device; free some space")

    monkeypatch.setattr(training, "save_model", full)
    run = start()
    with pytest.raises(FileError, match="No space left"):
        list(run)
    assert run.model().recipe.record is not None


def test_failed_training_saves_the_best(start: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = Learner.learn

    def failing(self: Learner, batch: Any, rate: float, seed: int) -> Any:
        return learn(self, batch._replace(input=batch.input * float("nan")), rate, seed)

    run = iter(start(config=QUICK.updated(steps=50)))
    for event in run:
        if isinstance(event, Stepped) and event.step == 3:
            monkeypatch.setattr(Learner, "learn", failing)
            break
    with pytest.raises(TrainingError):
        list(run)
    model = api.load_model(files / "model.safetensors")
    assert model.recipe.record is not None
    assert model.recipe.record.steps == 7


def test_error_in_training_outweighs_one_in_saving(start: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def full(*_: Any) -> None:
        raise FileError("No space left on device")

    def broken(*_: Any, **__: Any) -> None:
        raise TrainingError("the first error")

    run = iter(start())
    for event in run:
        if isinstance(event, Stepped):
            break
    monkeypatch.setattr(training, "save_model", full)
    monkeypatch.setattr(Learner, "learn", broken)
    with pytest.raises(TrainingError, match="the first error"):
        list(run)
    assert "No space left" in caplog.text


@pytest.mark.parametrize("step", [1, 4])
def test_closing_the_events_saves_the_model(start: Any, files: Path, step: int) -> None:
    run = iter(start())
    for event in run:
        if isinstance(event, Stepped) and event.step == step:
            run.close()
    model = api.load_model(files / "model.safetensors")
    assert model.state is not None
    assert model.recipe.record is not None
    assert model.recipe.record.steps == step


def test_interrupt_saves_the_model(start: Any, files: Path) -> None:
    run = iter(start())
    for event in run:
        if isinstance(event, Stepped):
            break
    with pytest.raises(KeyboardInterrupt):
        run.throw(KeyboardInterrupt)
    assert api.load_model(files / "model.safetensors").state is not None


def test_nothing_is_written_without_a_step(start: Any, files: Path) -> None:
    inbox = Inbox()
    inbox.put(Stop())
    events = list(start(inbox=inbox))
    assert isinstance(events[-1], Finished)
    assert not (files / "model.safetensors").exists()
    run = iter(start())
    next(run)
    run.close()
    assert not (files / "model.safetensors").exists()


def test_inputs_are_never_overwritten(files: Path, scene: Any) -> None:
    os.symlink(files / "image.npy", files / "image.safetensors")
    with pytest.raises(FileError, match="would overwrite"):
        api.train_events(files / "image.npy", files / "labels.npy", out=files / "image.safetensors")
    model = api.train(scene[0], scene[1], network=SMALL, config=QUICK.updated(steps=1))
    refused: list[dict[str, Any]] = [
        {"out": files / "image.npy"},
        {"out": files / "new.npy", "probabilities": files / "new.npy"},
        {"out": None, "uncertainty": files / "image.npy"},
    ]
    for outputs in refused:
        with pytest.raises(FileError, match="would overwrite"):
            list(api.predict_events(model, files / "image.npy", **outputs))
    np.testing.assert_array_equal(np.load(files / "image.npy"), scene[0])
    assert not (files / "new.npy").exists()


def test_recipe_of_a_file_is_repeated(start: Any, files: Path) -> None:
    list(start(config=TrainConfig(seconds=2.0, device="cpu", patch_size=(4, 16, 16))))
    model = api.load_model(files / "model.safetensors")
    recipe = model.recipe
    again = start(out=None, network=recipe.network, config=recipe.train, record=recipe.record)
    list(again)
    found = again.model().network.state_dict()
    assert all(np.array_equal(found[name], tensor) for name, tensor in model.network.state_dict().items())


# --- predict and evaluate ---------------------------------------------------------------------------------


def test_predicting_into_files(start: Any, files: Path, scene: Any) -> None:
    run = start()
    list(run)
    config = PredictConfig(device="cpu", precision="float32")
    outputs: dict[str, Any] = {"probabilities": files / "p.npy", "uncertainty": files / "u.npy", "config": config}
    *_, last = api.predict_events(run.model(), files / "image.npy", files / "out.npy", **outputs)
    assert isinstance(last, Finished)
    labels = np.load(files / "out.npy")
    np.testing.assert_array_equal(labels, api.predict(files / "model.safetensors", scene[0], config=config))
    probabilities = np.load(files / "p.npy")
    assert probabilities.shape == (2, 12, 32, 32)
    np.testing.assert_array_equal(1 + probabilities.argmax(0), labels)
    assert np.load(files / "u.npy").shape == (12, 32, 32)


def test_stopped_prediction_writes_nothing(start: Any, files: Path) -> None:
    run = start()
    list(run)
    before = set(files.iterdir())
    inbox = Inbox()
    inbox.put(Stop())
    with pytest.raises(api.PredictionStopped):
        list(api.predict_events(run.model(), files / "image.npy", files / "out.npy", inbox=inbox))
    assert set(files.iterdir()) == before


def test_evaluating_files_and_arrays_alike(files: Path, scene: Any) -> None:
    _, labels, truth = scene
    prediction = truth.copy()
    prediction[:, :10] = 1
    from_arrays = api.evaluate(prediction, truth, exclude=labels, voxel_size=VoxelSize(2.0, 1.0, 1.0))
    np.save(files / "prediction.npy", prediction)
    paths = (files / "prediction.npy", files / "truth.npy")
    from_files = api.evaluate(*paths, exclude=files / "labels.npy", voxel_size=VoxelSize(2.0, 1.0, 1.0))
    assert from_files == from_arrays
    scored = labels == 0
    both = ((prediction == 2) & (truth == 2) & scored).sum()
    either = (((prediction == 2) | (truth == 2)) & scored).sum()
    assert from_arrays.classes[1].score.iou == pytest.approx(both / either)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".ome.tif", ".ome.zarr", ".nii.gz"])
def test_probabilities_are_evaluated_as_they_were_written(start: Any, files: Path, suffix: str) -> None:
    run = start()
    list(run)
    out, p = files / f"out{suffix}", files / f"p{suffix}"
    config = PredictConfig(device="cpu", precision="float32")
    list(api.predict_events(run.model(), files / "image.npy", out, probabilities=p, config=config))
    result = api.evaluate(out, files / "truth.npy", probabilities=p)
    p_values = np.moveaxis(read_volume(p, axes="XYZC" if suffix == ".nii.gz" else None).read(), 0, -1)
    truth = np.load(files / "truth.npy")
    ious = []
    for threshold in np.linspace(0.5, 0.95, 10):
        found = p_values[..., 1] >= threshold
        ious.append((found & (truth == 2)).sum() / (found | (truth == 2)).sum())
    assert result.mean_foreground_threshold_iou == pytest.approx(np.mean(ious), abs=2e-3)
    assert ious[0] > 0


@pytest.mark.parametrize("is_flat", [False, True])
def test_probabilities_of_files_and_arrays_are_evaluated_alike(files: Path, scene: Any, is_flat: bool) -> None:
    truth = scene[2][5] if is_flat else scene[2]
    p = np.where(truth == 2, 0.68, 0.1).astype(np.float32)
    both = np.stack([1 - p, p])
    for name, array in (("t", truth), ("p", both)):
        np.save(files / f"{name}.npy", array)
    from_arrays = api.evaluate(truth, truth, probabilities=both)
    assert from_arrays.mean_foreground_threshold_iou == pytest.approx(0.4)  # at .5, .55, .6 and .65
    assert api.evaluate(files / "t.npy", files / "t.npy", probabilities=files / "p.npy") == from_arrays


def test_volumes_are_taken_as_they_are(scene: Any) -> None:
    image, labels, _ = scene
    volume = Volume.from_array(image, VoxelSize(2.0, 1.0, 1.0, "micrometer"), "mine")
    annotated, warnings = api.read_annotated(volume, labels)
    assert annotated.image is volume
    assert warnings == []
