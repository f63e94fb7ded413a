from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QCheckBox, QComboBox, QLineEdit, QToolButton, QWidget

from napari_unet3d.engine.config import AugmentConfig, Config, PredictConfig, TrainConfig, UNetConfig
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.widgets._config_form import ConfigForm
from napari_unet3d.widgets._config_form._number_box import NumberBox, NumberRange
from napari_unet3d.widgets._config_form._values import from_text, to_text
from napari_unet3d.widgets._scrolling import ColumnScrollArea
from napari_unet3d.widgets._section import Section
from napari_unet3d.widgets._theme import theme_colours


def form_of(qtbot: QtBot, config: Config, **options: Any) -> ConfigForm:
    form = ConfigForm(type(config), config, **options)
    qtbot.addWidget(form)
    form.show()
    return form


def editor(form: ConfigForm, path: str, kind: type[QWidget] = QWidget) -> Any:
    found = form.findChild(kind, path)
    assert found is not None, path
    return found


# the stubs of PyQt6 take the static functions of QTest for methods


def press(widget: QWidget, key: Qt.Key) -> None:
    QTest.keyClick(widget, key)  # type: ignore[call-overload]


def type_keys(widget: QWidget, text: str) -> None:
    QTest.keyClicks(widget, text)  # type: ignore[arg-type, call-arg]


def click(widget: QWidget) -> None:
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)  # type: ignore[call-overload]


def type_into(qtbot: QtBot, form: ConfigForm, path: str, text: str) -> None:
    widget = editor(form, path)
    widget.setFocus()
    line = widget if isinstance(widget, QLineEdit) else widget.lineEdit()
    line.selectAll()
    press(line, Qt.Key.Key_Delete)
    type_keys(line, text)


def reset_button(form: ConfigForm, path: str) -> QToolButton:
    found = editor(form, path).parentWidget().findChild(QToolButton)
    assert isinstance(found, QToolButton)
    return found


