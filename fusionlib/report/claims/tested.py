"""The paper's statements about its results, tested on what was measured here: effect, interval, verdict.

One rule for all. A statement says that Ours, or one setting, is better than some rows in some numbers:

    supported       significantly better than each of these rows, in each of these numbers
    contradicted    significantly worse than one of them in one number
    by our choice   supported, but by a number that this companion has chosen itself, where the paper gives none
    undecided       none of these; also where a row of the statement could not be measured

Significant is p < 5 %. One comparison out of many is enough to contradict, so for that p is corrected by Holm, for all
comparisons of all statements that rest on the same table of ours. To be supported, a statement needs every single
comparison, which is harder than any of them and takes no correction (an intersection-union test; Berger, 1982). Where
the paper's own table does not show what its text says, a statement is tested in those numbers alone in which it does
(`in_print` has the others).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fusionlib.metrics.statistics import SIGNIFICANCE, holm
from fusionlib.notebook.sentences import listed
from fusionlib.report.claims import detection, evidence
from fusionlib.report.claims.evidence import Compared, Evidence
from fusionlib.report.claims.in_print import OPTIMUM
from fusionlib.report.our_numbers import (
    AWARENESS,
    AWARENESS_SCENES,
    COMPARED,
    COUNTS,
    DETECTION,
    DETECTION_SCENES,
    SWEPT,
    TIMES,
)

SUPPORTED, CONTRADICTED, CHOSEN, OPEN = VERDICTS = ("supported", "contradicted", "by our choice", "undecided")
WORSE = "significantly worse than"
ALONE = " (p alone "
BUDGETS = "published weights of every system, or several trainings of each in one budget (of Ours there is one)"
SEEDS = "trainings in full: here a row goes on for a few epochs from a start that all share"


@dataclass(frozen=True)
class Statement:
    """A statement of the paper: its section, what it says, and what gives (what was compared, on what, at which level).
    `change` says what would settle or change the verdict; `chosen`, that the number is one of our choice; `beside`,
    what has to be known of it where it is supported.
    """

    section: str
    says: str
    files: tuple[str, ...]
    compare: Evidence
    change: str
    levels: bool = False
    chosen: bool = False
    beside: Callable[[Path], str] | None = None


def statements(folder: Path | str) -> pd.DataFrame:
    """Every statement whose tables a preset has, whose results are in `folder`.

    Returns:
        Columns section, the paper says, tested on, effect (in each number the comparison that is worst for Ours, with
        its interval; a positive number is in favour of Ours; with p where only the correction makes it no
        contradiction), verdict, significantly worse than (the rows that contradict it), at light (the verdict at the
        level `light`, where that was measured, and the rows that contradict it), and what would change it.
    """
    folder, lines = Path(folder), []
    there = [each for each in STATEMENTS if all((folder / "tables" / name).exists() for name in each.files)]
    medium = {each: each.compare(folder, "medium") for each in there}
    light = {each: each.compare(folder, "light")[0] for each in there if each.levels}
    for statement, (comparisons, basis) in medium.items():
        if not comparisons:
            continue
        family = _family(statement, {each: own for each, (own, _) in medium.items()})
        decision = verdict(comparisons, family)
        decision = CHOSEN if statement.chosen and decision == SUPPORTED else decision
        worse = _rows(contradicting(comparisons, family))
        own, at_light = light.get(statement), "-"
        if own:
            family = _family(statement, light)
            at_light = verdict(own, family) + _by(_rows(contradicting(own, family)))
        p_values = corrected(comparisons, family)
        effect = "; ".join(f"{each}{_alone(each, p_values[each])}" for each in _worst(comparisons))
        lines.append((statement.section, statement.says, basis, effect, decision, worse, at_light, statement.change))
    columns = ["section", "the paper says", "tested on", "effect", "verdict", WORSE, "at light", "what would change it"]
    return pd.DataFrame(lines, columns=columns)


def verdict(comparisons: Sequence[Compared], family: Sequence[Compared] = ()) -> str:
    """One of `VERDICTS`, by the rule above; `family`: the comparisons of the other statements on the same table."""
    if contradicting(comparisons, family):
        return CONTRADICTED
    better = comparisons and all(each.gain > 0 and each.p < SIGNIFICANCE for each in comparisons)
    return SUPPORTED if better else OPEN


def contradicting(comparisons: Sequence[Compared], family: Sequence[Compared] = ()) -> list[Compared]:
    """The comparisons in which Ours is significantly worse."""
    p_values = corrected(comparisons, family)
    return [each for each in comparisons if each.gain < 0 and p_values[each] < SIGNIFICANCE]


def corrected(comparisons: Sequence[Compared], family: Sequence[Compared] = ()) -> dict[Compared, float]:
    """The p of each comparison after Holm's correction for all of them and for the family."""
    by_place = holm({str(place): each.p for place, each in enumerate([*comparisons, *family])})
    return {each: by_place[str(place)] for place, each in enumerate(comparisons)}


def _alone(each: Compared, p: float) -> str:
    """The two p of a comparison that is significantly against Ours by itself, but not after the correction."""
    return f"{ALONE}{each.p:.3f}, corrected {p:.3f})" if each.gain < 0 and each.p < SIGNIFICANCE <= p else ""


