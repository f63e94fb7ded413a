"""The form: sections of rows, checked as a whole while the user types."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_unet3d.engine.config import Config
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.widgets._config_form._row import FieldRow, readable
from napari_unet3d.widgets._config_form._values import field_problem
from napari_unet3d.widgets._scrolling import guard_wheel, wrapped
from napari_unet3d.widgets._section import Section
from napari_unet3d.widgets._theme import ThemeColours

_TYPING_PAUSE_MS: Final = 300
_ALWAYS_OPEN: Final = ""
_THE_REST: Final = "More"


class ConfigForm(QWidget):
    """A form for every field of a configuration model, nested models included.

    The form checks what is entered with the model itself, says beside each field what is wrong, and speaks up only
    with valid configurations. Fields with a single possible value have no row.

    Parameters
    ----------
    model
        The configuration class.
    config
        What to show at first, by default the defaults; it is also what the way back of each field leads to.
    groups
        Section title -> names of fields, in this order. The title ``""`` is always open, the others fold away.
        Fields in no group come last, under "More"; nested models are sections of their own. Without groups, all
        simple fields are open.
    hidden
        Fields without a row; they keep the values they have in the configuration.
    """

    changed = Signal(object)
    """The user entered another valid configuration, given."""
    validity_changed = Signal(bool)
    """What is entered became valid, or ceased to be."""

    def __init__(
        self,
        model: type[Config],
        config: Config | None = None,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        hidden: Collection[str] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._model = model
        self._config = config if config is not None else model()
        self._rows: dict[str, FieldRow] = {}
        self._sections: dict[str, tuple[Section, list[str]]] = {}
        self._hidden: Collection[str] = ()
        self._is_valid = True
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_TYPING_PAUSE_MS)
        self._timer.timeout.connect(self._check)
        self._problem = wrapped(QLabel())
        self._problem.hide()
        self._build(groups)
        self.set_hidden_fields(hidden)
        self._show(self._config)
        self.set_defaults(self._config)
        guard_wheel(self)

    # --- what the owner does ------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The last valid configuration; looks at what is being typed first."""
        self.flush()
        return self._config

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths of all fields with a row."""
        return tuple(self._rows)

    @property
    def is_valid(self) -> bool:
        """Whether all that is entered is valid."""
        self.flush()
        return self._is_valid

    @property
    def problems(self) -> Mapping[str, str]:
        """What is wrong, by field; ``""`` is the form as a whole. Empty if all is well."""
        self.flush()
        found = {path: row.problem for path, row in self._rows.items() if row.problem}
        return {**found, "": self._problem.text()} if self._problem.text() else found

    def flush(self) -> None:
        """Check at once what is being typed, instead of a moment after the last key."""
        if self._timer.isActive():
            self._check()

    def set_config(self, config: Config) -> None:
        """Show another configuration, silently; what is being typed, and what was wrong, is forgotten.

        A configuration equal to the present one changes nothing, so that the echo of the user's own change does
        not disturb them.
        """
        if config != self._config or not self._is_valid:
            self._config = config
            self.drop_edits()

    def drop_edits(self) -> None:
        """Show the last valid configuration; what is being typed, and what was wrong, is forgotten."""
        self._timer.stop()
        self._show(self._config)
        self._report({})

    def set_defaults(self, config: Config) -> None:
        """What the way back of each field leads to."""
        values = config.model_dump()
        for path, row in self._rows.items():
            row.set_default(_at(values, path))

    def set_hidden_fields(self, paths: Collection[str]) -> None:
        """Take the rows of some fields away, and bring all others back; sections left empty go too."""
        self._hidden = frozenset(paths)
        for path, row in self._rows.items():
            row.setVisible(path not in self._hidden)
        for section, members in self._sections.values():
            section.setVisible(any(path not in self._hidden for path in members))

    def set_disabled_fields(self, reasons: Mapping[str, str]) -> None:
        """Disable some fields, each with the reason in its tooltip, and enable all others."""
        for path, row in self._rows.items():
            row.set_disabled_reason(reasons.get(path))

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        self._problem.setStyleSheet(f"color: {colours.error};")
        for row in self._rows.values():
            row.set_problem_colour(colours.error)

    def expand(self, title: str) -> None:
        """Open a section."""
        self._sections[title][0].expand(animate=False)

    # --- building -----------------------------------------------------------------------------------------

    def _build(self, groups: Mapping[str, Sequence[str]] | None) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        simple = {name: field for name, field in self._model.model_fields.items() if not _is_nested(field)}
        for title, names in _grouped(simple, groups).items():
            rows = {name: simple[name] for name in names if not _is_constant(simple[name])}
            if rows:
                column.addWidget(self._section(title, rows))
        column.addWidget(self._problem)
        for name, field in self._model.model_fields.items():
            if _is_nested(field):
                inner = field.annotation.model_fields  # type: ignore[union-attr]
                column.addWidget(self._section(readable(name), {f"{name}.{key}": inner[key] for key in inner}))
        column.addStretch()

    def _section(self, title: str, fields: Mapping[str, FieldInfo]) -> QWidget:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0 if title == _ALWAYS_OPEN else 6, 0, 0, 2)
        layout.setSpacing(3)
        for path, field in fields.items():
            row = FieldRow(path, field)
            row.edited.connect(self._on_edited)
            self._rows[path] = row
            layout.addWidget(row)
        if title == _ALWAYS_OPEN:
            return content
        section = Section(title, content)
        self._sections[title] = (section, list(fields))
        return section

    # --- checking -----------------------------------------------------------------------------------------

    def _on_edited(self, is_done: bool) -> None:
        if is_done:
            self._check()
        else:
            self._timer.start()

    def _check(self) -> None:
        """Validate what is entered; show what is wrong, or speak up if it is a new configuration."""
        self._timer.stop()
        problems: dict[str, str] = {}
        values = self._config.model_dump()
        for path, row in self._rows.items():
            try:
                _put(values, path, row.editor.value())
            except ConfigError as error:
                problems[path] = str(error)
        try:
            config = self._model.model_validate(values)
        except ValidationError as error:
            problems = {**self._located(error), **problems}
        self._report(problems)
        if problems:
            return
        is_new = config != self._config
        self._config = config
        if is_new:
            self.changed.emit(config)

    def _located(self, error: ValidationError) -> dict[str, str]:
        """What is wrong, by the field to say it beside."""
        by_row: dict[str, list[Any]] = defaultdict(list)
        for problem in error.errors():
            by_row[self._row_of(problem)].append(problem)
        return {path: field_problem(problems) for path, problems in by_row.items()}

    def _row_of(self, problem: Any) -> str:
        """The row of a problem; contradictions go to the first field that their message names."""
        location = [str(part) for part in problem["loc"]]
        for length in (2, 1):
            path = ".".join(location[:length])
            if path in self._rows and path not in self._hidden:
                return path
        section = f"{location[0]}." if location else ""
        named = [f"{section}{word}" for word in re.findall(r"\w+", str(problem["msg"]))]
        return next((path for path in named if path in self._rows and path not in self._hidden), "")

    def _report(self, problems: Mapping[str, str]) -> None:
        for path, row in self._rows.items():
            row.show_problem(problems.get(path, ""))
            row.mark_changed()
        self._problem.setText(problems.get("", ""))
        self._problem.setVisible("" in problems)
        for section, members in self._sections.values():
            if any(path in problems for path in members):
                section.expand(animate=False)
        is_valid = not problems
        if is_valid != self._is_valid:
            self._is_valid = is_valid
            self.validity_changed.emit(is_valid)

    # --- showing ------------------------------------------------------------------------------------------

    def _show(self, config: Config) -> None:
        values = config.model_dump()
        for path, row in self._rows.items():
            row.show_value(_at(values, path))


def _grouped(fields: Collection[str], groups: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    """Section title -> names, with what no group names at the end; names that the model lacks are skipped."""
    if groups is None:
        return {_ALWAYS_OPEN: list(fields)}
    found = {title: [name for name in names if name in fields] for title, names in groups.items()}
    placed = {name for names in found.values() for name in names}
    found[_THE_REST] = [*found.get(_THE_REST, ()), *(name for name in fields if name not in placed)]
    return found


def _is_nested(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Config)


def _is_constant(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _at(values: Mapping[str, Any], path: str) -> Any:
    value: Any = values
    for name in path.split("."):
        value = value[name]
    return value


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        values = values[section]
    values[name] = value
