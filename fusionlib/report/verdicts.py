"""Every value of the paper's tables beside ours, with a verdict and the reason for it.

The verdict follows one rule, whatever the table:

    agrees          the paper's value lies in our interval; a count has none, and must be equal as far as it is printed
    same ranking    it does not, but the row has the same rank among the measured rows of its table, in this metric
    differs         neither
    not measured    there is no number of ours

An interval says what another choice of scenes would change. It does not cover what the paper leaves open, so `differs`
says that two numbers differ, not that one of them is wrong; and a row of five has its rank by chance every fifth time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from fusionlib.metrics.directions import sign
from fusionlib.notebook.reporting import markdown
from fusionlib.report import our_numbers
from fusionlib.report.our_numbers import Number
from fusionlib.support.paths import FACTS

AGREES, RANKED, DIFFERS, ABSENT = VERDICTS = ("agrees", "same ranking", "differs", "not measured")
COLUMNS = ["table", "dataset", "row", "metric", "paper", "ours", "low", "high", "difference", "verdict", "why"]


@cache
def _printed() -> pd.DataFrame:
    """All values of the paper's tables, in its order; `half` is half a unit of the last digit printed in a column."""
    printed = pd.read_csv(FACTS / "paper_tables.csv", dtype={"value": str}).rename(columns={"value": "printed"})
    digits = printed["printed"].str.partition(".")[2].str.len()
    printed["half"] = 0.5 * 10.0 ** -digits.groupby([printed["table"], printed["metric"]]).transform("max")
    return printed.assign(paper=printed["printed"].astype(float))


def compare(folder: Path | str, tables: Iterable[int] = tuple(our_numbers.FILES)) -> pd.DataFrame:
    """Every value of some of the paper's tables beside that of a preset, whose results are in `folder`.

    Returns:
        One row a value, in the paper's order, and the columns of `COLUMNS`; `low` and `high` are the ends of the
        interval of `ours`, `difference` is ours - paper.
    """
    folder, paper = Path(folder), _printed()
    paper = paper[paper["table"].isin(tables)]
    by_key = {(table, *key): number for table in tables for key, number in our_numbers.numbers(folder, table).items()}
    numbers = [by_key.get(key) for key in zip(paper["table"], paper["row"], paper["metric"], strict=True)]
    ends = [(number.value, number.low, number.high) if number else (np.nan,) * 3 for number in numbers]
    lines = paper.assign(**dict(zip(("ours", "low", "high"), np.transpose(ends), strict=True)))
    lines["difference"] = lines["ours"] - lines["paper"]
    lines = lines.assign(**_ranks(lines))
    lines["verdict"] = [_verdict(line, number) for line, number in zip(lines.to_dict("records"), numbers, strict=True)]
    lines["why"] = [_why(line, number, folder) for line, number in zip(lines.to_dict("records"), numbers, strict=True)]
    return lines[COLUMNS]


def table(compared: pd.DataFrame, number: int) -> pd.DataFrame:
    """The values of one table of the paper as text to be shown.

    Args:
        compared: of `compare`, all of it.
        number: of the paper's table.

    Returns:
        Columns row, metric, paper (as printed), ours, interval, difference (ours - paper), verdict and why.
    """
    rows = compared[compared["table"] == number]
    shown = rows.reset_index(drop=True)
    shown["paper"] = _printed()["printed"].loc[rows.index].to_numpy()
    for column in ("ours", "low", "high", "difference"):
        shown[column] = [digits(value, signed=column == "difference") for value in shown[column]]
    shown["interval"] = [low if low == high else f"{low} to {high}" for low, high in shown[["low", "high"]].to_numpy()]
    return shown[["row", "metric", "paper", "ours", "interval", "difference", "verdict", "why"]]


