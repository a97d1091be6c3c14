"""What is made worse gets worse by the stated amount, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import data, deformation, methods, metrics
from fusionlib.experiments import robustness
from fusionlib.experiments.robustness import TRIALS, farther, glare, method_inputs, night, run, shares
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key

pytestmark = pytest.mark.numeric

GREY = torch.full((1, 1, 96, 128), 0.5)


def test_farther_is_the_same_way_and_longer() -> None:
    assert farther(1).translation == deformation.LEVELS["heavy"].translation
    once_, twice = (
        deformation.sample_field(deformation.Level("", 0.06 * factor, 0.0, 0.0), 64, 64, "key") for factor in (1, 2)
    )
    assert torch.allclose(2 * once_, twice, atol=1e-4)
    lengths = [deformation.sample_field(farther(f), 64, 64, "key").norm(dim=1).mean() for f in (0.5, 1, 2, 3)]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("photons", [1000, 100, 10])
def test_the_noise_of_the_night_is_that_of_counted_photons(photons: float) -> None:
    seen = night(GREY, photons, "a")
    assert seen.shape == GREY.shape and seen.dtype == GREY.dtype
    assert seen.mean().item() == pytest.approx(0.5, abs=0.01)
    assert seen.std().item() == pytest.approx((0.5 / photons) ** 0.5, rel=0.1)
    assert torch.equal(seen, night(GREY, photons, "a")) and not torch.equal(seen, night(GREY, photons, "b"))


def test_without_light_nothing_is_seen() -> None:
    for photons in (0, -1, float("nan")):
        with pytest.raises(InputError, match="above 0"):
            night(GREY, photons, "a")


def test_lamps_blind_more_and_more_of_the_image() -> None:
    assert torch.equal(glare(GREY, 0, "a"), GREY)
    few, many = glare(GREY, 2, "a"), glare(GREY, 8, "a")
    assert (many >= few).all() and (few >= GREY).all() and many.max() == 1
    blind = [(glare(GREY, lamps, "a") == 1).float().mean().item() for lamps in (0, 1, 4, 16)]
    assert blind == sorted(blind) and blind[0] == 0 < blind[1] and blind[-1] < 0.5


def test_only_what_a_trial_is_about_changes() -> None:
    pairs = data.open_set("synthetic", "test", 64, count=1)
    vi = pairs.stack([0])[1]
    plain = {name: method_inputs(trial, trial.amounts[0], pairs, 0) for name, trial in TRIALS.items()}
    hard = {name: method_inputs(trial, trial.amounts[-1], pairs, 0) for name, trial in TRIALS.items()}
    for name in ("darkness", "glare"):
        assert torch.equal(plain[name][0].ir, hard[name][0].ir) and not torch.equal(hard[name][1], vi)
    assert torch.equal(hard["distance"][1], vi) and not torch.equal(plain["distance"][0].ir, hard["distance"][0].ir)


def test_rows_are_kept_and_say_what_is_left(tmp_path: Path) -> None:
    pairs, path = data.open_set("synthetic", "test", 64, count=2), tmp_path / "stress.csv"
    asked = {methods.load("average"): methods.origin("average").key}
    rows = run(TRIALS["glare"], asked, pairs, path, amounts=(0, 4))
    assert len(rows) == 4 and (shares(rows)["average"] == 1).all()  # it does not register

    def again(*_: object) -> None:
        raise AssertionError("measured twice")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "_measure", again)
        pd.testing.assert_frame_equal(run(TRIALS["glare"], asked, pairs, path, amounts=(0, 4)), rows)
        with pytest.raises(AssertionError, match="twice"):
            run(TRIALS["glare"], {methods.load("average"): Key({"weights": "another"})}, pairs, path, amounts=(0,))
    moved, _ = method_inputs(TRIALS["glare"], 0, pairs, 0)
    nothing = metrics.endpoint_error(torch.zeros_like(moved.phi_gt), moved.phi_gt, moved.valid).item()
    assert rows["EPE_identity"].iloc[0] == pytest.approx(nothing, rel=1e-5)


def test_differences_are_tested_over_scenes_at_every_amount() -> None:
    rng = np.random.default_rng(0)
    lines = [
        {"trial": "dark", "amount": amount, "method": method, "pair": f"p{pair}", "EPE_identity": 4.0}
        | {"EPE": 2 + 0.1 * rng.random() + (amount == 2) * (method == "other")}
        for amount in (1, 2) for method in ("ours", "other") for pair in range(12)
    ]  # fmt: skip
    found = robustness.differences(pd.DataFrame(lines)).loc["dark"]
    assert found.loc[2, ("other", "difference")] == pytest.approx(1, abs=0.1) and found.loc[2, ("other", "p")] < 0.01
    assert found.loc[1, ("other", "p")] > 0.05 and (found["identity", "difference"] > 1.8).all()
    alike = pd.DataFrame(lines).assign(pair=lambda rows: "0000" + rows["pair"].str[1:].astype(int).mod(6).astype(str))
    one_scene = robustness.differences(alike.drop_duplicates(["amount", "method", "pair"])).loc["dark"]
    assert one_scene.loc[2, ("other", "p")] > 0.05  # six frames of one street are one observation
