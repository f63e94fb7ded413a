"""Live curves."""

from napari_unet3d.widgets._plots._curves import CurvePoint, CurveStyle
from napari_unet3d.widgets._plots._widget import CurvesPlot

__all__ = ["CurvePoint", "CurveStyle", "CurvesPlot"]