def summary(compared: pd.DataFrame) -> pd.DataFrame:
    """How many values of each table have which verdict: rows by table, then all; columns `VERDICTS` and `values`."""
    counts = pd.crosstab(compared["table"], compared["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
    counts = counts.set_axis([f"Table {number}" for number in counts.index])
    counts.loc["all"] = counts.sum()
    return counts.assign(values=counts.sum(axis=1)).rename_axis(index=None, columns=None)


def by_chance(compared: pd.DataFrame, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How many values would agree or keep their rank if the paper's rows were shuffled within each column?

    A permutation test of the whole comparison: the printed values of one table and metric change places at random among
    the measured rows, and the rule of this module is applied again.

    Returns:
        Rows by table, then all: `found` (how many values agree or keep their rank), `by chance` (their mean over the
        draws) and `p` (the share of draws with at least as many).
    """
    rng = np.random.default_rng(seed)
    measured = compared.dropna(subset="ours").assign(half=_printed()["half"])
    sums = {f"Table {number}": np.zeros(draws, dtype=int) for number in compared["table"].unique()}
    for (number, metric), rows in measured.groupby(["table", "metric"], sort=False):
        printed = rng.permuted(np.tile(rows["paper"].to_numpy(), (draws, 1)), axis=1)
        low, high, ours = (rows[name].to_numpy() for name in ("low", "high", "ours"))
        half = rows["half"].to_numpy()
        agrees = (low - half <= printed) & (printed <= high + half)
        ranked = (_places(-sign(metric) * printed) == _places(-sign(metric) * ours)) & (len(rows) > 1)
        sums[f"Table {number}"] += (agrees | ranked).sum(axis=1)
    sums["all"] = np.sum(list(sums.values()), axis=0)
    observed = summary(compared)[[AGREES, RANKED]].sum(axis=1)
    p_values = {name: (1 + (drawn >= observed[name]).sum()) / (1 + draws) for name, drawn in sums.items()}
    lines = {name: (observed[name], drawn.mean(), p_values[name]) for name, drawn in sums.items()}
    return pd.DataFrame.from_dict(lines, orient="index", columns=["found", "by chance", "p"])


def order(compared: pd.DataFrame) -> pd.DataFrame:
    """Do the rows of a table come in the paper's order?

    Returns:
        Rows (table, metric), of those with three measured rows or more: how many, Spearman's correlation of the two
        orders, and `by chance`: the share of all orders of so many rows that correlate as much or more.
    """
    lines = {}
    for (table, metric), rows in compared.dropna(subset="ours").groupby(["table", "metric"], sort=False):
        if len(rows) >= 3:
            our_ranks, paper_ranks = rows["ours"].rank().to_numpy(), rows["paper"].rank().to_numpy()
            lines[f"Table {table}", metric] = {"rows": len(rows), **_spearman(our_ranks, paper_ranks)}
    orders = pd.DataFrame.from_dict(lines, orient="index", columns=["rows", "rank correlation", "by chance"])
    return orders.rename_axis(["table", "metric"]) if lines else orders


def _spearman(ours: np.ndarray, paper: np.ndarray) -> dict[str, float]:
    if not (np.ptp(ours) and np.ptp(paper)):
        return {"rank correlation": np.nan, "by chance": np.nan}  # all rows are equal
    ours, paper = ours - ours.mean(), paper - paper.mean()
    scale = np.sqrt((ours**2).sum() * (paper**2).sum())
    value = float(ours @ paper / scale)
    of_all = ours[_orders(len(ours))] @ paper / scale
    return {"rank correlation": value, "by chance": float((of_all >= value - 1e-9).mean())}


@cache
def _orders(count: int) -> np.ndarray:
    return np.array(list(permutations(range(count))), dtype=np.int8)


def _places(values: np.ndarray) -> np.ndarray:
    """Rank of each value along the last axis, from 1; equal values share the first of their places."""
    return 1 + (values[..., :, None] > values[..., None, :]).sum(axis=-1)


def _ranks(lines: pd.DataFrame) -> dict[str, pd.Series]:
    """Place of each measured row among those of its table and metric, here and in print; 1 is the best."""
    measured = lines["ours"].notna()
    gains = lines["metric"].map(sign)
    groups = [lines["table"], lines["metric"]]
    ranks = {
        name: (lines[column] * gains).where(measured).groupby(groups).rank(method="min", ascending=False)
        for name, column in (("rank_here", "ours"), ("rank_paper", "paper"))
    }
    return ranks | {"competing": measured.groupby(groups).transform("sum")}


def _verdict(line: dict, number: Number | None) -> str:
    if number is None or np.isnan(line["ours"]):
        return ABSENT
    if line["low"] - line["half"] <= line["paper"] <= line["high"] + line["half"]:
        return AGREES
    return RANKED if line["competing"] > 1 and line["rank_here"] == line["rank_paper"] else DIFFERS


def _why(line: dict, number: Number | None, folder: Path) -> str:
    """The reasons, the weightiest first, as one line."""
    if number is not None and line["verdict"] == ABSENT:
        return "; ".join(
            ["measured, but without a value: an image without any contrast correlates with nothing", *number.facts]
        )
    if number is None:
        return our_numbers.absent(folder, line["table"], line["metric"])
    if line["verdict"] == AGREES:
        reason = f"within the interval over {number.over}" if number.over else "equal as far as it is printed"
        return "; ".join([reason, *number.facts])
    reasons = []
    if number.cap is not None and line["paper"] > number.cap:
        reasons.append(f"no image fused of these pairs can reach more than {number.cap:.3f} on average")
    for name, (low, high) in number.readings.items():
        if low <= line["paper"] <= high:
            reasons.append(f"{name} it would agree")
    our_rank, paper_rank, rows = (int(line[name]) for name in ("rank_here", "rank_paper", "competing"))
    if rows == 1:
        reasons.append("no other row of the table was measured")
    else:
        reasons.append(
            f"rank {our_rank} of {rows} " + ("in both" if our_rank == paper_rank else f"here, {paper_rank} in print")
        )
    return "; ".join([*reasons, *number.facts])


# --- as Markdown


def summary_text(compared: pd.DataFrame) -> str:
    """The counts of `summary`, what chance alone gives (`by_chance`), and by which rule, as Markdown."""
    rule = (
        f"`{AGREES}`: the paper's value lies in our 95 % interval (Table 7: between our lowest and our "
        f"highest head); `{RANKED}`: it does not, but the row has the same rank among the measured rows of its table "
        f"in this metric; `{DIFFERS}`: neither. An interval says what other choices of scenes would change, not what "
        "the paper leaves open. `by chance` is how many values would get one "
        "of the first two verdicts if the rows of the paper were shuffled within each column, and `p` how often there "
        "would be at least as many as there are."
    )
    counts, chance = summary(compared), by_chance(compared)
    counts["by chance"] = chance["by chance"].map("{:.1f}".format)
    counts["p"] = chance["p"].map("{:.2f}".format)
    return "\n\n".join([rule, markdown(counts.rename_axis("").reset_index().rename(columns={"": "table"}))])


def fold(title: str, *parts: str) -> str:
    """Markdown under a line that opens it."""
    return "\n\n".join([f"<details><summary>{title}</summary>", *parts, "</details>"])


def folded(compared: pd.DataFrame) -> str:
    """All values as Markdown, one table of the paper a fold."""
    parts = []
    for number, rows in compared.groupby("table", sort=False):
        counts = summary(rows).loc["all"]
        counts_text = ", ".join(f"{count} {verdict}" for verdict, count in counts[list(VERDICTS)].items() if count)
        parts.append(fold(f"Table {number}: {len(rows)} values, {counts_text}", markdown(table(compared, number))))
    return "\n\n".join(parts)


def digits(value: float, signed: bool = False) -> str:
    """A number for a table in which sizes differ: four digits, or all of those before the point."""
    if np.isnan(value):
        return "–"
    return format(value, ("+" if signed else "") + (".0f" if abs(value) >= 1000 else "#.4g"))
