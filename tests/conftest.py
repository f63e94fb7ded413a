"""Shared by all tests."""

from __future__ import annotations

import os

import qtpy
from hypothesis import settings

# where two bindings are installed, pytest-qt would take another one than napari
os.environ.setdefault("PYTEST_QT_API", qtpy.API_NAME.lower())

# a slow machine is no failure
settings.register_profile("project", deadline=None)
settings.load_profile("project")
