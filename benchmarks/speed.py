"""Training and prediction speed: our set-up against plain float32, and against MONAI.

Everything is measured in one run, in alternating rounds, so that other work on the machine slows all sides alike.

- *ours*: the `fast` network in the arithmetic and memory order that `napari-unet3d` picks on this machine.
- *plain*: the same network, weights, loss and optimiser in contiguous float32.
- *BasicUNet*: MONAI's, filters chosen for the same number of parameters, in contiguous float32.
- *DynUNet*: MONAI's, with our levels and filters, in contiguous float32.

Training is forward, partial loss, backward and optimiser step on one patch with one painted slice; our network reads
scale-space features, which the trainer computes once for a volume and not for every patch, and which are therefore no
part of a step. *Network* prediction is one forward pass on a tile. *Volume* prediction is everything from grey values
to labels: our `Predictor` with its defaults, features included, against MONAI's `sliding_window_inference` with its
default overlap. MONAI's BasicUNet needs sides of at least 16 voxels, in multiples of 16.

    python benchmarks/speed.py [--threads N] [--rounds N] [--device NAME] [--json FILE] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from machine import describe_machine, machine, markdown_table, write_reports
from monai.inferers import sliding_window_inference
from monai.networks.nets import BasicUNet, DynUNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.config import PredictConfig, Recipe, TrainConfig
from napari_unet3d.engine.device import DTYPES, autocast, choose_device, choose_precision, memory_format
from napari_unet3d.engine.losses import build_loss
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.normalize import fit_normalization
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import IGNORE_INDEX, Volume

CLASSES: Final = 3
SIDES: Final = ("ours", "plain", "BasicUNet", "DynUNet")
_PEAK_RESET: Final = Path("/proc/self/clear_refs")
WORK: Final = ("training", "network", "volume")
NEEDED: Final = {"plain": 3.0, "BasicUNet": 4.0, "DynUNet": 4.0}
"""Least factors by which we want to be faster."""


@dataclass(frozen=True)
class Sizes:
    """Z Y X voxels of a training patch, a prediction tile and a whole volume."""

    training: tuple[int, int, int]
    network: tuple[int, int, int]
    volume: tuple[int, int, int]


class Side:
    """One side of the comparison, ready to run each kind of work."""

    def __init__(self, name: str, device: torch.device, sizes: Sizes) -> None:
        torch.manual_seed(0)
        self.name = name
        self.device = device
        self._config = network_config("fast", classes=CLASSES).for_voxels(
            Volume.from_array(np.zeros((1, 1))).voxel_size
        )
        ours = build_network(self._config)
        self.precision = choose_precision("auto", device) if name == "ours" else "float32"
        self.network: nn.Module = {
            "ours": lambda: copy.deepcopy(ours.body),
            "plain": lambda: copy.deepcopy(ours.body),
            "BasicUNet": lambda: _basic_unet(parameters(ours.body)),
            "DynUNet": lambda: _dyn_unet(self._config.filters_per_level),
        }[name]().to(device)
        if name == "ours":
            self.network.to(memory_format=memory_format(3))  # type: ignore[call-overload]
        self._whole = ours
        channels = self._config.body_channels if name in ("ours", "plain") else 1
        self._patch = self._values(channels, sizes.training)
        self._tile = self._values(channels, sizes.network)
        self._target = torch.full((1, *sizes.training), IGNORE_INDEX, device=device)
        self._target[:, sizes.training[0] // 2] = torch.randint(CLASSES, sizes.training[1:], device=device)
        self._loss = build_loss(TrainConfig(), None).to(device)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        rng = np.random.default_rng(0)
        self._volume = Volume.from_array(rng.integers(0, 256, sizes.volume, dtype=np.uint8))

    def _values(self, channels: int, size: tuple[int, int, int]) -> Tensor:
        """Network input as our trainer and predictor hand it over: channels last, for us also in low precision."""
        values = torch.randn(1, channels, *size, device=self.device)
        if self.name != "ours":
            return values
        return values.to(DTYPES[self.precision], memory_format=torch.channels_last_3d)

    def work(self, kind: str) -> Callable[[], object]:
        """What is timed."""
        self.network.train(kind == "training")
        if kind == "training":
            return self._train
        if kind == "network":
            return self._predict_tile
        return self._predicted_by_us() if self.name == "ours" else self._predict_by_window

    def operations(self, kind: str) -> int:
        """Floating-point operations of a step or a pass, as PyTorch counts them; nothing is timed meanwhile."""
        self.network.train(kind == "training")
        with FlopCounterMode(display=False) as counter:
            self._train() if kind == "training" else self._predict_tile()
        return int(counter.get_total_flops())

    def _train(self) -> None:
        self._optimizer.zero_grad()
        with autocast(self.device, self.precision):
            logits = self.network(self._patch)
        self._loss([logits], self._target).total.backward()
        self._optimizer.step()

    @torch.inference_mode()
    def _predict_tile(self) -> Tensor:
        with autocast(self.device, self.precision):
            logits: Tensor = self.network(self._tile)
        return logits

    def _predicted_by_us(self) -> Callable[[], object]:
        model = TrainedModel(
            network=self._whole.eval(),
            recipe=Recipe(network=self._config),
            normalization=fit_normalization([self._volume], TrainConfig().normalize),
            classes=default_classes(range(1, CLASSES + 1)),
            voxel_size=self._volume.voxel_size,
        )
        predictor = Predictor(model, PredictConfig(device=str(self.device)))
        labels = np.zeros(self._volume.shape, np.uint8)
        return lambda: list(predictor.run(self._volume, PredictionOutputs(labels)))

    @torch.inference_mode()
    def _predict_by_window(self) -> Tensor:
        grey = torch.from_numpy(self._volume.read(dtype=np.float32)) / 127.5 - 1
        window = tuple(min(96, -(-size // 16) * 16) for size in grey.shape[1:])
        logits = sliding_window_inference(grey[None].to(self.device), window, 1, self.network)
        return logits[0].argmax(0).to("cpu", torch.uint8)


def parameters(network: nn.Module) -> int:
    """Trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def _basic_unet(wanted: int) -> nn.Module:
    """The BasicUNet whose number of parameters is nearest to `wanted`; its default proportions of filters."""
    made = [BasicUNet(3, 1, CLASSES, features=(f, f, 2 * f, 4 * f, 8 * f, f)) for f in range(4, 17)]
    return min(made, key=lambda network: abs(parameters(network) - wanted))


