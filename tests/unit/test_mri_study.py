"""The MRI study: what counts as head, what is scored where, and how subjects are distinguished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from fusionlib import data, methods, metrics, presets
from fusionlib.data.volumes import subject_of
from fusionlib.experiments import evaluation, registration_bench
from fusionlib.experiments.comparison import Measured, Row
from fusionlib.experiments.evaluation import BOUND
from fusionlib.experiments.mri_study import box, by_subject, head, score
from fusionlib.methods.protocol import Fused
from fusionlib.support.keys import Key

pytestmark = pytest.mark.numeric

SMOKE = presets.mri(presets.load("smoke"))


def slices(side: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A round head with a dark hole in both contrasts, T2 and T1 (1, 1, side, side)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    radius = (x.square() + y.square()).sqrt()
    texture = torch.rand(side, side, generator=torch.Generator().manual_seed(seed))
    there = (radius < 0.7) & (radius > 0.2)
    return (there * (0.3 + 0.5 * texture))[None, None], (there * (0.9 - 0.5 * texture))[None, None]


def test_the_head_has_no_holes_and_no_background() -> None:
    t2, t1 = slices()
    mask = head(t2, t1)
    assert mask.dtype == torch.bool and mask.shape == t1.shape
    assert mask[..., 32, 32] and not t1[..., 32, 32].any()  # the hole
    assert not mask[..., 0, :].any() and not mask[..., :2].any()
    assert (mask >= (t1 > 0)).all()


def test_what_only_one_contrast_shows_is_head_too() -> None:
    t2, t1 = slices()
    t2[..., 60, 30] = 0.5
    assert head(t2, t1)[..., 60, 30]


def test_the_box_holds_the_head_and_ends_at_the_image() -> None:
    mask = torch.zeros(1, 1, 20, 30, dtype=torch.bool)
    mask[..., 5:9, 1:28] = True
    assert box(mask, margin=3) == (slice(2, 12), slice(0, 31))
    assert torch.ones(1, 1, 20, 30)[..., *box(mask, margin=3)].shape[-2:] == (10, 30)


def test_background_changes_what_is_scored_over_the_slice_alone() -> None:
    t2, t1 = slices()
    found = {}
    for frame in (0, 16):
        both = [F.pad(image, [frame] * 4) for image in (t2, t1)]
        moved = evaluation.deform(both[0], "patient_z001", "light")
        found[frame] = score(methods.load("average"), *both, replace(moved, ir=both[0]))
    for name in ("Q_CC", "Q_AB/F", "Q_SSIM"):
        assert found[0][name] == pytest.approx(found[16][name], abs=1e-5)
    assert found[16]["Q_SSIM@slice"] > found[0]["Q_SSIM@slice"] + 0.05


def test_errors_of_the_field_count_inside_the_head_alone() -> None:
    t2, t1 = slices()
    moved = evaluation.deform(t2, "patient_z001", "medium")
    wrong_outside = torch.where(head(t2, t1), moved.phi_gt, moved.phi_gt + 7)

    class Knows:
        name = "knows"

        def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> Fused:
            return Fused((ir + vi) / 2, wrong_outside, ir)

    found = score(Knows(), t2, t1, moved)
    assert found["EPE"] == 0 == found["EPE_share"]
    outside = moved.valid & ~head(t2, t1)
    assert found["EPE@slice"] == pytest.approx(7 * 2**0.5 * (outside.sum() / moved.valid.sum()).item(), rel=1e-4)
    assert score(methods.load("average"), t2, t1, moved)["EPE_share"] == 1


def test_a_method_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    t2, t1 = slices()
    calls = []

    class Counts:
        name = "counts"

        def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> Fused:
            calls.append(ir)
            return Fused((ir + vi) / 2)

    score(Counts(), t2, t1, evaluation.deform(t2, "a_z1", "light"))
    assert len(calls) == 1


def test_subjects_are_read_off_the_names() -> None:
    assert subject_of("patient26_z087") == "patient26"
    assert subject_of("BraTS20_Training_001_z071") == "BraTS20_Training_001"
    assert subject_of("brains_test_0003") == "brains_test_0003"


def test_means_are_over_heads_not_slices() -> None:
    """Three slices of one head and one of another: each head counts once."""
    pairs = ["a_z1", "a_z2", "a_z3", "b_z1"]
    table = pd.DataFrame(
        {"dataset": "set", "level": "medium", "method": "average", "pair": pairs, "Q_CC": [0, 0, 0, 1]}
    )
    rows = [Row("average", "Table 7"), Row("laplacian", "Table 7"), Row(BOUND, "no network")]
    found = by_subject(Measured(rows, table, {"laplacian": "not there"}), "medium", ["Q_CC"])
    assert found.index.tolist() == [(row.heading, row.method) for row in rows]
    assert found.loc[("Table 7", "average")].tolist() == [2, 0.5, 0, 1]
    assert found.loc[("Table 7", "laplacian"), "subjects"] == 0
    assert found.loc[("Table 7", "laplacian"), ["Q_CC", "Q_CC_low"]].isna().all()


def test_the_bench_counts_errors_inside_the_head_alone(tmp_path: Path) -> None:
    config = replace(SMOKE.bench, levels=("medium",), count=2)

    class WrongOutside:
        """Knows the true field in the head of the pair at hand, and is seven pixels off beyond it."""

        name = "wrong outside"

        def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> Fused:
            t2, t1 = pairs.stack([index := next(turn)])
            moved = evaluation.deform(t2, pairs.names[index], "medium")
            return Fused(ir, torch.where(head(t2, t1), moved.phi_gt, moved.phi_gt + 7), ir)

    pairs = data.open_set("brains", "test", SMOKE.test_size, count=2)
    found = {}
    for area in (None, head):
        turn = iter(range(2))
        name = "everywhere" if area is None else "head"
        found[name] = registration_bench.run(config, {WrongOutside(): Key()}, tmp_path / f"{name}.csv", area)
    assert (found["head"]["EPE"] == 0).all() and (found["everywhere"]["EPE"] > 1).all()
    assert found["head"]["pair"].nunique() == 2


def test_rows_of_another_area_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, path = replace(SMOKE.bench, levels=("medium",), count=1), tmp_path / "kept.csv"
    compared = {methods.load("identity"): Key()}
    inside = registration_bench.run(config, compared, path, head)
    calls = []
    monkeypatch.setattr(metrics, "endpoint_error", lambda *a, kept=metrics.endpoint_error: calls.append(a) or kept(*a))
    pd.testing.assert_frame_equal(registration_bench.run(config, compared, path, head), inside)
    assert not calls
    everywhere = registration_bench.run(config, compared, path)
    assert calls and everywhere["EPE"].tolist() != inside["EPE"].tolist()


def test_the_study_has_its_own_pairs_no_detector_and_the_road_s_start() -> None:
    for name in ("smoke", "mini"):
        streets = presets.load(name, seed=3)
        study = presets.mri(streets)
        learned = study.recipe.start  # what is finished
        assert study.recipe.detector is None is learned.detector
        assert study.recipe.training.fusion_epochs == study.recipe.training.epochs  # the registration stays
        assert learned.start == streets.recipe.start and learned.dataset == study.recipe.dataset
        assert study.recipe.seed == 3 and study.recipe.size <= study.test_size == 240
        assert "RoadScene" not in (study.recipe.dataset, *study.test_sets)
        assert study.bench.sets == tuple((test, "test") for test in study.test_sets)
        assert study.bench.sizes == (study.test_size,)
    assert presets.mri(presets.load("paper")).recipe.start is None