def _rows(comparisons: Sequence[Compared]) -> str:
    return listed(dict.fromkeys(each.row for each in comparisons)) or "-"


def _by(rows: str) -> str:
    return "" if rows == "-" else f", by {rows}"


def _family(statement: Statement, compared: Mapping[Statement, Sequence[Compared]]) -> list[Compared]:
    """The comparisons of all other statements that rest on the same table."""
    others = [each for each in compared if each is not statement and each.files[0] == statement.files[0]]
    return [comparison for each in others for comparison in compared[each]]


def counted(lines: pd.DataFrame) -> dict[str, int]:
    """How many statements have which verdict."""
    return {name: int((lines["verdict"] == name).sum()) for name in VERDICTS}


def in_short(folder: Path) -> str:
    """The verdicts in short sentences, as the findings have them."""
    lines = statements(folder)
    parts = [f"{len(lines)} were tested at `medium`."]
    supported = set(lines.loc[lines["verdict"] == SUPPORTED, "the paper says"])
    beside = {each.says: each.beside(folder) for each in STATEMENTS if each.beside and each.says in supported}
    beside = lines["the paper says"].map(lambda name: beside.get(name, ""))
    quoted = "*" + lines["the paper says"] + "*"
    says = quoted + lines[WORSE].map(_by) + beside
    for name, count in counted(lines).items():
        names = f": {listed(says[lines['verdict'] == name])}" if name != OPEN and count else ""
        is_, holds = ("is", "holds") if count == 1 else ("are", "hold")
        word = f"{holds} by our choice alone" if name == CHOSEN else f"{is_} {name}"
        word += ", each comparison tested by itself" if name == SUPPORTED and count else ""
        if count or name != CHOSEN:
            parts.append(f"{count} {word}{names}.")
    alone = says[(lines["verdict"] == OPEN) & lines["effect"].str.contains(ALONE, regex=False)]
    if len(alone):
        parts.append(f"In {listed(alone)}, a comparison is significantly against the paper before the correction only.")
    at_light = lines["at light"][lines["at light"].str.startswith(CONTRADICTED)].str.removeprefix(CONTRADICTED)
    names = f": {listed(quoted[at_light.index] + at_light)}" if len(at_light) else ""
    parts.append(f"At `light`, {len(at_light)} {'is' if len(at_light) == 1 else 'are'} {CONTRADICTED}{names}.")
    return " ".join(parts)


def _worst(comparisons: list[Compared]) -> Iterator[Compared]:
    """In each number the comparison with the smallest gain."""
    comparisons = [each for each in comparisons if each.gain == each.gain]  # not those that were not measured
    for metric in dict.fromkeys(each.metric for each in comparisons):
        yield min((each for each in comparisons if each.metric == metric), key=lambda each: each.gain)


STATEMENTS = (
    Statement(
        "4.2.1", "Table 1: best in all four metrics", (COMPARED[1],), evidence.over_scenes(1), BUDGETS, levels=True
    ),
    Statement(
        "4.2.2", "Table 2: best in all four metrics", (COMPARED[2],), evidence.over_scenes(2), BUDGETS, levels=True
    ),
    Statement(
        "4.2.3", "Table 3: the highest accuracy of detection",
        (DETECTION, DETECTION_SCENES, AWARENESS, COMPARED[1], COMPARED[2]), detection.over_detectors,
        f"{BUDGETS}; more labelled pairs: the full M3FD, which cannot be fetched by a program",
        beside=detection.beside_detectors,
    ),
    Statement(
        "3.4", "The detection loss makes the fusion target-aware",
        (DETECTION, DETECTION_SCENES, AWARENESS, AWARENESS_SCENES),
        detection.with_and_without_detection, "more labelled pairs; several trainings in full, of each network",
    ),
    *(  # PAPER-GAP: the paper shows a picture and gives no number; here it is the end-point error of the field
        Statement(
            "4.3", f"Figure 7: {loss} helps to correct local deformations", (SWEPT[4],),
            evidence.over_trainings(4, "Ours", f"w/o {loss}", metrics=["EPE"]),
            f"{SEEDS}, which has learned with this loss", levels=True,
        )
        for loss in ("l_c", "l_s")
    ),
    Statement(
        "4.3", "Table 4: the concatenation helps", (SWEPT[4],),
        evidence.over_trainings(4, "Ours", "w/o concat of F_i^r and F_v"), SEEDS, levels=True,
    ),
    Statement(
        "4.4", "Table 5: optimal at gamma 2 and lambdas 10, 5, 5", (SWEPT[5],),
        evidence.over_trainings(5, OPTIMUM), SEEDS, levels=True,
    ),
    Statement(
        "4.5", "Table 6: the fewest operations", (COUNTS,), evidence.operations,
        "registration at full size, as the plain reading has it; other widths: the paper names none", chosen=True,
    ),
    Statement(
        "4.5", "Table 6: hardly slower than the fastest", (TIMES,), evidence.seconds,
        "a GPU, and the paper's widths: these are times on a CPU, of Ours in its fast form", chosen=True,
    ),
    Statement(
        "4.8", "Table 7: significant advantages in fusion", (COMPARED[7],), evidence.over_heads,
        "more heads: BraTS itself, for those who have it", levels=True,
    ),
)  # fmt: skip
