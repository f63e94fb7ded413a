"""Partial losses: only annotated voxels count, exactly.

::

    logits  B K Z Y X ──┐  annotated voxels only      terms         total
    target  B Z Y X   ──┴─> what the network says ──> sums ──> value ──┐
    coarser logits and the target pooled to them ......... ──> value ──┴─> weighted mean over the outputs

Annotated voxels are gathered before anything is computed. As slices are a small part of a patch this is fast,
and what a network says elsewhere, be it NaN, cannot reach the loss or its gradient.

Every spatial shape may also be Y X. In the comments B is the batch, K the channels, N the annotated voxels.
"""

from napari_unet3d.engine.losses.combined import Loss, LossValue, build_loss

__all__ = ["Loss", "LossValue", "build_loss"]
