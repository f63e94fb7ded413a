"""``python -m napari_unet3d``: the command line."""

from __future__ import annotations

import sys

from napari_unet3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
