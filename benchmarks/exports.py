"""What exported models give: their labels against those of the model itself, and int8 against float32.

A volume ``DIR/NAME`` with an ``image.*`` and a dense ``labels.*`` (classes 0..C-1) gets three painted axial slices, the
middles of its thirds; the network is trained on them, and the volume is predicted in float32 with the same tiles and
blending

    model       by the model file
    onnx        by the .onnx file, in onnxruntime
    package     by the bioimage.io .zip, in onnxruntime
    pt2         by the .pt2 file as ``predict`` takes it: the weights
    pt2 graph   by the .pt2 file as other programs take it: ``torch.export.load``
    static      by the .onnx file in int8, ranges from eight tiles of the volume
    dynamic     the same, ranges from each tile

Before an exported file is opened, the model file is deleted.

    python benchmarks/exports.py --data DIR --volume NAME [--presets fast,large] [--seconds 25 | --steps N]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from machine import describe_machine, machine, markdown_table, write_reports
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d import api
from napari_unet3d.engine.config import PredictConfig, TrainConfig
from napari_unet3d.engine.errors import ExportError
from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.model_header import ModelHeader
from napari_unet3d.engine.prediction_io import Predictable, PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.volume import Volume
from napari_unet3d.exports.onnx_export import to_onnx
from napari_unet3d.exports.quantization import compared, quantized
from napari_unet3d.exports.runtime import ExportedModel
from napari_unet3d.io.files import read_labels, read_volume

CONFIG: Final = PredictConfig(device="cpu", precision="float32", tile=(32, 64, 64), overlap=0.25)
FORMATS: Final = {"onnx": ("onnx", ".onnx"), "package": ("bioimageio", ".zip"), "pt2": ("pt2", ".pt2")}


class Program(nn.Module):
    """A ``.pt2`` file as other programs run it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._call: Callable[[Tensor], Tensor] = torch.export.load(path).module().forward

    def forward(self, grey: Tensor) -> Tensor:
        return self._call(grey.contiguous())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


@dataclass(frozen=True)
class Task:
    """A volume with its truth and what is painted."""

    image: Volume
    truth: NDArray[np.unsignedinteger]
    labels: NDArray[np.unsignedinteger]

    def predict(self, model: Predictable) -> NDArray[np.uint8]:
        found = np.zeros(self.image.shape, np.uint8)
        for _ in Predictor(model, CONFIG).run(self.image, PredictionOutputs(found)):
            pass
        return found

    def iou(self, found: NDArray[np.uint8], ids: tuple[int, ...]) -> float:
        """Mean over the structures, over what is not painted."""
        scores = class_scores(confusion_matrix(found, self.truth, ids, self.labels == 0), ids)
        return mean_foreground_iou(scores, min(ids))


def load(source: Path, crop: int | None) -> Task:
    """A volume, or the middle of it with at most `crop` voxels along each axis."""
    image, labels = (next(source.glob(f"{name}.*")) for name in ("image", "labels"))
    volume = read_volume(image)
    truth, _ = read_labels(labels, volume, zero_is_background=True)
    if crop is not None:
        box = tuple(slice(max(0, (n - crop) // 2), max(0, (n - crop) // 2) + crop) for n in truth.shape)
        volume, truth = Volume.from_array(volume.read()[(slice(None), *box)], volume.voxel_size), truth[box]
    painted = np.zeros_like(truth)
    for third in range(3):
        index = int((third + 0.5) * len(truth) / 3)
        painted[index] = truth[index]
    return Task(volume, truth, painted)


def run(task: Task, preset: str, folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way to run the model."""
    config = TrainConfig(
        seconds=None if arguments.steps else arguments.seconds, steps=arguments.steps, threads=arguments.threads
    )
    model = api.train(task.image, task.labels, network=preset, config=config)
    file = save_model(model, folder / "model.safetensors")
    own = task.predict(load_model(file))
    rows: list[dict[str, Any]] = []

    def add(name: str, size: int, found: NDArray[np.uint8], faster: float | None = None) -> None:
        rows.append(
            {
                "preset": preset,
                "steps": model.recipe.record.steps if model.recipe.record else None,
                "model": name,
                "bytes": size,
                "agreement": float(np.mean(found == own)),
                "iou": task.iou(found, model.label_ids),
                "faster": faster,
            }
        )

    add("model", file.stat().st_size, own)
    files = {}
    for name, (format, suffix) in FORMATS.items():
        files[name] = api.export_model(file, folder / f"{name}{suffix}", format, image=None)  # type: ignore[arg-type]
    file.unlink()
    for name, path in files.items():
        add(name, path.stat().st_size, task.predict(api.open_model(path)))
    header = ModelHeader.of(model, with_state=False)
    add("pt2 graph", files["pt2"].stat().st_size, task.predict(ExportedModel(Program(files["pt2"]), header)))
    weights = to_onnx(model)
    for method in arguments.methods:
        try:
            result = quantized(weights, header, method, task.image)
        except ExportError as error:
            print(f"{preset} {method}: {error}")
            continue
        measured = compared(weights, result, header, method, task.image, task.truth)
        path = folder / f"{method}.onnx"
        path.write_bytes(result.SerializeToString())
        faster = measured.seconds_before / measured.seconds_after
        add(f"onnx int8 {method}", measured.bytes_after, task.predict(api.open_model(path)), faster)
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """A table."""
    lines = [
        (
            row["preset"],
            str(row["steps"]),
            row["model"],
            f"{row['bytes']:,}",
            f"{row['agreement']:.5%}",
            f"{row['iou']:.4f}",
            "" if row["faster"] is None else f"{row['faster']:.2f}x",
        )
        for row in rows
    ]
    heading = (
        "network",
        "steps",
        "by",
        "bytes",
        "same label as the model",
        "IoU with the truth",
        "speed of float32 onnx",
    )
    return markdown_table(heading, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = os.environ.get("UNET3D_DATA")
    parser.add_argument(
        "--data", type=Path, default=data, required=data is None, help="default: the variable UNET3D_DATA"
    )
    parser.add_argument("--volume", required=True, help="name of a folder")
    parser.add_argument("--crop", type=int, metavar="N", help="use the middle, at most N voxels along each axis")
    parser.add_argument("--presets", type=_words, default=["fast", "large"], help="with commas")
    parser.add_argument("--methods", type=_words, default=["static", "dynamic"], help="of int8, with commas")
    parser.add_argument("--seconds", type=float, default=25.0, help="of training")
    parser.add_argument("--steps", type=int, help="of training, instead")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads; default: all")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = machine()
    task = load(arguments.data / arguments.volume, arguments.crop)
    rows = []
    for preset in arguments.presets:
        with tempfile.TemporaryDirectory() as folder:
            rows += run(task, preset, Path(folder), arguments)
    shape = " x ".join(map(str, task.image.shape))
    budget = f"{arguments.steps} steps" if arguments.steps else f"{arguments.seconds:g} s"
    title = f"{arguments.volume}, {shape} voxels; {budget} of training on three painted slices"
    text = f"{describe_machine(found, arguments.threads)}\n\n{title}\n\n{report(rows)}"
    write_reports(text, rows, arguments.markdown, arguments.json)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


if __name__ == "__main__":
    main()
