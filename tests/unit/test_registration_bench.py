"""The registration bench: same deformations for all, what was measured is not measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib.benches import BenchConfig
from fusionlib.data import open_set
from fusionlib.deformation import warp
from fusionlib.experiments import evaluation, registration_bench
from fusionlib.methods import Fused
from fusionlib.support.keys import Key

KEY = Key({"weights": "0"})
CONFIG = BenchConfig(sets=(("synthetic", "test"),), sizes=(64,), levels=("light", "heavy"), draws=2, count=2)


class Still:
    """Leaves the infrared where it is."""

    name = "still"

    def __init__(self) -> None:
        self.calls = 0

    def fuse(self, ir, vi) -> Fused:
        self.calls += 1
        return Fused(vi)


class Knowing(Still):
    """Knows the truth, less an error of 3 and 4 pixels along the axes."""

    def __init__(self, name: str, error: float) -> None:
        super().__init__()
        self.name = name
        pairs = open_set("synthetic", "test", 64, count=2)
        self.fields = {}
        for level in CONFIG.levels:
            for draw in range(CONFIG.draws):
                for index, name in enumerate(pairs.names):
                    moved = evaluation.deform(pairs.stack([index])[0], name, level, seed=draw)
                    self.fields[moved.ir.sum().item()] = moved.phi_gt + error * torch.tensor([3.0, 4.0]).view(
                        1, 2, 1, 1
                    )

    def fuse(self, ir, vi) -> Fused:
        self.calls += 1
        field = self.fields[ir.sum().item()]
        return Fused(vi, field, warp(ir, field))


def test_the_bench_measures_what_is_left(tmp_path: Path) -> None:
    rows = registration_bench.run(
        CONFIG, {Still(): KEY, (off := Knowing("off", 1)): KEY, Knowing("exact", 0): KEY}, tmp_path / "bench.csv"
    )
    assert off.calls == 8 and len(rows) == 3 * 8
    still, off, exact = (rows[rows["method"] == name] for name in ("still", "off", "exact"))
    assert (still["EPE"] == still["EPE_identity"]).all() and still["folds"].eq(0).all()
    assert still.groupby("level")["EPE"].mean()["heavy"] > 3 * still.groupby("level")["EPE"].mean()["light"] > 0
    assert list(off["EPE"]) == pytest.approx([5] * 8, abs=1e-4)
    assert list(off["EPE_p95"]) == pytest.approx([5] * 8, abs=1e-3)
    assert exact["EPE"].eq(0).all() and exact["NCC"].min() > 0.95 > still["NCC"].min()
    draws = still[still["level"] == "light"].groupby("draw")["EPE"].mean()
    assert draws[0] != draws[1]


def test_the_summary_is_the_mean_and_what_it_is_of_the_identity(tmp_path: Path) -> None:
    rows = registration_bench.run(CONFIG, {Still(): KEY}, tmp_path / "bench.csv")
    means = registration_bench.summary(rows)
    assert list(means.index.names) == ["set", "split", "size", "level", "method"]
    assert list(means["EPE_share"]) == pytest.approx([1, 1])
    heavy = rows[rows["level"] == "heavy"]
    assert means["EPE"].iloc[1] == pytest.approx(heavy["EPE"].mean())


def test_pairs_are_counted_as_better_equal_and_worse_than_unregistered() -> None:
    place = {"set": "a", "split": "test", "size": 64, "level": "light", "method": "ours"}
    errors = {"p0": 1.0, "p1": 2.05, "p2": 4.0, "p3": 1.0}
    rows = pd.DataFrame([place | {"pair": pair, "EPE": error, "EPE_identity": 2.0} for pair, error in errors.items()])
    (few,) = registration_bench.against_identity(rows).to_dict("records")
    assert (few["better"], few["equal"], few["worse"]) == (0.5, 0.25, 0.25) and few["scenes"] == 4
    assert few["EPE_share"] == pytest.approx(8.05 / 8) and np.isnan(few["low"]) and np.isnan(few["high"])
    more = pd.concat([rows, rows.assign(pair=rows["pair"] + "b")])
    (enough,) = registration_bench.against_identity(more).to_dict("records")
    assert enough["low"] < enough["EPE_share"] < enough["high"]


def test_what_was_measured_is_read(tmp_path: Path) -> None:
    path, first, again, other = tmp_path / "bench.csv", Still(), Still(), Still()
    rows = registration_bench.run(CONFIG, {first: Key({"weights": "1"})}, path)
    assert registration_bench.run(CONFIG, {again: Key({"weights": "1"})}, path).equals(rows) and again.calls == 0
    registration_bench.run(CONFIG, {other: Key({"weights": "2"})}, path)
    assert other.calls == first.calls == 8


def test_raw_frames_are_summed_up_on_the_test_split() -> None:
    """By hand: the errors of 12 frames are 10 px; a network leaves 5, classical methods 8 and 9, on validation none."""
    left = {"identity": 10.0, "ours": 5.0, "ecc": 9.0, "simpleitk": 8.0}
    rows = [
        (method, split, f"frame {frame}", metric, value)
        for method, error in left.items()
        for split, share in (("test", error / 10), ("val", 0.0))
        for frame in range(12)
        for metric, value in (("EPE", 10 * share + 0.1 * (frame % 3)), ("EPE_share", share + 0.01 * (frame % 3)))
    ]
    table = pd.DataFrame(rows, columns=["method", "split", "pair", "metric", "value"])
    summary = registration_bench.raw_summary(table)
    assert list(summary.index) == ["ours", "simpleitk"]
    assert summary["share"].to_list() == pytest.approx([0.51, 0.81])
    assert (summary["low"] <= summary["share"]).all() and (summary["share"] <= summary["high"]).all()
    assert summary.at["ours", "p"] == pytest.approx(2 / 2**12, abs=1e-3) and np.isnan(summary.at["simpleitk", "p"])
