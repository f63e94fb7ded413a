"""What the set-up script says where it cannot go on, and that it is silent where nothing is left to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the script is for POSIX systems"),
    pytest.mark.skipif(not (ROOT / "scripts").is_dir(), reason="not in a checkout"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return tmp_path


def set_up(checkout: Path, python: Path, goal: str = "demo") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python)}
    return subprocess.run(
        ["sh", "scripts/setup.sh", goal], cwd=checkout, env=environment, capture_output=True, text=True
    )


def fake_python(folder: Path, minor: int) -> Path:
    """An executable that answers the questions after its version as Python 3.`minor`.18 would."""
    path = folder / f"python3.{minor}"
    answers = f"*python_version*) echo 3.{minor}.18 ;;\n*version_info*) echo {minor} ;;\n"
    path.write_text(f'#!/bin/sh\ncase "$2" in\n{answers}esac\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("minor", [9, 10, 15])
def test_unsuitable_python_is_refused_in_one_line(checkout: Path, minor: int) -> None:
    result = set_up(checkout, fake_python(checkout, minor))
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"setup: Python 3.11 or newer (up to 3.14, with ssl, bz2 and lzma) is needed; found 3.{minor}.18"
    ]
    assert not (checkout / ".venv").exists()


def test_missing_python_is_said_in_one_line(checkout: Path) -> None:
    result = set_up(checkout, checkout / "nowhere")
    assert result.returncode == 1
    assert result.stderr.endswith("is needed; found none\n")
    assert len(result.stderr.splitlines()) == 1


def test_unknown_goal_is_a_usage_error(checkout: Path) -> None:
    result = set_up(checkout, Path(sys.executable), goal="tset")
    assert (result.returncode, result.stderr) == (2, "usage: scripts/setup.sh test|demo\n")
