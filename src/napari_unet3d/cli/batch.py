"""Work on many files: what fails does not end the rest, and a table at the end says what became of each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from napari_unet3d.cli.text_file import write_text
from napari_unet3d.engine.errors import ConfigError, UNet3dError

DONE: Final = "done"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"


@dataclass
class Row:
    """What became of one file."""

    name: str
    status: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    """By the headings of their columns."""
    reason: str = ""
    """Why it failed or was skipped."""


class Batch:
    """The rows so far, and the file they are kept in.

    Parameters
    ----------
    table
        CSV file that is rewritten after each row; None for none.
    """

    def __init__(self, table: Path | None = None) -> None:
        self.rows: list[Row] = []
        self._table = table

    def add(self, row: Row) -> None:
        """One more file is dealt with."""
        self.rows.append(row)
        if self._table is not None:
            write_text(self._table, self._csv())

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Turn an error that is a file's fault into a row."""
        try:
            yield
        except (UNet3dError, OSError) as error:
            self.add(Row(name, FAILED, reason=" ".join(str(error).split())))
        except MemoryError:
            self.add(Row(name, FAILED, reason="not enough memory; give a smaller --memory"))

    @property
    def failed(self) -> list[Row]:
        """What failed."""
        return [row for row in self.rows if row.status == FAILED]

    def raise_failures(self) -> None:
        """Make sure that nothing failed.

        Raises
        ------
        ConfigError
            If something did; it tells the first reason.
        """
        if self.failed:
            first = self.failed[0]
            raise ConfigError(f"{len(self.failed)} of {len(self.rows)} files failed; {first.name}: {first.reason}")

    def show(self, console: Console) -> None:
        """Print the table."""
        columns = self._columns()
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("file", overflow="fold")
        table.add_column("result")
        for heading in columns:
            table.add_column(heading, justify="right", overflow="fold")
        for row in self.rows:
            figures = (_shown(row.figures.get(heading)) for heading in columns)
            table.add_row(row.name, row.status, *figures)
        console.print(table)
        for row in self.rows:
            if row.reason:
                console.print(f"{row.name}: {row.reason}", soft_wrap=True)

    def _columns(self) -> Sequence[str]:
        return list(dict.fromkeys(heading for row in self.rows for heading in row.figures))

    def _csv(self) -> str:
        columns = self._columns()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "result", *columns, "reason"])
        for row in self.rows:
            writer.writerow([row.name, row.status, *(row.figures.get(heading, "") for heading in columns), row.reason])
        return text.getvalue()


def _shown(value: float | int | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value
