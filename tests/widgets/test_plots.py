from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QColor, QWheelEvent
from qtpy.QtWidgets import QApplication, QComboBox

from napari_unet3d.widgets._plots import CurvePoint, CurvesPlot, CurveStyle
from napari_unet3d.widgets._plots._curves import MOST_POINTS, Curve, nearest
from napari_unet3d.widgets._plots._panel import CurvesPanel
from napari_unet3d.widgets._scrolling import ColumnScrollArea
from napari_unet3d.widgets._theme import READABLE_SHAPE, READABLE_TEXT, contrast_ratio, theme_colours

CLASSES = [CurveStyle("1", "background", "#6c6c6c"), CurveStyle("2", "nucleus", "#f58231")]


def plot_of(qtbot: QtBot) -> CurvesPlot:
    plot = CurvesPlot(scores=CLASSES)
    qtbot.addWidget(plot)
    plot.resize(300, 400)
    plot.show()
    return plot


def loss(step: int, value: float | None) -> CurvePoint:
    return CurvePoint(step, step / 2, {"loss": value})


def scores(step: int, background: float | None, nucleus: float | None) -> CurvePoint:
    return CurvePoint(step, step / 2, {"1": background, "2": nucleus})


def drawn(panel: CurvesPanel, key: str) -> tuple[list[float], list[float]]:
    """What the plot really holds."""
    x, y = panel._lines[key][1].getData()
    return ([], []) if x is None else (list(x), list(y))


# --- points -----------------------------------------------------------------------------------------------


def test_the_first_smoothed_values_are_means_of_the_values() -> None:
    curve = Curve()
    for step, value in enumerate([4.0, 2.0]):
        curve.add(step, step, value)
    # 0.95 * 0.05 * 4 + 0.05 * 2 over 0.95 * 0.05 + 0.05
    assert curve.smoothed == pytest.approx([4.0, (0.0475 * 4 + 0.05 * 2) / 0.0975])


def test_values_that_are_none_or_not_finite_are_left_out() -> None:
    curve = Curve()
    for step, value in enumerate([1.0, None, math.nan, math.inf, 2.0]):
        curve.add(step, step, value)
    assert curve.steps == [0, 4]
    assert curve.values == [1.0, 2.0]


def test_many_points_are_averaged_in_pairs() -> None:
    curve = Curve(most=4)
    for step in range(5):
        curve.add(step, 10 * step, float(step))
    # five points are more than four: two pairs stay, and the odd one goes its way
    assert curve.values == [0.5, 2.5]
    curve.add(5, 50, 5.0)
    assert curve.values == [0.5, 2.5]
    curve.add(6, 60, 6.0)
    assert curve.values == [0.5, 2.5, 5.5]
    assert curve.seconds == [5, 25, 55]


@given(count=st.integers(0, 3000), most=st.integers(2, 64))
def test_curves_stay_short_ordered_and_as_long_as_the_run(count: int, most: int) -> None:
    curve = Curve(most)
    for step in range(count):
        curve.add(step, step, 1.0)
    assert len(curve) <= most
    assert curve.steps == sorted(curve.steps)
    assert curve.values == [1.0] * len(curve)
    if count:
        assert curve.steps[-1] >= count - 1 - 2 * (2 * count / most + 1)


def test_the_nearest_point() -> None:
    assert nearest([], 3) is None
    assert [nearest([0, 10, 20], at) for at in (-5, 4, 6, 99)] == [0, 0, 1, 2]


# --- drawing ----------------------------------------------------------------------------------------------


