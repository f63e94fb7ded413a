"""Which normalisation to use: accuracy, and the seam between tiles, of networks that differ in nothing else.

For every volume and normalisation a network is trained for the same steps on three axial slices. IoU is over the slices
that nobody painted; the seam is the share of labels that change when the volume is predicted in small tiles instead of
in one.

    python benchmarks/normalization.py --data DIR [--steps N] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine, machine, markdown_table, write_reports
from sparse_slices import painted_slices

from napari_unet3d.api import evaluate, predict, train
from napari_unet3d.engine.config import PredictConfig, TrainConfig
from napari_unet3d.io.files import read_labels, read_volume

NORMS = ("batch", "group", "instance", "none")
_SMALL = PredictConfig(tile=(48, 64, 64), halo=(16, 16, 16))
_WHOLE = PredictConfig(tile=(1024, 1024, 1024), halo=(0, 0, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("UNET3D_DATA"), help="folder of volumes")
    parser.add_argument("--volumes", help="names, separated by commas; default: all")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data DIR or set UNET3D_DATA")
    names = (
        options.volumes.split(",")
        if options.volumes
        else sorted(p.name for p in Path(options.data).iterdir() if p.is_dir())
    )
    rows = [
        measure(Path(options.data) / name, norm, options.steps, options.threads) for name in names for norm in NORMS
    ]
    table = markdown_table(
        ("volume", "normalisation", "IoU", "labels changed by tiles"),
        [(name, norm, f"{iou:.3f}", f"{seam:.3%}") for name, norm, iou, seam in rows],
    )
    found = machine()
    text = f"{describe_machine(found, options.threads)}; {options.steps} steps\n\n{table}"
    write_reports(text, {"machine": found, "rows": rows}, options.markdown, options.json)


def measure(folder: Path, norm: str, steps: int, threads: int) -> tuple[str, str, float, float]:
    """Volume, normalisation, foreground IoU on unpainted voxels, share of labels that tiles change."""
    image, labels = (next(folder.glob(f"{kind}.*")) for kind in ("image", "labels"))
    volume = read_volume(image)
    truth, _ = read_labels(labels, volume, zero_is_background=True)
    sparse = np.zeros_like(truth)
    painted = painted_slices(truth.shape[0], 3, 0)
    sparse[painted] = truth[painted]
    model = train(volume, sparse, network_settings={"norm": norm}, config=TrainConfig(steps=steps, threads=threads))
    whole, tiled = (predict(model, volume, config=config) for config in (_WHOLE, _SMALL))
    score = evaluate(tiled, truth, exclude=sparse).mean_foreground_iou
    print(f"{folder.name} {norm}: {score:.3f}", flush=True)
    return folder.name, norm, score, float((whole != tiled).mean())


if __name__ == "__main__":
    main()
