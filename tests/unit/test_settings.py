"""Settings that cannot be are refused when they are made, NaN and infinity among them."""

from __future__ import annotations

import math

import pytest

from fusionlib.data.drawn.synthetic import SceneConfig
from fusionlib.detection import DetectorConfig
from fusionlib.losses import LossWeights
from fusionlib.methods.field_refinement import Refinement
from fusionlib.network import NetworkConfig
from fusionlib.presets import load
from fusionlib.support.files import InputError
from fusionlib.training.detectors import DetectorTraining
from fusionlib.training.recipe import Recipe, TrainingConfig
from fusionlib.training.schedules import ALL_TOGETHER, AUGMENTED, BRAINS, BRAINS_FUSED, REGISTRATION_FIRST

NUMBERS = {
    LossWeights: ("gamma", "lambda_reg", "lambda_fusion", "lambda_detection", "common", "specific", "coarse"),
    TrainingConfig: ("epochs", "batch", "learning_rate", "registration_epochs", "fusion_epochs", "validate_every"),
    DetectorConfig: ("box", "classes", "distribution", "confidence", "overlap", "most"),
    DetectorTraining: ("epochs", "batch", "side", "learning_rate", "warmup", "weight_decay", "mosaic", "average"),
    Refinement: ("power", "reach", "prior", "noise", "chance"),
    SceneConfig: ("night_probability", "min_visible", "min_pixels"),
}
FINITE = [(kind, name) for kind, names in NUMBERS.items() for name in names]
MAYBE_INFINITE = [(TrainingConfig, "clip"), (DetectorTraining, "clip")]


@pytest.mark.parametrize(("kind", "name"), [*FINITE, *MAYBE_INFINITE], ids=lambda each: getattr(each, "__name__", each))
def test_a_number_out_of_its_range_is_refused(kind: type, name: str) -> None:
    for value in (math.nan, -1, math.inf):
        if value == math.inf and (kind, name) in MAYBE_INFINITE:
            assert getattr(kind(**{name: value}), name) == value
            continue
        refused = f"{name} of {kind.__name__} (is {value:g}; give a finite number of|must be (int|.*None), not {value})"
        with pytest.raises(InputError, match=refused):
            kind(**{name: value})


def test_a_share_is_at_most_all() -> None:
    assert SceneConfig(night_probability=1).night_probability == 1
    with pytest.raises(InputError, match=r"night_probability of SceneConfig is 1\.5; .* of 0 or more and 1 or less"):
        SceneConfig(night_probability=1.5)


@pytest.mark.parametrize("zoom", [(0.0, 2.0), (0.5, math.nan), (0.5, math.inf), (2.0, 0.5), (1.0,)])
def test_a_window_has_a_size(zoom: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"zoom of DetectorTraining is .*; give two finite numbers above 0"):
        DetectorTraining(zoom=zoom)


def test_a_preset_is_not_changed_to_what_cannot_be() -> None:
    with pytest.raises(InputError, match="gamma of LossWeights is nan"):
        load("mini", recipe__losses__gamma=math.nan)


@pytest.mark.parametrize("settings", [{"levels": ()}, {"levels": ("medum",)}, {"validation_level": "hevy"}])
def test_levels_that_there_are_not_are_refused_at_once(settings: dict) -> None:
    with pytest.raises(InputError, match=r"levels of TrainingConfig are empty|(medum|hevy)"):
        TrainingConfig(**settings)


@pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"mixed_precision": ("cuda", "gpu")}])
def test_what_is_none_of_the_choices_is_refused(settings: dict) -> None:
    with pytest.raises(InputError, match=r"of TrainingConfig cannot be '(cosine|gpu)'; choose '.*' or '.*'\."):
        TrainingConfig(**settings)


@pytest.mark.parametrize("count", [0, -1])
def test_a_recipe_has_a_pair_at_least(count: int) -> None:
    with pytest.raises(InputError, match=f"train_pairs of Recipe is {count}; give a finite number of 1 or more"):
        Recipe(train_pairs=count)


@pytest.mark.parametrize("settings", [{"crop": -5}, {"crop_epochs": -50}, {"validation_pairs": 0}])
def test_what_may_be_left_out_is_checked_where_it_is_given(settings: dict) -> None:
    TrainingConfig(**dict.fromkeys(settings))
    with pytest.raises(InputError, match=f"{next(iter(settings))} of TrainingConfig is"):
        TrainingConfig(**settings)
    with pytest.raises(InputError, match="seed of Recipe is -1"):
        load("smoke", seed=-1)


def test_a_shortened_training_has_room_for_all_its_stages() -> None:
    for config in (AUGMENTED, REGISTRATION_FIRST, BRAINS, BRAINS_FUSED, ALL_TOGETHER):
        for share in range(1, 101):
            short = Recipe(training=config).shortened(share / 100).training
            assert short.registration_epochs + short.fusion_epochs <= short.epochs <= config.epochs


def test_phases_longer_than_the_training_are_refused() -> None:
    assert TrainingConfig(epochs=3, registration_epochs=2, fusion_epochs=1).epochs == 3
    with pytest.raises(InputError, match="registration_epochs 2 and fusion_epochs 2 are together more than epochs 3"):
        TrainingConfig(epochs=3, registration_epochs=2, fusion_epochs=2)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (NetworkConfig, "channels", 16.5),
        (NetworkConfig, "channels", "16"),
        (NetworkConfig, "channels", True),
        (NetworkConfig, "msrb_widths", [32, 48]),
        (NetworkConfig, "windows", (1.0, 3)),
        (TrainingConfig, "epochs", 2.5),
    ],
)
def test_a_setting_of_another_type_is_refused(kind: type, name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} of {kind.__name__} must be .*int.*, not "):
        kind(**{name: value})
