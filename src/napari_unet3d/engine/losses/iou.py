"""Soft intersection over union."""

from __future__ import annotations

from torch import Tensor

from napari_unet3d.engine.losses.overlap import SMOOTH, Overlap, OverlapTerm


class SoftIoU(OverlapTerm):
    """One minus the soft intersection over union, mean over classes.

    For each class ``(I + s) / (U + s)`` with ``I = sum(p t)`` and ``U = sum(p) + sum(t) - I`` over all annotated
    voxels of the batch together, s being `SMOOTH` (Huang et al. 2020, "UNet 3+", the IoU part of eq. 6). The
    mean is over the classes that `Overlap` counts: summing over classes first would let the background decide.
    """

    def value(self, sums: Tensor) -> Tensor:
        """Mean over the classes that count."""
        overlap = Overlap(*sums.unbind())
        union = overlap.probability + overlap.truth - overlap.both
        return overlap.mean_over_classes(1 - (overlap.both + SMOOTH) / (union + SMOOTH))
