"""`results check`: do the weights and tables of a preset still fit today's settings, data and code, and if not, why.

Nothing is trained or measured, and no image is read. Where the source of a component has changed, its probe runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from fusionlib import data, presets
from fusionlib.data import systems
from fusionlib.experiments import comparison, detection_bench, own_rows, sweep_rows
from fusionlib.methods import registry, retraining
from fusionlib.methods.retraining import Retraining
from fusionlib.presets import Preset
from fusionlib.report.our_numbers import (
    BENCH,
    BRATS,
    COMPARED,
    COST,
    COUNTS,
    DETECTION,
    SWEPT,
    SWEPT_AT_LIGHT,
    TEST_PAIRS,
    TIMES,
    WITH_AND_WITHOUT,
    minutes_of,
)
from fusionlib.support import result_tables
from fusionlib.support.behaviour import components, record
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.long_training import minutes_for
from fusionlib.support.paths import ROOT, SHIPPED
from fusionlib.support.weights import key_of, mark_of
from fusionlib.training.recipe import Recipe

OWN_FILE = "own_rows.csv"  # the rows of `own_rows.score`
OF_TRAIN = ("tables/own_", "weights/seed_")  # begin the names of what `train` alone makes
SWEEPS = "sweeps"  # weights behind the rows of Tables 4 and 5, which their rows speak for
DETECTOR = "_detector"  # ends the names of detectors, as in `training.detector_path`
# Tables of which `reporting.write_table` keeps what a notebook computes; all others hold measurements, with keys.
TESTS, WITHOUT_KEYS = "_tests", ("raw_traits", "verdicts")
_PAIRS, _SCORES = ["dataset", "level", "pair"], [*comparison.METRICS, "EPE_share"]
# The columns without which no page can be made of a table: of names, in which no row has a gap, and of numbers.
NEEDED: dict[str, tuple[list[str], list[str]]] = {
    **dict.fromkeys((*COMPARED.values(), BRATS), ([*_PAIRS, "method", "weights"], _SCORES)),
    **dict.fromkeys((*SWEPT.values(), *SWEPT_AT_LIGHT.values()), ([*_PAIRS, "row"], ["epochs", "seed", *_SCORES])),
    TEST_PAIRS: ([*_PAIRS, "method", "metric"], ["value"]),
    OWN_FILE: ([*_PAIRS, "method"], ["seed", *own_rows.COLUMNS]),
    BENCH: (["set", "split", "size", "level", "method", "pair"], ["EPE", "EPE_identity", "folds"]),
    DETECTION: (["dataset", "class", "method"], ["boxes", "mAP50", "mAP50:90", "mAP50:95"]),
    COUNTS: (["method"], ["side", *COST.values()]),
    TIMES: (["method", "cpu"], ["side", "threads", "median", "low", "high", "runs"]),
}


@dataclass(frozen=True)
class Checked:
    """One set of weights or one table.

    Attributes:
        name: as below the preset's folder.
        parts: how many it is made of; weights are one.
        outdated: how many of them do not fit.
        changed: what they differ in: components, data sets, settings, weights.
        minutes: that making these again takes on two cores; None if nobody has measured it.
        damage: what is wrong with its file, and what to do; empty if it can be read.
    """

    name: str
    parts: int
    outdated: int = 0
    changed: tuple[str, ...] = ()
    minutes: float | None = None
    damage: str = ""

    def __str__(self) -> str:
        if self.damage:
            return f"{self.name}: damaged, {self.damage}"
        count = f"{self.parts} part{'s' if self.parts > 1 else ''}"
        if not self.outdated:
            return f"{self.name}: {count}, fits"
        time = "" if self.minutes is None else f", about {max(1, round(self.minutes))} min to make again"
        return f"{self.name}: {self.outdated} of {count} outdated by {', '.join(self.changed)}{time}"


def check(results: Path | str, preset: str) -> list[Checked]:
    """Every set of weights, then every table that is to have keys, of a preset; a damaged one says so."""
    folder, config = Path(results) / preset, presets.load(preset)
    weight_keys, marks, tables, damaged = {}, {}, {}, []
    for path in filter(_is_kept, sorted((folder / "weights").rglob("*.safetensors"))):
        try:
            weight_keys[path], marks[path] = key_of(path), mark_of(path)
        except InputError as error:
            name = path.relative_to(folder / "weights").with_suffix("").as_posix()
            damaged.append(_damaged(f"weights/{name}", path, error))
    for path in measurements(folder):
        try:
            tables[path] = read_whole(path, [result_tables.MADE_BY])
        except InputError as error:
            damaged.append(_damaged(f"tables/{path.name}", path, error))
    keys = [*weight_keys.values()]
    keys += [Key.parse(str(text)) for table in tables.values() for text in table["made_by"].unique()]
    component_names = dict.fromkeys(name for key in keys for name in key.parts if name in components.names())
    today = record.versions(component_names)  # all at once: what has to be probed is probed side by side
    wanted = recipes_of(config)
    checked = [_weights(path, folder / "weights", wanted, today) for path in weight_keys]
    names = {path: path.relative_to(folder / "weights").with_suffix("").as_posix() for path in weight_keys}
    known_weights = {marks[path]: name for path, name in names.items()}
    # `train` scores the shipped weights beside its own, if these are others.
    shipped = SHIPPED.weights / f"{own_rows.OURS}.safetensors"
    known_to_own = known_weights | ({mark_of(shipped): own_rows.OURS} if shipped.exists() else {})
    for path, table in tables.items():
        known = known_to_own if path.name == OWN_FILE else known_weights
        checked.append(_table(path, table, today, known, config))
    return checked + damaged


def command(results: Path | str, preset: str) -> int:
    """Print a line for each; exit status 0 if all fit, else 1."""
    lines = check(results, preset)
    if not lines:
        raise InputError(f"There are no results of {preset} in {results}: run `reproduce --preset {preset}` first.")
    for line in lines:
        print(line, flush=True)
    outdated, damaged = ([line for line in lines if getattr(line, what)] for what in ("outdated", "damage"))
    parts = sum(line.parts for line in lines)
    if damaged:
        print(f"{len(damaged)} of {len(lines)} damaged: do first what their lines say.")
    if outdated:
        print(f"{len(outdated)} of {len(lines)} do not fit: {_how_to_make(outdated, Path(results), preset)}.")
    if not outdated and not damaged:
        print(f"All {len(lines)} fit, {parts} parts.")
    return int(bool(outdated or damaged))


def _how_to_make(outdated: Iterable[Checked], results: Path, preset: str) -> str:
    """What makes these again, in words; our own rows and the weights of their seeds are made by `train` alone."""
    by_train = {line.name.startswith(OF_TRAIN) for line in outdated}
    place = "" if results.resolve() == (ROOT / "results").resolve() else f" --results {shlex.quote(str(results))}"
    commands = [f"`reproduce --train --preset {preset}{place}`"] if False in by_train else []
    if True in by_train:
        seeds = 1 + len(list((results / preset / "weights").glob("seed_*")))
        commands.append(f"`train --preset {preset}{f' --seeds {seeds}' if seeds > 1 else ''}{place}`")
    return f"{' and '.join(commands)} make{'s' if len(commands) == 1 else ''} them again"


def measurements(folder: Path) -> list[Path]:
    """The tables of a preset, whose results are in `folder`, that are to have keys, by name."""
    paths = sorted((folder / "tables").glob("*.csv"))
    return [path for path in paths if path.stem not in WITHOUT_KEYS and not path.stem.endswith(TESTS)]


def read_whole(path: Path, names: Iterable[str] = ()) -> pd.DataFrame:
    """A table of measurements with all columns that the pages need of it.

    Args:
        path: of the table.
        names: further columns in which every row has something.

    Raises:
        InputError: it is damaged; the message names file and damage.
    """
    table = result_tables.read(path)
    needed, numbers = NEEDED.get(path.name, ([], []))
    # Rows whose pair or set is lost would make no part; a set drawn for all pairs together has a name, too.
    present = [column for column in ("pair", "dataset", "set") if column in table]
    result_tables.check_columns(table, path, dict.fromkeys([*needed, *present, *names]), numbers)
    return table


def _damaged(name: str, path: Path, error: InputError) -> Checked:
    return Checked(name, 1, damage=f"{path.name} {str(error).removeprefix(f'{path} ').removesuffix('.')}")


def _is_kept(path: Path) -> bool:
    return SWEEPS not in path.parts and not path.name.startswith(".")


def recipes_of(preset: Preset) -> dict[str, Recipe | Retraining]:
    """What today's preset would train, by the name of the weights; systems are added where they are retrained."""
    on_brains = presets.mri(preset).recipe
    first = on_brains.start if preset.mri.finish is not None else on_brains
    recipes: dict[str, Recipe | Retraining | None] = {
        "ours": preset.recipe,
        "registration": preset.recipe.start,
        "as_in_the_paper": presets.as_in_the_paper(preset).recipe,
        "without_detection": replace(preset.recipe, detector=None),
        "robust/ours": (robust := presets.robust(preset)),
        "robust/registration": robust.start,
        "same_budget/ours": (brief := retraining.same_budget(preset.recipe)),
        "same_budget/registration": brief.start,
        "mri/ours": on_brains,
        "mri/registration": first,
        "mri/from_nothing": replace(first, start=None),
    }
    for name in systems.names():
        if "" not in systems.system(name).published or preset.always_train:
            recipes[name] = retraining.recipe(name, preset.recipe, preset.always_train)
            recipes[f"mri/{name}"] = retraining.recipe(name, presets.mri(preset).recipe, preset.always_train)
    return {name: recipe for name, recipe in recipes.items() if recipe is not None}


