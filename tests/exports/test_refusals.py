"""Files of models that are broken or meant to harm: one line on stderr, exit code 1, nothing written."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from napari_unet3d.engine.model_header import HEADER_KEY
from napari_unet3d.exports.onnx_export import CHECKSUM_KEY, checksum

Refused = Callable[..., str]


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, ("sprung",))


@pytest.fixture
def refused(run: Any, tmp_path: Path) -> Refused:
    """Writes a model file, gives it to a verb, checks that it is refused, gives the message."""
    np.save(tmp_path / "image.npy", np.random.default_rng(0).normal(100, 50, (12, 24, 24)).astype(np.float32))
    (tmp_path / "secret.bin").write_bytes(b"secret" * 1000)

    def call(content: bytes, name: str, verb: str = "predict") -> str:
        (tmp_path / name).write_bytes(content)
        before = sorted(tmp_path.rglob("*"))
        outcome = run(verb, name, *_ARGUMENTS[verb])
        assert outcome.code == 1
        lines = outcome.err.splitlines()
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("error: ")
        assert name in lines[0]
        assert len(lines[0]) < 400
        assert sorted(tmp_path.rglob("*")) == before
        return str(lines[0])

    return call


_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "predict": ("image.npy", "--out", "out.npy"),
    "info": (),
    "export": ("--format", "onnx", "--out", "new.onnx"),
}


# --- any format -------------------------------------------------------------------------------------------


def pickled(name: str) -> bytes:
    """A pickle with the suffix of a model, and one in the archive that torch.save writes."""
    if name != "torch":
        return pickle.dumps(Trap())
    file = io.BytesIO()
    torch.save({"network.weight": torch.zeros(2), "trap": Trap()}, file)
    return file.getvalue()


@pytest.mark.parametrize("verb", ["predict", "info", "export"])
@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "zip", "pt2"])
@pytest.mark.parametrize("kind", ["plain", "torch", "empty"])
def test_pickles_are_not_opened(refused: Refused, verb: str, suffix: str, kind: str) -> None:
    refused(b"" if kind == "empty" else pickled(kind), f"bad.{suffix}", verb)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "zip", "pt2"])
def test_truncated(
    refused: Refused, model_file: Path, onnx_file: Path, package_file: Path, pt2_file: Path, suffix: str, share: float
) -> None:
    whole = {"safetensors": model_file, "onnx": onnx_file, "zip": package_file, "pt2": pt2_file}[suffix].read_bytes()
    refused(whole[: int(len(whole) * share)], f"bad.{suffix}")


@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "zip", "pt2"])
def test_missing_and_folders(run: Any, tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"folder.{suffix}").mkdir()
    np.save(tmp_path / "image.npy", np.zeros((4, 8, 8)))
    for name in (f"gone.{suffix}", f"folder.{suffix}"):
        outcome = run("predict", name, "image.npy", "--out", "out.npy")
        assert (outcome.code, outcome.err) == (1, f"error: there is no model file {name}\n")


# --- .safetensors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["predict", "info", "export"])
@pytest.mark.parametrize("length", [2**63, 2**40, 100_000_001])
def test_absurd_size_of_the_header(refused: Refused, model_file: Path, length: int, verb: str) -> None:
    message = refused(struct.pack("<Q", length) + model_file.read_bytes()[8:], "bad.safetensors", verb)
    assert "is no model file" in message


def edited(model_file: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The model file with another list of tensors and metadata."""
    content = model_file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    values = json.loads(content[8 : 8 + length])
    change(values)
    text = json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def first_weight(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(v for k, v in values.items() if k.endswith("conv.weight"))
    return found


def with_recipe(values: dict[str, Any], **network: Any) -> None:
    header = json.loads(values["__metadata__"][HEADER_KEY])
    header["recipe"]["network"] |= network
    values["__metadata__"][HEADER_KEY] = json.dumps(header)


SAFETENSORS: dict[str, Callable[[dict[str, Any]], object]] = {
    "wrong shape": lambda v: first_weight(v).update(shape=first_weight(v)["shape"][::-1]),
    "huge shape": lambda v: first_weight(v).update(shape=[2**40, 2**40]),
    "other type": lambda v: first_weight(v).update(dtype="I32"),
    "values that overlap": lambda v: first_weight(v).update(data_offsets=[0, 2**50]),
    "no header": lambda v: v.pop("__metadata__"),
    "header in header": lambda v: v["__metadata__"].update({HEADER_KEY: "[" * 100_000}),
    "huge network": lambda v: with_recipe(v, filters=1_000_000),
    "network of many layers": lambda v: with_recipe(v, convolutions=2_000_000_000),
    "newer": lambda v: v["__metadata__"].update({HEADER_KEY: '{"format_version": 999}'}),
}


@pytest.mark.parametrize("verb", ["predict", "info", "export"])
@pytest.mark.parametrize("change", SAFETENSORS.values(), ids=SAFETENSORS)
def test_edited_model_file(refused: Refused, model_file: Path, change: Any, verb: str) -> None:
    refused(edited(model_file, change), "bad.safetensors", verb)


# --- .onnx ------------------------------------------------------------------------------------------------


def graph(onnx_file: Path) -> Any:
    proto = onnx.ModelProto()
    proto.ParseFromString(onnx_file.read_bytes())
    return proto


def sealed(proto: Any) -> bytes:
    """With a checksum that fits, as somebody who means harm would write it."""
    found = {entry.key: entry for entry in proto.metadata_props}
    found[CHECKSUM_KEY].value = checksum(proto, found[HEADER_KEY].value)
    content: bytes = proto.SerializeToString()
    return content


def outside(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def add_node(proto: Any, kind: str, **attributes: Any) -> None:
    proto.graph.node.append(helper.make_node(kind, [], ["never_used"], **attributes))


def without_values(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [2**31, 2**31]


def branch(proto: Any) -> None:
    output = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    inner = helper.make_graph([helper.make_node("Constant", [], ["x"], value_float=0.0)], "inner", [], [output])
    proto.graph.node.append(helper.make_node("If", ["grey"], ["y"], then_branch=inner, else_branch=inner))


def edit_header(proto: Any, **network: Any) -> None:
    entry = next(entry for entry in proto.metadata_props if entry.key == HEADER_KEY)
    header = json.loads(entry.value)
    header["recipe"]["network"] |= network
    entry.value = json.dumps(header)


def external_constant(proto: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "c")
    outside(tensor, "secret.bin")
    add_node(proto, "Constant", value=tensor)


ONNX: dict[str, tuple[Callable[[Any], object], str]] = {
    "values beside": (lambda p: outside(p.graph.initializer[0], "secret.bin"), "lies in another file"),
    "values above": (lambda p: outside(p.graph.initializer[0], "../../etc/passwd"), "lies in another file"),
    "values anywhere": (lambda p: outside(p.graph.initializer[0], "/etc/passwd"), "lies in another file"),
    "constant beside": (external_constant, "lies in another file"),
    "wrong shape": (lambda p: p.graph.initializer[0].dims.append(2), "size of its values"),
    "huge shape": (without_values, "size of its values"),
    "negative shape": (lambda p: p.graph.initializer[0].dims.append(-1), "size of its values"),
    "unknown type": (lambda p: setattr(p.graph.initializer[0], "data_type", 99), "unknown type"),
    "operator of strangers": (lambda p: add_node(p, "Evil", domain="evil.org"), "evil.org:Evil"),
    "operator of python": (lambda p: add_node(p, "PyOp", domain="ai.onnx.contrib"), "ai.onnx.contrib"),
    "branches": (branch, "If"),
    "functions": (lambda p: p.functions.add(name="f", domain="d"), "functions"),
    "no operators": (lambda p: p.graph.ClearField("node"), "damaged"),
    "operator that is none": (lambda p: add_node(p, "NoSuchThing"), "damaged"),
    "other network": (lambda p: edit_header(p, in_channels=3), "header"),
    "other head": (lambda p: edit_header(p, head="sigmoid"), "header"),
    "other output": (lambda p: setattr(p.graph.output[0], "name", "other"), "do not fit"),
}


@pytest.mark.parametrize(("change", "message"), ONNX.values(), ids=ONNX)
def test_edited_onnx(refused: Refused, onnx_file: Path, change: Any, message: str) -> None:
    proto = graph(onnx_file)
    change(proto)
    assert message in refused(sealed(proto), "bad.onnx")


def test_a_changed_weight_is_noticed(refused: Refused, onnx_file: Path) -> None:
    proto = graph(onnx_file)
    tensor = max(proto.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    assert "its content is not what was written" in refused(proto.SerializeToString(), "bad.onnx")


def test_onnx_of_others(refused: Refused, onnx_file: Path) -> None:
    proto = graph(onnx_file)
    del proto.metadata_props[:]
    assert "was not written by napari-unet3d" in refused(proto.SerializeToString(), "bad.onnx")


@pytest.mark.parametrize("verb", ["info", "export"])
def test_exported_models_are_for_predicting(refused: Refused, onnx_file: Path, verb: str) -> None:
    assert ".safetensors" in refused(onnx_file.read_bytes(), "good.onnx", verb)


# --- archives ---------------------------------------------------------------------------------------------


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the same name twice
        for entry, content in entries:
            written.writestr(entry, content)
    return file.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3  # Unix
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


ARCHIVES: dict[str, tuple[tuple[tuple[str | zipfile.ZipInfo, bytes], ...], str]] = {
    "climbs": ((("../evil", b"x"),), "climbs out"),
    "climbs later": ((("a/../../evil", b"x"),), "climbs out"),
    "climbs on Windows": ((("..\\evil", b"x"),), "climbs out"),
    "absolute": ((("/etc/evil", b"x"),), "climbs out"),
    "drive": ((("C:\\evil", b"x"),), "climbs out"),
    "link": (((link("weights"), b"/etc/passwd"),), "is a link"),
    "weights are a link": (((link("weights.onnx"), b"secret.bin"),), "is a link"),
    "bomb": ((("big", bytes(20_000_000)),), "would grow"),
    "weights are a bomb": ((("weights.onnx", bytes(20_000_000)),), "would grow"),
    "twice": ((("a", b"1"), ("a", b"2")), "same name"),
    "thousands of entries": (tuple((f"{n}", b"") for n in range(5001)), "5,001 entries"),
    "nothing in it": ((), ""),
    "foreign": ((("data.pkl", pickle.dumps(Trap())),), "not written by napari-unet3d"),
    "weights are a pickle": ((("weights.onnx", pickle.dumps(Trap())),), ""),
}


@pytest.mark.parametrize("suffix", ["zip", "pt2"])
@pytest.mark.parametrize(("entries", "message"), ARCHIVES.values(), ids=ARCHIVES)
def test_archives(refused: Refused, entries: Any, message: str, suffix: str) -> None:
    assert message in refused(archive(*entries), f"bad.{suffix}")


def test_an_evil_entry_beside_good_weights(refused: Refused, entries: dict[str, bytes]) -> None:
    assert "climbs out" in refused(archive(*entries.items(), ("../../evil", b"x")), "bad.zip")


def test_an_entry_that_says_it_is_larger_than_it_is(refused: Refused, package_file: Path) -> None:
    """The size of the weights in the directory of the archive, 2 GB; they are stored, not compressed."""
    content = bytearray(package_file.read_bytes())
    at = content.rindex(b"weights.onnx") - 46  # the directory is at the end
    assert content[at : at + 4] == b"PK\x01\x02"
    content[at + 24 : at + 28] = struct.pack("<I", 2**31 - 1)
    refused(bytes(content), "bad.zip")


def test_an_encrypted_entry(refused: Refused) -> None:
    content = bytearray(archive(("weights.onnx", b"secret")))
    at = content.rindex(b"weights.onnx") - 46
    content[at + 8] |= 1
    assert "is encrypted" in refused(bytes(content), "bad.zip")


def test_a_flipped_bit_in_the_weights(refused: Refused, package_file: Path) -> None:
    content = bytearray(package_file.read_bytes())
    content[len(content) // 3] ^= 16
    refused(bytes(content), "bad.zip")


# --- .pt2 -------------------------------------------------------------------------------------------------

_LAYOUT = "archive/data/weights/model_weights_config.json"


def repacked(pt2_file: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with another list of weights."""
    with zipfile.ZipFile(pt2_file) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    values = json.loads(contents[_LAYOUT])
    change(values["config"])
    contents[_LAYOUT] = json.dumps(values).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for name, content in contents.items():
            new.writestr(name, content)
    return file.getvalue()


def weight(config: dict[str, Any]) -> Any:
    return next(stored for name, stored in config.items() if name.endswith("conv.weight"))


def layout(config: dict[str, Any], **values: Any) -> None:
    weight(config)["tensor_meta"] |= values


PT2: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "pickled": (lambda c: weight(c).update(use_pickle=True), "not plain numbers"),
    "other type": (lambda c: layout(c, dtype=12), "not plain numbers"),
    "climbs": (lambda c: weight(c).update(path_name="../../../secret"), "list of weights"),
    "gone": (lambda c: weight(c).update(path_name="weight_999"), "weight_999"),
    "no list": (lambda c: c.update(x=3), "list of weights"),
    "huge": (lambda c: layout(c, sizes=[{"as_int": 2**39}] * 5), "size of its values"),
    "wide steps": (lambda c: layout(c, strides=[{"as_int": 2**30}] * 5), "size of its values"),
    "far away": (lambda c: layout(c, storage_offset={"as_int": 2**39}), "size of its values"),
    "one value for all": (lambda c: layout(c, sizes=[{"as_int": 2**20}], strides=[{"as_int": 0}]), "size of its"),
    "negative": (lambda c: layout(c, storage_offset={"as_int": -1}), "list of weights"),
    "other order": (lambda c: layout(c, sizes=[{"as_int": 1}]), ""),
    "missing": (lambda c: c.pop(next(iter(c))), "is damaged"),
}


@pytest.mark.parametrize(("change", "message"), PT2.values(), ids=PT2)
def test_edited_pt2(refused: Refused, pt2_file: Path, change: Any, message: str) -> None:
    assert message in refused(repacked(pt2_file, change), "bad.pt2")


def test_pt2_repacked_without_change_is_taken(run: Any, tmp_path: Path, pt2_file: Path) -> None:
    """So that the refusals above are not about the archive."""
    (tmp_path / "good.pt2").write_bytes(repacked(pt2_file, lambda config: None))
    np.save(tmp_path / "image.npy", np.zeros((4, 8, 8), np.float32))
    assert run("predict", "good.pt2", "image.npy", "--out", "out.npy").code == 0


def test_onnx_sealed_without_change_is_taken(run: Any, tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "good.onnx").write_bytes(sealed(graph(onnx_file)))
    np.save(tmp_path / "image.npy", np.zeros((4, 8, 8), np.float32))
    assert run("predict", "good.onnx", "image.npy", "--out", "out.npy").code == 0
