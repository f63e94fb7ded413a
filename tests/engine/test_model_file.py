from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import ClassInfo, default_classes
from napari_unet3d.engine.config import Recipe, RunRecord, TrainConfig
from napari_unet3d.engine.errors import FileError, ModelFileError
from napari_unet3d.engine.model_file import check_model_output, load_model, read_versions, save_model
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.normalize import ChannelNormalization, Normalization
from napari_unet3d.engine.trained_model import History, StepRecord, TrainedModel, TrainingState, ValidationRecord

KEY = "napari_unet3d"
NETWORK = network_config("fast", levels=2, filters=2, feature_scales=(1.0,), feature_voxel=(2.5, 1.0, 1.0))


def _model(**changes: Any) -> TrainedModel:
    torch.manual_seed(0)
    network = build_network(NETWORK)
    for buffer in network.buffers():
        buffer.copy_(torch.rand(buffer.shape) * 5)
    record = RunRecord(
        steps=7, best_step=5, seconds=1.5, device="cpu", precision="float32", threads=1, batch_size=2,
        patch_size=(4, 8, 8), schedule=((0, 0.0, 0.1),), validated_steps=(5, 7), held_out=((0, 2, 9),), stop_reason="x",
    )  # fmt: skip
    values: dict[str, Any] = {
        "network": network.eval().requires_grad_(False),
        "recipe": Recipe(network=NETWORK, train=TrainConfig(steps=7, learning_rate=0.1), record=record),
        "normalization": Normalization(
            channels=(ChannelNormalization(offset=0.1, factor=1 / 3, low=-1e300, high=1e300, fill=2.0),)
        ),
        "classes": (
            ClassInfo(id=1, name="background", colour="#000000"),
            ClassInfo(id=9, name="Ñucleus ☃", colour="#ffA001"),
        ),
        "voxel_size": VoxelSize(2.5, 1.0, 1.0, "um"),
        "history": History(
            steps=(StepRecord(step=1, seconds=0.1, loss=2.0, learning_rate=0.1),),
            validations=(ValidationRecord(step=5, seconds=1, iou=(0.5, None), dice=(0.6, None), mean_iou=None),),
            notes=("first", "second"),
        ),
    }
    return TrainedModel(**{**values, **changes})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(_model(), tmp_path / "model.safetensors")