def _weights(path: Path, folder: Path, wanted: Mapping[str, Recipe | Retraining], today: Mapping[str, str]) -> Checked:
    name = path.relative_to(folder).with_suffix("").as_posix()
    key, recipe = key_of(path), wanted.get(name.removesuffix(DETECTOR))
    changed = _components(key, today) if recipe is None else key.differing(recipe.key())
    log = path.with_name(f"{path.stem.removesuffix(DETECTOR)}.csv")
    try:
        minutes = minutes_of(log) if log.exists() else None
    except InputError as error:
        return _damaged(f"weights/{name}", log, error)
    return Checked(f"weights/{name}", 1, int(bool(changed)), tuple(changed), minutes)


def _table(
    path: Path, table: pd.DataFrame, today: Mapping[str, str], known_weights: Mapping[str, str], preset: Preset
) -> Checked:
    columns = list(table)
    key_columns = columns[: columns.index("pair")] if "pair" in columns else columns[: min(2, len(columns) - 1)]
    parts = table.groupby(key_columns, sort=False, dropna=False)
    outdated, changed, seconds = 0, {}, 0.0
    for _, rows in parts:
        differing = [
            name for text in rows["made_by"].unique() for name in _differing(str(text), rows, today, known_weights)
        ]
        if differing:
            outdated += 1
            changed |= dict.fromkeys(differing)
            seconds += rows["seconds"].sum() if "seconds" in rows else 0.0
    minutes = outdated * training if (training := _minutes_of_a_part(path.stem, preset)) else seconds / 60 or None
    return Checked(f"tables/{path.name}", len(parts), outdated, tuple(changed), minutes)


