"""Folders of images: what lies in them, and which files belong together by name."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from napari_unet3d.engine.errors import FileError
from napari_unet3d.io._paths import FORMATS, file_suffix
from napari_unet3d.io.ome_zarr import is_zarr

RESULT_ENDINGS: Final = ("_labels", "_probabilities", "_uncertainty")
"""What `predict` adds to the name of an image."""

_TRUTH_ENDINGS: Final = ("_truth", "_labels", "_label", "_prediction", "_seg", "_mask", "_gt")


def is_plain_folder(path: Path) -> bool:
    """Whether the path is a folder that is not itself an image, nor inside one."""
    return path.is_dir() and not any(file_suffix(part) for part in (path, *path.parents)) and not is_zarr(path)


def base_name(path: Path) -> str:
    """Name of a file without its known suffix."""
    suffix = file_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name


def images_in(folder: Path) -> list[Path]:
    """The images that lie in a folder, numbers in their names counted as numbers.

    Hidden files are left out, and so are results that `predict` wrote for another image there.

    Raises
    ------
    FileError
        If there is none.
    """
    found = [path for path in folder.iterdir() if file_suffix(path) and not path.name.startswith(".")]
    names = {base_name(path) for path in found}
    images = [path for path in found if not _is_result(base_name(path), names)]
    if not images:
        raise FileError(f"{folder} holds no image; known suffixes: {', '.join(FORMATS)}")
    return sorted(images, key=_natural)


def matched(predictions: Path, truths: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Files of two folders that belong together.

    Equal names without suffix belong together, and those equal without an ending such as ``_labels`` or ``_truth``.

    Returns
    -------
    pairs
        Prediction and truth, by the name of the prediction.
    alone
        Files without a partner.

    Raises
    ------
    FileError
        If a folder holds no image, nothing belongs together, or a name fits twice.
    """
    sides = []
    for folder in (predictions, truths):
        files: dict[str, Path] = {}
        for path in sorted((p for p in folder.iterdir() if _counts(p)), key=_natural):
            key = _key(path)
            if key in files:
                raise FileError(f"{files[key].name} and {path.name} in {folder} could both be {key!r}; rename one")
            files[key] = path
        if not files:
            raise FileError(f"{folder} holds no image; known suffixes: {', '.join(FORMATS)}")
        sides.append(files)
    first, second = sides
    pairs = [(path, second[key]) for key, path in first.items() if key in second]
    if not pairs:
        example = next(iter(first.values())).name
        raise FileError(
            f"no file in {truths} belongs to one in {predictions}, such as {example}; give them the same names"
        )
    alone = [path for key, path in first.items() if key not in second]
    alone += [path for key, path in second.items() if key not in first]
    return pairs, alone


def partner(path: Path, folder: Path) -> Path | None:
    """The file in a folder that belongs to another one, if there is one; see `matched`."""
    return next((other for other in sorted(folder.iterdir()) if _counts(other) and _key(other) == _key(path)), None)


def _is_result(name: str, names: Collection[str]) -> bool:
    return any(name.endswith(ending) and name.removesuffix(ending) in names for ending in RESULT_ENDINGS)


def _counts(path: Path) -> bool:
    is_map = base_name(path).endswith(("_probabilities", "_uncertainty"))
    return bool(file_suffix(path)) and not path.name.startswith(".") and not is_map


def _key(path: Path) -> str:
    name = base_name(path)
    for ending in _TRUTH_ENDINGS:
        if name.endswith(ending) and name != ending:
            return name.removesuffix(ending)
    return name


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part.lower()) for part in parts]
