"""What a figure was measured on, and tables to show it in."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

_PACKAGES: Final = ("napari-unet3d", "torch", "numpy", "monai", "scikit-image", "scikit-learn")


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, what else keeps them busy, graphics card and versions."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    return {**found, "versions": {name: number for name in _PACKAGES if (number := _version(name))}}


def describe_machine(found: dict[str, Any], threads: int) -> str:
    """One line for above a table."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    where = f"{found['gpu']}, " if found["gpu"] else ""
    cores = f"{threads} threads on {found['cores']} cores (load {found['load']} at the start)"
    return f"{where}{found['processor']}, {cores}; {found['system']}; {versions}"


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column left-aligned, figures right-aligned."""
    lines = [list(heading), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [padded[0], rule, *padded[1:]])


def write_reports(text: str, values: Any, markdown: Path | None, json_file: Path | None) -> None:
    """Print a report, and write it where that was asked for."""
    print(text)
    if markdown is not None:
        markdown.write_text(text + "\n", encoding="utf-8")
    if json_file is not None:
        json_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