def _dyn_unet(filters: tuple[int, ...]) -> nn.Module:
    levels = len(filters)
    strides = [1] + [2] * (levels - 1)
    return DynUNet(3, 1, CLASSES, [3] * levels, strides, strides[1:], filters=list(filters))


# --- measuring --------------------------------------------------------------------------------------------


def seconds_of(work: Callable[[], object], device: torch.device, at_least: float) -> float:
    """Seconds for one call: the mean over as many calls as take `at_least` seconds, the machine already warm."""
    calls, start = 0, time.perf_counter()
    while True:
        work()
        calls += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
        if (elapsed := time.perf_counter() - start) >= at_least:
            return elapsed / calls


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, the best of several tries."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b, device, 0.1) for _ in range(5))


def peak_bytes(name: str, kind: str, device: str, threads: int, sizes: Sizes) -> int | None:
    """Memory that one call adds at its peak, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_bytes, (name, kind, device, threads, sizes))


def _peak_bytes(name: str, kind: str, device: str, threads: int, sizes: Sizes) -> int | None:
    torch.set_num_threads(threads)
    small = (16, 32, 32)
    Side(name, torch.device(device), Sizes(small, small, small)).work(kind)()  # what libraries take once
    work = Side(name, torch.device(device), sizes).work(kind)
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    if not _PEAK_RESET.exists():  # only Linux tells
        return None
    _PEAK_RESET.write_text("5")
    before = _peak_rss()
    work()
    return _peak_rss() - before


def _peak_rss() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure(sides: list[Side], kind: str, sizes: Sizes, rounds: int, at_least: float) -> dict[str, list[float]]:
    """Voxels per second of every side in every round; the sides take turns."""
    voxels = float(np.prod(getattr(sizes, kind)))
    speeds: dict[str, list[float]] = {side.name: [] for side in sides}
    for round_ in range(-1, rounds):
        for side in sides:
            seconds = seconds_of(side.work(kind), side.device, at_least if round_ >= 0 else 0.0)
            if round_ >= 0:  # the first round warms up
                speeds[side.name].append(voxels / seconds)
    return speeds


# --- reporting --------------------------------------------------------------------------------------------


def main() -> None:
    arguments = _arguments()
    device = choose_device(arguments.device).device
    threads = arguments.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    sizes = Sizes(arguments.patch, arguments.tile, arguments.volume)
    found = machine(str(device))
    rates = {"float32": 0.0, "bfloat16": 0.0}
    sides = [Side(name, device, sizes) for name in SIDES]
    results: dict[str, Any] = {}
    for kind in WORK:
        rates = {name: max(rate, product_rate(device, DTYPES[name])) for name, rate in rates.items()}
        taking_part = [side for side in sides if (kind, side.name) != ("volume", "plain")]
        speeds = measure(taking_part, kind, sizes, arguments.rounds, arguments.seconds)
        results[kind] = {
            side.name: {
                "voxels_per_second": speeds[side.name],
                "operations_per_voxel": side.operations(kind) / np.prod(getattr(sizes, kind))
                if kind != "volume"
                else None,
                "peak_bytes": peak_bytes(side.name, kind, str(device), threads, sizes) if arguments.memory else None,
            }
            for side in taking_part
        }
    facts = {side.name: {"parameters": parameters(side.network), "precision": side.precision} for side in sides}
    values = {
        "machine": found, "threads": threads, "product_rates": rates, "sides": facts,
        "sizes": vars(sizes), "rounds": arguments.rounds, "results": results,
    }  # fmt: skip
    write_reports(_report(values), values, arguments.markdown, arguments.json)


def _report(values: dict[str, Any]) -> str:
    rates, sides, sizes = values["product_rates"], values["sides"], values["sizes"]
    parts = [
        describe_machine(values["machine"], values["threads"]),
        "Matrix product: " + ", ".join(f"{rate / 1e9:.0f} Gflop/s in {name}" for name, rate in rates.items()),
    ]
    heading = (
        "side", "arithmetic", "parameters", "kflop/voxel", "Mvoxel/s", "lowest", "highest",
        "ours is faster by", "wanted", "of the matrix product", "peak MB",
    )  # fmt: skip
    for kind, of_sides in values["results"].items():
        ours = of_sides["ours"]["voxels_per_second"]
        rows = []
        for name, one in of_sides.items():
            speeds = one["voxels_per_second"]
            median = statistics.median(speeds)
            operations = one["operations_per_voxel"]
            share = operations * median / rates[sides[name]["precision"]] if operations else None
            factor = statistics.median(a / b for a, b in zip(ours, speeds, strict=True))
            rows.append(
                (
                    name,
                    sides[name]["precision"],
                    f"{sides[name]['parameters']:,}",
                    _figure(operations, 1e-3, "{:.0f}"),
                    *(f"{speed / 1e6:.3f}" for speed in (median, min(speeds), max(speeds))),
                    "" if name == "ours" else f"{factor:.1f}x",
                    f">= {NEEDED[name]:.0f}x" if name in NEEDED else "",
                    _figure(share, 100, "{:.0f} %"),
                    _figure(one["peak_bytes"], 1e-6, "{:.0f}"),
                )
            )
        size = " x ".join(map(str, sizes[kind]))
        parts.append(
            f"**{kind}**, {size} voxels, medians of {values['rounds']} rounds\n\n" + markdown_table(heading, rows)
        )
    return "\n\n".join(parts)


def _figure(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else form.format(value * factor)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, help="CPU threads; default: what PyTorch chooses")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds after one to warm up")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of a side in a round")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--patch", type=_triple, default=(16, 80, 80), help="Z,Y,X voxels of a training patch")
    parser.add_argument("--tile", type=_triple, default=(32, 96, 96), help="Z,Y,X voxels of a forward pass")
    parser.add_argument("--volume", type=_triple, default=(64, 192, 192), help="Z,Y,X voxels of a volume")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="skip the memory measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args()


def _triple(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split(","))
    return (z, y, x)


if __name__ == "__main__":
    main()
