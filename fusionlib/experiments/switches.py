"""What makes the registration learn: short trainings that differ in one switch each, measured on validation pairs.

Every switch goes back from the default to the plainer choice. The trainings are short and each has one seed: they say
which switches matter in the first minutes, not where a long training ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from fusionlib.data import open_set
from fusionlib.network import AS_IN_THE_PAPER
from fusionlib.presets import Preset, changed, first
from fusionlib.support import result_tables
from fusionlib.training import train, validation_error
from fusionlib.training.recipe import Recipe

LEVELS = ("light", "medium", "heavy")


@dataclass(frozen=True)
class Switch:
    """One way back to the plain choice.

    Attributes:
        name: what the table calls it.
        changes: setting of the recipe, by its path, to value.
    """

    name: str
    changes: dict[str, object] = field(default_factory=dict)


PLAIN = {"losses.coarse": 0.0, "losses.matching": 0.0}  # the paper supervises the final field only
SWITCHES = (
    Switch("everything on (default)"),
    Switch("images instead of local structure", {"network.common_input": "image"}),
    Switch("no matching loss", {"losses.matching": 0.0}),
    Switch("no loss on the coarse field", {"losses.coarse": 0.0}),
    Switch("comparing single positions, no windows", {"network.windows": (1,)}),
    Switch("plain U-Net instead of the pyramid", {"network.msrb": "unet", "network.msrb_widths": (24, 48, 96, 128)}),
    Switch("trained at medium only", {"training.levels": ("medium",)}),
    Switch("constant rate of the paper", {"training.schedule": "constant", "training.learning_rate": 1e-3}),
    Switch("network of the paper", {"network": AS_IN_THE_PAPER, **PLAIN}),
)


def recipe_of(switch: Switch, preset: Preset) -> Recipe:
    """The short training of a switch: the preset's first, of the registration alone, with the switch set."""
    recipe, epochs = first(preset.recipe), preset.switch_epochs
    training = replace(
        recipe.training, epochs=epochs, registration_epochs=epochs, fusion_epochs=0, validate_every=epochs
    )
    recipe = replace(recipe, training=training, detector=None)
    for path, value in switch.changes.items():
        recipe = changed(recipe, path, value)
    return recipe


def run(preset: Preset, path: Path, switches: tuple[Switch, ...] = SWITCHES) -> pd.DataFrame:
    """Train every switch, or read what the same training gave before.

    Args:
        preset: its recipe is what the switches change; `switch_epochs` says how long they train.
        path: CSV file that keeps the rows; a run that is stopped goes on with the switch it was at.
        switches: which ones.

    Returns:
        A row a switch: switch, parameters (millions), steps, and the end-point error on the validation pairs
        as a share of doing nothing, at light, medium and heavy.
    """
    recipes = {switch.name: recipe_of(switch, preset) for switch in switches}
    parts = {name: ({"switch": name}, recipe.key()) for name, recipe in recipes.items()}
    minutes = sum(recipe.minutes() for recipe in recipes.values()) / max(1, len(recipes))
    for name in result_tables.to_train(path, parts, minutes):
        result_tables.put(path, *parts[name], _measure(recipes[name]))
    return pd.concat([result_tables.there(path, where) for where, _ in parts.values()], ignore_index=True)


def _measure(recipe: Recipe) -> pd.DataFrame:
    with TemporaryDirectory() as folder:
        net, _, log = train(recipe, Path(folder) / "switch.safetensors")
    seen = len(open_set(recipe.dataset, "train", recipe.size, count=recipe.train_pairs))
    steps = max(1, seen // recipe.training.batch)
    pairs = open_set(recipe.dataset, "val", recipe.size)
    row = {
        "parameters": sum(weight.numel() for weight in net.parameters()) / 1e6,
        "steps": steps * len(log),
    }
    return pd.DataFrame([row | {level: validation_error(net, pairs, level)["epe_share"] for level in LEVELS}])
