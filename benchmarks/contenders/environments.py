"""Environments of their own for contenders that cannot stand beside us, made when they are first needed."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Final, NamedTuple

import platformdirs

_CONSTRAINTS: Final = Path(__file__).parents[2] / "constraints.txt"


class Environment(NamedTuple):
    """What is installed where.

    Attributes
    ----------
    name
        Of its folder.
    packages
        With what they depend on.
    alone
        Without it: what they ask for is in `packages` as far as it is used.
    unwanted
        Removed again.
    """

    name: str
    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()

    def python(self) -> Path:
        """Its interpreter; installs the environment first where it is not there."""
        folder = Path(platformdirs.user_cache_dir("napari-unet3d-benchmarks")) / self.name
        python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        complete = folder / "complete"
        if not complete.is_file():
            print(f"making the environment {folder}", file=sys.stderr)
            venv.create(folder, clear=True, with_pip=True)
            pip = [str(python), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--constraint", str(_CONSTRAINTS), *self.packages], check=True)
            if self.alone:
                subprocess.run([*pip, "--no-deps", *self.alone], check=True)
            if self.unwanted:
                subprocess.run([*pip[:3], "uninstall", "--quiet", "--yes", *self.unwanted], check=True)
            complete.touch()
        return python


PYTORCH_3DUNET: Final = Environment(
    "pytorch-3dunet",
    ("torch", "numpy", "scikit-image", "h5py", "tensorboard", "tqdm", "pyyaml"),
    alone=("pytorch3dunet",),
)
NNUNET: Final = Environment("nnunet", ("torch", "nnunetv2"), unwanted=("timm", "torchvision"))
BIOMEDISA: Final = Environment(
    "biomedisa",
    (
        "pyopencl[pocl]", "mpi4py", "mpich", "medpy", "opencv-python-headless", "SimpleITK", "numba", "scikit-image",
        "tifffile", "h5py", "imagecodecs", "netCDF4", "mrcfile", "nibabel", "zarr", "tqdm", "matplotlib", "colorama",
        "importlib_metadata",
    ),
    alone=("biomedisa",),
)  # fmt: skip
