"""Measurements of registration are kept: a second run measures nothing, and another setting measures again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from fusionlib import data
from fusionlib.data.raw_pairs import open_raw
from fusionlib.experiments import error_parts, evaluation, label_accuracy, registration_bench, runner
from fusionlib.methods import Fused
from fusionlib.network import FusionNetwork
from fusionlib.support import result_tables
from fusionlib.support.keys import Key

pytestmark = pytest.mark.numeric


class Counting:
    """Finds the identity, and counts how often it was asked."""

    def __init__(self, name: str = "counting") -> None:
        self.name, self.calls = name, 0

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        self.calls += 1
        return Fused(vi, torch.zeros(1, 2, *ir.shape[-2:]), ir)


@dataclass
class Setting:
    """What a measurement depends on."""

    path: Path
    size: int = 96
    count: int = 2
    levels: tuple[str, ...] = ("light", "medium")
    mark: Key = field(default_factory=lambda: Key({"weights": "1"}))

    @property
    def pairs(self) -> data.PairSet:
        return data.open_set("synthetic", "test", self.size, count=self.count)


def scores(at: Setting, method: Counting) -> pd.DataFrame:
    return evaluation.run({method: at.mark}, {"synthetic": at.pairs}, at.levels, at.path)


def residuals(at: Setting, method: Counting) -> pd.DataFrame:
    return error_parts.run({method: at.mark}, at.pairs, at.levels, 2, at.path)


def accuracy(at: Setting, method: Counting) -> pd.DataFrame:
    return label_accuracy.run({method: at.mark}, {"synthetic": at.pairs}, at.levels, at.path)


RUNS = (scores, residuals, accuracy)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_what_fits_is_read_and_what_does_not_is_measured(run: Callable, tmp_path: Path) -> None:
    at, first, again = Setting(tmp_path / "table.csv"), Counting(), Counting()
    rows = run(at, first)
    assert first.calls > 0
    pd.testing.assert_frame_equal(run(at, again), rows)
    assert again.calls == 0
    for changes in ({"size": 112}, {"count": 1}, {"mark": Key({"weights": "2"})}):
        run(Setting(**{"path": at.path, **changes}), other := Counting())
        assert other.calls > 0, changes
    run(at, Counting())
    run(Setting(at.path, levels=("light", "medium", "heavy")), more := Counting())
    assert more.calls == first.calls / 2, "one level more, of which there were two"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_a_stopped_run_goes_on_from_there(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, at = Setting(tmp_path / "whole.csv"), Setting(tmp_path / "table.csv")
    rows = run(whole, first := Counting())
    original = evaluation.deform

    def killed(ir: Tensor, name: str, level: str, *seed: int, **seeds: int) -> object:
        if level == "medium":
            raise KeyboardInterrupt
        return original(ir, name, level, *seed, **seeds)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "deform", killed)
        with pytest.raises(KeyboardInterrupt):
            run(at, Counting())
    found = run(at, rest := Counting())
    assert rest.calls == first.calls / 2
    pd.testing.assert_frame_equal(without_time(found), without_time(rows))


def without_time(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["metric"] != "seconds"] if "metric" in rows else rows


def test_scores_are_those_of_evaluate(tmp_path: Path) -> None:
    at, method = Setting(tmp_path / "table.csv"), Counting()
    rows = scores(at, method)
    tables = [evaluation.evaluate([method], at.pairs, "synthetic", level) for level in at.levels]
    expected = evaluation.summary(pd.concat(tables), ["Q_CC", "EPE"])
    pd.testing.assert_frame_equal(evaluation.summary(rows, ["Q_CC", "EPE"]), expected, rtol=1e-5)


def test_the_components_that_decide_are_in_the_keys(tmp_path: Path) -> None:
    for run, named in zip(RUNS, ("scores", "error-parts", "label-accuracy"), strict=True):
        run(Setting(path := tmp_path / f"{named}.csv", count=1), Counting())
        for text in result_tables.read(path)["made_by"].unique():
            assert {named, "deformation", "drawn-scenes", "synthetic", "size"} <= set(Key.parse(text).parts)


def test_raw_frames_are_kept(tmp_path: Path) -> None:
    path, raw = tmp_path / "raw.csv", {"test": open_raw("synthetic", "test", 64, count=1)}
    rows = registration_bench.raw_frames({(first := Counting()): Key()}, raw, path)
    assert first.calls == 1 and rows.set_index("metric")["value"]["EPE_share"] == 1
    again = registration_bench.raw_frames({(second := Counting()): Key()}, raw, path)
    pd.testing.assert_frame_equal(again, rows)
    assert second.calls == 0
    registration_bench.raw_frames({(third := Counting()): Key({"weights": "2"})}, raw, path)
    assert third.calls == 1
    (text,) = result_tables.read(path)["made_by"].unique()
    assert {"raw-frames", "homographies", "scores", "synthetic"} <= set(Key.parse(text).parts)
    larger = {"test": open_raw("synthetic", "test", 96, count=1)}
    of_larger = registration_bench.raw_frames({(fourth := Counting()): Key()}, larger, path)
    assert fourth.calls == 1 and not of_larger["value"].equals(rows["value"])


def test_a_set_that_is_not_square_has_another_key_than_a_square_one() -> None:
    wide, square = (runner.key_of(data.open_set("synthetic", "test", size, count=1)) for size in ((64, 96), 96))
    assert wide.differing(square) == ["size"] and square.parts["size"] == "96"


def test_steps_of_the_refinement_are_kept_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, network, asked = tmp_path / "refinement.csv", FusionNetwork().eval(), []
    pairs, raw = data.open_set("synthetic", "val", 64, count=1), open_raw("synthetic", "val", 64, count=1)
    original = registration_bench.share_left
    monkeypatch.setattr(registration_bench, "share_left", lambda net, given: asked.append(net) or original(net, given))

    def run(levels: tuple[str, ...] = ("medium",), mark: Key = Key({"weights": "1"})) -> pd.DataFrame:  # noqa: B008
        asked.clear()
        return registration_bench.refinement_steps(network, mark, pairs, raw, levels, 1, path)

    rows = run()
    assert list(rows) == ["field", "medium", "raw frames"] and list(rows["field"]) == list(registration_bench.STEPS)
    assert len(asked) == 2 * len(rows)
    pd.testing.assert_frame_equal(run(), rows)
    assert asked == []
    changed = dict(registration_bench.STEPS) | {"without weights": registration_bench.Refinement(power=0.5)}
    monkeypatch.setattr(registration_bench, "STEPS", changed)
    run()
    assert len(asked) == 2, "one step, on deformed pairs and on raw frames"
    run(mark=Key({"weights": "2"}))
    assert len(asked) == 2 * len(rows)


def test_every_row_of_these_tables_of_mini_has_a_key(root: Path) -> None:
    """Without one a notebook would measure for minutes at every run."""
    for name in ("test_pairs", "refinement", "what_the_truth_is_worth", "what_is_left", "raw_frames"):
        table = result_tables.read(root / "results" / "mini" / "tables" / f"{name}.csv")
        assert table[result_tables.MADE_BY].map(lambda text: bool(Key.parse(text).parts)).all(), name
