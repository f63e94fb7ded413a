"""Names of what the demo writes."""

from __future__ import annotations

from typing import Final

IMAGE: Final = "volume.nii.gz"
PAINTED: Final = "painted.nii.gz"
TRUTH: Final = "truth.nii.gz"
MODEL: Final = "model.safetensors"
LABELS: Final = "labels.nii.gz"
UNCERTAINTY: Final = "uncertainty.nii.gz"
PICTURE: Final = "picture.png"
CURVES: Final = "curves.png"
REPORT: Final = "report.md"
FIGURES: Final = "report.json"

MEANING: Final = {
    IMAGE: "image",
    PAINTED: "painted slices",
    TRUTH: "truth",
    MODEL: "model",
    LABELS: "predicted labels",
    UNCERTAINTY: "uncertainty",
    PICTURE: "picture",
    CURVES: "curves",
    REPORT: "report",
    FIGURES: "report for programs",
}
"""What each file is, in the order they are written."""
