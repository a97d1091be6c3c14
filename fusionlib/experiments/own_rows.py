"""Our own two rows, apart from all others: Ours, trained with several seeds, and the plain reading of the paper.

Whoever has a GPU for minutes trains these, in pieces if need be, and scores them on the pairs of Tables 1, 2 and 4; of
Table 6, what they count and how long they take. They have tables of their own, so that those of the notebooks never
hold a few rows alone. Another seed draws other first weights, another order and other deformations, and also trains
the start of a recipe that has one; the test pairs stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd

from fusionlib import methods, presets
from fusionlib.data import open_set
from fusionlib.experiments import cost, evaluation, profiling, runner, sweep_rows, sweeps
from fusionlib.experiments.evaluation import with_all_sets
from fusionlib.presets import Preset
from fusionlib.support import result_tables
from fusionlib.support.files import atomic
from fusionlib.support.inputs import checked_device
from fusionlib.support.keys import Key
from fusionlib.support.long_training import check_time
from fusionlib.support.machine import machine
from fusionlib.support.paths import SHIPPED
from fusionlib.support.weights import mark_of
from fusionlib.training import train_or_load
from fusionlib.training.recipe import Recipe

OURS, PLAIN = "ours", "as_in_the_paper"
KEPT = "ours, shipped"  # the weights that come with the repository, where they are others
COLUMNS = ["Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM", "EPE_share"]


@dataclass(frozen=True)
class OwnTraining:
    """One training: the method, its recipe, and the folder of its weights."""

    method: str
    recipe: Recipe
    folder: Path


def trainings(preset: Preset, seeds: int, weights: Path) -> list[OwnTraining]:
    """What is trained, in this order: Ours and the plain reading with the preset's seed, then Ours with the next ones.

    Args:
        preset: of the recipes.
        seeds: how many trainings of Ours.
        weights: folder of the first two; those of another seed lie in `seed_N` below it.
    """
    plain, first = presets.as_in_the_paper(preset).recipe, preset.recipe.seed
    wanted = [OwnTraining(OURS, preset.recipe, weights), OwnTraining(PLAIN, plain, weights)]
    others = range(first + 1, first + seeds)
    return wanted + [OwnTraining(OURS, preset.recipe.with_seed(seed), weights / f"seed_{seed}") for seed in others]


def train(wanted: Sequence[OwnTraining], preset: Preset, compiled: bool = False) -> None:
    """Train what is not there or does not fit; a training that was stopped goes on after its last epoch.

    With `compiled`, torch compiles the network first, see `fusionlib.training.compiled`.

    Raises:
        InputError: as `train_or_load` does.
        OutOfTimeError: the time is over (`fusionlib.support.long_training.allowed`).
    """
    for done, training in enumerate(wanted, 1):
        run = train_or_load(training.recipe, training.folder, training.method, compiled=compiled)
        if training.method == OURS:
            _copy_to_sweeps(run.path, training.recipe, preset, wanted[0].folder / "sweeps")
        if not run.reused and done < len(wanted):
            check_time(
                f"{training.method} with seed {training.recipe.seed} is trained, {done} of {len(wanted)} trainings",
                run.log["seconds"].max(),
            )


def _copy_to_sweeps(path: Path, recipe: Recipe, preset: Preset, folder: Path) -> None:
    """Put weights and log where Tables 4 and 5 look for those of the full method, if theirs is the same training."""
    row = next(row for row in sweep_rows.table4() if not row.changes)
    if sweep_rows.recipe_of(row, preset, recipe.seed, preset.sweep_epochs) == recipe:
        folder.mkdir(exist_ok=True)
        sweep_path = sweeps.weights_path(recipe, str(folder))
        for suffix in () if sweep_path.exists() else (".csv", ".safetensors"):
            with atomic(sweep_path.with_suffix(suffix)) as unfinished:
                shutil.copyfile(path.with_suffix(suffix), unfinished)


def score(wanted: Sequence[OwnTraining], preset: Preset, path: Path) -> pd.DataFrame:
    """The rows of these trainings on the test pairs, and of the shipped weights if those of the first are others.

    Args:
        wanted: trained, all of them.
        preset: sets, size, number and levels of the test pairs.
        path: CSV file that keeps the rows.

    Returns:
        A row per pair: method, seed, dataset, level, pair and the numbers of `sweeps.SCORED`.

    Raises:
        InputError: the file is damaged.
    """
    _check_kept(path, ["method", "seed", "dataset", "level"], ["pair"], COLUMNS)
    scored = [
        (training.method, training.recipe.seed, training.folder / f"{training.method}.safetensors")
        for training in wanted
    ]
    kept = SHIPPED.weights / f"{OURS}.safetensors"
    if mark_of(kept) != mark_of(scored[0][2]):
        scored.append((KEPT, 0, kept))
    tested = {name: open_set(name, "test", preset.test_size, count=preset.bench.count) for name in preset.test_sets}
    parts = []
    for (method, seed, file), (name, pairs), level in product(scored, tested.items(), preset.levels):
        where = {"method": method, "seed": seed, "dataset": name, "level": level}
        key = runner.key_of(pairs, "deformation", "scores") | methods.key_of_network(file)
        parts.append(runner.Part(where, key, partial(_measure, file, method, name, level, preset)))
    return runner.run(path, parts)


def _check_kept(path: Path, part: Sequence[str], names: Sequence[str], numbers: Sequence[str]) -> None:
    """Refuse kept rows that lack what is shown of them; those without the columns of a part are replaced as a whole."""
    table = result_tables.read(path)
    if len(table) and set(part) <= set(table):
        result_tables.check_columns(table, path, [*part, *names], numbers)


def _measure(file: Path, method: str, dataset: str, level: str, preset: Preset) -> pd.DataFrame:
    loaded = methods.load(PLAIN if method == PLAIN else OURS, file)
    pairs = open_set(dataset, "test", preset.test_size, count=preset.bench.count)
    return pd.DataFrame(sweeps.scored(loaded, pairs, level))


def summary(table: pd.DataFrame, level: str) -> pd.DataFrame:
    """Means over all pairs at a level: a line per training; of several seeds of Ours also their mean and range."""
    rows = with_all_sets(table[table["level"] == level])
    rows = rows[rows["dataset"] == rows["dataset"].iloc[-1]]  # all pairs, or those of the only set
    means = evaluation.means(rows, ["method", "seed"], COLUMNS)
    ours = means.loc[OURS]
    lines = {f"{OURS}, seed {seed}": line for seed, line in ours.iterrows()}
    if len(ours) > 1:
        lines[f"mean of {len(ours)} seeds"] = ours.mean()
        lines["largest - smallest"] = ours.max() - ours.min()
    others = means.drop(index=OURS, level="method").droplevel("seed")
    return pd.DataFrame(lines | dict(others.iterrows())).T


def costs(preset: Preset, folder: Path) -> pd.DataFrame:
    """Table 6 of the two: G multiply-accumulates by `thop`, M parameters, and the seconds of one pair.

    They are those of a GPU if there is one; images come from the memory of the host and go back to it.

    Args:
        preset: its `cost` says the side and how many calls are timed.
        folder: of the tables own_counts.csv and own_times.csv.

    Raises:
        InputError: one of them is damaged.
    """
    _check_kept(folder / "own_counts.csv", ["method", "side"], [], ["thop", "parameters"])
    _check_kept(folder / "own_times.csv", ["device"], ["method"], ["median", "low", "high"])
    device = checked_device(None)
    cost_config = replace(preset.cost, joint=(OURS, PLAIN), chains=(), own_sides=())
    counted = cost.counts(cost_config, folder / "own_counts.csv").set_index("method")[["side", "thop", "parameters"]]
    machine_facts = machine()
    where = {"device": machine_facts["gpu"] if device.startswith("cuda") else machine_facts["cpu"]}
    key = Key.of(["cost", "network"], side=cost_config.side, runs=cost_config.runs)
    part = runner.Part(where, key, partial(_time, cost_config.side, cost_config.runs, device))
    return counted.join(runner.run(folder / "own_times.csv", [part]).set_index("method"))


def _time(side: int, runs: int, device: str) -> pd.DataFrame:
    images = profiling.pair(side)
    calls = {name: partial(methods.Ours(methods.network(name), name, device).fuse, *images) for name in (OURS, PLAIN)}
    timings = profiling.interleaved(calls, runs)
    return pd.DataFrame([{"method": name, **asdict(timed)} for name, timed in timings.items()])
