"""What the paper's text says about its tables, held against these tables: no number of ours is involved.

Each claim is checked on data/paper_tables.csv when it is asked for, so what stands in the table of `claims` is found,
not typed in. Verdicts: "holds", "in part", "contradicted", or "open" where the paper alone cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments import sweep_rows
from fusionlib.metrics.directions import sign

OURS = "Ours"
WITHOUT_COMMON = "w/o concat of F_i^r and F_v"
HOLDS, IN_PART, CONTRADICTED, OPEN = "holds", "in part", "contradicted", "open"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper: the section it stands in, what it says, and what gives (what was found, verdict)."""

    section: str
    says: str
    check: Callable[[], tuple[str, str]]


def claims() -> pd.DataFrame:
    """Every claim about a table: columns section, the paper says, its table shows, verdict."""
    lines = [(claim.section, claim.says, *claim.check()) for claim in CLAIMS]
    return pd.DataFrame(lines, columns=["section", "the paper says", "its table shows", "verdict"])


def best_rows(number: int, leave_out: Sequence[str] = ()) -> dict[str, str]:
    """Metric to the row that is best in it, of a table as printed or of what is left of it without some rows."""
    table = paper_table(number).droplevel("dataset").drop(index=list(leave_out))
    return {metric: (sign(metric) * table[metric]).idxmax() for metric in table}


def _best_in_all(number: int, row: str = OURS, leave_out: Sequence[str] = ()) -> Callable[[], tuple[str, str]]:
    def check() -> tuple[str, str]:
        best = best_rows(number, leave_out)
        others = {metric: name for metric, name in best.items() if name != row}
        text = f"best in {len(best) - len(others)} of {len(best)}"
        if others:
            text += "; " + ", ".join(f"{metric} is best without it: {name}" for metric, name in others.items())
        return text, HOLDS if not others else IN_PART if len(others) < len(best) else CONTRADICTED

    return check


def _concatenation() -> tuple[str, str]:
    """Does Table 4 drop in every metric without the common features?"""
    table = paper_table(4).droplevel("dataset")
    change = table.loc[WITHOUT_COMMON] - table.loc[OURS]
    better = [metric for metric in table if sign(metric) * change[metric] > 0]
    verdict = HOLDS if not better else IN_PART if len(better) < len(change) else CONTRADICTED
    return f"worse in {len(change) - len(better)} of {len(change)}; better in {', '.join(better)}", verdict


def _one_set() -> tuple[str, str]:
    """Is the row of Table 4, made on M3FD, that of the tables whose set is not named?"""
    rows = [paper_table(number).droplevel("dataset").loc[OURS] for number in (1, 2, 4)]
    rows.append(paper_table(5).droplevel("dataset").iloc[-1])
    same = all(row.reindex(rows[0].index).equals(rows[0]) for row in rows)
    text = "Ours is the same to the last digit in Tables 1, 2, 4 and 5"
    return (text, OPEN) if same else ("Ours differs between Tables 1, 2, 4 and 5", HOLDS)


def _detection_column() -> tuple[str, str]:
    columns = list(paper_table(5).columns)
    shared = [column for column in columns if column in paper_table(3).columns]
    return f"its columns are {', '.join(columns)}", HOLDS if shared else CONTRADICTED


def _only_a_bit_longer() -> tuple[str, str]:
    seconds = paper_table(6).droplevel("dataset")["Time(s)"].sort_values()
    place, longer = list(seconds.index).index(OURS) + 1, seconds[OURS] / seconds.iloc[0] - 1
    text = f"{longer:.0%} longer than {seconds.index[0]}, place {place} of {len(seconds)}".replace("%", " %")
    return text, HOLDS if longer <= 0.1 else CONTRADICTED


def _most_accurate() -> tuple[str, str]:
    accuracies = paper_table(3).droplevel("dataset").iloc[:, 0].sort_values(ascending=False)
    first, second = accuracies.index[:2]
    margin = accuracies.iloc[0] - accuracies.iloc[1]
    return f"{first}, {margin:.1f} above {second}", HOLDS if first == OURS else CONTRADICTED


def _fewest_operations() -> tuple[str, str]:
    best = best_rows(6)
    holds = best["FLOPs(G)"] == OURS
    return f"lowest FLOPs: {best['FLOPs(G)']}; smallest: {best['Size(M)']}; fastest: {best['Time(s)']}", (
        HOLDS if holds else CONTRADICTED
    )


OPTIMUM = sweep_rows.reference(5)  # the row of Table 5 that the text calls optimal
CLAIMS = (
    Claim("4.2.1", "Table 1: best in all four metrics", _best_in_all(1)),
    Claim("4.2.2", "Table 2: best in all four metrics", _best_in_all(2)),
    Claim("4.2.3", "Table 3: the highest accuracy of detection", _most_accurate),
    Claim("4.3", "Table 4: the losses l_c and l_s are the core of the method", _best_in_all(4, OURS, [WITHOUT_COMMON])),
    Claim("4.3", "Table 4: without the common features, a noticeable drop", _concatenation),
    Claim("4.3", "Table 4 is made on M3FD, as Table 3 is; of Tables 1, 2 and 5 no set is named", _one_set),
    Claim("4.4", "Table 5 presents fusion and object detection", _detection_column),
    Claim("4.4", "Table 5: optimal at gamma 2 and lambdas 10, 5, 5", _best_in_all(5, OPTIMUM)),
    Claim("4.5", "Table 6: best in FLOPs", _fewest_operations),
    Claim("4.5", "Table 6: 0.40 s are only a bit longer than the fastest", _only_a_bit_longer),
    Claim("4.8", "Table 7: significant advantages in fusion", _best_in_all(7)),
)
