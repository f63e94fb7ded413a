"""A user's strokes, model and recipe, kept in a folder of their own: one for each image, never beside the image.

::

    <base>/<name>-<key>/annotation.npz           strokes and classes, together in one file
                        annotation-earlier.npz   as they were before this session's first save
                        recipe.yaml
                        model.safetensors        written by the training run
                        model-earlier.safetensors   that of the run before
                        about.json               which image, when, how much: for people

Each file is complete or not there: it gets its name in one step. Two programs that save at once leave the files of
the later one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import platformdirs
from numpy.typing import NDArray

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.errors import FileError
from napari_unet3d.engine.volume import LazyArray, Volume
from napari_unet3d.io._guard import reading, writing
from napari_unet3d.io._paths import move_into_place, remove, temporary_beside
from napari_unet3d.io._text import write_bytes, write_text
from napari_unet3d.io.annotation_file import pack_annotation, read_annotation

_ANNOTATION: Final = "annotation.npz"
_EARLIER: Final = "annotation-earlier.npz"
_RECIPE: Final = "recipe.yaml"
_MODEL: Final = "model.safetensors"
_EARLIER_MODEL: Final = "model-earlier.safetensors"
_STUDENT: Final = "student.safetensors"
_ABOUT: Final = "about.json"
_WINDOW: Final = 192  # edge of the part of a plane that counts; three parts of 8 bytes a voxel stay below 1 MB


def default_base() -> Path:
    """The folder of all autosaves, in the user's data folder of this system."""
    return Path(platformdirs.user_data_dir("napari-unet3d", appauthor=False)) / "autosave"


@dataclass(frozen=True, eq=False)
class SavedAnnotation:
    """What was saved.

    Parameters
    ----------
    labels
        As they were saved, uint8 or uint16; 0 = not annotated.
    classes
        Names and colours.
    warning
        A sentence for the user where the last save was damaged and these are the strokes from before it.
    """

    labels: NDArray[np.unsignedinteger]
    classes: tuple[ClassInfo, ...]
    warning: str | None = None


