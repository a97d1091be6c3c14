"""`results plan`: what a preset trains, and about how long that takes, before anybody waits for it.

The minutes are those of two CPU cores: by the pixels that a training sees, as all estimates of this project
(`support.long_training`), or, for compared systems, as logged when the shipped weights were made.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from fusionlib import presets
from fusionlib.experiments import detection_bench, sweep_rows
from fusionlib.methods.retraining import Retraining
from fusionlib.presets import Preset
from fusionlib.report.our_numbers import minutes_of
from fusionlib.report.results_check import recipes_of
from fusionlib.support.paths import SHIPPED

NOTEBOOK = {"same_budget": "04", "without_detection": "06"}  # that trains weights of Ours; 03 the others


def plan(preset: Preset) -> pd.DataFrame:
    """One line for each set of weights, then one for each family of trainings behind a table.

    Returns:
        Columns what, trainings, minutes (of all of them together), notebook.
    """
    lines, seen = [], []
    for name, recipe in recipes_of(preset).items():
        if isinstance(recipe, Retraining):
            minutes = 0.0 if preset.always_train else minutes_of(SHIPPED.weights / f"{name}.csv")  # two steps there
            notebook = "04 or 05"
        else:
            minutes, notebook = recipe.minutes(), NOTEBOOK.get(name.partition("/")[0], "03")
        notebook = "10" if name.startswith("mri/") else notebook
        if minutes and recipe not in seen:  # a system without a log is retrained for no table
            lines.append((f"weights/{name}", 1, minutes, notebook))
        seen.append(recipe)
    lines.append(_switches(preset))
    rows, seeds = sweep_rows.table5(preset), range(preset.sweep_seeds)
    lines.append(_sweep(preset, 4, "rows", sweep_rows.table4(), seeds, preset.sweep_epochs))
    lines.append(_sweep(preset, 5, "rows", rows, seeds, preset.sweep_epochs))
    if preset.sweep_longer != preset.sweep_epochs:
        few = sweep_rows.checked(rows, sweep_rows.optimum(preset))
        lines.append(_sweep(preset, 5, "a few rows, longer", few, seeds[:1], preset.sweep_longer))
    asked = preset.detection
    count = len(asked.seeds) * (len(asked.methods) + 2)  # Ours with and without l_ob
    lines.append(("table 3: detectors", count, count * detection_bench.minutes(asked), "06"))
    return pd.DataFrame(lines, columns=["what", "trainings", "minutes", "notebook"])


def _switches(preset: Preset) -> tuple[str, int, float, str]:
    minutes = [sweep_rows.short_recipe(row, preset).minutes() for row in sweep_rows.SWITCHES]
    return "switches of the network", len(minutes), sum(minutes), "03"


def _sweep(
    preset: Preset, table: int, what: str, rows: Iterable[sweep_rows.Row], seeds: Iterable[int], epochs: int
) -> tuple[str, int, float, str]:
    minutes = [sweep_rows.recipe_of(row, preset, seed, epochs).minutes() for row in rows for seed in seeds]
    return f"table {table}: {what}", len(minutes), sum(minutes), f"{table + 3:02}"


def command(preset: str) -> int:
    """Print the plan of a preset; exit status 0."""
    table = plan(presets.load(preset))
    for line in table.itertuples():
        many = f"{line.trainings} trainings" if line.trainings > 1 else "1 training"
        print(f"{line.what:28} {many:>14}  about {_duration(line.minutes):>8}   notebook {line.notebook}")
    total = _duration(table["minutes"].sum())
    print(f"All of {preset}: about {total} on two CPU cores, measuring not counted; a GPU has not been timed.")
    print(f"`python -m fusionlib reproduce --preset {preset} --train` trains what is missing, and goes on if stopped.")
    return 0


def _duration(minutes: float) -> str:
    return f"{minutes / 60:.0f} h" if minutes >= 120 else f"{max(1, round(minutes))} min"
