"""A picture of a network, with the sizes at every level."""

from napari_unet3d.widgets._network_drawing._widget import NetworkDrawing

__all__ = ["NetworkDrawing"]
