"""The paper's statements about its tables, tested on what was measured here: effect, interval, verdict.

One rule for all. A statement says that Ours, or one setting, is better than some rows in some numbers:

    supported       significantly better than each of these rows, in each of these numbers
    contradicted    significantly worse than one of them in one number
    by our choice   supported, but by a number that this companion has chosen itself, where the paper gives none
    undecided       none of these; also where a row of the statement could not be measured

Significant is p < 5 % after Holm's correction for all comparisons of the statement. The replicate is what the statement
is about: the scene where methods are compared (`data.scenes`), the training where settings or detectors are, the head
in Table 7. There is one training of Ours in Tables 1 and 2; how much another one would differ, Table 4's trainings of
the full method say, and that spread is added to the one of scenes. Counts are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fusionlib.data.paper_tables import paper_table
from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import comparison, mri_study, sweep_rows, sweep_tables
from fusionlib.experiments.comparison import IMAGE_METRICS
from fusionlib.metrics.directions import sign
from fusionlib.metrics.statistics import holm, interval, paired_t, sign_flips, with_more_spread
from fusionlib.notebook.answers import LEVEL, signed
from fusionlib.notebook.sentences import listed
from fusionlib.report.claims import OPTIMUM
from fusionlib.report.our_numbers import COMPARED, COUNTS, DETECTION, SWEPT, SWEPT_AT_LIGHT, TIMES
from fusionlib.support import result_tables

SUPPORTED, CONTRADICTED, CHOSEN, OPEN = VERDICTS = ("supported", "contradicted", "by our choice", "undecided")
OURS, REMOVED = "ours", "ours, without l_ob"
BUDGETS = "equal budgets for all systems, or their published weights; several trainings of each"
SEEDS = "trainings in full: here a row goes on for a few epochs from a start that all share"
NOT_MEASURED = (math.nan, math.nan, math.nan, 1.0)  # gain, low, high, p


@dataclass(frozen=True)
class Compared:
    """One comparison of a statement.

    Attributes:
        row, metric: with what Ours is compared, and in which number.
        gain: by how much Ours is better; below 0, worse.
        low, high: its 95 % interval.
        p: of "no difference", not corrected. A row that was not measured has p = 1, and NaN elsewhere.
    """

    row: str
    metric: str
    gain: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{self.metric} {signed(self.gain)} ({signed(self.low)} to {signed(self.high)}) against {self.row}"


@dataclass(frozen=True)
class Statement:
    """A statement of the paper: its section, what it says, and what gives (what was compared, on what, at which level).
    `change` says what would settle or change the verdict; `chosen`, that the number is one of our choice.
    """

    section: str
    says: str
    files: tuple[str, ...]
    compare: Callable[[Path, str], tuple[list[Compared], str]]
    change: str
    levels: bool = False
    chosen: bool = False


def tested(folder: Path | str) -> pd.DataFrame:
    """Every statement whose tables a preset has, whose results are in `folder`.

    Returns:
        Columns section, the paper says, tested on, effect (in each number the comparison that is worst for Ours, with
        its interval; a positive number is in favour of Ours), verdict, at light (the verdict at the level `light`,
        where that was measured), and what would change it.
    """
    folder, lines = Path(folder), []
    for statement in STATEMENTS:
        if all((folder / "tables" / name).exists() for name in statement.files):
            comparisons, basis = statement.compare(folder, "medium")
            if not comparisons:
                continue
            at_light = statement.compare(folder, "light")[0] if statement.levels else []
            light = verdict(at_light) if at_light else "-"
            effect = "; ".join(str(each) for each in _worst(comparisons))
            decision = verdict(comparisons)
            decision = CHOSEN if statement.chosen and decision == SUPPORTED else decision
            lines.append((statement.section, statement.says, basis, effect, decision, light, statement.change))
    columns = ["section", "the paper says", "tested on", "effect", "verdict", "at light", "what would change it"]
    return pd.DataFrame(lines, columns=columns)


def verdict(comparisons: list[Compared]) -> str:
    """One of `VERDICTS`, by the rule above."""
    p_values = holm({str(place): each.p for place, each in enumerate(comparisons)})
    signs = [(1 if each.gain > 0 else -1) * (p_values[str(place)] < LEVEL) for place, each in enumerate(comparisons)]
    return CONTRADICTED if min(signs, default=0) < 0 else SUPPORTED if min(signs, default=0) > 0 else OPEN


def counted(lines: pd.DataFrame) -> dict[str, int]:
    """How many statements have which verdict."""
    return {name: int((lines["verdict"] == name).sum()) for name in VERDICTS}


def sentence(folder: Path) -> str:
    """The verdicts in half a sentence, as the findings have it."""
    lines, parts = tested(folder), []
    for name, count in counted(lines).items():
        names = f" ({listed(lines.loc[lines['verdict'] == name, 'the paper says'])})" if name != OPEN and count else ""
        total = "" if parts else f" of the {len(lines)} about its tables"
        is_, holds = ("is", "holds") if count == 1 else ("are", "hold")
        word = f"{holds} by our choice alone" if name == CHOSEN else f"{is_} {name}"
        if count or name != CHOSEN:
            parts.append(f"{count}{total} {word}{names}")
    at_light = lines.loc[lines["at light"] == CONTRADICTED, "the paper says"]
    return f"by what was measured at `medium`, {listed(parts)}; at `light`, contradicted: {listed(at_light) or 'none'}"


def _worst(comparisons: list[Compared]) -> Iterator[Compared]:
    """In each number the comparison with the smallest gain."""
    comparisons = [each for each in comparisons if each.gain == each.gain]  # not those that were not measured
    for metric in dict.fromkeys(each.metric for each in comparisons):
        yield min((each for each in comparisons if each.metric == metric), key=lambda each: each.gain)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


# --- one function a kind of evidence


def _over_scenes(number: int) -> Callable[[Path, str], tuple[list[Compared], str]]:
    def compare(folder: Path, level: str) -> tuple[list[Compared], str]:
        measured = comparison.read(number, folder / "tables" / COMPARED[number])
        at_level = measured.table[measured.table["level"] == level]
        rows = {row.method: row.printed for row in measured.rows if row.printed and row.method != OURS}
        present = [name for name in rows if name in set(at_level["method"])]
        comparisons, scenes, others = [], scenes_of(at_level["pair"].unique()), _other_trainings(folder, level)
        for metric in IMAGE_METRICS:
            wide = at_level.pivot(index="pair", columns="method", values=metric)
            for method, printed in rows.items() if OURS in wide and present else ():
                over_scenes = NOT_MEASURED
                if method in wide:
                    gain = sign(metric) * (wide[OURS] - wide[method]).dropna()
                    group = scenes_of(gain.index)
                    over_scenes = (gain.mean(), *interval(gain, group), sign_flips(gain, group))
                comparisons.append(Compared(printed, metric, *with_more_spread(*over_scenes, others.get(metric, 0.0))))
        basis = f"{_many(len(present), 'row')}, {_many(len(scenes), 'pair')} of {_many(len(set(scenes)), 'scene')}"
        return comparisons, basis + ", one training of Ours" + (" and the spread of others" if others else "")

    return compare


def _other_trainings(folder: Path, level: str) -> dict[str, float]:
    tables = [result_tables.read(folder / "tables" / files[4]) for files in (SWEPT, SWEPT_AT_LIGHT)]
    return sweep_tables.between_seeds(pd.concat(tables), sweep_rows.OURS, level)


def _over_heads(folder: Path, level: str) -> tuple[list[Compared], str]:
    measured = comparison.read(7, folder / "tables" / COMPARED[7])
    at_level = measured.table[measured.table["level"] == level]
    at_level = at_level.assign(head=at_level["pair"].map(mri_study.subject))
    means = at_level.groupby(["head", "method"])[IMAGE_METRICS].mean()
    comparisons, present = [], set(means.index.unique("method"))
    for row in measured.rows:
        if row.printed and row.method != OURS and {OURS, row.method} <= present:
            for metric in IMAGE_METRICS:
                wide = means[metric].unstack()
                comparisons.append(_of_replicates(row.printed, metric, wide[OURS] - wide[row.method]))
    rows, heads = {each.row for each in comparisons}, at_level["head"].nunique()
    return comparisons, f"{_many(len(rows), 'row')}, {_many(heads, 'head')}"


def _over_trainings(number: int, reference: str, *names: str) -> Callable[[Path, str], tuple[list[Compared], str]]:
    """Rows of Table 4 or 5 against the reference; all others, if none is named."""

    def compare(folder: Path, level: str) -> tuple[list[Compared], str]:
        files = [tables[number] for tables in (SWEPT, SWEPT_AT_LIGHT) if number in tables]
        table = pd.concat([result_tables.read(folder / "tables" / file) for file in files])
        table = table[(table["epochs"] == table["epochs"].mode()[0]) & (table["level"] == level)]
        printed = paper_table(number).index.get_level_values("row")
        rows = [
            row for row in table["row"].unique() if row in printed and row != reference and row in (names or printed)
        ]
        means, comparisons = table.groupby(["seed", "row"])[IMAGE_METRICS].mean(), []
        for row in rows if reference in means.index.unique("row") else ():
            for metric in IMAGE_METRICS:
                wide = means[metric].unstack()
                comparisons.append(_of_replicates(row, metric, (wide[reference] - wide[row]).dropna()))
        seeds, pairs = table["seed"].nunique(), table["pair"].nunique()
        return comparisons, f"{_many(len(rows), 'row')}, {_many(seeds, 'seed')}, {_many(pairs, 'pair')}"

    return compare


def _of_replicates(row: str, metric: str, difference: pd.Series) -> Compared:
    """Of Ours - row, one value a seed or head."""
    return Compared(row, metric, sign(metric) * difference.mean(), *paired_t(sign(metric) * difference))


def _detected(*methods: str) -> Callable[[Path, str], tuple[list[Compared], str]]:
    """The detectors on images of Ours against those on the images of some methods, or of the paper's own rows."""

    def compare(folder: Path, level: str) -> tuple[list[Compared], str]:
        table = result_tables.read(folder / "tables" / DETECTION)
        overall = table[(table["class"] == "all") & ~table["method"].str.endswith("head")]
        rows = [
            row.method for number in (1, 2) for row in comparison.rows_of(number) if row.printed and row.method != OURS
        ]
        comparisons = []
        for dataset, set_rows in overall.groupby("dataset", sort=False):
            wide = 100 * set_rows.pivot(index="seed", columns="method", values="mAP50:90")
            for name in methods or rows:
                gain, low, high, p = NOT_MEASURED
                if name in wide and OURS in wide:
                    low, high, p = paired_t((wide[OURS] - wide[name]).dropna())
                    gain = (wide[OURS] - wide[name]).mean()
                comparisons.append(Compared(name, f"mAP50:90 on {dataset}", gain, low, high, p))
        is_asked = overall["method"].isin(methods or rows)
        measured = overall.loc[is_asked, "method"].nunique()
        rows_text = _many(measured, "row") if methods else f"{measured} of the paper's {len(rows)} rows"
        seeds = _many(overall["seed"].nunique(), "seed")
        return comparisons if is_asked.any() else [], f"{rows_text}, {seeds} of the detectors, in points"

    return compare


