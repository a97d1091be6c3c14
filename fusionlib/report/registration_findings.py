"""The findings about registration, a function for each sentence; see `fusionlib.report.findings`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import evaluation, registration_bench, reliability
from fusionlib.metrics.statistics import SIGNIFICANCE, holm, sign_flips
from fusionlib.notebook import detection_answers
from fusionlib.notebook.sentences import listed, percent
from fusionlib.report.our_numbers import BENCH
from fusionlib.support import result_tables

ROADS, RAW, AT_REST, RELIABILITY = "generalisation.csv", "raw_frames.csv", "at_rest.csv", "reliability.csv"


def share_left(folder: Path, level: str, method: str = "ours") -> pd.Series:
    """Share of the misalignment that a method leaves, of the pairs of each set together."""
    return evaluation.means(_roads(folder, level, method), ["dataset"], ["EPE_share"])["EPE_share"]


def large(folder: Path) -> str:
    tests = detection_answers.difference_by_level(_bench_rows(folder), "ours", "simpleitk")
    beside = [
        f"{percent(line['ours'])} and {percent(line['simpleitk'])} at `{level}` "
        f"({'' if line['p'] < SIGNIFICANCE else 'not '}significant)"
        for level, line in tests.drop(index="light").iterrows()
    ]
    return (
        "**Registration**: of a deformation at the level `medium`, Ours leaves "
        f"{_shares_with_intervals(_roads(folder, 'medium', 'ours'))}, in brackets 95 % intervals over scenes; of "
        "several deformations of each pair of RoadScene, Ours and SimpleITK, which finds one rotation and one shift, "
        f"leave {listed(beside)}."
    )


def small(folder: Path) -> str:
    beside, texts, worse = bench(folder).loc["light"], [], []
    methods = {"ours": "Ours", "ours_robust": "`ours_robust`, which `fuse` uses,", "simpleitk+average": "SimpleITK"}
    for method, title in methods.items():
        if len(rows := _roads(folder, "light", method)):
            texts.append(f"{title} leaves {_shares_with_intervals(rows)}")
            worse += [f"that by {title.split(',')[0]} on {name}" for name in evaluation.harmed(rows)]
    harm = f"; significantly worse than no registration, corrected for the sets, is {listed(worse) or 'none'}"
    return (
        f"**Small misalignments**: at `light`, the level closest to the deformations in MulFS-CAP, code of the same "
        f"group, {'; '.join(texts)}, in brackets 95 % intervals over scenes{harm}; in notebook 03b, with several "
        f"deformations of each pair, Ours leaves {percent(beside['ours'])} on RoadScene and SimpleITK "
        f"{percent(beside['simpleitk'])}."
    )


def raw(folder: Path) -> str:
    table = result_tables.read(folder / "tables" / RAW)
    test = table[table["split"] == "test"].pivot(index=["method", "pair"], columns="metric", values="value")
    test = test.reset_index()
    shares = evaluation.means(test, ["method"], ["EPE_share"])["EPE_share"]
    best = shares.drop(["identity", "ours", "ours_refined", "ours_robust"], errors="ignore").idxmin()
    left = {
        name: percent(shares[name]) + _in_brackets(*evaluation.share_interval(test[test["method"] == name]))
        for name in ("ours", "ours_robust", best)
        if name in shares
    }
    errors = test.pivot(index="pair", columns="method", values="EPE")
    scenes, own = scenes_of(errors.index), [name for name in left if name != best]
    p_values = holm({name: sign_flips(errors[name] - errors[best], scenes) for name in own})
    differ = [
        f"`{name}` {'differs' if p < SIGNIFICANCE else 'does not differ'} significantly (p = {p:.2f})"
        for name, p in p_values.items()
    ]
    robust = f", `ours_robust` {left['ours_robust']}" if "ours_robust" in left else ""
    return (
        f"**Two real cameras**: of what the best scale and shift, fitted to the truth, leave out of register on "
        f"{len(errors)} of RoadScene's raw thermal frames, Ours, which has learned deformations like those of these "
        f"cameras, leaves {left['ours']}{robust} and the best classical method, `{best}`, {left[best]}, in brackets "
        f"95 % intervals over {len(set(scenes))} scenes; from `{best}`, {listed(differ)}."
    )


def rest(folder: Path) -> str:
    moved = result_tables.read(folder / "tables" / AT_REST)
    moved_px = 256 * moved.groupby(["method", "set", "input"], sort=False)["moved"].mean().unstack("input", sort=False)
    pairs, before = (moved_px.loc[name, "aligned"] for name in ("ours_robust", "ours"))
    nothing = moved_px.drop(columns="aligned").groupby("method").max().max(axis=1)
    bins = result_tables.read(folder / "tables" / RELIABILITY)
    means = reliability.means(bins, ["set", "condition"])
    gaps = means["right"] - means["confidence"]
    (modest, bold), ends = (gaps.idxmax(), gaps.idxmin()), (gaps.max(), gaps.min())
    errors = [reliability.calibration_error(set_rows) for _, set_rows in bins.groupby("set", sort=False)]
    return (
        f"**Nothing to register**: `ours_robust` moves pairs as published by {pairs.min():.1f} to "
        f"{pairs.max():.1f} px of a 256 px image, by the mean of each set (Ours: {before.min():.1f} to "
        f"{before.max():.1f}), and constant or noisy infrared on average by at most "
        f"{nothing['ours_robust']:.2f} px (Ours: {nothing['ours']:.1f}); its confidence, the chance to be right to a "
        f"pixel, is off by {min(errors):.2f} to {max(errors):.2f} over all conditions together, where too much and too "
        f"little cancel out: it is too low by {ends[0]:.2f} on {modest[0]}, *{modest[1]}*, and too high by "
        f"{-ends[1]:.2f} on {bold[0]}, *{bold[1]}*."
    )


def _bench_rows(folder: Path) -> pd.DataFrame:
    """The bench on the test pairs of the set trained on, at the smallest size."""
    table = result_tables.read(folder / "tables" / BENCH)
    table = table[(table["split"] == "test") & (table["size"] == table["size"].min())]
    return table[table["set"] == table["set"].iloc[0]]


def bench(folder: Path) -> pd.DataFrame:
    """Share left: rows level, columns method."""
    summary = registration_bench.summary(_bench_rows(folder))
    return summary["EPE_share"].droplevel(["set", "split", "size"]).unstack("method")


def _roads(folder: Path, level: str, method: str) -> pd.DataFrame:
    table = result_tables.read(folder / "tables" / ROADS)
    return table[(table["method"] == method) & (table["level"] == level)]


def _in_brackets(low: float, high: float) -> str:
    """ " (33 to 44)": an interval in per cent, behind its share; "" if there is none."""
    return "" if low != low else f" ({100 * low:.0f} to {100 * high:.0f})"


def _shares_with_intervals(rows: pd.DataFrame) -> str:
    """Share left on each set, with its interval or, where there are too few for one, the number of scenes."""
    shares, texts = evaluation.means(rows, ["dataset"], ["EPE_share"])["EPE_share"], []
    for name, set_rows in rows.groupby("dataset", sort=False):
        ends = _in_brackets(*evaluation.share_interval(set_rows))
        few = f" ({len(set(scenes_of(set_rows['pair'])))} scenes)"
        texts.append(f"{percent(shares[name])}{ends or few} on {name}")
    return listed(texts)
