"""Methods behind one protocol, and the long table that scores them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import data, methods
from fusionlib.deformation import invert
from fusionlib.experiments import evaluation
from fusionlib.methods import Fused
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric


class Oracle:
    """Knows the deformation that `evaluation.deform` draws: the ceiling of every registration."""

    name = "oracle"

    def __init__(self, names: list[str], level: str) -> None:
        self.names, self.level = iter(names), level

    def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> Fused:
        from fusionlib.deformation import sample_field, warp

        psi = sample_field(self.level, *ir.shape[-2:], ("test", 0, next(self.names)))
        field = invert(psi)
        return Fused((warp(ir, field) + vi) / 2, field, warp(ir, field))


@pytest.fixture(scope="module")
def pairs() -> data.PairSet:
    return data.open_set("synthetic", "test", 64, count=3)


@pytest.fixture(scope="module")
def table(pairs):
    compared = [methods.load("average"), Oracle(pairs.names, "medium")]
    return evaluation.evaluate(compared, pairs, "synthetic", "medium")


def mean(table, method: str, metric: str) -> float:
    return table[(table["method"] == method) & (table["metric"] == metric)]["value"].mean()


def test_the_table_is_long_and_complete(table, pairs):
    assert table.columns.tolist() == evaluation.COLUMNS
    assert set(table["pair"]) == set(pairs.names)
    assert not table["value"].isna().any()
    counts = table[table["method"] != evaluation.BOUND].groupby(["method", "metric"]).size()
    assert (counts == len(pairs)).all()


def test_a_perfect_registration_has_no_error_and_doing_nothing_has_all_of_it(table):
    assert mean(table, "oracle", "EPE") < 1e-3
    assert mean(table, "average", "EPE_share") == 1
    assert mean(table, "average", "EPE") > 0.5
    assert mean(table, "oracle", "NCC") > 0.98 > 0.95 > mean(table, "average", "NCC")
    assert mean(table, "oracle", "folds") == 0


def test_no_method_exceeds_the_bound(table):
    wide = table[table["metric"] == "Q_CC"].pivot(index="pair", columns="method", values="value")
    assert (wide.drop(columns=evaluation.BOUND).max(axis=1) <= wide[evaluation.BOUND] + 1e-6).all()


def test_the_deformation_of_a_pair_does_not_depend_on_the_others(pairs):
    alone = data.open_set("synthetic", "test", 64, count=1)
    one = evaluation.evaluate([methods.load("average")], alone, "synthetic", "medium")
    all_of_them = evaluation.evaluate([methods.load("average")], pairs, "synthetic", "medium")
    assert mean(one, "average", "EPE") == mean(all_of_them[all_of_them["pair"] == alone.names[0]], "average", "EPE")


def test_the_summary_has_each_set_and_all_of_them(table):
    both = evaluation.summary(pd.concat([table, table.assign(dataset="other", value=table["value"] + 1)]), ["EPE"])
    means = both["EPE"].xs("average", level="method").droplevel("level")
    assert means["all"] == pytest.approx((means["synthetic"] + means["other"]) / 2)


def test_rules_do_what_they_say():
    ir, vi = torch.rand(2, 1, 32, 40), torch.rand(2, 1, 32, 40)
    assert torch.equal(methods.load("infrared").fuse(ir, vi).image, ir)
    assert torch.equal(methods.load("visible").fuse(ir, vi).image, vi)
    assert torch.equal(methods.load("average").fuse(ir, vi).image, (ir + vi) / 2)
    assert torch.equal(methods.load("maximum").fuse(ir, vi).image, torch.maximum(ir, vi))


def test_ours_registers_and_fuses_batches_of_any_size():
    net = FusionNetwork(NetworkConfig(channels=4, msrb_widths=(8, 8), gathering_widths=(8, 8)))
    fused = methods.Ours(net).fuse(torch.rand(2, 1, 45, 61), torch.rand(2, 1, 45, 61))
    assert fused.image.shape == fused.registered_ir.shape == (2, 1, 45, 61)
    assert fused.field.shape == (2, 2, 45, 61)


def test_bad_input_is_told_in_one_sentence():
    with pytest.raises(InputError, match="Unknown method 'magic'"):
        methods.load("magic")
    with pytest.raises(InputError, match="differ in size"):
        methods.load("average").fuse(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 33))
    with pytest.raises(InputError, match="Infrared has 3 channels"):
        methods.load("average").fuse(torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32))
    with pytest.raises(InputError, match="NaN"):
        methods.load("maximum").fuse(torch.full((1, 1, 32, 32), torch.nan), torch.rand(1, 1, 32, 32))


# --- several pairs together


def errors(share: float, pairs: int, dataset: str = "set") -> pd.DataFrame:
    """Pairs of a method whose error is that share of the identity's, which is 1 px of the first pair, 2 of the next."""
    rng = np.random.default_rng(pairs)
    identity = np.arange(1.0, pairs + 1)
    names = [f"{dataset} {pair}" for pair in range(pairs)]
    found = identity * share * rng.uniform(0.9, 1.1, pairs)
    return pd.DataFrame({"dataset": dataset, "pair": names, "EPE": found, "EPE_share": found / identity})


def test_the_share_of_several_pairs_is_that_of_their_errors_together() -> None:
    rows = pd.DataFrame({"dataset": "a", "EPE": [1.0, 1.0], "EPE_share": [1.0, 0.1], "Q_CC": [0.0, 1.0]})
    found = evaluation.means(rows, ["dataset"], ["Q_CC", "EPE_share"]).loc["a"]
    assert found.to_dict() == pytest.approx({"Q_CC": 0.5, "EPE_share": 2 / 11})  # not 0.55
    assert "EPE_share" not in evaluation.means(rows.drop(columns="EPE"), ["dataset"], ["Q_CC"])
    low, high = evaluation.share_interval(errors(0.5, 12))
    assert 0.4 < low < 0.5 < high < 0.6
    assert np.isnan(evaluation.share_interval(errors(0.5, 4))).all()  # too few scenes


def test_a_set_is_harmed_if_its_pairs_are_surely_farther_apart() -> None:
    sets = [errors(1.5, 12, "worse"), errors(0.5, 12, "better"), errors(1.0, 12, "same"), errors(1.5, 3, "few")]
    assert evaluation.harmed(pd.concat(sets)) == ["worse"]
    worse = evaluation.made_worse(pd.concat(sets))
    assert list(worse) == ["worse"] and worse["worse"] < 0.05  # "same" is not above 1, and "few" cannot be tested
