"""The switches of the recipe: each differs from the default in what it says, and a run that stops goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from fusionlib import presets
from fusionlib.experiments import sweeps
from fusionlib.experiments.sweep_rows import SWITCHES, Row, short_recipe
from fusionlib.network import FusionNetwork


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_every_switch_changes_a_setting_that_exists(switch: Row) -> None:
    preset = presets.load("smoke")
    default, recipe = asdict(short_recipe(SWITCHES[0], preset)), short_recipe(switch, preset)
    assert (recipe.training.epochs, recipe.training.registration_epochs) == (preset.switch_epochs,) * 2
    assert (asdict(recipe) == default) == (switch is SWITCHES[0])
    FusionNetwork(recipe.network)


def test_each_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset, path, trained = presets.load("smoke"), tmp_path / "switches.csv", []
    train = sweeps.train
    monkeypatch.setattr(sweeps, "train", lambda recipe, path: trained.append(recipe) or train(recipe, path))
    first = sweeps.switches(preset, path, SWITCHES[:1])
    both = sweeps.switches(preset, path, (SWITCHES[0], SWITCHES[5]))
    assert len(trained) == 2 and both.iloc[:1].equals(first)
    assert list(both["switch"]) == [SWITCHES[0].name, SWITCHES[5].name]
    assert both[["light", "medium", "heavy"]].notna().all(axis=None) and (both["steps"] == 2).all()
    again = sweeps.switches(presets.load("smoke", seed=1), path, SWITCHES[:1])
    assert len(trained) == 3 and not again.equals(first)
