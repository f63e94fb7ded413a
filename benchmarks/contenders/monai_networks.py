"""MONAI's BasicUNet and DynUNet in a plain loop: patches around painted voxels, cross-entropy with an ignored index.

Called with the network's name after the usual arguments. Adam at 1e-3 with a cosine schedule over the budget, random
flips, two patches of up to 64 voxels a side, sliding-window inference with Gaussian weights.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from task import Task, limit_threads, standardized

limit_threads(int(sys.argv[3]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402
from monai.networks.nets import BasicUNet, DynUNet  # noqa: E402
from torch import nn  # noqa: E402

_SIDE = 64
_BATCH = 2
_STEP = 16  # both networks halve four times
_IGNORED = -1


def network(name: str, classes: int) -> nn.Module:
    if name == "basic":
        return BasicUNet(3, 1, classes)
    sizes: list[Any] = [3] * 5
    return DynUNet(3, 1, classes, kernel_size=sizes, strides=[1, 2, 2, 2, 2], upsample_kernel_size=[2, 2, 2, 2])


def padded(values: np.ndarray[Any, Any], **how: Any) -> np.ndarray[Any, Any]:
    """With every axis at least one patch, and patches a multiple of what the networks halve."""
    return np.pad(values, [(0, max(0, -(-min(n, _SIDE) // _STEP) * _STEP - n)) for n in values.shape], **how)


if __name__ == "__main__":
    task = Task()
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.state)
    rng = np.random.default_rng(task.state)
    image = torch.from_numpy(padded(standardized(task.image), mode="reflect"))
    target = torch.from_numpy(padded(task.sparse.astype(np.int64) - 1, constant_values=_IGNORED))
    side = [min(_SIDE, n // _STEP * _STEP) for n in image.shape]
    centres = torch.nonzero(target >= 0).numpy()
    net = network(sys.argv[5], task.classes)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    loss_of = nn.CrossEntropyLoss(ignore_index=_IGNORED)
    begin, steps = time.perf_counter(), 0
    while task.is_time_left:
        used = (time.perf_counter() - begin) / task.seconds
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 + math.cos(math.pi * min(used, 1))) / 2
        inputs, targets = [], []
        for centre in centres[rng.integers(len(centres), size=_BATCH)]:
            starts = [int(np.clip(c - s // 2, 0, n - s)) for c, s, n in zip(centre, side, image.shape, strict=True)]
            place = tuple(slice(a, a + s) for a, s in zip(starts, side, strict=True))
            axes = [axis for axis in range(3) if rng.integers(2)]
            inputs.append(image[place].flip(axes)[None])
            targets.append(target[place].flip(axes))
        optimizer.zero_grad()
        loss = loss_of(net(torch.stack(inputs)).squeeze(1), torch.stack(targets))
        loss.backward()
        optimizer.step()
        steps += 1
    task.trained()
    net.eval()
    with torch.no_grad():
        logits = sliding_window_inference(image[None, None], side, 4, net, overlap=0.25, mode="gaussian")
    labels = logits[0].argmax(0).numpy()[tuple(slice(n) for n in task.image.shape)] + 1
    task.finish(labels, steps=steps)
