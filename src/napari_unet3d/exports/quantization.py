"""Eight-bit integers in place of float32 in the convolutions of an ONNX model, and what that costs and gives.

Whether it pays depends on the processor, the network and the method (ranges found while computing can cost more than
integers save). So both models are tried on the user's own image, and the figures come before the decision.
Nagel et al., "A White Paper on Neural Network Quantization" (2021), section 3: post-training quantisation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ExportError
from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.engine.model_header import ModelHeader
from napari_unet3d.engine.prediction_io import PredictionOutputs, read_tile
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.tiling import Footprint, TileGrid
from napari_unet3d.engine.volume import Volume
from napari_unet3d.exports.dependencies import quiet_libraries, require
from napari_unet3d.exports.grey_network import INPUT, folded, is_planar, sample_shape, synthetic_grey
from napari_unet3d.exports.onnx_export import described
from napari_unet3d.exports.runtime import ExportedModel, from_onnx
from napari_unet3d.exports.sample import scores_of

Method: TypeAlias = Literal["static", "dynamic"]

LEAST_IOU: Final = 0.97
"""Mean IoU of the structures with those of the float32 model, where there is no truth to ask."""
LARGEST_LOSS: Final = 0.01
"""Mean IoU with the truth that quantisation may cost."""

_CALIBRATED_TILES: Final = 8
_TIMED_VOXELS: Final = 64**3
_REPEATS: Final = 3


@dataclass(frozen=True)
class QuantizationReport:
    """A quantised model against the float32 model it was made of, both through onnxruntime on this machine."""

    method: Method
    agreement: float
    """Share of the image's voxels with the same label, 0..1."""
    iou: tuple[tuple[int, float], ...]
    """Label id and IoU of each class with that of the float32 model; NaN where neither has it."""
    mean_iou: float
    """Mean of the structures (all classes but the first); NaN where neither has any."""
    truth_before: float | None
    """Mean IoU of the structures with the truth, float32; None without truth."""
    truth_after: float | None
    """The same, quantised."""
    seconds_before: float
    """For one tile of about 64 voxels a side, the best of three, float32."""
    seconds_after: float
    """The same, quantised."""
    bytes_before: int
    """Of the file, float32."""
    bytes_after: int
    """Of the file, quantised."""

    @property
    def objection(self) -> str | None:
        """Why the quantised model should not be taken; None if nothing speaks against it."""
        if self.seconds_after >= self.seconds_before:
            return (
                f"{self.method} int8 is not faster on this machine "
                f"({self.seconds_after:.3g} s instead of {self.seconds_before:.3g} s for a tile)"
            )
        if self.truth_before is not None and self.truth_after is not None:
            lost = self.truth_before - self.truth_after
            if math.isnan(lost):
                return "the truth shows no structure to compare the models on"
            if lost > LARGEST_LOSS:
                return f"it costs {lost:.3f} of IoU with the truth; {LARGEST_LOSS} is allowed"
        elif math.isnan(self.mean_iou):
            return "no structure is found in the image, so the models cannot be compared; give another one"
        elif self.mean_iou < LEAST_IOU:
            return f"its structures have an IoU of {self.mean_iou:.3f} with those of the model; {LEAST_IOU} is needed"
        return None

    def lines(self) -> list[str]:
        """The figures for people."""
        classes = ", ".join(f"class {label_id} {iou:.4f}" for label_id, iou in self.iou if not math.isnan(iou))
        found = [
            f"{self.method} int8: the same label in {self.agreement:.4%} of the voxels; IoU with float32: {classes}",
        ]
        if self.truth_before is not None and self.truth_after is not None:
            found.append(
                f"mean IoU of the structures with the truth: {self.truth_before:.4f} in float32, "
                f"{self.truth_after:.4f} in int8"
            )
        faster = self.seconds_before / self.seconds_after
        found.append(
            f"seconds for a tile: {self.seconds_before:.3g} in float32, {self.seconds_after:.3g} in int8 "
            f"({faster:.2f} times as fast); file: {self.bytes_before:,} and {self.bytes_after:,} bytes"
        )
        return found


