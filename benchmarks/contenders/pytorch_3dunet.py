"""pytorch-3dunet (Wolny et al. 2020): its UNet3D, data sets, augmentation, trainer and predictor.

Its configuration for multi-class segmentation, with what a minute on a processor asks for: 16 filters on the finest
level instead of 64, patches of up to 64 voxels a side that hold annotated structures, one a step. Cross-entropy leaves
the ignored index out; flips and rotations in the plane. There is no validation: its metric knows no ignored index.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from task import Task, limit_threads

limit_threads(int(sys.argv[3]))

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from pytorch3dunet.datasets.utils import get_test_loaders  # noqa: E402
from pytorch3dunet.unet3d.config import TorchDevice  # noqa: E402
from pytorch3dunet.unet3d.predictor import StandardPredictor  # noqa: E402
from pytorch3dunet.unet3d.trainer import create_trainer  # noqa: E402

_SIDE = 64
_HALO = (4, 16, 16)
_IGNORED = -1
_NEVER = 10**9


def write(path: Path, image: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> str:
    with h5py.File(path, "w") as file:
        file["raw"], file["label"] = image, target
    return str(path)


def phase(file: str, patch: list[int], stride: list[int], **slices: Any) -> dict[str, Any]:
    """Configuration of one of its data sets."""
    turn = [{"name": "RandomFlip"}, {"name": "RandomRotate", "axes": [[2, 1]], "angle_spectrum": 45}]
    moves = turn if slices["name"] == "FilterSliceBuilder" else []
    return {
        "file_paths": [file],
        "slice_builder": {"patch_shape": patch, "stride_shape": stride, "skip_shape_check": True, **slices},
        "transformer": {
            "raw": [{"name": "Standardize"}, *moves, {"name": "ToTensor", "expand_dims": True}],
            "label": [*moves, {"name": "ToTensor", "expand_dims": False, "dtype": "int64"}],
        },
    }


if __name__ == "__main__":
    task = Task()
    logging.disable()
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.state)
    target = task.sparse.astype(np.int64) - 1
    patch = [min(_SIDE, n) for n in task.image.shape]
    stride = [max(1, n // 4) for n in patch]
    corner = tuple(slice(n) for n in patch)
    file = write(task.folder / "train.h5", task.image, target)
    unused = write(task.folder / "unused.h5", task.image[corner], target[corner])
    halo = [min(h, n - 1) for h, n in zip(_HALO, task.image.shape, strict=True)]
    painted = {"name": "FilterSliceBuilder", "ignore_index": _IGNORED, "threshold": 1e-4, "slack_acceptance": 0.0}
    configuration: dict[str, Any] = {
        "device": TorchDevice.CPU,
        "model": {
            "name": "UNet3D",
            "in_channels": 1,
            "out_channels": task.classes,
            "f_maps": 16,
            "final_sigmoid": False,
        },
        "loss": {"name": "CrossEntropyLoss", "ignore_index": _IGNORED},
        "optimizer": {"name": "Adam", "learning_rate": 1e-3, "weight_decay": 1e-5},
        "eval_metric": {"name": "MeanIoU"},
        "trainer": {
            "checkpoint_dir": str(task.folder),
            "max_num_epochs": _NEVER,
            "max_num_iterations": _NEVER,
            "validate_after_iters": _NEVER,
            "log_after_iters": _NEVER,
        },
        "loaders": {
            "num_workers": 0,
            "batch_size": 1,
            "global_normalization": True,
            "train": phase(file, patch, stride, **painted),
            "val": phase(unused, patch, patch, name="SliceBuilder"),
            "test": phase(file, patch, patch, name="SliceBuilder", halo_shape=halo),
        },
    }
    trainer = create_trainer(configuration)
    trainer.should_stop = lambda: not task.is_time_left
    trainer.fit()
    task.trained()
    predictor = StandardPredictor(
        trainer.model, str(task.folder), task.classes, TorchDevice.CPU, save_segmentation=True
    )
    for loader in get_test_loaders(configuration):
        predictor(loader)
    with h5py.File(task.folder / "train_predictions.h5") as file_of_labels:
        labels = file_of_labels["predictions"][:]
    task.finish(labels + 1, steps=trainer.num_iterations)
