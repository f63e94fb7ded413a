from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPoint, QPointF, QRectF
from qtpy.QtGui import QColor, QFontMetricsF, QHelpEvent
from qtpy.QtWidgets import QApplication, QToolTip

from napari_unet3d.engine.config import NetworkConfig, UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.widgets._network_drawing import NetworkDrawing
from napari_unet3d.widgets._network_drawing._blocks import Place, block_text, picture_of, stride_text
from napari_unet3d.widgets._network_drawing._layout import lay_out
from napari_unet3d.widgets._theme import theme_colours


def legal(config: NetworkConfig, side: int = 64) -> tuple[int, int, int]:
    return describe(config).legal_shape((1 if config.dimensions == 2 else side, side, side))


def drawing_of(qtbot: QtBot, config: NetworkConfig, width: int = 280) -> NetworkDrawing:
    drawing = NetworkDrawing()
    qtbot.addWidget(drawing)
    drawing.set_network(describe(config), legal(config))
    drawing.resize(width, drawing.sizeHint().height())
    drawing.show()
    return drawing


# --- what there is to draw --------------------------------------------------------------------------------


def test_a_unet_of_three_levels() -> None:
    config = UNetConfig(levels=3, filters=8, strides=((1, 2, 2), 2))
    picture = picture_of(describe(config), (4, 16, 16))
    assert {place: (block.channels, block.size) for place, block in picture.blocks.items()} == {
        ("encoder", 0): (8, (4, 16, 16)),
        ("encoder", 1): (16, (4, 8, 8)),
        ("encoder", 2): (32, (2, 4, 4)),
        ("decoder", 1): (16, (4, 8, 8)),
        ("decoder", 0): (8, (4, 16, 16)),
    }
    assert set(picture.skips) == {(("encoder", level), ("decoder", level)) for level in (0, 1)}
    assert picture.strides == ((1, 2, 2), (2, 2, 2))
    assert picture.last == ("decoder", 0)


def test_the_figure_of_the_3d_unet_paper() -> None:
    picture = picture_of(describe(network_config("cicek2016", in_channels=3, classes=3)), (116, 132, 132))
    channels = [picture.blocks["encoder", level].channels for level in range(4)]
    assert channels == [64, 128, 256, 512]
    assert picture.blocks["decoder", 0].size == (28, 44, 44)
    assert (picture.in_channels, picture.classes) == (3, 3)
    assert all(all(crop) for crop in picture.crops[:-1])


@pytest.mark.parametrize("name", network_presets())
def test_no_layer_of_any_preset_is_lost(name: str) -> None:
    network = describe(network_config(name))
    picture = picture_of(network, legal(network.config))
    assert sum(block.parameters for block in picture.blocks.values()) == network.parameters
    assert sum(len(block.layers) for block in picture.blocks.values()) == len(network.layers)
    assert picture.levels == network.config.levels


def test_every_decoder_level_of_a_unet3plus_joins_all_others() -> None:
    config = network_config("unet3plus-3d")
    picture = picture_of(describe(config), legal(config))
    for node in range(4):
        sources = {source for source, target in picture.skips if target == ("decoder", node)}
        finer: set[Place] = {("encoder", level) for level in range(node + 1)}
        coarser: set[Place] = {("encoder" if level == 4 else "decoder", level) for level in range(node + 2, 5)}
        assert sources == finer | coarser


def test_deep_supervision_is_marked() -> None:
    config = UNetConfig(levels=3, deep_supervision=True)
    blocks = picture_of(describe(config), legal(config)).blocks
    assert [place for place, block in blocks.items() if block.has_side_head] == [("decoder", 1)]


def test_a_network_of_one_level_is_one_block() -> None:
    picture = picture_of(describe(UNetConfig(levels=1)), (4, 4, 4))
    assert list(picture.blocks) == [("encoder", 0)]
    assert picture.last == ("encoder", 0)


