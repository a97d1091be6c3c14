"""The findings about registration, a function for each; see `fusionlib.report.findings`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import evaluation, registration_bench, reliability
from fusionlib.metrics.statistics import SIGNIFICANCE
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
        "**Registration.** Of a deformation at the level `medium`, Ours leaves "
        f"{_shares_with_intervals(_roads(folder, 'medium', 'ours'))}. In brackets stand 95 % intervals over scenes. "
        "Of several deformations of each pair of RoadScene, Ours and SimpleITK, which finds one rotation and one "
        f"shift, leave {listed(beside)}."
    )


def small(folder: Path) -> str:
    beside, texts, worse, better = bench(folder).loc["light"], [], [], []
    test = detection_answers.difference_by_level(_bench_rows(folder), "ours", "simpleitk").loc["light"]
    methods = {"ours": "Ours", "ours_robust": "`ours_robust`, which `fuse` uses,", "simpleitk+average": "SimpleITK"}
    for method, title in methods.items():
        if len(rows := _roads(folder, "light", method)):
            texts.append(f"{title} leaves {_shares_with_intervals(rows)}")
            for names, p_values in ((worse, evaluation.made_worse(rows)), (better, evaluation.made_better(rows))):
                names += [f"{title.split(',')[0]} on {name}" for name, p in p_values.items() if p < SIGNIFICANCE]
    return (
        "**Small misalignments.** `light` is the level closest to the deformations in MulFS-CAP, code of the same "
        f"group. {'. '.join(texts)}. In brackets stand 95 % intervals over scenes. Corrected for the number of sets, "
        f"significantly better than no registration: {listed(better) or 'none'}; significantly worse: "
        f"{listed(worse) or 'none'}. In notebook 03b, with several deformations of each pair of RoadScene, Ours leaves "
        f"{percent(beside['ours'])} and SimpleITK {percent(beside['simpleitk'])} "
        f"({'' if test['p'] < SIGNIFICANCE else 'not '}significantly different)."
    )


def raw(folder: Path) -> str:
    table = result_tables.read(folder / "tables" / RAW)
    frames = table.loc[table["split"] == "test", "pair"].unique()
    summary = registration_bench.raw_summary(table)
    best = summary.index[-1]
    left = {row.Index: percent(row.share) + _in_brackets(row.low, row.high) for row in summary.itertuples()}
    p_values = summary["p"].dropna()
    differ = listed(f"`{name}`" for name in p_values.index[p_values < SIGNIFICANCE]) or "none"
    robust = "".join(f", `{name}` {left[name]}" for name in summary.index[1:-1])
    return (
        f"**Two real cameras.** {len(frames)} of RoadScene's raw thermal frames are brought to the visible ones by the "
        f"best scale and shift, fitted to the truth. Of what is then still out of register, Ours leaves "
        f"{left['ours']}{robust} and the best classical method, `{best}`, {left[best]}. In brackets stand 95 % "
        f"intervals over {len(set(scenes_of(frames)))} scenes. Significantly different from "
        f"`{best}` (corrected): {differ} (p: {listed(map(_p_value, p_values))}). Ours has learned deformations like "
        "those of these cameras."
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
        f"**Nothing to register.** `ours_robust` moves pairs as published by {pairs.min():.1f} to "
        f"{pairs.max():.1f} px of a 256 px image, by the mean of each set (Ours: {before.min():.1f} to "
        f"{before.max():.1f}). It moves constant or noisy infrared on average by at most "
        f"{nothing['ours_robust']:.2f} px (Ours: {nothing['ours']:.1f}). Its confidence is the chance to be right to a "
        f"pixel. On average over all conditions it is off by {min(errors):.2f} to {max(errors):.2f}; on single "
        f"conditions by more, since too much and too little cancel out. It is too low by {ends[0]:.2f} on "
        f"{modest[0]}, *{modest[1]}*, and too high by {-ends[1]:.2f} on {bold[0]}, *{bold[1]}*."
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


def _p_value(p: float) -> str:
    """Two decimals, or four where two would hide on which side of 5 % it lies."""
    return "< 0.01" if p < 0.01 else f"{p:.4f}" if round(p, 2) == SIGNIFICANCE else f"{p:.2f}"


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
