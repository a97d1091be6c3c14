"""Presets: their names, settings changed by their path, an unknown name answered with those there are."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest

from fusionlib import presets
from fusionlib.benches import CostConfig
from fusionlib.data import SETS, splits
from fusionlib.data.paper_tables import systems_in
from fusionlib.deformation import LEVELS
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork
from fusionlib.presets import PRESETS, as_in_the_paper, changed, load
from fusionlib.support.files import InputError


def test_presets_name_themselves() -> None:
    assert list(PRESETS) == ["smoke", "mini", "paper", "rehearsal"]
    assert all(load(name).name == name for name in PRESETS)
    assert load("mini") == PRESETS["mini"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_runs_on_sets_levels_and_a_network_that_exist(preset: presets.Preset) -> None:
    for name in (preset.recipe.dataset, *preset.test_sets):
        assert name == "synthetic" or (name in SETS and splits(name)["test"])
    training = preset.recipe.training
    assert {*preset.levels, *training.levels, training.validation_level} <= LEVELS.keys()
    assert preset.levels[0] == training.validation_level  # the level of the tables is the one training looks at
    assert preset.test_size >= preset.recipe.size >= FusionNetwork.smallest
    assert preset.shows_shipped or preset.test_size == preset.recipe.size
    assert (preset.recipe.training.crop or preset.recipe.size) <= preset.recipe.size


def test_the_paper_preset_has_the_paper_s_numbers() -> None:
    recipe = load("paper").recipe
    training, losses = recipe.training, recipe.losses
    assert (recipe.dataset, recipe.size, recipe.train_pairs) == ("RoadScene", 512, None)
    assert (training.epochs, training.batch, training.learning_rate, training.crop) == (150, 8, 1e-3, None)
    assert (losses.gamma, losses.lambda_reg, losses.lambda_fusion, losses.lambda_detection) == (2, 10, 5, 5)
    assert (losses.common, losses.specific) == (1, 1)
    assert len(splits("RoadScene")["train"]) == 152


def test_smoke_needs_no_download_and_is_the_smallest() -> None:
    ordered = smoke, mini, _ = [load(name) for name in ("smoke", "mini", "paper")]
    assert smoke.recipe.dataset == "synthetic" and smoke.test_sets == ("synthetic",)
    assert smoke.recipe.size < mini.recipe.size < load("paper").recipe.size
    assert smoke.test_size == mini.test_size  # the shipped weights are shown at the size they were trained for
    sees = [each.recipe.training.epochs * (each.recipe.training.crop or each.recipe.size) ** 2 for each in ordered]
    assert sees == sorted(set(sees))  # pixels of one image over the whole training
    assert smoke.recipe.network == mini.recipe.network == load("paper").recipe.network  # the same code path


def test_a_seed_changes_the_recipe_and_nothing_else() -> None:
    first, second = load("mini"), load("mini", seed=3)
    assert (first.recipe.seed, second.recipe.seed, second.recipe.start.seed) == (0, 3, 3)
    start = replace(second.recipe.start, seed=0)
    assert replace(second, recipe=replace(second.recipe, seed=0, start=start)) == first


def test_settings_change_by_their_path() -> None:
    preset = load("smoke", recipe__training__epochs=7, recipe__losses__common=0.0, test_size=96)
    assert (preset.recipe.training.epochs, preset.recipe.losses.common, preset.test_size) == (7, 0.0, 96)
    again = changed(changed(PRESETS["smoke"], "recipe.training.epochs", 7), "recipe.losses.common", 0.0)
    assert changed(again, "test_size", 96) == preset


def test_changing_leaves_the_original() -> None:
    before = load("mini")
    after = changed(before, "recipe.training.batch", 99)
    assert (
        after.recipe.training.batch == 99 and before.recipe.training.batch == load("mini").recipe.training.batch != 99
    )
    assert after.recipe.network is before.recipe.network


def test_unknown_presets_and_settings_are_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match="Unknown preset 'huge'; choose one of smoke, mini, paper"):
        load("huge")
    with pytest.raises(InputError, match="TrainingConfig has no setting 'epoch'; it has epochs, batch, learning_rate"):
        load("mini", recipe__training__epoch=3)
    with pytest.raises(InputError, match="Preset has no setting 'seed'; it has name, recipe"):
        load("mini", seed=1, seed__x=2)
    with pytest.raises(InputError, match="int has no setting 'more'"):
        changed(PRESETS["mini"], "test_size.more", 1)


def test_as_in_the_paper_is_the_plain_network_and_only_the_final_field_supervised() -> None:
    preset = load("mini", seed=5)
    plain = as_in_the_paper(preset)
    assert plain.recipe.network == AS_IN_THE_PAPER
    assert plain.recipe.network.msrb == "unet" and plain.recipe.network.common_input == "image"
    assert (plain.recipe.losses.coarse, plain.recipe.losses.matching) == (0, 0)
    training = plain.recipe.training
    assert (training.registration_epochs, training.fusion_epochs, training.schedule) == (0, 0, "constant")
    assert (training.epochs, training.levels) == (preset.plain_epochs, presets.first(preset.recipe).training.levels)
    assert plain.recipe.start is None and plain.recipe.detector is not None  # every loss, from the first epoch on
    assert plain.recipe.seed == 5
    assert preset.recipe.network != AS_IN_THE_PAPER  # the original is left


def test_a_value_of_another_type_is_refused_and_every_preset_is_of_its_types() -> None:
    for path, value, wanted in [
        ("recipe.training.epochs", "3", "must be int, not '3'"),
        ("recipe.training.epochs", True, "must be int, not True"),
        ("recipe.training.crop", 1.5, r"must be int \| None, not 1.5"),
        ("recipe.training.levels", ["light"], r"must be tuple\[str, \.\.\.\], not \['light'\]"),
        ("cost.own_sides", (("ivfwsr", "252"),), "own_sides of CostConfig must be"),
        ("recipe", None, "recipe of Preset must be Recipe, not None"),
    ]:
        with pytest.raises(InputError, match=wanted):
            changed(PRESETS["mini"], path, value)
    assert changed(PRESETS["mini"], "recipe.training.clip", 3).recipe.training.clip == 3  # a whole number is a float

    def same(config: object) -> object:
        for each in fields(config):
            value = getattr(config, each.name)
            config = changed(config, each.name, same(value) if is_dataclass(value) else value)
        return config

    for preset in PRESETS.values():
        assert same(preset) == preset


def test_what_table_6_costs_is_what_the_paper_compares() -> None:
    paper = CostConfig()
    assert paper.joint == ("ours", *systems_in(6))
    assert paper.chains == tuple(f"crossraft+{name}" for name in systems_in(1))
