"""Buttons of the Train dock for what goes into files: the model, its recipe, the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qtpy.QtWidgets import QFileDialog, QGridLayout, QWidget

from napari_unet3d.widgets._dock import button, set_reason

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench

_MODELS: Final = "Models (*.safetensors)"
_RECIPES: Final = "Recipes (*.yaml *.yml)"


class ModelButtons(QWidget):
    """Load and save models, save recipes, copy command lines.

    Parameters
    ----------
    bench
        Does it.
    """

    def __init__(self, bench: Workbench, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bench = bench
        self.load = button("Load model…", "Read a model file, to apply it or to train it further", self._on_load)
        self.save = button("Save model…", "Write the model with its recipe, classes and curves", self._on_save)
        self.recipe = button(
            "Save recipe…",
            "Write the settings of the model and the record of its run, or the present settings, for train --config",
            self._on_recipe,
        )
        self.command = button(
            "Copy as command line",
            "Put the command that trains the same model, or with the same settings, onto the clipboard; the files it "
            "needs are written into the autosave folder",
            bench.repeating.copy_command,
        )
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for number, widget in enumerate((self.load, self.save, self.recipe, self.command)):
            grid.addWidget(widget, number // 2, number % 2)

    def refresh(self) -> None:
        """Enable what can be done, and say of the rest why not."""
        session = self._bench.session
        busy = "stop the training first" if session.phase.is_running else ""
        set_reason(self.load, busy)
        set_reason(self.save, "" if session.model else "there is no model yet")
        set_reason(self.command, busy or self._bench.repeating.problem())

    def _on_load(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Load a model", "", _MODELS)
        if name:
            self._bench.load_model(Path(name))

    def _on_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the model", "model.safetensors", _MODELS)
        if name:
            self._bench.save_model(Path(name))

    def _on_recipe(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the recipe", "recipe.yaml", _RECIPES)
        if name:
            self._bench.repeating.save_recipe(Path(name))