def test_an_empty_plot_says_when_curves_come(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    assert plot.losses._empty.text() == "Curves appear once training starts."
    assert plot.losses._empty.isVisible()
    assert not plot.losses._plot.isVisible()
    assert not plot.scores.isVisible()
    plot.add_losses(loss(1, 0.5))
    plot.refresh()
    assert plot.losses._plot.isVisible()
    assert plot.scores._empty.isVisible()
    plot.add_scores(scores(1, 0.5, 0.25))
    plot.refresh()
    assert plot.scores._plot.isVisible()


def test_points_are_drawn_by_refresh(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    plot.add_scores(scores(10, 0.5, None))
    plot.add_scores(scores(20, 0.75, 0.25))
    assert drawn(plot.scores, "1") == ([], [])
    plot.refresh()
    assert drawn(plot.scores, "1") == ([10, 20], [0.5, 0.75])
    assert drawn(plot.scores, "2") == ([20], [0.25])


def test_the_horizontal_axis_can_be_seconds(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    plot.add_scores(scores(10, 0.5, 0.25), is_best=True)
    plot.refresh()
    assert plot.scores._best_line.value() == 10
    axis = plot.findChild(QComboBox)
    assert isinstance(axis, QComboBox)
    axis.setCurrentText("seconds")
    assert drawn(plot.scores, "1") == ([5], [0.5])
    assert plot.scores._best_line.value() == 5


def test_a_history_takes_the_place_of_what_was_there(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    plot.add_losses(loss(1, 9.0))
    plot.add_scores(scores(1, 0.1, 0.1), is_best=True)
    plot.set_curves([loss(5, 2.0), loss(6, 2.0)], [scores(6, 0.5, 0.25)])
    assert drawn(plot.losses, "loss") == ([5, 6], [2.0, 2.0])
    assert drawn(plot.scores, "2") == ([6], [0.25])
    assert not plot.scores._best_line.isVisible()
    plot.set_curves([], [])
    assert plot.losses._empty.isVisible()


def test_long_runs_are_drawn_with_few_points(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    for step in range(10 * MOST_POINTS):
        plot.add_losses(loss(step, 1.0))
    plot.refresh()
    assert MOST_POINTS / 2 <= len(drawn(plot.losses, "loss")[0]) <= MOST_POINTS


def test_classes_may_change_and_keep_their_points(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    plot.add_scores(scores(1, 0.5, 0.25))
    plot.set_score_styles([CLASSES[1]._replace(name="cell"), CurveStyle("3", "membrane", "#4363d8")])
    assert plot.scores.legend_text == "cell 0.250, membrane –"
    assert drawn(plot.scores, "2") == ([1], [0.25])
    plot.add_scores(scores(2, 0.5, 0.5))  # a class without a curve is skipped
    plot.refresh()
    assert drawn(plot.scores, "2") == ([1, 2], [0.25, 0.5])


# --- values -----------------------------------------------------------------------------------------------


def test_the_legend_tells_the_last_values_and_what_is_kept(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    plot.add_losses(loss(1, 12.3456))
    plot.add_scores(scores(1, 0.5, 0.25), is_best=True)
    plot.add_scores(scores(2, 0.4, 0.2))
    plot.refresh()
    assert plot.losses.legend_text == "loss 12.3"
    assert plot.scores.legend_text == "background 0.400, nucleus 0.200, kept: step 1"
    assert "background" in plot.scores._legend.text()


def test_the_pointer_tells_the_values_where_it_is_in_both_panels(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    for step in (10, 20, 30):
        plot.add_losses(loss(step, 1.0))
        plot.add_scores(scores(step, step / 100, None))
    plot.refresh()
    QApplication.processEvents()
    box = plot.scores._item.getViewBox()
    x_position = box.mapViewToScene(QPointF(21, 0.5))
    plot.scores._plot.scene().sigMouseMoved.emit(x_position)
    assert plot.scores.legend_text == "background 0.200, nucleus –"
    assert plot.losses._marker.isVisible()
    assert plot.losses._marker.value() == 20
    plot.scores._plot.scene().sigMouseMoved.emit(QPointF(-50, -50))
    assert plot.scores.legend_text == "background 0.300, nucleus –"
    assert not plot.losses._marker.isVisible()


def test_names_may_hold_any_sign(qtbot: QtBot) -> None:
    plot = plot_of(qtbot)
    plot.set_score_styles([CurveStyle("1", "<b>a & b</b>", "#ffffff")])
    assert "&lt;b&gt;a&nbsp;&amp;&nbsp;b&lt;/b&gt;" in plot.scores._legend.text()


def test_two_losses_look_different(qtbot: QtBot) -> None:
    plot = CurvesPlot([CurveStyle("hard", "labels"), CurveStyle("soft", "teacher")])
    qtbot.addWidget(plot)
    plot.add_losses(CurvePoint(1, 1, {"hard": 1.0, "soft": 2.0}))
    plot.refresh()
    assert plot.losses.legend_text == "labels 1, teacher 2"
    colours = {plot.losses._colour(style) for style in plot.losses._styles}
    assert len(colours) == 2


# --- theme and room ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dark", "light"])
def test_colours_follow_the_theme_and_stand_out(qtbot: QtBot, name: str) -> None:
    plot = plot_of(qtbot)
    colours = theme_colours(name)
    plot.set_score_styles([CurveStyle("1", "white", "#ffffff"), CurveStyle("2", "black", "#000000")])
    plot.set_colours(colours)
    background = plot.scores._plot.backgroundBrush().color()
    assert background == QColor(colours.background)
    for _, line in plot.scores._lines.values():
        assert contrast_ratio(line.opts["pen"].color(), background) >= READABLE_SHAPE


@pytest.mark.parametrize("name", ["dark", "light", "gone"])
def test_messages_can_be_read_in_every_theme(name: str) -> None:
    colours = theme_colours(name)
    for colour in (colours.text, colours.faint_text, colours.warning, colours.error):
        assert contrast_ratio(QColor(colour), QColor(colours.background)) >= READABLE_TEXT
    assert colours.is_dark == (name != "light")


def test_300_pixels_are_enough_and_the_wheel_scrolls_the_column(qtbot: QtBot) -> None:
    plot = CurvesPlot(scores=CLASSES)
    area = ColumnScrollArea(plot)
    qtbot.addWidget(area)
    area.show()
    plot.add_losses(loss(1, 1.0))
    plot.add_scores(scores(1, 0.5, 0.25))
    plot.refresh()
    assert plot.minimumSizeHint().width() <= 260
    assert area.sizeHint().width() == 300
    view = plot.losses._plot.viewport()
    centre = QPointF(view.rect().center())
    event = QWheelEvent(
        centre,
        centre,
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    before = np.array(plot.losses._item.viewRange())
    QApplication.sendEvent(view, event)
    assert not event.isAccepted()
    assert np.array_equal(plot.losses._item.viewRange(), before)
