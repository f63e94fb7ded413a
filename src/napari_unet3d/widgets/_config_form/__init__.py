"""A form made from a configuration model."""

from napari_unet3d.widgets._config_form._form import ConfigForm

__all__ = ["ConfigForm"]
