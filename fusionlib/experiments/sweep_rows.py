"""Rows of sweeps as changes of a recipe: Tables 4 and 5, read from the paper's own tables, and the switches.

A switch goes back from a default to the plainer choice. Switches are trained shortly, on the registration alone and
with one seed: they say what matters in the first minutes, not where a long training ends. An augmentation is added to
the registration that is trained already, and trained further with several seeds.

PAPER-GAP: the paper says of its ablations no more than their names. "w/o l_c" and "w/o l_s" are read as a weight of 0
in Eq. (12), where both stand with a weight of 1; "w/o concat of F_i^r and F_v" as Eq. (7) on the specific features
alone. Where there is a start, it has learned with l_c, and only what comes after it learns without: the difference is
smaller than that of trainings which differ from the first step on, as those of preset `paper` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from fusionlib import presets
from fusionlib.data.paper_tables import paper_table
from fusionlib.network import AS_IN_THE_PAPER
from fusionlib.presets import Preset, first
from fusionlib.support.files import InputError
from fusionlib.support.settings import changed
from fusionlib.training.augmentation import Augmentation
from fusionlib.training.recipe import Recipe

ABLATIONS = {
    "w/o l_c": {"losses.common": 0.0},
    "w/o l_s": {"losses.specific": 0.0},
    "w/o concat of F_i^r and F_v": {"network.common_in_fusion": False},
}
SETTINGS = {  # what Table 5 calls them
    "gamma": "losses.gamma",
    "lambda1": "losses.lambda_reg",
    "lambda2": "losses.lambda_fusion",
    "lambda3": "losses.lambda_detection",
}
SYMBOLS = {"gamma": "γ", "lambda1": "λ₁", "lambda2": "λ₂", "lambda3": "λ₃"}
OURS = "Ours"
WITHOUT_DETECTION = "without l_ob"  # an ablation that the paper does not make, for the claim in its title


@dataclass(frozen=True)
class Row:
    """One training of a sweep.

    Attributes:
        name: what it is called.
        changes: setting of the recipe, by its path, to value; none is the full method.
        printed: the row of the paper's table that it is; None for one that the paper does not have.
    """

    name: str
    changes: Mapping[str, object] = field(default_factory=dict)
    printed: str | None = None


PLAIN = {"losses.coarse": 0.0, "losses.matching": 0.0}  # the paper supervises the final field only
SWITCHES = (
    Row("everything on (default)"),
    Row("images instead of local structure", {"network.common_input": "image"}),
    Row("no matching loss", {"losses.matching": 0.0}),
    Row("no loss on the coarse field", {"losses.coarse": 0.0}),
    Row("comparing single positions, no windows", {"network.windows": (1,)}),
    Row("plain U-Net instead of the pyramid", {"network.msrb": "unet", "network.msrb_widths": (24, 48, 96, 128)}),
    Row("trained at medium only", {"training.levels": ("medium",)}),
    Row("constant rate of the paper", {"training.schedule": "constant", "training.learning_rate": 1e-3}),
    Row("network of the paper", {"network": AS_IN_THE_PAPER, **PLAIN}),
)

AUGMENTATIONS = (Row("none"), Row("augmented", {"training.augmentation": Augmentation()}))


def table4() -> list[Row]:
    """The rows of Table 4."""
    return [Row(name, ABLATIONS.get(name, {}), name) for name in paper_table(4).index.get_level_values("row")]


def target_awareness() -> list[Row]:
    """The full method, and the method without the detection loss: its weight in Eq. (12) is 0."""
    return [Row(OURS), Row(WITHOUT_DETECTION, {"losses.lambda_detection": 0.0})]


def table5(preset: Preset) -> list[Row]:
    """The rows of Table 5, and between each of them and the paper's optimum `sweep_between` more, evenly spaced."""
    printed = {name: settings_in(name) for name in paper_table(5).index.get_level_values("row")}
    best = settings_in(optimum(preset))
    rows = {_row_name(settings): name for name, settings in printed.items()}
    for settings in printed.values():
        for step in range(1, preset.sweep_between + 1):
            part = step / (preset.sweep_between + 1)
            between = {name: value + part * (best[name] - value) for name, value in settings.items()}
            rows.setdefault(_row_name(between))
    return [Row(name, _changes(settings_in(name), preset.recipe), original) for name, original in rows.items()]


def settings_in(name: str) -> dict[str, float]:
    """ "gamma=2;lambda1=10;..." as numbers by name."""
    return {setting: float(value) for setting, value in (part.split("=") for part in name.split(";"))}