def _rewritten(path: Path, header: Any = None, tensors: Any = None) -> Path:
    """The file with its header (values or text) and tensors passed through functions."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = json.loads(file.read(length))["__metadata__"][KEY]
    if header is not None:
        text = header(json.loads(text))
    weights = load_file(path)
    save_file(
        tensors(weights) if tensors else weights, path, {KEY: text if isinstance(text, str) else json.dumps(text)}
    )
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


# --- round trip -------------------------------------------------------------------------------------------


def test_everything_comes_back(tmp_path: Path) -> None:
    model = _model()
    loaded = load_model(save_model(model, tmp_path / "model.safetensors"))
    for name in ("recipe", "normalization", "classes", "voxel_size", "spatial_dims", "history", "state"):
        assert getattr(loaded, name) == getattr(model, name)
    weights = loaded.network.state_dict()
    assert weights.keys() == model.network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.network.state_dict().items())
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    image = torch.rand(1, 1, 4, 6, 8)
    assert torch.equal(loaded.network(image), model.network(image))


def test_training_state_comes_back(tmp_path: Path) -> None:
    tensors = {"weights.a": torch.arange(6.0).reshape(2, 3).T, "rng": torch.tensor([1, 255], dtype=torch.uint8)}
    state = TrainingState(tensors, {"step": 3, "big": 2**127, "knots": [[0, 0.5]], "none": None})
    loaded = load_model(save_model(_model(state=state), tmp_path / "model.safetensors")).state
    assert loaded is not None
    assert loaded.values == state.values
    assert loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], value) for name, value in tensors.items())
    assert loaded.tensors["rng"].dtype == torch.uint8


def test_one_sigmoid_channel_has_two_classes(tmp_path: Path) -> None:
    config = network_config("fast", classes=1, levels=1, filters=1, features="none")
    model = _model(network=build_network(config), recipe=Recipe(network=config), classes=default_classes((1, 2)))
    assert load_model(save_model(model, tmp_path / "model.safetensors")).label_ids == (1, 2)


def test_versions_are_told(saved: Path) -> None:
    assert read_versions(saved)["torch"] == torch.__version__
    assert read_versions(saved).keys() == {"torch", "numpy", "napari-unet3d"}


# --- writing ----------------------------------------------------------------------------------------------


def test_file_obeys_the_umask(saved: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    saved: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = saved.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(FileError, match=r"cannot be written .No space left") as caught:
            save_model(_model(), saved)
    assert "\n" not in str(caught.value)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_model(_model(), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_really_full_disk_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    real = os.fdopen

    def to_full_device(handle: int, mode: str) -> Any:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, handle)
        os.close(full)
        return real(handle, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", to_full_device)
        with pytest.raises(FileError, match="No space left"):
            save_model(_model(), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_output_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    for name, reason in (
        ("model.pt", "does not end in .safetensors"),
        ("nowhere/model.safetensors", "does not exist"),
        ("folder.safetensors", "is a folder"),
    ):
        with pytest.raises(FileError, match=reason):
            check_model_output(tmp_path / name)
    assert check_model_output(tmp_path / "model.safetensors") == tmp_path / "model.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(FileError, match=r"cannot be written to \(Permission denied\)"):
        check_model_output(tmp_path / "model.safetensors")


# --- reading what is no good model ------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "there is no model file" in _refusal(tmp_path / "missing.safetensors")
    assert "there is no model file" in _refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999, 0.99999])
def test_truncated_file(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    _refusal(saved)


@pytest.mark.parametrize("extra", [1, 100_000])
def test_file_with_something_behind_it(saved: Path, extra: int) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0" * extra)
    _refusal(saved)


def test_header_length_beyond_the_file(saved: Path) -> None:
    saved.write_bytes(struct.pack("<Q", 2**62) + saved.read_bytes()[8:])
    _refusal(saved)


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    assert "not written by napari-unet3d" in _refusal(path)


def test_pickle_is_never_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "pickle.safetensors", tmp_path / "was-run"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (trace,))

    path.write_bytes(pickle.dumps(Trap()))
    assert "is no model file" in _refusal(path)
    torch.save({"trap": Trap()}, path)
    _refusal(path)
    assert not trace.exists()


def test_archive_and_text(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "x" * 100)
    _refusal(path)
    path.write_text("network:\n  levels: 3\n")
    _refusal(path)


def test_weights_that_are_missing_foreign_or_of_another_kind(saved: Path) -> None:
    content = saved.read_bytes()
    head = "network.body.head.weight"

    def changed(**changes: Any) -> str:
        saved.write_bytes(content)

        def change(tensors: dict[str, Any]) -> dict[str, Any]:
            kept = {name: tensor for name, tensor in tensors.items() if name != head or "without" not in changes}
            return {**kept, **changes.get("add", {})}

        return _refusal(_rewritten(saved, tensors=change))

    weight = load_file(saved)[head]
    assert "'body.head.weight' do not belong" in changed(without=head, add={"network.other": torch.zeros(100)})
    assert "'body.head.weight' do not belong" in changed(without=head)
    assert "'surplus' do not belong" in changed(add={"network.surplus": torch.zeros(3)})
    assert "has shape" in changed(add={head: weight[:, :, 0].contiguous()[..., None].repeat(1, 1, 1, 1, 1, 2)})
    assert "is torch.float16" in changed(add={head: weight.half()})
    for value in (float("nan"), float("inf")):
        assert "not finite" in changed(add={head: torch.full_like(weight, value)})


def test_newer_format_says_to_update(saved: Path) -> None:
    message = _refusal(_rewritten(saved, lambda header: {**header, "format_version": 2, "unknown": 1}))
    assert "format version 2" in message
    assert "update napari-unet3d" in message


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", '{"format_version": 1}', '{"format_version": "x"}', "[" * 200_000, "\ud7ff"],
)
def test_damaged_header(saved: Path, text: str) -> None:
    assert "damaged" in _refusal(_rewritten(saved, lambda _: text))


def _nested(header: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {**header, first: _nested(header[first], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recipe.network.levels", 10**9),
        ("recipe.network.levels", 0),
        ("recipe.network.surplus", 1),
        ("recipe.train.learning_rate", -1),
        ("normalization.channels", []),
        ("normalization.channels", [{"offset": 0, "factor": 1, "low": 0, "high": 1, "fill": 0}] * 2),
        ("normalization.channels", [{"offset": float("nan"), "factor": 1, "low": 0, "high": 1, "fill": 0}]),
        ("classes", []),
        ("classes", [{"id": 1, "name": "only", "colour": "#000000"}]),
        ("classes", [{"id": i, "name": "", "colour": "#000000"} for i in (1, 70_000)]),
        ("classes", [{"id": i, "name": "", "colour": "javascript:"} for i in (1, 2)]),
        ("voxel_size.z", 0),
        ("voxel_size.z", -1.0),
        ("voxel_size.unit", "parsec"),
        ("spatial_dims", 4),
        ("history", None),
        ("state", 5),
    ],
)
def test_header_with_impossible_values(saved: Path, path: str, value: Any) -> None:
    assert "damaged" in _refusal(_rewritten(saved, lambda header: _nested(header, path, value)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filters", 10**9),
        ("filters", [10**6, 10**6]),
        ("kernel", 10_000_001),
        ("convolutions", 10**7),
        ("convolutions", [1, 10**12]),
        ("feature_scales", [1.0] * 100_000),
    ],
)
def test_an_absurd_recipe_takes_no_memory(saved: Path, field: str, value: Any) -> None:
    path = _rewritten(saved, lambda header: _nested(header, f"recipe.network.{field}", value))
    tracemalloc.start()
    try:
        assert "damaged" in _refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200e6


def test_the_network_is_not_built_before_its_size_is_checked(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(_: object) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr("napari_unet3d.engine.model_file.build_network", built)
    _refusal(_rewritten(saved, lambda header: _nested(header, "recipe.network.filters", 5)))


def test_many_channels_and_classes_are_refused_too(saved: Path) -> None:
    channel = {"offset": 0, "factor": 1, "low": 0, "high": 1, "fill": 0}

    def many(header: dict[str, Any]) -> dict[str, Any]:
        wide = _nested(header, "recipe.network.in_channels", 10_000)
        return _nested(wide, "normalization.channels", [channel] * 10_000)

    assert "more weights than the file" in _refusal(_rewritten(saved, many))
