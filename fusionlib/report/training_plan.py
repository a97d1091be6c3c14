"""`results plan`: what a preset trains, and about how long that takes, before anybody waits for it.

The minutes are those of two CPU cores, and each line says what they rest on:

    measured       the log of the shipped weights, which were trained by these very settings
    extrapolated   the log of that training of `mini` which is most alike, by the pixels that both see
    estimated      the pixels alone, at a pace that was seen elsewhere

Other sizes, batches and precisions change the pace, so an extrapolated number is no more than an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pandas as pd

from fusionlib import presets
from fusionlib.experiments import detection_bench, sweep_rows
from fusionlib.methods.retraining import Retraining
from fusionlib.network import AS_IN_THE_PAPER
from fusionlib.presets import Preset
from fusionlib.report.our_numbers import minutes_of
from fusionlib.report.results_check import recipes_of
from fusionlib.support.paths import SHIPPED
from fusionlib.training.recipe import Recipe

# The notebook that trains weights of Ours; 03 trains the others.
NOTEBOOK = {"robust": "03b", "same_budget": "04", "without_detection": "06"}
MEASURED, EXTRAPOLATED, ESTIMATED = "measured", "extrapolated", "estimated"


def plan(preset: Preset) -> pd.DataFrame:
    """One line for each set of weights, then one for each family of trainings behind a table.

    Returns:
        Columns what, trainings, minutes (of all of them together), basis (of the minutes), notebook.
    """
    lines, planned, shipped = [], [], recipes_of(presets.load(SHIPPED.preset))
    for name, recipe in recipes_of(preset).items():
        minutes = minutes_of(SHIPPED.weights / f"{name}.csv")
        basis = MEASURED if recipe == shipped.get(name) else EXTRAPOLATED
        if isinstance(recipe, Retraining):
            minutes = 0.0 if preset.always_train else minutes  # two steps there; else as many as in `mini`
            notebook = "04 or 05"
        else:
            minutes = minutes if minutes and basis == MEASURED else _minutes(recipe)
            notebook = NOTEBOOK.get(name.partition("/")[0], "03")
        notebook = "10" if name.startswith("mri/") else notebook
        if minutes and recipe not in planned:  # a system without a log is retrained for no table
            lines.append((f"weights/{name}", 1, minutes, basis, notebook))
        planned.append(recipe)
    switches = [sweep_rows.short_recipe(row, preset) for row in sweep_rows.SWITCHES]
    lines.append(_line("switches of the network", switches, "03"))
    further = [sweep_rows.further_recipe(row, preset, seed) for row in sweep_rows.AUGMENTATIONS for seed in range(3)]
    lines.append(_line("augmentations of its training", further, "03b"))
    rows, seeds = sweep_rows.table5(preset), range(preset.sweep_seeds)
    fourth = _trainings(sweep_rows.table4(), preset, seeds, preset.sweep_epochs)
    fifth = _trainings(rows, preset, seeds, preset.sweep_epochs)
    aware = _trainings(sweep_rows.target_awareness(), preset, seeds, preset.sweep_epochs)
    lines.append(_line("table 4: rows", fourth, "07"))
    lines.append(_line("rows without l_ob", [recipe for recipe in aware if recipe not in fourth], "06"))
    lines.append(_line("table 5: rows, without Ours", [recipe for recipe in fifth if recipe not in fourth], "08"))
    if preset.sweep_longer != preset.sweep_epochs:
        few = sweep_rows.to_train_longer(rows, sweep_rows.optimum(preset))
        longer = _trainings(few, preset, seeds[:1], preset.sweep_longer)
        lines.append(_line("table 5: a few rows, longer", longer, "08"))
    detection = preset.detection
    count = len(detection.seeds) * (len(detection.methods) + 2)  # Ours with and without l_ob
    lines.append(("table 3: detectors", count, count * detection_bench.minutes(detection), ESTIMATED, "06"))
    return pd.DataFrame(lines, columns=["what", "trainings", "minutes", "basis", "notebook"])


def _minutes(recipe: Recipe) -> float:
    """Extrapolated from the training of `mini` that is most alike."""
    training = recipe.training
    mostly_registration = training.registration_epochs > training.epochs / 2
    kind = "as_in_the_paper" if recipe.network == AS_IN_THE_PAPER else "registration" if mostly_registration else "ours"
    return recipe.minutes() * _pace(kind)


@cache
def _pace(kind: str) -> float:
    """How many times as long as by its pixels a training of `mini` took."""
    return minutes_of(SHIPPED.weights / f"{kind}.csv") / recipes_of(presets.load(SHIPPED.preset))[kind].minutes()


def _trainings(rows: Iterable[sweep_rows.Row], preset: Preset, seeds: Iterable[int], epochs: int) -> list[Recipe]:
    return [sweep_rows.recipe_of(row, preset, seed, epochs) for row in rows for seed in seeds]


def _line(what: str, recipes: list[Recipe], notebook: str) -> tuple[str, int, float, str, str]:
    return what, len(recipes), sum(map(_minutes, recipes)), EXTRAPOLATED, notebook


def command(preset: str) -> int:
    """Print the plan of a preset; exit status 0."""
    table = plan(presets.load(preset))
    for line in table.itertuples():
        many = f"{line.trainings} trainings" if line.trainings > 1 else "1 training"
        print(f"{line.what:32} {many:>14}  {_duration(line.minutes):>8}  {line.basis:12}  notebook {line.notebook}")
    sums = table.groupby("basis", sort=False)["minutes"].sum()
    parts = ", ".join(f"{basis} {_duration(minutes)}" for basis, minutes in sums.items())
    print(f"All of {preset}: about {_duration(sums.sum())} on two CPU cores ({parts}).")
    print("measured: by the log of the shipped weights, made by the same settings. extrapolated: from the log of that")
    print("training of `mini` which is most alike, by the pixels seen; an order of magnitude. estimated: by the pixels")
    print("alone. Measuring on test pairs is not counted, and a GPU has not been timed.")
    print(f"`python -m fusionlib reproduce --preset {preset} --train` trains what is missing, and goes on if stopped.")
    return 0


def _duration(minutes: float) -> str:
    return f"{minutes / 60:.0f} h" if minutes >= 120 else f"{minutes:.0f} min" if minutes >= 1 else "< 1 min"