def _differing(
    text: str, rows: pd.DataFrame, today: Mapping[str, str], known_weights: Mapping[str, str]
) -> Iterator[str]:
    key = Key.parse(text)
    if not key.parts:
        yield "an unknown key"
    yield from _components(key, today)
    weights = key.parts.get("ours:weights")
    if weights is not None and weights not in known_weights:
        yield "ours:weights"
    for name in registry.WITH_REFINEMENT:
        steps = registry.key_of_refinement(name).parts.get("steps")
        uses = steps is not None and known_weights.get(weights) == registry.weights_name(name)
        if uses and key.parts.get("steps") != steps:
            yield f"settings of {name}"
    if "pair" in rows and ("dataset" in rows or "set" in rows):
        for name, members in rows.groupby("dataset" if "dataset" in rows else "set", sort=False)["pair"]:
            checksum = data.checksum(str(name), members.unique())
            if key.parts.get(f"{name}:tested", key.parts.get(str(name), checksum)) != checksum:
                yield str(name)


def _components(key: Key, today: Mapping[str, str]) -> list[str]:
    return [name for name, version in key.parts.items() if name in today and today[name] != version]


def _minutes_of_a_part(table: str, preset: Preset) -> float | None:
    """Of a table whose parts cost a training each; None for the others."""
    recipe, pairs = preset.recipe, max(1, len(data.splits(preset.recipe.dataset).get("train", [])))
    if f"{table}.csv" in (*SWEPT.values(), WITH_AND_WITHOUT):  # those at light score the same trainings
        return minutes_for(preset.sweep_epochs * pairs * (preset.sweep_crop or recipe.size) ** 2)
    if table == "switches":
        return sweep_rows.short_recipe(sweep_rows.SWITCHES[0], preset).minutes()
    if table == "augmentations":
        return sweep_rows.further_recipe(sweep_rows.AUGMENTATIONS[0], preset, 0).minutes()
    return detection_bench.minutes(preset.detection) if table == "detection" else None


def accept(names: Iterable[str], reason: str | None) -> int:
    """Record the current behaviour of some components, or of all; print for each what has changed."""
    for name, meaning in record.accept(list(names) or components.names(), reason).items():
        print(f"{name}: {meaning}", flush=True)
    return 0
