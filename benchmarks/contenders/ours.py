"""This project's own network, through its Python interface, with the default settings."""

from __future__ import annotations

import sys

from task import Task, limit_threads

limit_threads(int(sys.argv[3]))

import torch  # noqa: E402, F401  # loaded on first use otherwise, within the budget

from napari_unet3d import api  # noqa: E402
from napari_unet3d.engine.axes import VoxelSize  # noqa: E402
from napari_unet3d.engine.config import TrainConfig  # noqa: E402

if __name__ == "__main__":
    task = Task()
    z, y, x = task.voxel
    voxel_size = VoxelSize(z, y, x, "um")
    config = TrainConfig(seconds=task.seconds, threads=task.threads, random_state=task.state)
    model = api.train(task.image, task.sparse, voxel_size=voxel_size, config=config)
    task.trained()
    labels = api.predict(model, task.image, voxel_size=voxel_size)
    record = model.recipe.record
    best = {point.step: point.mean_iou for point in model.history.validations}
    task.finish(
        labels, steps=record.steps if record else None, estimated_iou=best.get(record.best_step) if record else None
    )
