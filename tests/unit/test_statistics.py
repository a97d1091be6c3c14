"""Statistics over few pairs: intervals that hold the mean, and tests that find what there is to find."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fusionlib.metrics.statistics import holm, interval, sign_flips, with_more_spread


def test_an_interval_holds_the_mean_and_narrows_with_more_pairs() -> None:
    values = pd.Series([1.2, 0.7, 3.1])
    low, high = interval(values)
    assert low <= values.mean() <= high
    many = interval(values.sample(300, replace=True, random_state=0))
    assert many[1] - many[0] < high - low


def test_an_interval_is_that_of_the_resampled_means() -> None:
    values = np.random.default_rng(5).normal(size=18)
    drawn = values[np.random.default_rng(0).integers(0, 18, (2000, 18))].mean(axis=1)
    tail = 100 * stats.norm.cdf(-stats.t.ppf(0.975, 17) * (18 / 17) ** 0.5)
    assert interval(values) == pytest.approx(tuple(np.percentile(drawn, [tail, 100 - tail])), rel=1e-9)


def test_intervals_of_a_dozen_scenes_hold_the_true_mean_as_often_as_they_say() -> None:
    samples = np.random.default_rng(0).normal(size=(500, 12))
    ends = np.array([interval(sample) for sample in samples])
    drawn = samples[:, np.random.default_rng(0).integers(0, 12, (2000, 12))].mean(axis=2)
    usual = np.percentile(drawn, [2.5, 97.5], axis=1).T
    held, held_by_usual = (((low_high[:, 0] < 0) & (low_high[:, 1] > 0)).mean() for low_high in (ends, usual))
    assert held_by_usual < 0.92 < held < 0.98  # 0.95 is meant


def test_a_single_value_is_its_own_interval_and_an_undefined_one_has_none() -> None:
    assert interval([2.5]) == (2.5, 2.5) and interval([1.0, 1.0, 1.0]) == (1, 1)
    assert np.isnan(interval([1.0, np.nan, 2.0])).all()


def test_a_difference_in_every_pair_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(0)
    clear = rng.normal(0.3, 0.1, 18)
    assert sign_flips(clear) == sign_flips(-clear) == pytest.approx(1e-4)
    assert sign_flips(np.zeros(18)) == 1
    assert sign_flips([1.0, -1.0] * 9) == 1
    assert np.isnan(sign_flips([]))


def test_the_paired_test_is_the_exact_one_where_that_can_be_counted() -> None:
    sample = np.array([0.9, -0.2, 0.5, 0.4, 0.1, 0.8])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    exact = (np.abs(signs @ sample) >= np.abs(sample.sum()) - 1e-9).mean()
    assert sign_flips(sample) == pytest.approx(exact, abs=0.01)


def test_chance_alone_is_called_a_difference_in_one_case_of_twenty() -> None:
    rng = np.random.default_rng(1)
    rejected = [sign_flips(rng.normal(size=18), draws=499) <= 0.05 for _ in range(400)]
    assert 0.02 < np.mean(rejected) < 0.09


def test_what_was_not_measured_is_no_question() -> None:
    nan = float("nan")
    assert np.isnan(sign_flips([nan, 1.0, -2.0, 0.1]))
    for order in (("a", "b", "c"), ("b", "a", "c")):
        adjusted = holm({name: {"a": 0.001, "b": nan, "c": 0.002}[name] for name in order})
        assert adjusted["a"] == adjusted["c"] == 0.002 and np.isnan(adjusted["b"])


def test_holm_corrects_for_the_number_of_questions() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_an_unknown_spread_makes_nothing_significant_and_still_counts() -> None:
    assert (
        with_more_spread(1.0, 0.5, 1.5, 1e-3, np.nan)[3] == with_more_spread(np.nan, np.nan, np.nan, 1.0, 0.0)[3] == 1
    )