def _operations(folder: Path, level: str) -> tuple[list[Compared], str]:
    table = result_tables.read(folder / "tables" / COUNTS).set_index("method")["thop"]
    others = table.index.drop(OURS) if OURS in table else []  # a table that is being made may lack it
    return [_certain(name, "G operations", table[name] - table[OURS]) for name in others], "a count"


def _seconds(folder: Path, level: str) -> tuple[list[Compared], str]:
    """By how much Ours is faster. PAPER-GAP: "a bit longer" is read as a tenth at most, quartile by quartile."""
    times = result_tables.read(folder / "tables" / TIMES)
    times = times[(times["side"] == times["side"].max()) & (times["threads"] == times["threads"].max())]
    times = times.set_index("method")
    ours, comparisons = times.loc[OURS] if OURS in times.index else None, []
    for name, other in times.drop(index=OURS).iterrows() if ours is not None else ():
        low, high = other["low"] - ours["high"], other["high"] - ours["low"]
        longer = ours["low"] > 1.1 * other["high"]
        is_certain = longer or ours["high"] <= 1.1 * other["low"]
        gain = other["median"] - ours["median"]
        comparisons.append(Compared(name, "s", gain, low, high, 0.0 if is_certain and (gain > 0) != longer else 1.0))
    side, threads = int(times["side"].iloc[0]), int(times["threads"].iloc[0])
    return comparisons, f"{side} px, {threads} threads, quartiles of the calls; hardly slower: by at most 10 %"


