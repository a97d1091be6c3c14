"""What was measured here about a statement of the paper: how much better Ours, or a setting, is than each other row.

The replicate is what the statement is about: the scene where methods are compared (`data.scenes`), the training where
settings are, the head in Table 7. Counts are exact. Where one replicate is not enough, a second spread is added:

- Tables 1 and 2 have one training of each system. That of Ours gets the spread of Table 4's trainings of the full
  method, widened as Student's t widens that of so few. It may be too small, for they share a start, or too large, for
  they are short. For the other systems there is none: if theirs is as large, the two together are 1.4 times what is
  added. Where a comparison is with weights that were retrained here, it says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fusionlib.data.paper_tables import paper_table, systems_in
from fusionlib.data.scenes import scenes_of
from fusionlib.data.volumes import subject_of
from fusionlib.experiments import comparison, sweep_rows, sweep_tables
from fusionlib.experiments.comparison import IMAGE_METRICS, METRICS
from fusionlib.metrics.directions import sign
from fusionlib.metrics.statistics import interval, paired_t, sign_flips, with_more_spread
from fusionlib.notebook.answers import signed
from fusionlib.notebook.sentences import listed
from fusionlib.report.our_numbers import COMPARED, COUNTS, SWEPT, SWEPT_AT_LIGHT, TIMES
from fusionlib.support import result_tables

OURS, PLAIN = "ours", "as_in_the_paper"
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


Evidence = Callable[[Path, str], tuple[list[Compared], str]]  # folder and level to comparisons, and on what they rest


def many(count: int, what: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def better_in_print(number: int, reference: str, row: str) -> list[str]:
    """The metrics in which the paper's own table has the reference before the row: no more is asked of ours."""
    printed = paper_table(number).droplevel("dataset")
    gain = printed.loc[reference] - printed.loc[row]
    return [metric for metric in IMAGE_METRICS if sign(metric) * gain[metric] > 0]


def over_scenes(number: int) -> Evidence:
    """The rows of Table 1 or 2 against Ours, in all four metrics, paired over scenes."""

    def compare(folder: Path, level: str) -> tuple[list[Compared], str]:
        measured = comparison.read(number, folder / "tables" / COMPARED[number])
        at_level = measured.table[measured.table["level"] == level]
        rows = printed_rows(number, measured.table)
        present = [name for name in rows if name in set(at_level["method"])]
        comparisons, scenes, others = [], scenes_of(at_level["pair"].unique()), _other_trainings(folder, level)
        for metric in IMAGE_METRICS:
            wide = at_level.pivot(index="pair", columns="method", values=metric)
            for method, printed in rows.items() if OURS in wide and present else ():
                numbers = NOT_MEASURED
                if method in wide:
                    gain = sign(metric) * (wide[OURS] - wide[method]).dropna()
                    group = scenes_of(gain.index)
                    numbers = (gain.mean(), *interval(gain, group), sign_flips(gain, group))
                comparisons.append(Compared(printed, metric, *with_more_spread(*numbers, others.get(metric, 0.0))))
        basis = f"{many(len(present), 'row')}, {many(len(scenes), 'pair')} of {many(len(set(scenes)), 'scene')}"
        spread = "; to that of Ours the spread of short ones is added" if others else ""
        return comparisons, f"{basis}, one training of each system{spread}"

    return compare


def printed_rows(number: int, table: pd.DataFrame) -> dict[str, str]:
    """The other rows of Table 1 or 2: method to its name in print, with its weights if some were retrained here."""
    weights = table.groupby("method")["weights"].first() if len(table) else {}
    rows = {row.method: row.printed for row in comparison.rows_of(number) if row.printed and row.method != OURS}
    for method in rows:
        origins = set(str(weights.get(method)).split(" + "))
        if "retrained" in origins:
            rows[method] += " (in part retrained here)" if len(origins) > 1 else " (retrained here)"
    return rows


def _other_trainings(folder: Path, level: str) -> dict[str, float]:
    from scipy.special import stdtrit

    table = pd.concat([result_tables.read(folder / "tables" / files[4]) for files in (SWEPT, SWEPT_AT_LIGHT)])
    deviations = sweep_tables.between_seeds(table, sweep_rows.OURS, level)
    wider = stdtrit(table["seed"].nunique() - 1, 0.975) / 1.96 if deviations else 1.0
    return {metric: wider * deviation for metric, deviation in deviations.items()}


