"""The states of a voxel in the colours of the classes."""

from __future__ import annotations

from typing import Any

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QLabel

from napari_unet3d.engine.classes import default_classes
from napari_unet3d.widgets._legend import Chip, Legend
from napari_unet3d.widgets._offer import Offer


def colour_at(chip: Chip, x: int, y: int) -> str:
    return QColor(chip.grab().toImage().pixel(x, y)).name()


def test_chips_have_the_colours_of_the_classes(qtbot: Any) -> None:
    legend = Legend()
    qtbot.addWidget(legend)
    classes = default_classes((1, 2, 3))
    legend.set_classes(classes)
    ratio = round(legend.devicePixelRatioF())
    assert colour_at(legend.background, 15 * ratio, 6 * ratio) == classes[0].colour
    assert colour_at(legend.structures, 7 * ratio, 6 * ratio) == classes[1].colour
    assert colour_at(legend.structures, 22 * ratio, 6 * ratio) == classes[2].colour
    assert legend.nothing.colours == ()
    striped = {colour_at(legend.held_out, x * ratio, 6 * ratio) for x in range(4, 26)}
    assert len(striped) > 2  # the class, and stripes in white and black


def test_the_three_states_are_named(qtbot: Any) -> None:
    legend = Legend()
    qtbot.addWidget(legend)
    texts = " ".join(label.text() for label in legend.findChildren(QLabel))
    for state in ("structure", "background", "not annotated", "held out"):
        assert state in texts


def test_an_offer_is_seen_only_while_there_is_one(qtbot: Any) -> None:
    offer = Offer("Restore", "Not now")
    qtbot.addWidget(offer)
    assert offer.isHidden()
    offer.show_text("strokes are kept")
    assert not offer.isHidden()
    with qtbot.waitSignal(offer.accepted):
        offer.yes.click()
    with qtbot.waitSignal(offer.declined):
        offer.no.click()
    offer.show_text("")
    assert offer.isHidden()