class AutosaveFolder:
    """The autosave of one image.

    Parameters
    ----------
    path
        Its folder, made by the first save.
    image_name
        For people.
    image_path
        The image's file, where it has one.
    """

    def __init__(self, path: Path, image_name: str = "image", image_path: Path | None = None) -> None:
        self._path = path
        self._image_name = image_name
        self._image_path = image_path
        self._has_saved = False

    @classmethod
    def for_image(
        cls,
        base: str | os.PathLike[str] | None,
        image: Volume | LazyArray,
        path: str | os.PathLike[str] | None,
        name: str = "",
    ) -> Self:
        """The folder that belongs to an image; nothing is written yet.

        It is found again by the image's file, shape, type and a checksum of parts of its first, middle and last
        plane, less than 1 MB.

        Parameters
        ----------
        base
            Folder of all autosaves; `default_base` where it is None or empty.
        image
            NumPy or lazy, two axes or more; leading axes of length 1 make no difference.
        path
            Its file; None for an image without one.
        name
            For people; the file's name where it is empty.

        Raises
        ------
        FileError
            If the image cannot be read.
        """
        source = None if path is None else Path(path).resolve()
        data = image.data if isinstance(image, Volume) else image
        name = name or (source.name if source else image.name if isinstance(image, Volume) else "image")
        with reading(source or Path(name)):
            key = _key(data, source)
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:40] or "image"
        folder = Path(base) if base and str(base).strip() else default_base()
        return cls(folder.expanduser() / f"{readable}-{key}", name, source)

    @property
    def path(self) -> Path:
        """The folder; it need not exist."""
        return self._path

    @property
    def model_path(self) -> Path:
        """Where the training run keeps its best model; call `make` first."""
        return self._path / _MODEL

    @property
    def student_path(self) -> Path:
        """Where a distillation keeps its best student; call `make` first."""
        return self._path / _STUDENT

    def begin_another(self) -> None:
        """The next save is of another annotation: what is saved now is kept as the earlier one."""
        self._has_saved = False

    def put_model_aside(self) -> None:
        """Keep the model that is there as the earlier one, before another run writes its own.

        Raises
        ------
        FileError
            If it cannot be renamed.
        """
        if self.model_path.is_file():
            with self._writing():
                move_into_place(self.model_path, self._path / _EARLIER_MODEL)

    @property
    def model_paths(self) -> tuple[Path, ...]:
        """The models that are there, the newest first."""
        return tuple(path for name in (_MODEL, _EARLIER_MODEL) if (path := self._path / name).is_file())

    @property
    def exists(self) -> bool:
        """Whether strokes were saved."""
        return any((self._path / name).is_file() for name in (_ANNOTATION, _EARLIER))

    def make(self) -> Path:
        """Make the folder.

        Raises
        ------
        FileError
            If it cannot be made.
        """
        with self._writing():
            self._path.mkdir(parents=True, exist_ok=True)
        return self._path

    def save_annotation(
        self,
        labels: LazyArray,
        classes: Sequence[ClassInfo],
        *,
        annotated_slices: int | None = None,
    ) -> None:
        """Save strokes with their classes, in place of those saved before.

        What an earlier session saved is kept as well.

        Parameters
        ----------
        labels
            Two axes or more, any integer type, ids 0..65535; 0 = not annotated. Nobody may paint meanwhile,
            else a stroke may be saved in part.
        classes
            Names and colours.
        annotated_slices
            Their number, for `describe`.

        Raises
        ------
        DataError
            If the labels are no label ids.
        FileError
            If they cannot be written; those saved before are still there.
        """
        content, voxels = pack_annotation(labels, classes)
        self.make()
        with self._writing():
            if not self._has_saved:
                self._keep_earlier()
            write_bytes(self._path / _ANNOTATION, content)
            self._has_saved = True
            about = {
                "image": self._image_name,
                "path": None if self._image_path is None else str(self._image_path),
                "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
                "annotated_voxels": voxels,
                "annotated_slices": annotated_slices,
            }
            write_text(self._path / _ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")

    def load_annotation(self) -> SavedAnnotation:
        """The strokes saved last; if they are damaged, those of the session before.

        Raises
        ------
        FileError
            If none were saved, or all are damaged; nothing is removed.
        """
        if not self.exists:
            raise FileError(f"no strokes were saved in {self._path}")
        try:
            return SavedAnnotation(*read_annotation(self._path / _ANNOTATION))
        except FileError as error:
            earlier = self._path / _EARLIER
            if not earlier.is_file():
                raise
            try:
                labels, classes = read_annotation(earlier)
            except FileError:
                raise error from None
            when = datetime.fromtimestamp(earlier.stat().st_mtime)
            return SavedAnnotation(
                labels,
                classes,
                f"{error}; the strokes of the session before are used, from {when:%F %H:%M}",
            )

    def save_recipe(self, text: str) -> None:
        """Save the recipe of the training run, YAML.

        Raises
        ------
        FileError
            If it cannot be written.
        """
        self.make()
        with self._writing():
            write_text(self._path / _RECIPE, text)

    def load_recipe(self) -> str | None:
        """The recipe saved last, None if there is none.

        Raises
        ------
        FileError
            If it cannot be read.
        """
        path = self._path / _RECIPE
        if not path.is_file():
            return None
        with reading(path):
            return path.read_text(encoding="utf-8")

    def describe(self) -> str:
        """Such as "142 annotated slices, saved 2026-11-21 10:12"; "nothing saved" where there is nothing."""
        if not self.exists:
            return "nothing saved"
        about: Any = {}
        with suppress(OSError, ValueError):
            about = json.loads((self._path / _ABOUT).read_text(encoding="utf-8"))
        slices, voxels = (_count(about, f"annotated_{what}") for what in ("slices", "voxels"))
        amount = "annotation"
        if slices:
            amount = f"{slices} annotated slice{'s' * (slices > 1)}"
        elif voxels is not None:
            amount = f"{voxels:,} annotated voxel{'s' * (voxels != 1)}"
        return f"{amount}, saved {self._saved_at(about):%Y-%m-%d %H:%M}"

    def _saved_at(self, about: Any) -> datetime:
        with suppress(TypeError, KeyError, ValueError):
            return datetime.fromisoformat(about["saved"]).astimezone()
        with suppress(OSError):
            return datetime.fromtimestamp((self._path / _ANNOTATION).stat().st_mtime)
        return datetime.fromtimestamp((self._path / _EARLIER).stat().st_mtime)

    def _keep_earlier(self) -> None:
        """Put aside what an earlier session saved, unless it is damaged."""
        current = self._path / _ANNOTATION
        try:
            read_annotation(current)
        except FileError:
            return
        temporary = temporary_beside(current, current.suffix)
        try:
            shutil.copy2(current, temporary)
            move_into_place(temporary, self._path / _EARLIER)
        finally:
            remove(temporary)

    def _writing(self) -> Any:
        return writing(self._path)


def _key(data: LazyArray, path: Path | None) -> str:
    """16 hexadecimal digits."""
    shape = tuple(int(length) for length in data.shape)
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    extra = (0,) * (len(data.shape) - len(shape))
    *leading, height, width = shape
    digest = hashlib.sha256()
    dtype = np.dtype(data.dtype).newbyteorder("<")
    digest.update(repr((os.path.normcase(str(path)) if path else "", shape, dtype.str)).encode())
    y, x = (_middle(length) for length in (height, width))
    for numerator in (0, 1, 2):
        index = tuple((length - 1) * numerator // 2 for length in leading)
        part = np.asarray(data[(*extra, *index, y, x)])
        digest.update(np.ascontiguousarray(part, dtype=dtype).tobytes())
    return digest.hexdigest()[:16]


def _middle(length: int) -> slice:
    start = max(0, (length - _WINDOW) // 2)
    return slice(start, min(length, start + _WINDOW))


def _count(about: Any, key: str) -> int | None:
    value = about.get(key) if isinstance(about, dict) else None
    return value if isinstance(value, int) and value >= 0 else None