def quantized(weights: Any, header: ModelHeader, method: Method, image: Volume) -> Any:
    """A copy of an ``onnx.ModelProto`` whose convolutions compute in eight-bit integers.

    Weights are int8 (one scale for each output channel) with ``static``, uint8 with ``dynamic``; what enters a
    convolution is uint8. Normalisation and fixed features stay in float32.

    Parameters
    ----------
    weights
        From `to_onnx`; not changed.
    header
        Of the model.
    method
        ``static``: ranges from eight tiles of `image`. ``dynamic``: ranges from each tile while it is computed.
    image
        The user's image.

    Raises
    ------
    ExportError
        If a package is missing, or onnxruntime cannot quantise the network.
    """
    tools = require("onnxruntime.quantization", "quantising")
    source = type(weights)()
    source.CopyFrom(weights)
    # keeps onnxruntime from advising, on the root logger, what the exporter has done already
    source.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with TemporaryDirectory() as folder, quiet_libraries():
        target = Path(folder) / "quantized.onnx"
        try:
            if method == "static":
                tools.quantize_static(
                    source,
                    target,
                    _reader(tools, calibration_tiles(header, image)),
                    per_channel=True,
                    op_types_to_quantize=["Conv"],
                    activation_type=tools.QuantType.QUInt8,
                    weight_type=tools.QuantType.QInt8,
                )
            else:
                tools.quantize_dynamic(
                    source, target, op_types_to_quantize=["Conv"], weight_type=tools.QuantType.QUInt8
                )
        except Exception as error:  # onnxruntime raises whatever its parts raise
            line = " ".join(str(error).split())[:200]
            raise ExportError(
                f"onnxruntime cannot quantise this network ({line}); export it without --quantize"
            ) from None
        result = type(weights)()
        result.ParseFromString(target.read_bytes())
    return described(result, header)


def compared(
    before: Any, after: Any, header: ModelHeader, method: Method, image: Volume, truth: NDArray[np.integer] | None
) -> QuantizationReport:
    """Try a model and its quantised copy on an image.

    Parameters
    ----------
    before, after
        ``onnx.ModelProto`` in float32, and quantised.
    header
        Of both.
    method
        How it was quantised.
    image
        The user's image; all of it is predicted, twice.
    truth
        Z Y X label ids, 0 where unknown; None if there are none.
    """
    contents = [proto.SerializeToString() for proto in (before, after)]
    models = [from_onnx(Path(f"{method}.onnx"), content) for content in contents]
    float_labels, integer_labels = (_labels(model, image) for model in models)
    ids = models[0].label_ids

    def scores(labels: NDArray[np.integer], reference: NDArray[np.integer]) -> tuple[Any, float]:
        found = class_scores(confusion_matrix(labels, reference, ids), ids)
        return found, mean_foreground_iou(found, ids[0])

    by_class, mean = scores(integer_labels, float_labels)
    seconds = _seconds(models, header)
    return QuantizationReport(
        method=method,
        agreement=float(np.mean(float_labels == integer_labels)),
        iou=tuple((score.class_id, score.iou) for score in by_class),
        mean_iou=mean,
        truth_before=None if truth is None else scores(float_labels, truth)[1],
        truth_after=None if truth is None else scores(integer_labels, truth)[1],
        seconds_before=seconds[0],
        seconds_after=seconds[1],
        bytes_before=len(contents[0]),
        bytes_after=len(contents[1]),
    )


def calibration_tiles(header: ModelHeader, image: Volume) -> list[NDArray[np.float32]]:
    """Grey values (B C Z Y X, B C Y X in two dimensions) of up to eight tiles spread evenly over an image."""
    network = header.recipe.network
    model = ExportedModel(nn.Identity(), header)  # read_tile wants its normalisation only
    tiles = TileGrid(image.shape, Footprint.of(network), sample_shape(network), halo=(0, 0, 0)).tiles()
    chosen = np.unique(np.linspace(0, len(tiles) - 1, _CALIBRATED_TILES).astype(int))
    return [folded(network, read_tile(model, image, tiles[index])[None]) for index in chosen]


def _reader(tools: Any, tiles: Sequence[NDArray[np.float32]]) -> Any:
    """The tiles in the form onnxruntime asks for."""

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = list(tiles)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return {INPUT: self._left.pop()} if self._left else None

    return Reader()


def _labels(model: ExportedModel, image: Volume) -> NDArray[np.uint16]:
    labels = np.zeros(image.shape, np.uint16)
    config = PredictConfig(device="cpu", precision="float32")
    for _ in Predictor(model, config).run(image, PredictionOutputs(labels)):
        pass
    return labels


def _seconds(models: Sequence[ExportedModel], header: ModelHeader) -> list[float]:
    """Best seconds of each model for one tile; in turns, so that a busy moment of the machine hits both."""
    network = header.recipe.network
    planar = is_planar(network)
    side = round(math.sqrt(_TIMED_VOXELS) if planar else math.cbrt(_TIMED_VOXELS))
    shape = describe(network).legal_shape((1 if planar else side, side, side))
    grey = synthetic_grey(header.normalization, shape)
    best = [math.inf] * len(models)
    for repeat in range(1 + _REPEATS):
        for index, model in enumerate(models):
            start = time.perf_counter()
            scores_of(model, grey)
            if repeat:  # the first time, memory is taken
                best[index] = min(best[index], time.perf_counter() - start)
    return best