def _certain(row: str, metric: str, gain: float) -> Compared:
    return Compared(row, metric, gain, gain, gain, 0.0 if gain else 1.0)


STATEMENTS = (
    Statement("4.2.1", "Table 1: best in all four metrics", (COMPARED[1],), _over_scenes(1), BUDGETS, levels=True),
    Statement("4.2.2", "Table 2: best in all four metrics", (COMPARED[2],), _over_scenes(2), BUDGETS, levels=True),
    Statement(
        "4.2.3", "Table 3: the highest accuracy of detection", (DETECTION,), _detected(),
        "the other rows of Table 3; more labelled pairs: the full M3FD, which cannot be fetched by a program",
    ),
    Statement(
        "3.4", "The detection loss makes the fusion target-aware", (DETECTION,), _detected(REMOVED),
        "several trainings of the network with and without it; there is one of each",
    ),
    Statement("4.3", "Table 4: the loss l_c helps", (SWEPT[4],), _over_trainings(4, "Ours", "w/o l_c"), SEEDS, True),
    Statement("4.3", "Table 4: the loss l_s helps", (SWEPT[4],), _over_trainings(4, "Ours", "w/o l_s"), SEEDS, True),
    Statement(
        "4.3", "Table 4: the concatenation helps", (SWEPT[4],),
        _over_trainings(4, "Ours", "w/o concat of F_i^r and F_v"), SEEDS, levels=True,
    ),
    Statement(
        "4.4", "Table 5: optimal at gamma 2 and lambdas 10, 5, 5", (SWEPT[5],), _over_trainings(5, OPTIMUM), SEEDS
    ),
    Statement(
        "4.5", "Table 6: the fewest operations", (COUNTS,), _operations,
        "registration at full size, as the plain reading has it; other widths: the paper names none", chosen=True,
    ),
    Statement(
        "4.5", "Table 6: hardly slower than the fastest", (TIMES,), _seconds,
        "a GPU, and the paper's widths: these are times on a CPU, of Ours in its fast form", chosen=True,
    ),
    Statement(
        "4.8", "Table 7: significant advantages in fusion", (COMPARED[7],), _over_heads,
        "more heads: BraTS itself, for those who have it", levels=True,
    ),
)  # fmt: skip