def test_strides_are_told_briefly() -> None:
    assert stride_text((2, 2, 2), 3) == "2"
    assert stride_text((1, 2, 2), 3) == "1×2×2"
    assert stride_text((1, 2, 2), 2) == "2"


def test_a_block_tells_its_layers() -> None:
    config = UNetConfig(levels=2, filters=4, convolutions=1)
    first, layer = block_text(picture_of(describe(config), (2, 4, 4)).blocks["encoder", 0])
    # 27 weights and a bias for each of 4 filters, and 2 x 4 of the normalisation
    assert first == "Encoder, level 0: 4 channels of 2×4×4 voxels (Z Y X), 120 parameters"
    assert layer == "convolution 3×3×3: 1 → 4 channels, 120 parameters"


# --- where it lies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [260, 300, 800])
@pytest.mark.parametrize("levels", range(1, 9))
def test_blocks_lie_inside_and_apart(qtbot: QtBot, levels: int, width: int) -> None:
    config = UNetConfig(levels=levels, filters=16)
    picture = picture_of(describe(config), (128, 128, 128))
    layout = lay_out(picture, width, QFontMetricsF(QApplication.font()))
    boxes = list(layout.boxes.values())
    whole = QRectF(0, 0, width, layout.height)
    assert all(whole.contains(box) for box in boxes)
    assert not any(one.intersects(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert layout.height < 70 * (levels + 1)


# --- the widget -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("name", ["fast", "cicek2016", "unet2d", "unet3plus-ds-cgm-3d"])
def test_blocks_are_painted_in_the_colours_of_the_theme(qtbot: QtBot, name: str, theme: str) -> None:
    drawing = drawing_of(qtbot, network_config(name))
    colours = theme_colours(theme)
    drawing.set_colours(colours)
    image = drawing.grab().toImage()
    picture = drawing._picture
    assert picture is not None
    accent = QColor(colours.accent)
    for box in drawing._layout(picture).boxes.values():
        edge = image.pixelColor(round(box.left()), round(box.center().y()))
        difference = [abs(edge.red() - accent.red()), abs(edge.green() - accent.green())]
        assert max(difference) < 90  # the line is smoothed


def test_pointing_at_a_block_tells_its_layers(qtbot: QtBot) -> None:
    drawing = drawing_of(qtbot, UNetConfig(levels=2))
    picture = drawing._picture
    assert picture is not None
    centre = drawing._layout(picture).boxes["decoder", 0].center()
    assert "Decoder, level 0: 16 channels" in drawing.tip_at(centre)
    assert "nearest up-sampling" in drawing.tip_at(centre)
    assert drawing.tip_at(QPointF(1, 1)) == ""
    point = centre.toPoint()
    QApplication.sendEvent(drawing, QHelpEvent(QEvent.Type.ToolTip, point, drawing.mapToGlobal(point)))
    assert "Decoder, level 0" in QToolTip.text()
    QApplication.sendEvent(drawing, QHelpEvent(QEvent.Type.ToolTip, QPoint(1, 1), drawing.mapToGlobal(QPoint(1, 1))))
    qtbot.waitUntil(lambda: not QToolTip.isVisible())


def test_more_levels_need_more_height_and_none_needs_none(qtbot: QtBot) -> None:
    small, large = drawing_of(qtbot, UNetConfig(levels=2)), drawing_of(qtbot, UNetConfig(levels=6))
    assert small.sizeHint().height() < large.sizeHint().height()
    assert large.sizeHint().width() <= 280
    large.clear()
    assert large.sizeHint().height() == 0
    assert large.tip_at(QPointF(100, 50)) == ""
    large.grab()


def test_a_patch_that_does_not_fit_leaves_the_old_drawing(qtbot: QtBot) -> None:
    drawing = drawing_of(qtbot, UNetConfig(levels=2))
    before = drawing.accessibleDescription()
    with pytest.raises(ConfigError, match="does not fit"):
        drawing.set_network(describe(network_config("cicek2016")), (50, 50, 50))
    assert drawing.accessibleDescription() == before
    assert "Encoder, level 0" in before
