"""``info`` on every preset, and the published parameter counts."""

from __future__ import annotations

from typing import Any

import pytest

from napari_unet3d.engine.networks.presets import network_presets

KERNELS = ("network.levels=3", "network.filters=[8,16,32]", "network.kernel=[7,5,3]", "network.norm=none")
COUNTS = [
    ("cicek2016", ("network.in_channels=3", "network.classes=3"), "19,069,955", "19,069,955"),
    ("keras3d", ("network.classes=4",), "19,072,964", "19,077,636"),
    ("framework3d", ("network.classes=1",), "1,474,913", "1,476,385"),
    ("framework3d", ("network.classes=1", "network.upsampling=transposed"), "1,416,113", "1,417,809"),
    ("framework3d", ("network.classes=1", "network.upsampling=transposed", *KERNELS), "325,257", "325,257"),
    ("unet2d-elu", ("network.classes=1",), "1,940,817", "1,940,817"),
    ("unet3plus", ("network.in_channels=3",), "26,974,658", "26,987,714"),
    ("unet3plus-ds", ("network.in_channels=3",), "27,010,378", "27,023,434"),
    ("unet3plus-ds-cgm", ("network.in_channels=3", "network.classes=1"), "26,991,687", "27,004,743"),
    ("unet3plus-3d", (), "5,062,322", "5,065,586"),
]


def facts_of(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


@pytest.mark.parametrize(("preset", "settings", "trainable", "total"), COUNTS)
def test_published_counts(run: Any, preset: str, settings: tuple[str, ...], trainable: str, total: str) -> None:
    outcome = run("info", preset, *(part for setting in settings for part in ("--set", setting)))
    assert (outcome.code, outcome.err) == (0, "")
    facts = facts_of(outcome.out)
    assert facts["parameters"] == trainable
    assert facts["running statistics"].endswith(f"({total} with them)")


@pytest.mark.parametrize("preset", network_presets())
def test_every_preset_is_told_in_full(run: Any, preset: str) -> None:
    outcome = run("info", preset)
    assert (outcome.code, outcome.err) == (0, "")
    facts = facts_of(outcome.out)
    assert {"parameters", "receptive field", "output", "operations", "memory to train", "memory to predict"} <= set(
        facts
    )
    rows = [line.split() for line in outcome.out.splitlines()]
    counted = sum(
        int(row[-1].replace(",", ""))
        for row in rows
        if len(row) > 8 and "->" in row and row[-1].replace(",", "").isdigit()
    )
    assert counted == int(facts["parameters"].replace(",", ""))
