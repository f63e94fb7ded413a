"""nnU-Net (Isensee et al. 2021) with its ignore label: its plan, preprocessing, augmentation, trainer and predictor.

What is not painted has the ignore label. Planning and preprocessing come before the budget and are counted on their
own, because nnU-Net does them once for a data set. The plan is made for 2 GB of memory, which gives smaller patches and
so more steps in the same time; the learning rate falls over the budget as it would over its thousand epochs. Prediction
as usual there, averaged over mirrored versions.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from task import Task, limit_threads

limit_threads(int(sys.argv[3]))
_FOLDER: Final = Path(sys.argv[1])
for _kind in ("raw", "preprocessed", "results"):
    os.environ[f"nnUNet_{_kind}"] = str(_FOLDER / _kind)
os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_compile": "F"}

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning  # noqa: E402
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

_NUMBER: Final = 1
_NAME: Final = "Dataset001_Painted"
_GIGABYTES: Final = 2.0


def write(path: Path, values: np.ndarray[Any, Any], voxel: list[float]) -> None:
    """Z Y X values as a NIfTI file, which has X Y Z."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.transpose(), np.diag([*reversed(voxel), 1.0])), path)


def planned(task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the data set, plan and preprocess it; gives the plans and the description of the data set."""
    folder = _FOLDER / "raw" / _NAME
    write(folder / "imagesTr" / "volume_0000.nii.gz", task.image, task.voxel)
    target = np.where(task.sparse == 0, task.classes, task.sparse.astype(np.int16) - 1).astype(np.uint8)
    write(folder / "labelsTr" / "volume.nii.gz", target, task.voxel)
    names = {"background": 0, **{f"class {k}": k for k in range(1, task.classes)}, "ignore": task.classes}
    described = {"channel_names": {"0": "grey"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(described))
    planning.extract_fingerprints([_NUMBER], num_processes=1, show_progress_bar=False)
    name = planning.plan_experiments([_NUMBER], gpu_memory_target_in_gb=_GIGABYTES)
    planning.preprocess([_NUMBER], name, ("3d_fullres",), (1,), show_progress_bar=False)
    plans = json.loads((_FOLDER / "preprocessed" / _NAME / f"{name}.json").read_text())
    return plans, described


def trained(plans: dict[str, Any], described: dict[str, Any], seconds: float) -> tuple[Any, int]:
    """Train for some seconds; gives the trainer and its steps."""
    begin = time.perf_counter()
    trainer = nnUNetTrainer({**plans, "continue_training": False}, "3d_fullres", "all", described, torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    steps = 0
    while (used := (time.perf_counter() - begin) / seconds) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - used) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    return trainer, steps


def predicted(trainer: Any, described: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Z Y X class indices."""
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        described,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    file = _FOLDER / "raw" / _NAME / "imagesTr" / "volume_0000.nii.gz"
    image, properties = SimpleITKIO().read_images([str(file)])
    labels: np.ndarray[Any, Any] = predictor.predict_single_npy_array(image, properties)
    return labels


if __name__ == "__main__":
    task = Task()
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.state)
    np.random.seed(task.state)  # noqa: NPY002 - it draws from NumPy's global generator
    begin = time.perf_counter()
    plans, described = planned(task)
    preparation = time.perf_counter() - begin
    task.begin()
    trainer, steps = trained(plans, described, task.seconds)
    task.trained()
    task.finish(predicted(trainer, described) + 1, steps=steps, preparation_seconds=preparation)
