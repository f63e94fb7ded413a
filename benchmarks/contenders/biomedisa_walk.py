"""Biomedisa's smart interpolation (Lösel et al. 2020): random walks from the painted slices, on the processor by PoCL.

Its defaults, with slices across Z. Needs no budget, it takes the time it takes, which grows with what is painted; for
small volumes.
"""

from __future__ import annotations

import sys

from task import Task, limit_threads

limit_threads(int(sys.argv[3]))

import numpy as np  # noqa: E402
from biomedisa.interpolation import smart_interpolation  # noqa: E402

if __name__ == "__main__":
    task = Task()
    # 0 on a painted slice is background
    labels = np.where(task.sparse == 0, 0, task.sparse.astype(np.int16) - 1).astype(np.uint8)
    walked = smart_interpolation(task.image, labels, platform="opencl_Portable_CPU")
    task.trained()
    task.finish(walked["regular"] + 1)
