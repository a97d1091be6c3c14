"""What came out, in a dozen findings: every number in them is read from the tables of a preset, never typed in.

A finding whose table is missing is left out. The numbers decide which of two ways a sentence goes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from fusionlib import presets
from fusionlib.data.paper_tables import paper_table, systems_in
from fusionlib.experiments import comparison, detection_bench, evaluation, mri_study, registration_bench
from fusionlib.experiments.comparison import IMAGE_METRICS
from fusionlib.experiments.detection_bench import target_awareness
from fusionlib.methods.registry import SAME_BUDGET
from fusionlib.methods.retraining import SHARE
from fusionlib.metrics.statistics import SIGNIFICANCE
from fusionlib.network import NetworkConfig
from fusionlib.notebook import answers, detection_answers, training_answers
from fusionlib.notebook.sentences import listed, percent
from fusionlib.report import our_numbers, registration_findings, verdicts
from fusionlib.report.claims import tested
from fusionlib.report.claims.evidence import PLAIN
from fusionlib.report.our_numbers import (
    BENCH,
    BRAINS,
    COMPARED,
    COUNTS,
    DETECTION,
    DETECTION_SCENES,
    GAIN,
    SWEPT,
    SWEPT_AT_LIGHT,
    TEST_PAIRS,
    TIMES,
)
from fusionlib.report.registration_findings import AT_REST, RAW, RELIABILITY, ROADS
from fusionlib.support import result_tables
from fusionlib.support.files import InputError

LOGGER = logging.getLogger(__name__)
UNTRAINED = "detection_untrained.csv"
MEAN_PRECISION = ["mAP50:90", "mAP50:90_low", "mAP50:90_high"]
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
            try:
                found.append(Finding(text_of(folder), notebooks))
            except InputError:  # a damaged table, which says itself what to do
                raise
            except (LookupError, ValueError) as error:  # a table that is still being made lacks rows
                LOGGER.info(f"No finding from {listed(names)}: rows are missing ({error!r}).")
    return tuple(found)


def basis(folder: Path | str) -> str:
    """On what the findings rest, in one sentence."""
    folder = Path(folder)
    text = f"All of this comes from the preset `{folder.name}`"
    if minutes := _minutes(folder, *OURS):
        text += f", one training of Ours ({minutes:.0f} minutes) and of `ours_robust` ({_minutes(folder, *ROBUST):.0f})"
    if folder.name != "paper" and not (folder.parent / "paper" / "tables").is_dir():
        text += "; the preset `paper` (512 px, 150 epochs, for a GPU) has not been run"
    if (folder / "tables" / SWEPT[4]).exists():
        text += ". In Tables 4 and 5 and in the test of the detection loss, Ours is another, shorter training"
    return text + "."


# --- one function a finding


def _fusion(folder: Path) -> str:
    means = _level(folder, 1, "medium").groupby("method", sort=False)["Q_CC"].mean()
    name = means[[method for method in means.index if method.startswith("ours+")]].idxmax()
    titles = {"average": "the average of the two unregistered images"}
    titles |= {name: f"{systems_in(1)[name[5:]]} on the infrared image that Ours registers"}
    titles |= {"visible": "the visible image alone"}
    measured = comparison.read(1, folder / "tables" / COMPARED[1])
    texts = [f" At `{level}`: {answers.in_short(measured, level, titles)}" for level in ("light", "medium")]
    return f"**Fusion, with these weights.**{''.join(texts)}"


def _systems(folder: Path) -> str:
    shares = []
    for number in (1, 2):
        table, names = _level(folder, number, "medium"), _printed_rows(number)
        method_shares = evaluation.means(table, ["method"], ["EPE_share"])["EPE_share"]
        shares += method_shares[method_shares != 1].reindex(names).dropna().to_list()  # 1 stands for no field
    others, after = "", ""
    if SAME_BUDGET in method_shares:
        others = f" and {percent(method_shares[SAME_BUDGET])} after one, {percent(SHARE)} of its epochs"
        after = f" {_at_equal_budget(folder)}"
    if steps := our_numbers.steps_of(folder / "weights" / "as_in_the_paper.csv", presets.load(folder.name).recipe):
        share = registration_findings.bench(folder).loc["medium", PLAIN]
        after += f" The plainest reading of the paper, `{PLAIN}`, leaves {percent(share)} of it on RoadScene after "
        after += f"{steps} steps (one training)."
    return (
        f"**Compared systems.** The registrations of Tables 1 and 2 that give a field leave {percent(min(shares))} to "
        f"{percent(max(shares))} of a `medium` deformation. Those without published weights were trained here for "
        f"about one hour of one CPU core. Ours leaves {percent(method_shares['ours'])} after about {1 / SHARE:.0f} "
        f"such hours{others}.{after}"
    )


def _at_equal_budget(folder: Path) -> str:
    """In how many comparisons of fused images the shorter training of Ours is better, and in how many worse."""
    texts = []
    for number in (1, 2):
        measured = comparison.read(number, folder / "tables" / COMPARED[number])
        counts = answers.counted_at(measured, _printed_rows(number), SAME_BUDGET, ("medium", "light"))
        texts.append(f" Against Table {number}, they are significantly {counts}.")
    return (
        f"The fused images of Ours after one hour were compared with each printed row in each metric.{''.join(texts)}"
    )


def _statements(folder: Path) -> str:
    return f"**The paper's statements.** {tested.in_short(folder)}"


def _values(folder: Path) -> str:
    compared, table = verdicts.compare(folder), _level(folder, 1, "medium")
    counts, chance = verdicts.summary(compared).loc["all"], verdicts.by_chance(compared).loc["all"]
    more, tells = ("more", "for") if chance["p"] < SIGNIFICANCE else ("no more", "neither for nor against")
    cap = table.loc[table["method"] == evaluation.BOUND, "Q_CC"].mean()
    pairs = len(table.drop_duplicates(["dataset", "pair"]))
    printed = paper_table(1).droplevel("dataset").loc["Ours", "Q_CC"]
    reach = "cannot be reached" if cap < printed else "can be reached"
    return (
        f"**The paper's {counts['values']} values.** At `medium`, {counts[verdicts.AGREES]} lie within our 95 % "
        f"interval (of Table 7, the range of its heads) and {counts[verdicts.RANKED]} more keep their rank in their "
        f"column. These are {more} than when the paper's rows are shuffled (then {chance['by chance']:.0f} in all, "
        f"p = {chance['p']:.2f}): this agreement is evidence {tells} the paper's values. The printed Q_CC of "
        f"{printed} {reach} on our {pairs} test pairs: no fused image of them can have a mean above {cap:.3f}."
    )


def _detection(folder: Path) -> str:
    table, scenes = (result_tables.read(folder / "tables" / name) for name in (DETECTION, DETECTION_SCENES))
    overall = table[(table["class"] == "all") & (table["dataset"] == "M3FD")]
    rows = overall.groupby("method")[MEAN_PRECISION].mean()
    untrained = result_tables.read(folder / "tables" / UNTRAINED).query("`class` == 'all'")
    by_coco = [
        f"{listed(_with_ends(of_set.loc[name]) for name in ('ours', 'visible'))} on {dataset}"
        for dataset, of_set in untrained.set_index("method").groupby("dataset", sort=False)
    ]
    tests = detection_bench.against(table, scenes).query("mean == 'mAP50:90' and not method.str.startswith('ours')")
    less = ((tests["difference"] > 0) & (tests["p"] < SIGNIFICANCE)).groupby(tests["method"], sort=False).all()
    as_many = listed(f"`{name}`" for name in less.index[~less])
    more = f"{less.sum()} of the {len(less)} other rows" + (f", but not than {as_many}" if as_many else "")
    printed = paper_table(3).droplevel("dataset").loc["Ours", "mAP50:90"]
    short, *found = (result_tables.read(folder / "tables" / name) for name in AWARENESS)
    awareness = detection_answers.in_short(target_awareness.compared(*found), target_awareness.effects(short))
    return (
        f"**Detection.** At `{presets.load(folder.name).detection.level}`, on what Ours makes of M3FD, detectors begun "
        f"from COCO and trained on RoadScene reach a mAP50:90 of {_with_ends(rows.loc['ours'])}; the paper prints "
        f"{printed:.1f} %. On the visible images alone they reach {_with_ends(rows.loc['visible'])}. In brackets stand "
        "95 % intervals over scenes, with these detectors. Corrected for the number of rows, Ours is significantly "
        f"better on all sets than {more}. Only Ours registers here, so this does not show whether its registration or "
        f"its fusion helps. COCO's own detector, without that training, reaches on Ours and on the visible images "
        f"{'; '.join(by_coco)}. {awareness}"
    )


def _with_ends(row: pd.Series) -> str:
    """ "21.4 % (18.0 to 27.0)": mean average precision and its interval."""
    return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * row[MEAN_PRECISION]))


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
    plain, counts = counts.loc[PLAIN], counts.drop(index=PLAIN)
    fewer = listed(f"`{name}`" for name in counts.index[counts["thop"] < plain["thop"]].drop("ours", errors="ignore"))
    gain = result_tables.read(folder / "tables" / GAIN).query("way == 'plain'")
    slow = gain[(gain["side"] == times["side"].max()) & (gain["threads"] == times["threads"].max())]["median"].iloc[0]
    least = {counts["thop"].idxmin(), counts["parameters"].idxmin(), seconds.idxmin()} == {"ours"}
    least = " All three are the least of all compared, the others as published." if least else ""
    return (
        f"**Cost.** Ours takes {own['thop']:.1f} G multiply-accumulates at {own['side']} px, since it registers at "
        f"{NetworkConfig().registration_side} px, and has {own['parameters']:.2f} M parameters (paper: "
        f"{printed['FLOPs(G)']:g} G and {printed['Size(M)']:g} M). In its fast form it needs {seconds['ours']:.2f} s "
        f"on {times['threads'].max()} CPU threads, in its plain form {slow:.2f} s."
        f"{least} The plainest reading of the paper, which registers at full size, takes {plain['thop']:.1f} G"
        f"{f', more than {fewer},' if fewer else ''} and has {plain['parameters']:.2f} M."
    )


def _brains(folder: Path) -> str:
    measured = comparison.read(7, folder / "tables" / COMPARED[7])
    medium, light = (mri_study.by_subject(measured, level).droplevel("heading") for level in ("medium", "light"))
    shares = registration_bench.summary(result_tables.read(folder / "tables" / BRAINS))["EPE_share"].map(percent)
    shares = shares.xs("medium", level="level").droplevel(["split", "size"]).unstack("set")
    left = {row: listed(f"{share} on {name}" for name, share in by_set.items()) for row, by_set in shares.iterrows()}
    logs = {name: folder / "weights" / "mri" / f"{name}.csv" for name in ("registration", "ours", "corrmlp")}
    minutes = {name: our_numbers.minutes_of(log) for name, log in logs.items()}
    change = ((light - medium)[IMAGE_METRICS] / medium[IMAGE_METRICS]).abs().max(axis=1)
    nearly_t1 = " Its fused images show T1, and hardly anything of T2 (notebook 10)." if change["ours"] < 0.01 else ""
    return (
        f"**Brains.** On {medium.at['ours', 'subjects']} heads, too few for an interval, Ours leaves "
        f"{left['ours, weights for brains']} of a `medium` deformation, after its start on roads and "
        f"{minutes['registration'] + minutes['ours']:.0f} minutes on brains. Begun with random weights, it leaves "
        f"{left['ours, brains from random weights']}. CorrMLP, retrained for {minutes['corrmlp']:.0f} minutes, leaves "
        f"{left['corrmlp']}. At `light`, the metrics of the images fused by Ours differ from those at `medium` by at "
        f"most {100 * change['ours']:.2f} %, those of the average of the unregistered slices by up to "
        f"{100 * change['average']:.0f} %.{nearly_t1}"
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
    (("09",), (COUNTS, TIMES, GAIN), _cost),
    (("10",), (COMPARED[7], BRAINS), _brains),
)


# --- helpers


def _level(folder: Path, number: int, level: str) -> pd.DataFrame:
    table = result_tables.read(folder / "tables" / COMPARED[number])
    return table[table["level"] == level]


def _printed_rows(number: int) -> list[str]:
    return [row.method for row in comparison.rows_of(number) if row.printed and row.method != "ours"]


def _minutes(folder: Path, *names: str) -> float:
    return sum(our_numbers.minutes_of(folder / "weights" / f"{name}.csv") for name in names)
