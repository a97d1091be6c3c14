"""The confidence of a field: none without evidence, less in the dark, and as often right as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import data, methods
from fusionlib.data import PairSet
from fusionlib.experiments import evaluation, reliability, robustness
from fusionlib.methods.fast import fast
from fusionlib.methods.field_confidence import Calibration, cues, field_confidence
from fusionlib.methods.fuse import fuse_files
from fusionlib.support.keys import Key

pytestmark = pytest.mark.numeric

MARK = Key.of([], weights="those of the test")


@pytest.fixture(scope="module")
def ours() -> methods.Ours:
    return methods.load("ours_refined")


@pytest.fixture(scope="module")
def scenes() -> PairSet:
    return data.open_set("synthetic", "test", 128, count=3)


def test_every_cue_counts_in_its_direction() -> None:
    match, still = torch.full((1, 1, 40, 48), 0.3), torch.zeros(1, 2, 40, 48)
    shifted = still + 4.0

    def of(found: torch.Tensor, refined: torch.Tensor, match: torch.Tensor = match) -> float:
        return field_confidence(cues(found, refined, match)).mean().item()

    assert of(still, still) > of(shifted, shifted) > of(shifted + 2, shifted) > 0
    assert of(shifted, shifted, 2 * match) > of(shifted, shifted)


def test_the_confidence_differs_from_place_to_place() -> None:
    match, field = torch.full((1, 1, 64, 64), 0.1), torch.ones(1, 2, 64, 64)
    match[..., 32:] = 0.6
    sure = field_confidence(cues(field, field, match))
    assert sure.shape == match.shape and sure[..., -1].min() > 1.5 * sure[..., 0].max()


def test_without_evidence_there_is_none(ours: methods.Ours, scenes: PairSet) -> None:
    ir, vi = scenes.stack([0])
    for spoil in robustness.NOTHING.values():
        fused = ours.fuse(spoil(ir, "0"), vi)
        assert fused.confidence.shape == vi.shape and fused.confidence.max() == 0
    sure = ours.fuse(ir, vi).confidence
    assert sure.min() > 0 and sure.max() < 1


def test_it_falls_with_the_motion_and_with_the_light(ours: methods.Ours, scenes: PairSet) -> None:
    said = {}
    for condition in (reliability.Condition(None), *map(reliability.Condition, ("light", "heavy"))):
        given = [condition.given(*scenes.stack([index]), name) for index, name in enumerate(scenes.names)]
        said[str(condition)] = np.mean([ours.fuse(moved.ir, vi).confidence.mean().item() for moved, vi in given])
    assert said["aligned"] > said["light"] > said["heavy"]
    ir, vi = scenes.stack([1])
    moved = evaluation.deform(ir, scenes.names[1], "light")
    dark = robustness.night(vi, 10.0, "0")
    assert ours.fuse(moved.ir, dark).confidence.mean() < ours.fuse(moved.ir, vi).confidence.mean()


@torch.no_grad()
def test_the_fast_network_says_the_same_in_tiles_and_at_any_size(ours: methods.Ours) -> None:
    ir, vi = data.open_set("synthetic", "test", (141, 203), count=1).stack([0])
    plain, quick = ours.fuse(ir, vi), fast(ours)
    assert plain.confidence.shape == vi.shape
    for fused in (quick.fuse(ir, vi), quick.fuse(ir, vi, tile=64)):
        torch.testing.assert_close(fused.confidence, plain.confidence, atol=1e-3, rtol=0)
    assert methods.load("ours").fuse(ir, vi).confidence is None


def test_it_is_written_with_the_field(tmp_path: Path, scenes: PairSet) -> None:
    pair = scenes[0]
    data.save_image(tmp_path / "ir.png", pair.ir)
    data.save_image(tmp_path / "vi.png", pair.rgb)
    files = (tmp_path / "ir.png", tmp_path / "vi.png", tmp_path / "fused.png")
    fuse_files(*files, field=tmp_path / "field.npz")
    with np.load(tmp_path / "field.npz") as found:
        assert found["confidence"].shape == found["phi"].shape[1:] == (128, 128)
        assert "confidence (H, W)" in str(found["convention"])
    fuse_files(*files, method="ours", field=tmp_path / "field.npz")
    with np.load(tmp_path / "field.npz") as found:
        assert set(found) == {"phi", "convention"}


# --- how often it is right


def test_rows_are_measured_once_and_add_up(ours: methods.Ours, scenes: PairSet, tmp_path: Path) -> None:
    sets = [(scenes, (reliability.Condition(None), reliability.Condition("heavy")))]
    rows = reliability.run(sets, ours, MARK, tmp_path / "reliability.csv")
    assert (rows.groupby(["condition", "pair"])["places"].sum() == reliability.PLACES).all()
    assert rows["confidence"].between(0, 1).all() and rows["right"].between(0, 1).all()
    assert reliability.diagram(rows)["places"].sum() == 2 * len(scenes) * reliability.PLACES

    class Never:
        name = ours.name

    again = reliability.run(sets, Never(), MARK, tmp_path / "reliability.csv")
    pd.testing.assert_frame_equal(again, rows, rtol=1e-5)


def rows_of(said: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"places": np.full(len(said), 50), "confidence": said, "right": right})


def test_the_calibration_error_is_zero_only_if_it_is_as_often_right_as_it_says() -> None:
    said = np.linspace(0.02, 0.98, 25)
    assert reliability.calibration_error(rows_of(said, said)) < 1e-9
    assert reliability.calibration_error(rows_of(said, said**2)) > 0.1
    assert reliability.diagram(rows_of(said, said)).index.tolist() == list(range(10))
    over = rows_of(said, said**2).assign(pair=[str(number % 5) for number in range(25)])
    low, high = reliability.calibration_interval(over)
    assert low < reliability.calibration_error(over) < high < 0.3


def test_the_regression_finds_the_weights_that_made_the_data() -> None:
    true = Calibration(offset=-1.0, match=0.8, length=-0.7, correction=-30.0)
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(40_000, 3)) * (1.0, 1.5, 0.02)
    odds = true.offset + seen @ (true.match, true.length, true.correction)
    found = reliability.logistic(seen, rng.uniform(size=len(seen)) < 1 / (1 + np.exp(-odds)))
    assert found.match == pytest.approx(true.match, rel=0.1) and found.length == pytest.approx(true.length, rel=0.1)
    assert found.correction == pytest.approx(true.correction, rel=0.1) and found.offset == pytest.approx(-1, abs=0.1)


# --- at rest


def test_the_refined_field_rests_where_there_is_nothing(ours: methods.Ours, scenes: PairSet, tmp_path: Path) -> None:
    both = {ours: MARK, methods.load("ours"): MARK}
    moved = robustness.at_rest(both, scenes, tmp_path / "at_rest.csv").set_index(["input", "method", "pair"])["moved"]
    of = moved.groupby(["input", "method"]).mean()
    for name in robustness.NOTHING:
        assert of[name, "ours_refined"] == 0 < of[name, "ours"]
    assert of["aligned", "ours_refined"] < of["aligned", "ours"]
