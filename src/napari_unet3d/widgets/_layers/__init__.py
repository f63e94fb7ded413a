"""The only bridge between napari layers and the engine's volumes. Knows no Qt and no torch."""
