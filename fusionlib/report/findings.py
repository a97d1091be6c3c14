"""What came out, in a dozen findings: every number in them is read from the tables of a preset, never typed in.

A finding whose table is missing is left out. The numbers decide which of two ways a sentence goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from fusionlib.data.paper_tables import paper_table, systems_in
from fusionlib.experiments import comparison, detection_bench, evaluation, mri_study
from fusionlib.experiments.comparison import IMAGE_METRICS
from fusionlib.experiments.detection_bench import target_awareness
from fusionlib.methods.registry import SAME_BUDGET
from fusionlib.methods.retraining import SHARE
from fusionlib.metrics.statistics import SIGNIFICANCE
from fusionlib.network import NetworkConfig
from fusionlib.notebook import answers, detection_answers, training_answers
from fusionlib.notebook.sentences import listed, percent
from fusionlib.report import our_numbers, registration_findings, verdicts
from fusionlib.report.claims import evidence, tested
from fusionlib.report.our_numbers import (
    BENCH,
    COMPARED,
    COUNTS,
    DETECTION,
    DETECTION_SCENES,
    SWEPT,
    SWEPT_AT_LIGHT,
    TEST_PAIRS,
    TIMES,
)
from fusionlib.report.registration_findings import AT_REST, RAW, RELIABILITY, ROADS
from fusionlib.support import result_tables

UNTRAINED = "detection_untrained.csv"
AWARENESS = (our_numbers.WITH_AND_WITHOUT, our_numbers.AWARENESS, our_numbers.AWARENESS_SCENES)
OURS, ROBUST = ("registration", "ours"), ("registration", "robust/registration", "robust/ours")  # all their trainings


@dataclass(frozen=True)
class Finding:
    """A title and a few short sentences.

    Attributes:
        text: as Markdown, without a link.
        notebooks: numbers of the notebooks that show where it comes from.
    """

    text: str
    notebooks: tuple[str, ...]


def findings(folder: Path | str) -> list[Finding]:
    """What the tables of a preset say, whose results are in `folder`, in a fixed order."""
    folder = Path(folder)
    stamps = tuple(sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*.csv")))
    return list(_findings(folder, stamps))


@cache
def _findings(folder: Path, _: tuple[tuple[Path, int], ...]) -> tuple[Finding, ...]:
    found = []
    for notebooks, names, text_of in FINDINGS:
        if all((folder / "tables" / name).exists() for name in names):
            with contextlib.suppress(LookupError, ValueError):  # a table that is still being made lacks rows
                found.append(Finding(text_of(folder), notebooks))
    return tuple(found)


def basis(folder: Path | str) -> str:
    """On what the findings rest, in one sentence."""
    folder = Path(folder)
    text = f"All of this comes from the preset `{folder.name}`"
    if minutes := _minutes(folder, *OURS):
        text += f", one training of Ours ({minutes:.0f} minutes) and of `ours_robust` ({_minutes(folder, *ROBUST):.0f})"
    if folder.name != "paper" and not (folder.parent / "paper" / "tables").is_dir():
        text += "; the preset `paper` (512 px, 150 epochs, for a GPU) has not been run"
    return text + "."


# --- one function a finding


def _fusion(folder: Path) -> str:
    means = _level(folder, 1, "medium").groupby("method", sort=False)["Q_CC"].mean()
    name = means[[method for method in means.index if method.startswith("ours+")]].idxmax()
    titles = {"average": "the average of the two unregistered images"}
    titles |= {name: f"{systems_in(1)[name[5:]]} on the infrared image that Ours registers"}
    measured = comparison.read(1, folder / "tables" / COMPARED[1])
    texts = [f" At `{level}`, {answers.in_short(measured, level, titles)}." for level in ("light", "medium")]
    return f"**Fusion, with these weights.**{''.join(texts)}"


def _systems(folder: Path) -> str:
    shares, minutes = [], []
    for number in (1, 2):
        table, names = _level(folder, number, "medium"), _printed_rows(number)
        method_shares = evaluation.means(table, ["method"], ["EPE_share"])["EPE_share"]
        shares += method_shares[method_shares != 1].reindex(names).dropna().to_list()  # 1 stands for no field
        logs = {name.split("+")[0] for name in names if name in method_shares[method_shares != 1]}  # what registers
        minutes += filter(None, (our_numbers.minutes_of(folder / "weights" / f"{name}.csv") for name in logs))
    others, after = "", ""
    if SAME_BUDGET in method_shares:
        others = f", and {percent(method_shares[SAME_BUDGET])} after {percent(SHARE)} of its epochs"
        after = f" {_at_equal_budget(folder)}"
    if plain := _minutes(folder, "as_in_the_paper"):
        share = percent(registration_findings.bench(folder).loc["medium", "as_in_the_paper"])
        others += f". The plainest reading of the paper leaves {share} after {plain:.0f} minutes (on RoadScene)"
    return (
        f"**Compared systems.** The registrations of Tables 1 and 2 that give a field leave {percent(min(shares))} to "
        f"{percent(max(shares))} of a `medium` deformation. Those without published weights were trained here for "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes by the clock, while the machine did other work, too. Ours "
        f"leaves {percent(method_shares['ours'])} after {_minutes(folder, *OURS):.0f} minutes{others}.{after}"
    )


def _at_equal_budget(folder: Path) -> str:
    """In how many comparisons of fused images the shorter training of Ours is better, and in how many worse."""
    texts = []
    for number in (1, 2):
        measured, counts = comparison.read(number, folder / "tables" / COMPARED[number]), []
        for level in ("medium", "light"):
            lines = answers.against(measured, level, SAME_BUDGET)
            lines = lines[lines["method"].isin(_printed_rows(number)) & lines["metric"].isin(IMAGE_METRICS)]
            mark = answers.better(lines)
            counts.append(f"better in {(mark < 0).sum()} and worse in {(mark > 0).sum()} of {len(lines)} at `{level}`")
        texts.append(f" Against Table {number}, they are significantly {listed(counts)}.")
    return (
        f"The fused images of that shorter training are compared with each printed row in each metric.{''.join(texts)}"
    )


def _statements(folder: Path) -> str:
    return f"**The paper's statements.** {tested.in_short(folder)}"


def _values(folder: Path) -> str:
    compared, table = verdicts.compare(folder), _level(folder, 1, "medium")
    counts, chance = verdicts.summary(compared).loc["all"], verdicts.by_chance(compared).loc["all"]
    more, tells = ("more", "something") if chance["p"] < SIGNIFICANCE else ("no more", "nothing")
    cap = table.loc[table["method"] == evaluation.BOUND, "Q_CC"].mean()
    pairs = len(table.drop_duplicates(["dataset", "pair"]))
    printed = paper_table(1).droplevel("dataset").loc["Ours", "Q_CC"]
    reach = "cannot be reached" if cap < printed else "can be reached"
    return (
        f"**The paper's {counts['values']} values.** At `medium`, {counts[verdicts.AGREES]} lie within our 95 % "
        f"interval (of Table 7, the range of its heads) and {counts[verdicts.RANKED]} more keep their rank in their "
        f"column. These are {more} than when the paper's rows are shuffled (then {chance['by chance']:.0f} in all, "
        f"p = {chance['p']:.2f}), so this agreement says {tells} about them. The printed Q_CC of {printed} {reach} on "
        f"our {pairs} test pairs: no fused image of them can have a mean above {cap:.3f}."
    )


def _detection(folder: Path) -> str:
    table, scenes = (result_tables.read(folder / "tables" / name) for name in (DETECTION, DETECTION_SCENES))
    overall = table[(table["class"] == "all") & (table["dataset"] == "M3FD")]
    ends = 100 * overall.groupby("method")[["mAP50:90", "mAP50:90_low", "mAP50:90_high"]].mean()
    ours, visible = ("{:.1f} % ({:.1f} to {:.1f})".format(*ends.loc[name]) for name in ("ours", "visible"))
    untrained = result_tables.read(folder / "tables" / UNTRAINED).query("`class` == 'all'")
    untrained = 100 * untrained.pivot(index="dataset", columns="method", values="mAP50:90")
    by_coco = [f"{row['ours']:.1f} % and {row['visible']:.1f} % on {name}" for name, row in untrained.iterrows()]
    tests = detection_bench.against(table, scenes).query("mean == 'mAP50:90' and not method.str.startswith('ours')")
    less = ((tests["difference"] > 0) & (tests["p"] < SIGNIFICANCE)).groupby(tests["method"], sort=False).all()
    as_many = listed(f"`{name}`" for name in less.index[~less])
    more = f"{less.sum()} of the {len(less)} other rows" + (f", all but {as_many}" if as_many else "")
    printed = paper_table(3).droplevel("dataset").loc["Ours", "mAP50:90"]
    short, *found = (result_tables.read(folder / "tables" / name) for name in AWARENESS)
    awareness = detection_answers.in_short(target_awareness.compared(*found), target_awareness.effects(short))
    return (
        f"**Detection.** On what Ours makes of M3FD, detectors begun from COCO and trained on RoadScene reach a "
        f"mAP50:90 of {ours}; the paper prints {printed:.1f} %. On the visible images alone they reach {visible}. In "
        "brackets stand 95 % intervals over scenes, with these detectors. Corrected for the number of rows, they find "
        f"significantly more on all sets on images of Ours than on those of {more}. COCO's own detector, without that "
        f"training, reaches on Ours and on the visible images {listed(by_coco)}. {awareness}"
    )


def _sweeps(folder: Path) -> str:
    tables = {
        number: [result_tables.read(folder / "tables" / files[number]) for files in (SWEPT, SWEPT_AT_LIGHT)]
        for number in SWEPT
    }
    parts = [training_answers.in_short(number, *levels) for number, levels in tables.items()]
    test_pairs = result_tables.read(folder / "tables" / TEST_PAIRS)
    start, lowest, highest = training_answers.errors_beside_start(tables[4][0], test_pairs, "medium")
    lost = ", so they compare how much of the registration is lost" if lowest > start else ""
    return (
        f"**Ablation and hyperparameters.** {' '.join(parts)} The trainings of Table 4 begin with an end-point error "
        f"of {start:.2f} px and end with one of {lowest:.2f} to {highest:.2f} px{lost}."
    )


def _cost(folder: Path) -> str:
    counts = result_tables.read(folder / "tables" / COUNTS).set_index("method")
    printed, own = paper_table(6).droplevel("dataset").loc["Ours"], counts.loc["ours"]
    times = result_tables.read(folder / "tables" / TIMES)
    times = times[(times["side"] == times["side"].max()) & (times["threads"] == times["threads"].max())]
    seconds = times.set_index("method")["median"]
    plain, counts = counts.loc[evidence.PLAIN], counts.drop(index=evidence.PLAIN)
    fewer = listed(f"`{name}`" for name in counts.index[counts["thop"] < plain["thop"]].drop("ours", errors="ignore"))
    least = {counts["thop"].idxmin(), counts["parameters"].idxmin(), seconds.idxmin()} == {"ours"}
    least = " All three are the least of all compared, the others as published." if least else ""
    return (
        f"**Cost.** Ours takes {own['thop']:.1f} G multiply-accumulates at {own['side']} px, since it registers at "
        f"{NetworkConfig().registration_side} px, and has {own['parameters']:.2f} M parameters (paper: "
        f"{printed['FLOPs(G)']:g} G and {printed['Size(M)']:g} M). In its fast form it needs {seconds['ours']:.2f} s "
        f"on {times['threads'].max()} CPU threads.{least} The plainest reading of the paper, which registers at full "
        f"size, takes {plain['thop']:.1f} G{f', more than {fewer},' if fewer else ''} and has "
        f"{plain['parameters']:.2f} M."
    )


def _brains(folder: Path) -> str:
    measured = comparison.read(7, folder / "tables" / COMPARED[7])
    heads = mri_study.by_subject(measured, "medium").droplevel("heading")
    shares = heads["EPE"] / heads.at["average", "EPE"]  # the average registers nothing
    corrmlp = next(name for name in _printed_rows(7) if name in shares.index)
    minutes = {name: our_numbers.minutes_of(folder / "weights" / "mri" / f"{name}.csv") for name in ("ours", "corrmlp")}
    minutes["ours"] += our_numbers.minutes_of(folder / "weights" / "mri" / "registration.csv")
    return (
        f"**Brains.** On {heads.at['ours', 'subjects']} heads Ours, after {minutes['ours']:.0f} minutes on brains and "
        f"its start on roads, leaves {percent(shares['ours'])} of a `medium` deformation. CorrMLP, retrained for "
        f"{minutes['corrmlp']:.0f} minutes, leaves {percent(shares[corrmlp])}. The Q_CC of Ours is "
        f"{heads.at['ours', 'Q_CC']:.3f}, that of the average of the unregistered slices "
        f"{heads.at['average', 'Q_CC']:.3f}."
    )


FINDINGS: tuple[tuple[tuple[str, ...], tuple[str, ...], Callable[[Path], str]], ...] = (
    (("12",), (COMPARED[1], COMPARED[2]), _statements),
    (("12",), (COMPARED[1], COMPARED[2]), _values),
    (("11", "03b"), (ROADS, BENCH), registration_findings.large),
    (("11", "03b"), (ROADS, BENCH), registration_findings.small),
    (("11",), (RAW,), registration_findings.raw),
    (("03b",), (AT_REST, RELIABILITY), registration_findings.rest),
    (("04",), (COMPARED[1],), _fusion),
    (("04", "05"), (COMPARED[1], COMPARED[2]), _systems),
    (("06",), (DETECTION, DETECTION_SCENES, UNTRAINED, *AWARENESS), _detection),
    (("07", "08"), (*SWEPT.values(), *SWEPT_AT_LIGHT.values(), TEST_PAIRS), _sweeps),
    (("09",), (COUNTS, TIMES), _cost),
    (("10",), (COMPARED[7],), _brains),
)


# --- helpers


def _level(folder: Path, number: int, level: str) -> pd.DataFrame:
    table = result_tables.read(folder / "tables" / COMPARED[number])
    return table[table["level"] == level]


def _printed_rows(number: int) -> list[str]:
    return [row.method for row in comparison.rows_of(number) if row.printed and row.method != "ours"]


def _minutes(folder: Path, *names: str) -> float:
    return sum(our_numbers.minutes_of(folder / "weights" / f"{name}.csv") for name in names)