def over_heads(folder: Path, level: str) -> tuple[list[Compared], str]:
    """The rows of Table 7 against Ours, head by head."""
    measured = comparison.read(7, folder / "tables" / COMPARED[7])
    at_level = measured.table[measured.table["level"] == level]
    at_level = at_level.assign(head=at_level["pair"].map(subject_of))
    means = at_level.groupby(["head", "method"])[IMAGE_METRICS].mean()
    comparisons, present = [], set(means.index.unique("method"))
    for row in measured.rows:
        if row.printed and row.method != OURS and {OURS, row.method} <= present:
            for metric in better_in_print(7, "Ours", row.printed):
                wide = means[metric].unstack()
                comparisons.append(_of_replicates(row.printed, metric, wide[OURS] - wide[row.method]))
    rows, heads = {each.row for each in comparisons}, at_level["head"].nunique()
    return comparisons, f"{many(len(rows), 'row')}, {many(heads, 'head')}"


def over_trainings(number: int, reference: str, *names: str, metrics: Sequence[str] = ()) -> Evidence:
    """Rows of Table 4 or 5 against the reference, seed by seed, on the set that the paper names.

    Args:
        number: of the table.
        reference: the row that is said to be better.
        names: the other rows; all of the printed table, if none is named.
        metrics: what is compared; by default the metrics in which the reference is better in print.
    """
    printed = paper_table(number)
    names = names or [row for row in printed.index.get_level_values("row") if row != reference]

    def compare(folder: Path, level: str) -> tuple[list[Compared], str]:
        table = pd.concat([result_tables.read(folder / "tables" / files[number]) for files in (SWEPT, SWEPT_AT_LIGHT)])
        table = table[(table["epochs"] == table["epochs"].mode()[0]) & (table["level"] == level)]
        of_set = table[table["dataset"] == printed.index.get_level_values("dataset")[0]]
        table = table if of_set.empty else of_set
        rows, comparisons = [name for name in names if name in set(table["row"])], []
        means = table.groupby(["seed", "row"])[METRICS].mean()
        for row in rows if reference in means.index.unique("row") else ():
            for metric in metrics or better_in_print(number, reference, row):
                wide = means[metric].unstack()
                comparisons.append(_of_replicates(row, metric, (wide[reference] - wide[row]).dropna()))
        seeds, pairs = table["seed"].nunique(), table["pair"].nunique()
        place = "" if of_set.empty else f" of {of_set['dataset'].iloc[0]}"
        return comparisons, f"{many(len(rows), 'row')}, {many(seeds, 'seed')}, {many(pairs, 'pair')}{place}"

    return compare


def _of_replicates(row: str, metric: str, difference: pd.Series) -> Compared:
    """Of Ours - row, one value per seed or head."""
    return Compared(row, metric, sign(metric) * difference.mean(), *paired_t(sign(metric) * difference))


def operations(folder: Path, level: str) -> tuple[list[Compared], str]:
    """By how many operations Ours needs fewer than the systems of Table 6: exact."""
    table = result_tables.read(folder / "tables" / COUNTS).set_index("method")["thop"]
    others, basis = table.drop([OURS, PLAIN], errors="ignore"), "a count"
    if PLAIN in table:
        fewer = listed(f"{name} ({value:.1f} G)" for name, value in others.items() if value < table[PLAIN])
        basis += f"; the plainest reading of the paper takes {table[PLAIN]:.1f} G, "
        basis += f"more than {fewer}" if fewer else "also the fewest"
    if OURS not in table:  # the table is being made
        return [], basis
    return [_certain(name, "G operations", value - table[OURS]) for name, value in others.items()], basis


def seconds(folder: Path, level: str) -> tuple[list[Compared], str]:
    """By how much Ours stays below 1.1 times the seconds of the others, quartile against quartile.

    PAPER-GAP: "a bit longer" is read as by a tenth at most.
    """
    names = [*systems_in(6), OURS]
    times = result_tables.read(folder / "tables" / TIMES)
    times = times[times["method"].isin(names) & (times["threads"] == times["threads"].max())]
    timed = times.groupby("side")["method"].nunique()
    side = timed.index[timed == timed.max()].max()  # the largest at which as many as possible were timed
    times = times[times["side"] == side].set_index("method")
    ours, comparisons = times.loc[OURS] if OURS in times.index else None, []
    for name in names[:-1] if ours is not None else ():
        numbers = NOT_MEASURED
        if name in times.index:
            other = times.loc[name]
            low, high = 1.1 * other["low"] - ours["high"], 1.1 * other["high"] - ours["low"]
            numbers = (1.1 * other["median"] - ours["median"], low, high, 0.0 if low > 0 or high < 0 else 1.0)
        comparisons.append(Compared(name, "seconds less than 1.1 times the other's", *numbers))
    basis = f"{side} px, {times['threads'].max()} threads, quartiles of the calls, Ours in its fast form"
    basis += f" ({ours['median']:.3f} s)" if ours is not None else ""
    return comparisons, basis


def _certain(row: str, metric: str, gain: float) -> Compared:
    return Compared(row, metric, gain, gain, gain, 0.0 if gain else 1.0)
