"""Tables 4 and 5: rows that differ in a setting or two, each trained with several seeds and scored on the test pairs.

All rows share the start of the preset's recipe (`Recipe.start`: the registration, which takes longest) and then learn
everything together, equally long. A row of the long table is one test pair under one training. Columns: row, epochs,
seed, dataset, level, pair, weights (their file), the metrics, and in the file `made_by`. It grows part by part
(`fusionlib.experiments.runner`): what is there is not trained again, and a changed setting, such as a lambda, makes
only its own rows outdated. `switches` are trained alike, without a start, and each gives one row.

PAPER-GAP: nothing is said of seeds. Here a seed draws the order, the deformations and the detection head of what comes
after the start, and without a start the first weights, too.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import safetensors.torch
from torch import Tensor

from fusionlib import data
from fusionlib.data import PairSet, open_set
from fusionlib.data.raw_pairs import RawSet, open_raw
from fusionlib.deformation import Misaligned
from fusionlib.experiments import evaluation, robustness, runner
from fusionlib.experiments.comparison import METRICS
from fusionlib.experiments.registration_bench import key_of_raw
from fusionlib.experiments.sweep_rows import AUGMENTATIONS, SWITCHES, Row, further_recipe, recipe_of, short_recipe
from fusionlib.methods import Method, Ours
from fusionlib.methods.field_refinement import RefinedNetwork
from fusionlib.network import FusionNetwork
from fusionlib.presets import Preset
from fusionlib.support import result_tables
from fusionlib.support.files import InputError, locked, remove_partial_files, write_bytes
from fusionlib.support.keys import Key
from fusionlib.support.parallel import spread
from fusionlib.support.paths import temporary_folder
from fusionlib.support.weights import key_of
from fusionlib.training import START, detector_path, train, train_or_load, validation_error
from fusionlib.training.recipe import Recipe
from fusionlib.training.warm_start import calibrate, warm_start

SCORED = [*METRICS, "EPE_share", "folds"]
PHOTONS = 10.0  # that a white pixel catches in the dark, see `robustness.night`
DARK, RAW = f"medium, {PHOTONS:g} photons", "raw frames"  # conditions beside the levels


@dataclass(frozen=True)
class Job:
    """One training and its score, with everything that a worker on another machine needs but the data.

    Attributes:
        recipe: what is trained.
        start: bytes of the weights file of the shared start; None without one.
        tests, size, level, count: sets, side, deformation and number of the test pairs.
        folder: where weights and checkpoints are kept, if this machine has such a folder; else a temporary one.
        device: as in `training.train`.
    """

    recipe: Recipe
    start: bytes | None = field(repr=False)
    tests: tuple[str, ...]
    size: int
    level: str
    count: int | None
    folder: str
    device: str | None = None

    def key(self) -> Key:
        """What the rows rest on: the weights, and the test pairs and what scores on them."""
        pairs = {name: open_set(name, "test", self.size, count=self.count).names for name in self.tests}
        tested = {f"{name}:tested": data.checksum(name, names) for name, names in pairs.items()}
        behaviour = dict.fromkeys(component for name in self.tests for component in data.components_of(name))
        scored = Key.of([*behaviour, "network", "deformation", "scores"], size=self.size, level=self.level, **tested)
        return weights_key(self.recipe) | scored

    def path(self) -> Path:
        """Where the weights are kept on this machine."""
        return weights_path(self.recipe, self.folder)


def weights_key(recipe: Recipe) -> Key:
    """What the weights of a short training rest on. Equal recipes of several tables share weights."""
    return recipe.key() | Key.of(["warm-start"])


def weights_path(recipe: Recipe, folder: str) -> Path:
    """Where the weights of a short training are kept on this machine: in `folder`, if there is such a folder here."""
    place = Path(folder) if Path(folder).is_dir() else temporary_folder() / "sweeps"
    return place / f"{weights_key(recipe).digest}.safetensors"


@dataclass(frozen=True)
class Outcome:
    """What a job gives: its rows, and the bytes of its weights and of their log, by suffix."""

    rows: pd.DataFrame
    files: Mapping[str, bytes] = field(repr=False)


def train_and_score(job: Job) -> Outcome:
    """Run a job; one that was killed goes on after its last epoch, if it runs again in the same folder."""
    path = job.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):  # the full method stands in both tables, which may be made at the same time
        with contextlib.redirect_stdout(io.StringIO()):  # a line an epoch; `spread` says how things go
            network = _network(job.recipe, job.start, path, job.device)
        detector_path(path).unlink(missing_ok=True)  # needed for the loss alone
        remove_partial_files(path)
        files = {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".csv", ".safetensors")}
    method, rows = Ours(network), []
    for name in job.tests:
        for row in scored(method, open_set(name, "test", job.size, count=job.count), job.level):
            rows.append({"dataset": name, "level": job.level, "pair": row["pair"], "weights": path.stem} | row)
    if path.parent != Path(job.folder):  # a worker with a disk of its own: what it has made is handed over
        for suffix in files:
            path.with_suffix(suffix).unlink(missing_ok=True)
    return Outcome(pd.DataFrame(rows), files)


def scored(method: Method, pairs: PairSet, level: str) -> Iterator[dict[str, object]]:
    """A row for each pair, deformed at a level: pair, and the numbers of `SCORED`."""
    for case in evaluation.cases(pairs, level):
        values = evaluation.score(method, case.ir, case.vi, case.moved)
        yield {"pair": case.name} | {metric: values[metric] for metric in SCORED}


def _network(recipe: Recipe, start: bytes | None, path: Path, device: str | None = None) -> FusionNetwork:
    """The network of a short training, kept or trained now; `start` is the file of the weights that it begins with."""
    with contextlib.suppress(InputError):
        if not recipe.key().differing(key_of(path)) and path.with_suffix(".csv").exists():
            return FusionNetwork.load(path)
    begun = None
    if recipe.start is not None:
        begun, cut = warm_start(recipe, safetensors.torch.load(start))
        if cut:
            calibrate(begun, cut, recipe)
    return train(recipe, path, device, begun)[0]


def run(
    rows: Sequence[Row],
    preset: Preset,
    path: Path,
    weights: Path,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    again: bool = False,
    cluster: str | None = None,
) -> pd.DataFrame:
    """Train and score every row with every seed, or read what the same training and scoring gave before.

    Args:
        rows: what to train.
        preset: its recipe is what the rows change; `sweep_epochs`, `sweep_seeds` say how long and how often.
        path: CSV file that keeps the rows; a run that is stopped goes on from there.
        weights: folder of the start, in which `sweeps` holds the weights of the rows.
        seeds: by default as many as the preset says, from its own on.
        epochs: by default those of the preset.
        again: train and score all of them again.
        cluster: as in `parallel.spread`.

    Returns:
        The long table of these rows, without `made_by`.
    """
    seeds = range(preset.recipe.seed, preset.recipe.seed + preset.sweep_seeds) if seeds is None else seeds
    epochs = epochs or preset.sweep_epochs
    folder = Path(weights).resolve() / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    tests = (preset.test_sets, preset.test_size, preset.levels[0], preset.bench.count)
    jobs: dict[str, Job] = {}
    parts = []
    for row, seed in product(rows, seeds):
        job = Job(recipe_of(row, preset, seed, epochs), None, *tests, str(folder))
        parts.append(runner.Part({"row": row.name, "epochs": epochs, "seed": seed}, job.key()))
        jobs[str(parts[-1])] = job
        if again:
            with locked(job.path()):
                for suffix in (".safetensors", ".csv", ".checkpoint"):
                    job.path().with_suffix(suffix).unlink(missing_ok=True)

    def work(missing: list[runner.Part]) -> Iterator[tuple[runner.Part, pd.DataFrame]]:
        parts_by_name, start = {str(part): part for part in missing}, None
        if missing and preset.recipe.start is not None:
            start = train_or_load(preset.recipe.start, weights, START).path.read_bytes()
        with locked(path):
            remove_partial_files(path)
        started_jobs = {name: replace(jobs[name], start=start) for name in parts_by_name}
        for name, outcome in spread(train_and_score, started_jobs, cluster):
            with locked(jobs[name].path()):
                for suffix, content in outcome.files.items():
                    write_bytes(jobs[name].path().with_suffix(suffix), content)
            yield parts_by_name[name], outcome.rows

    minutes = sum(job.recipe.minutes() for job in jobs.values()) / max(1, len(jobs))
    table = runner.run(path, parts, again, minutes, work)
    result_tables.in_order(path, [part.where for part in parts])
    return table


def switches(preset: Preset, path: Path, rows: Sequence[Row] = SWITCHES) -> pd.DataFrame:
    """Train every switch, or read what the same training gave before.

    Args:
        preset: its first recipe is what the switches change; `switch_epochs` says how long they train.
        path: CSV file that keeps the rows.
        rows: which ones.

    Returns:
        A row a switch: switch, parameters (millions), steps, and the end-point error on the validation pairs
        as a share of that of the identity, at light, medium and heavy.
    """
    recipes = {row.name: short_recipe(row, preset) for row in rows}
    minutes = sum(recipe.minutes() for recipe in recipes.values()) / max(1, len(recipes))
    parts = [
        runner.Part({"switch": name}, recipe.key(), partial(_measure_switch, recipe))
        for name, recipe in recipes.items()
    ]
    return runner.run(path, parts, minutes=minutes)


def augmentations(
    preset: Preset, path: Path, weights: Path, rows: Sequence[Row] = AUGMENTATIONS, seeds: Sequence[int] = (0, 1, 2)
) -> pd.DataFrame:
    """Train the preset's start further, augmented and not, with every seed, and register validation pairs with it.

    The pairs are deformed at three levels, deformed at `medium` in the dark, and as the two cameras took them.

    Args:
        preset: its start is what is trained further, see `sweep_rows.further_recipe`.
        path: CSV file that keeps the rows.
        weights: folder of the start, in which `sweeps` holds the weights of the rows.
        rows, seeds: which ones.

    Returns:
        A row for each row, seed, pair, method (ours, ours_refined) and condition, with EPE, EPE_share and folds.
    """
    pairs = open_set(preset.recipe.dataset, "val", preset.test_size, count=preset.bench.count)
    raw = open_raw(preset.recipe.dataset, "val", preset.test_size, count=preset.bench.count)
    folder = Path(weights).resolve() / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    of_pairs = runner.key_of(pairs, "deformation", "scores", "hardships", "network", "refinement")
    name = preset.recipe.dataset  # names the training pairs in the key of the recipe
    key = of_pairs.renamed(name, f"{name}:val") | key_of_raw(raw).renamed(name, f"{name}:raw")
    parts, minutes = [], 0.0
    for row, seed in product(rows, seeds):
        recipe = further_recipe(row, preset, seed)
        minutes = max(minutes, recipe.minutes())
        measure = partial(_measure_augmentation, recipe, weights, str(folder), pairs, raw)
        parts.append(runner.Part({"row": row.name, "seed": seed}, key | recipe.key(), measure))
    return runner.run(path, parts, minutes=minutes)


def _measure_augmentation(recipe: Recipe, weights: Path, folder: str, pairs: PairSet, raw: RawSet) -> pd.DataFrame:
    start = None
    if recipe.start is not None:
        start = train_or_load(recipe.start, weights, START).path.read_bytes()
    path = weights_path(recipe, folder)
    with locked(path):
        network = _network(recipe, start, path)
    rows = []
    for method in (Ours(network), Ours(RefinedNetwork(network), "ours_refined")):
        for condition, name, ir, vi, moved in _conditions(pairs, raw):
            errors = evaluation.with_share(evaluation.registration(method.fuse(moved.ir, vi), ir, moved))
            rows.append({"pair": name, "method": method.name, "condition": condition} | errors)
    return pd.DataFrame(rows)[["pair", "method", "condition", "EPE", "EPE_share", "folds"]]


def _conditions(pairs: PairSet, raw: RawSet) -> Iterator[tuple[str, str, Tensor, Tensor, Misaligned]]:
    """Condition, pair, aligned infrared, visible image as it is given, and the misaligned infrared."""
    for level in ("light", "medium", "heavy"):
        for case in evaluation.cases(pairs, level):
            yield level, case.name, case.ir, case.vi, case.moved
    for case in evaluation.cases(pairs, "medium"):
        yield DARK, case.name, case.ir, robustness.night(case.vi, PHOTONS, case.name), case.moved
    for pair, aligned in zip(raw, raw.aligned, strict=True):
        yield RAW, pair.name, aligned.ir[None], pair.vi[None], pair.misaligned


def _measure_switch(recipe: Recipe) -> pd.DataFrame:
    with TemporaryDirectory() as folder:
        network, _, log = train(recipe, Path(folder) / "switch.safetensors")
    pair_count = len(open_set(recipe.dataset, "train", recipe.size, count=recipe.train_pairs))
    pairs = open_set(recipe.dataset, "val", recipe.size, count=recipe.training.validation_pairs)
    row = {
        "parameters": sum(weight.numel() for weight in network.parameters()) / 1e6,
        "steps": max(1, pair_count // recipe.training.batch) * len(log),
    }
    errors = {level: validation_error(network, pairs, level)["epe_share"] for level in ("light", "medium", "heavy")}
    return pd.DataFrame([row | errors])