CONFIGS = [
    *(network_config(name, classes=3) for name in network_presets()),
    UNetConfig(
        levels=2, kernel=((1, 3, 3), 3), strides=((1, 2, 2),), decoder_dropout=0.25, norm_epsilon=1.2345678901e-7
    ),
    TrainConfig(),
    TrainConfig(seconds=90.5, patience=7, class_weights=(0.5, 1.0), patch_size=(8, 64, 64), batch_size=3),
    TrainConfig(augment=AugmentConfig(rotation=12.5), random_state=2**62, device="cuda:1", threads=4),
    PredictConfig(),
    PredictConfig(tile=(32, 64, 64), halo=(0, 4, 4), memory=4_000_000_000, flips=True),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_what_is_shown_reads_back_as_the_same_configuration(qtbot: QtBot, config: Config) -> None:
    form = ConfigForm(type(config))
    qtbot.addWidget(form)
    form.set_config(config)
    base = type(config)()
    form._config = base  # whatever is not in an editor is lost from here on
    form._check()
    assert form.problems == {}
    assert form.config == config


def test_every_field_has_a_row_with_its_help(qtbot: QtBot) -> None:
    form = form_of(qtbot, TrainConfig())
    names = {*TrainConfig.model_fields, *(f"augment.{name}" for name in AugmentConfig.model_fields)}
    for path in names - {"augment", "normalize"}:
        assert path in editor(form, path).toolTip()
    assert "Largest rotation about each axis" in editor(form, "augment.rotation").toolTip()


def test_a_field_with_one_value_has_no_row(qtbot: QtBot) -> None:
    assert form_of(qtbot, UNetConfig()).findChild(QWidget, "kind") is None


def test_editors_fit_the_types(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    assert isinstance(editor(form, "bias"), QCheckBox)
    assert isinstance(editor(form, "norm"), QComboBox)
    assert isinstance(editor(form, "levels"), NumberBox)
    assert isinstance(editor(form, "negative_slope"), NumberBox)
    assert isinstance(editor(form, "filters"), QLineEdit)


# --- entering ---------------------------------------------------------------------------------------------


def test_typing_speaks_up_once_after_a_pause(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    heard: list[UNetConfig] = []
    form.changed.connect(heard.append)
    type_into(qtbot, form, "filters", "24")
    assert heard == []
    with qtbot.waitSignal(form.changed):
        pass
    assert [config.filters for config in heard] == [24]


def test_the_configuration_is_up_to_date_before_the_pause_is_over(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    type_into(qtbot, form, "filters", "24")
    assert form.config.filters == 24  # type: ignore[attr-defined]


@pytest.mark.parametrize(("text", "filters"), [("[8, 16, 24]", (8, 16, 24)), ("8, 16, 24", (8, 16, 24)), (" 12 ", 12)])
def test_a_list_or_a_number_may_be_typed(qtbot: QtBot, text: str, filters: Any) -> None:
    form = form_of(qtbot, UNetConfig())
    type_into(qtbot, form, "filters", text)
    assert form.problems == {}
    assert form.config.filters == filters  # type: ignore[attr-defined]


def test_an_empty_line_is_none(qtbot: QtBot) -> None:
    form = form_of(qtbot, TrainConfig(seconds=60))
    type_into(qtbot, form, "seconds", "")
    assert form.config.seconds is None  # type: ignore[attr-defined]


def test_a_device_stays_a_text(qtbot: QtBot) -> None:
    form = form_of(qtbot, PredictConfig())
    type_into(qtbot, form, "device", "1")
    assert form.config.device == "1"  # type: ignore[attr-defined]


def test_choices_and_ticks_speak_up_at_once(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    with qtbot.waitSignal(form.changed, timeout=100):
        press(editor(form, "norm"), Qt.Key.Key_Down)
    with qtbot.waitSignal(form.changed, timeout=100):
        press(editor(form, "residual"), Qt.Key.Key_Space)
    assert form.config == UNetConfig(norm="batch_renorm", residual=True)


def test_nested_fields_arrive(qtbot: QtBot) -> None:
    form = form_of(qtbot, TrainConfig())
    form.expand("Augment")
    type_into(qtbot, form, "augment.rotation", "45")
    assert form.config == TrainConfig(augment=AugmentConfig(rotation=45))


# --- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("filters", "0", "needs at least 1; 0 was given"),
        ("filters", "many", "needs a whole number or a list such as [16, 32, 64]"),
        ("filters", "[16, 32", "cannot be read; type a number, a word, or a list such as [16, 32, 64]"),
        ("filters", "", "needs a whole number or a list such as [16, 32, 64]"),
        ("levels", "9", "needs at most 8; 9 was given"),
        ("dropout", "1", "needs less than 1; 1 was given"),
        ("kernel", "[[1, 3], 3, 3]", "needs three numbers, for Z, Y and X"),
        ("kernel", "small", "needs auto or a whole number or a list such as [16, 32, 64]"),
        ("norm_epsilon", "0", "needs more than 0; 0 was given"),
    ],
)
def test_what_is_wrong_stands_beside_the_field(qtbot: QtBot, path: str, text: str, problem: str) -> None:
    form = form_of(qtbot, UNetConfig())
    type_into(qtbot, form, path, text)
    assert form.problems == {path: problem}


def test_a_contradiction_stands_beside_a_field_it_names(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    type_into(qtbot, form, "filters", "[16, 32]")
    assert form.problems == {"filters": "filters has 2 entries but levels = 3 needs 3; change filters or levels"}


def test_a_contradiction_in_a_section_stands_in_the_section(qtbot: QtBot) -> None:
    form = form_of(qtbot, TrainConfig())
    form.expand("Normalize")
    type_into(qtbot, form, "normalize.low", "99.5")
    assert form.problems == {"normalize.low": "low = 99.5 must be below high = 99"}


def test_a_contradiction_between_hidden_fields_stands_below(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig(), hidden=["filters"])
    form.set_config(UNetConfig(filters=(8, 16, 32)))
    type_into(qtbot, form, "levels", "2")
    assert list(form.problems) == ["levels"]  # the other field that the message names
    form.set_hidden_fields(["filters", "levels"])
    form._check()
    assert list(form.problems) == [""]


def test_nothing_wrong_is_ever_told(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    heard: list[object] = []
    form.changed.connect(heard.append)
    with qtbot.waitSignal(form.validity_changed) as told:
        type_into(qtbot, form, "levels", "9")
    assert told.args == [False]
    assert heard == []
    assert form.config == UNetConfig()
    assert not form.is_valid
    type_into(qtbot, form, "levels", "3")
    assert form.is_valid
    assert heard == []  # back where it was


# --- what the owner does ----------------------------------------------------------------------------------


def test_showing_a_configuration_is_silent_and_forgets_what_was_wrong(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    type_into(qtbot, form, "levels", "9")
    assert form.problems
    with qtbot.assertNotEmitted(form.changed, wait=350):
        form.set_config(UNetConfig(levels=4))
    assert form.problems == {}
    assert form.config == UNetConfig(levels=4)
    assert editor(form, "levels").value() == 4


def test_the_echo_of_a_change_leaves_the_text_as_typed(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    form.changed.connect(lambda config: form.set_config(UNetConfig(**config.model_dump())))
    type_into(qtbot, form, "filters", "8,16,  24")
    assert form.config.filters == (8, 16, 24)  # type: ignore[attr-defined]
    assert editor(form, "filters").text() == "8,16,  24"


def test_each_field_finds_its_way_back(qtbot: QtBot) -> None:
    form = form_of(qtbot, network_config("fast"))
    assert reset_button(form, "filters").isHidden()
    type_into(qtbot, form, "filters", "24")
    form.flush()
    button = reset_button(form, "filters")
    assert button.isVisible()
    assert button.toolTip() == "Back to 16"
    click(button)
    assert form.config == network_config("fast")
    assert button.isHidden()


def test_the_way_back_leads_where_the_owner_says(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    form.set_defaults(UNetConfig(filters=32))
    click(reset_button(form, "filters"))
    assert form.config == UNetConfig(filters=32)


def test_hidden_fields_keep_their_values(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig(classes=5), hidden=["classes", "in_channels"])
    assert not editor(form, "classes").isVisible()
    type_into(qtbot, form, "filters", "24")
    assert form.config == UNetConfig(classes=5, filters=24)


def test_a_disabled_field_says_why(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    form.set_disabled_fields({"norm_groups": "only for group normalisation"})
    assert not editor(form, "norm_groups").isEnabled()
    assert "only for group normalisation" in editor(form, "norm_groups").toolTip()
    form.set_disabled_fields({})
    assert editor(form, "norm_groups").isEnabled()
    assert "only for" not in editor(form, "norm_groups").toolTip()


def test_groups_fold_away_and_what_no_group_names_comes_last(qtbot: QtBot) -> None:
    form = form_of(qtbot, TrainConfig(), groups={"": ["seconds"], "Optimiser": ["learning_rate", "gone"]})
    sections = {section.toggleButton().accessibleName(): section for section in form.findChildren(Section)}
    assert list(sections) == ["Optimiser", "More", "Augment", "Normalize"]
    assert editor(form, "seconds").isVisible()
    assert not editor(form, "learning_rate").isVisible()
    press(sections["Optimiser"].toggleButton(), Qt.Key.Key_Space)
    assert editor(form, "learning_rate").isVisible()
    form.set_hidden_fields(["learning_rate"])
    assert sections["Optimiser"].isHidden()


def test_a_problem_opens_the_section_it_lies_in(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig(), groups={"": ["filters"]})
    levels = editor(form, "levels")
    levels.set_value(9)
    form._check()
    assert form.problems == {"levels": "needs at most 8; 9 was given"}
    assert levels.isVisible()


def test_problems_take_the_colour_of_the_theme(qtbot: QtBot) -> None:
    form = form_of(qtbot, UNetConfig())
    for name in ("dark", "light"):
        colours = theme_colours(name)
        form.set_colours(colours)
        assert colours.error in editor(form, "levels.problem").styleSheet()


# --- wheel, width and keys --------------------------------------------------------------------------------


def active_form(qtbot: QtBot) -> ConfigForm:
    """A form whose window has the keyboard."""
    form = form_of(qtbot, UNetConfig())
    form.activateWindow()
    qtbot.waitUntil(form.isActiveWindow)
    return form


def turn_wheel(widget: QWidget, steps: int) -> QWheelEvent:
    centre = widget.rect().center()
    event = QWheelEvent(
        QPointF(centre),
        QPointF(widget.mapToGlobal(centre)),
        QPoint(0, 0),
        QPoint(0, 120 * steps),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)
    return event


@pytest.mark.parametrize("path", ["levels", "norm"])
def test_the_wheel_passes_by_editors_that_were_not_chosen(qtbot: QtBot, path: str) -> None:
    form = active_form(qtbot)
    editor(form, "bias").setFocus()
    assert not turn_wheel(editor(form, path), -1).isAccepted()  # so that Qt hands it to the column
    assert form.config == UNetConfig()
    editor(form, path).setFocus()
    assert turn_wheel(editor(form, path), -1).isAccepted()
    assert form.config != UNetConfig()


@pytest.mark.parametrize("config", [UNetConfig(), TrainConfig(), PredictConfig()], ids=lambda c: type(c).__name__)
def test_300_pixels_are_enough(qtbot: QtBot, config: Config) -> None:
    form = ConfigForm(type(config))
    area = ColumnScrollArea(form)
    qtbot.addWidget(area)
    area.resize(300, 400)
    area.show()
    for section in form.findChildren(Section):
        section.expand(animate=False)
    assert form.minimumSizeHint().width() <= 280
    assert form.width() <= area.viewport().width()  # type: ignore[union-attr]


def test_keys_go_from_field_to_field(qtbot: QtBot) -> None:
    form = active_form(qtbot)
    editor(form, "levels").setFocus()
    press(editor(form, "levels"), Qt.Key.Key_Tab)
    assert QApplication.focusWidget() is editor(form, "filters")


# --- numbers and texts ------------------------------------------------------------------------------------


def test_steps_suit_the_number() -> None:
    rate = NumberRange(whole=False, low=0, low_open=True, usual=5e-3)
    assert [rate.stepped(5e-3, n) for n in (1, 2, 3, -1, -3)] == [1e-2, 2e-2, 5e-2, 2e-3, 5e-4]
    assert rate.stepped(3e-3, 1) == 5e-3
    share = NumberRange(whole=False, low=0, high=1, high_open=True, usual=0.2)
    assert share.stepped(0.2, 1) == 0.25
    assert share.stepped(0.95, 1) == 0.95  # 1 is not allowed
    assert share.stepped(0.02, -1) == 0
    angle = NumberRange(whole=False, low=0, high=180, usual=30.0)
    assert [angle.stepped(30, n) for n in (1, -2, 99)] == [35, 20, 180]
    levels = NumberRange(whole=True, low=1, high=8, usual=3)
    assert [levels.stepped(3, n) for n in (1, -9, 9)] == [4, 1, 8]


@given(
    usual=st.floats(1e-6, 100),
    value=st.floats(1e-6, 100),
    low=st.sampled_from([None, 0, 1e-3]),
    high=st.sampled_from([None, 1, 50]),
    steps=st.integers(-20, 20),
)
def test_steps_stay_within_the_bounds(
    usual: float, value: float, low: float | None, high: float | None, steps: int
) -> None:
    numbers = NumberRange(False, low, high, low_open=low == 0, high_open=high == 1, usual=usual)
    if numbers.allows(value):
        after = numbers.stepped(value, steps)
        assert numbers.allows(after)
        assert (after - value) * steps >= 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just("auto"),
    lambda inner: st.lists(inner.filter(lambda value: value is not None), min_size=1, max_size=4),
    max_leaves=6,
)


@given(value=values)
def test_every_value_survives_being_text(value: object) -> None:
    assert from_text(to_text(value)) == value
