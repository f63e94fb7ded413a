"""Volumes in, labels out: NIfTI, TIFF (plain, ImageJ, OME), OME-Zarr and NumPy files."""
