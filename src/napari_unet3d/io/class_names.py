"""Names of classes in what napari hands over with a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_names(meta: Mapping[str, Any]) -> dict[int, str]:
    """Names of label ids from the features table of a layer; empty where it has none."""
    features = meta.get("features")
    columns = {str(name).lower(): name for name in features} if features is not None else {}
    names = columns.get("class", columns.get("name"))
    if features is None or "index" not in columns or names is None:
        return {}
    table = zip(features[columns["index"]], features[names], strict=True)
    # the table of a napari layer may hold a row for 0, and gaps
    return {int(i): str(name) for i, name in table if i == i and int(i) > 0 and isinstance(name, str) and name}
