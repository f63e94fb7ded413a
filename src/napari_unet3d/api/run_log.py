"""The curves of a training in files: a table for spreadsheets and scripts, and TensorBoard's."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from napari_unet3d.engine.errors import ConfigError, FileError
from napari_unet3d.engine.progress import Event, Note, Stepped, Validated

COLUMNS: Final = ("step", "seconds", "name", "value")


def figures(event: Event) -> Iterator[tuple[str, float]]:
    """Name and value of every figure in an event; nothing for events without figures.

    ``loss``, ``loss/TERM``, ``learning_rate``, ``iou/ID``, ``dice/ID`` (held-out annotation), ``iou/mean`` (of the
    structures) and ``agreement`` (with a teacher). What is not defined is left out.
    """
    if isinstance(event, Stepped):
        yield "loss", event.loss
        yield from ((f"loss/{name}", value) for name, value in event.loss_terms.items())
        yield "learning_rate", event.learning_rate
    elif isinstance(event, Validated):
        scored = [(f"iou/{score.class_id}", score.iou) for score in event.scores]
        scored += [(f"dice/{score.class_id}", score.dice) for score in event.scores]
        scored += [("iou/mean", event.mean_iou)]
        if event.agreement is not None:
            scored += [("agreement", event.agreement)]
        yield from ((name, value) for name, value in scored if not math.isnan(value))


class Log(Protocol):
    """Takes figures."""

    def write(self, step: int, seconds: float, name: str, value: float) -> None:
        """One figure after a step, `seconds` after the start."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class RunLog(AbstractContextManager["RunLog"]):
    """Writes the figures of a run into logs while it goes on: ``for event in run: log.show(event)``.

    Parameters
    ----------
    table
        CSV file with the columns of `COLUMNS`, a line for each figure.
    tensorboard
        Folder for TensorBoard; made if it is missing.
    is_continued
        Whether lines are added to an older table, not put in its place.

    Raises
    ------
    FileError
        If the table cannot be written.
    ConfigError
        If the package tensorboard is wanted but missing.
    """

    def __init__(
        self,
        table: str | os.PathLike[str] | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
        *,
        is_continued: bool = False,
    ) -> None:
        self._logs: list[Log] = []
        if tensorboard is not None:  # the one that may be missing first
            self._logs.append(TensorBoardLog(Path(tensorboard)))
        if table is not None:
            self._logs.append(TableLog(Path(table), is_continued=is_continued))

    def show(self, event: Event) -> list[Note]:
        """Write the figures of one event; a log that cannot be written any more is given up, which a note tells."""
        notes: list[Note] = []
        if not isinstance(event, Stepped | Validated):
            return notes
        for log in tuple(self._logs):
            try:
                for name, value in figures(event):
                    log.write(event.step, event.seconds, name, value)
            except (FileError, OSError) as error:
                self._logs.remove(log)
                with suppress(FileError, OSError):
                    log.close()
                notes.append(Note(f"{error}; going on without it", "warning"))
        return notes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for log in self._logs:
            log.close()


class TableLog:
    """A CSV file; after every figure it is as complete as the run."""

    def __init__(self, path: Path, *, is_continued: bool) -> None:
        self._path = path
        try:
            is_new = not (is_continued and path.is_file() and path.stat().st_size)
            # closed by `close`, not at the end of a block; a buffer of one line
            self._file: TextIO = path.open("w" if is_new else "a", encoding="utf-8", newline="", buffering=1)
        except OSError as error:
            raise self._refusal(error) from None
        self._rows = csv.writer(self._file, lineterminator="\n")
        if is_new:
            self._write(COLUMNS)

    def write(self, step: int, seconds: float, name: str, value: float) -> None:
        self._write((step, f"{seconds:.3f}", name, f"{value:.6g}"))

    def _write(self, row: Any) -> None:
        try:
            self._rows.writerow(row)
        except OSError as error:
            raise self._refusal(error) from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> FileError:
        return FileError(f"the log {self._path} cannot be written ({error.strerror})")


class TensorBoardLog:
    """Event files that ``tensorboard --logdir FOLDER`` shows."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                'logs for TensorBoard need the package tensorboard: pip install "napari-unet3d[tensorboard]"'
            ) from None
        try:
            self._writer: Any = SummaryWriter(str(folder))
        except OSError as error:
            raise FileError(f"{folder} cannot be written ({error.strerror})") from None

    def write(self, step: int, seconds: float, name: str, value: float) -> None:
        self._writer.add_scalar(name, value, global_step=step)

    def close(self) -> None:
        self._writer.close()
