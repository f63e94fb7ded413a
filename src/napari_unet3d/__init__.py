"""napari-unet3d."""