def label(row: Row, reference: str) -> str:
    """What a row of Table 5 changes: "λ₃ 5 → 1"; "optimum" for the reference itself."""
    own, others = settings_in(row.name), settings_in(reference)
    changes = [f"{SYMBOLS[name]} {others[name]:g} → {own[name]:g}" for name in own if own[name] != others[name]]
    return ", ".join(changes) or "optimum"


def reference(number: int) -> str:
    """Name of the row that the others of Table 4 or 5 are compared with: the full method, by the name it has there."""
    return OURS if number == 4 else optimum(presets.load("paper"))


def optimum(preset: Preset) -> str:
    """Name of the row of Table 5 that the paper calls optimal: that of the settings it trains everything else with.

    Raises:
        InputError: the preset has other settings.
    """
    for name in paper_table(5).index.get_level_values("row"):
        if not _changes(settings_in(name), preset.recipe):
            return name
    raise InputError(
        "Table 5 is swept around the paper's settings: leave gamma and the lambdas of the preset as they are."
    )


def recipe_of(row: Row, preset: Preset, seed: int, epochs: int) -> Recipe:
    """The training of a row: the preset's, so many epochs long, from the same start whatever the seed.

    As long as the preset's own, the full method is the preset's own recipe, so that neither is trained twice.
    """
    own = preset.recipe.training
    every = own.validate_every if epochs == own.epochs else epochs
    training = replace(own, epochs=epochs, validate_every=every, crop=preset.sweep_crop)
    return _changed(replace(preset.recipe, seed=seed, training=training), row)


def short_recipe(row: Row, preset: Preset) -> Recipe:
    """The training of a switch: the preset's first, of the registration alone, for `switch_epochs`."""
    recipe, epochs = first(preset.recipe), preset.switch_epochs
    training = replace(
        recipe.training, epochs=epochs, registration_epochs=epochs, fusion_epochs=0, validate_every=epochs
    )
    return _changed(replace(recipe, training=training, detector=None), row)


def further_recipe(row: Row, preset: Preset, seed: int) -> Recipe:
    """The training of an augmentation: of the registration alone, on whole images, for half of `switch_epochs` after
    the preset's start, at the rate of what comes after it.
    """
    after, epochs = preset.recipe.training, max(1, preset.switch_epochs // 2)
    training = replace(
        after, epochs=epochs, registration_epochs=epochs, fusion_epochs=0, validate_every=epochs,
        frozen_statistics=False, mixed_precision=("cuda",),
    )  # fmt: skip
    return _changed(replace(preset.recipe, seed=seed, training=training, detector=None), row)


def _changed(recipe: Recipe, row: Row) -> Recipe:
    for path, value in row.changes.items():
        section, _, setting = path.partition(".")
        if section == "network" and recipe.start is not None:  # the two must be of one shape at any moment
            network = changed(recipe.network, setting, value)
            recipe = replace(recipe, network=network, start=replace(recipe.start, network=network))
        else:
            recipe = changed(recipe, path, value)
    return recipe


# --- along one setting of Table 5


def differing(name: str, best: str) -> list[str]:
    """Settings in which a row of Table 5 differs from the best."""
    settings, best_settings = settings_in(name), settings_in(best)
    return [setting for setting, value in settings.items() if value != best_settings[setting]]


def line_of(rows: Sequence[Row], best: str, setting: str) -> dict[float, Row]:
    """Value to row along one setting, in order: the rows that differ from the best in it alone, and the best."""
    line = {settings_in(row.name)[setting]: row for row in rows if differing(row.name, best) in ([], [setting])}
    return dict(sorted(line.items()))


def neighbours(rows: Sequence[Row], best: str) -> list[str]:
    """Names of the rows next to the best along each setting, on either side."""
    names = []
    for setting, value in settings_in(best).items():
        line = line_of(rows, best, setting)
        below, above = [other for other in line if other < value][-1:], [other for other in line if other > value][:1]
        names += [line[other].name for other in (*below, *above)]
    return names


def to_train_longer(rows: Sequence[Row], best: str) -> list[Row]:
    """A few rows to train longer: the best, and for each lambda the row with its lowest value."""
    lambdas = [setting for setting in settings_in(best) if setting.startswith("lambda")]
    lowest = [next(iter(line_of(rows, best, setting).values())) for setting in lambdas]
    return [row for row in rows if row.name == best] + [row for row in lowest if row.name != best]


def _row_name(settings: Mapping[str, float]) -> str:
    return ";".join(f"{name}={value:g}" for name, value in settings.items())


def _changes(settings: Mapping[str, float], recipe: Recipe) -> dict[str, float]:
    """Settings of the recipe that differ from its own, by their path."""
    own = asdict(recipe)["losses"]
    return {
        SETTINGS[name]: value for name, value in settings.items() if own[SETTINGS[name].rpartition(".")[2]] != value
    }
