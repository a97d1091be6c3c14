"""Charts under controls: the numbers in them are the library's own."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from fusionlib import losses, metrics
from fusionlib.metrics import average_precision
from fusionlib.notebook import explore_scores as scores
from fusionlib.notebook.plotting import png
from fusionlib.support import boxes

TERMS = {"l_c": 0.5, "l_s": -0.9, "l_reg": 3.0, "l_coarse": 4.0, "l_match": 2.0, "l_b": 0.3, "l_g": 0.8, "l_ob": 3.5}


def image(seed: int) -> Tensor:
    coarse = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")


# --- Eq. (12)


def test_weighted_terms_are_those_that_the_total_is_made_of():
    weights = losses.LossWeights(gamma=3, lambda_reg=7)
    parts = scores.weighted_terms(TERMS, weights)
    assert parts.sum() == pytest.approx(losses.total_loss(TERMS, weights))
    assert parts["l_g"] == pytest.approx(5 * 3 * 0.8) and parts["l_reg"] == pytest.approx(7 * 3.0)


def bar_lengths(figure) -> list[float]:
    return [bar.get_width() for bar in figure.axes[0].patches]


def test_loss_bars_follow_the_sliders_and_name_the_leader():
    figure = scores.loss_bars(TERMS)
    assert bar_lengths(figure) == pytest.approx(list(scores.weighted_terms(TERMS, losses.LossWeights())))
    assert "l_reg, Eq. 5 leads" in figure.axes[0].get_title()
    assert "l_g, Eq. 10 leads" in scores.loss_bars(TERMS, lambda1=0, gamma=10).axes[0].get_title()
    assert f"l_t = {losses.total_loss(TERMS, losses.LossWeights()):.3g}" in figure.axes[0].get_title()


def test_loss_bars_without_a_detector_have_no_such_bar():
    without = {name: value for name, value in TERMS.items() if name != "l_ob"}
    assert len(bar_lengths(scores.loss_bars(without))) == len(TERMS) - 1


# --- the metrics


def test_spoilt_by_nothing_is_the_image_itself():
    assert torch.equal(scores.spoilt(image(0)), image(0))


def test_spoilt_in_each_way():
    fused = image(0)
    assert torch.allclose(scores.spoilt(fused, shift=3)[..., 3:], fused[..., :-3], atol=1e-5)
    assert scores.spoilt(fused, blur=3).std() < 0.9 * fused.std()
    assert scores.spoilt(fused, contrast=50).std() == pytest.approx(0.5 * fused.std().item(), rel=1e-4)
    assert scores.spoilt(fused, contrast=50).mean() == pytest.approx(fused.mean().item(), rel=1e-4)
    noisy = scores.spoilt(fused, noise=5)
    assert (noisy - fused).std() == pytest.approx(0.05, rel=0.1) and torch.equal(noisy, scores.spoilt(fused, noise=5))
    assert scores.spoilt(fused, noise=100).min() >= 0 and scores.spoilt(fused, noise=100).max() <= 1


def test_metric_bars_point_to_worse_for_a_blurred_image_also_where_lower_is_better():
    ir, vi = image(0), image(1)
    fused = (ir + vi) / 2
    before = scores.scores(ir, vi, fused)
    figure = scores.metric_bars(ir, vi, scores.spoilt(fused, noise=20.0), before)
    after = scores.scores(ir, vi, scores.spoilt(fused, noise=20.0))
    widths = dict(zip(before.index, (bar.get_width() for bar in figure.axes[1].patches), strict=True))
    assert after["Q_CV"] > before["Q_CV"] and widths["Q_CV"] < 0
    assert after["Q_SSIM"] < before["Q_SSIM"]
    assert widths["Q_SSIM"] == pytest.approx(100 * (after["Q_SSIM"] / before["Q_SSIM"] - 1), rel=1e-5)


def test_scores_are_the_librarys_and_one_more():
    ir, vi, fused = image(0), image(1), image(2)
    found = scores.scores(ir, vi, fused)
    library = pd.Series({name: value.item() for name, value in metrics.fusion_metrics(ir, vi, fused).items()})
    assert found[library.index].to_dict() == library.to_dict()
    assert found[scores.INTERIOR] != found["Q_CV"]


# --- detections


TRUTH = boxes.of_rows([(0, 10, 10, 20, 30), (2, 40, 40, 60, 50), (2, 5, 50, 15, 60)])


def found(*rows: tuple) -> Tensor:
    return torch.tensor([list(row) for row in rows], dtype=torch.float32).reshape(-1, 6)


DETECTIONS = found(
    (2, 0.9, 40, 40, 60, 50),  # right
    (2, 0.8, 41, 40, 61, 50),  # the same car again
    (0, 0.6, 10, 12, 20, 30),  # right
    (1, 0.5, 5, 50, 15, 60),  # right place, wrong class
    (2, 0.2, 5, 50, 15, 61),  # right, with a low score
)


def test_each_box_is_claimed_once_by_its_class():
    matched = scores.matches(DETECTIONS, TRUTH)
    assert matched.right.tolist() == [True, False, True, False, True]
    assert matched.claimed_by.tolist() == [2, 0, 4]


@pytest.mark.parametrize(("least", "precision", "recall"), [(0.1, 3 / 5, 1), (0.55, 2 / 3, 2 / 3), (0.9, 1, 1 / 3)])
def test_precision_and_recall_above_a_threshold(least, precision, recall):
    above = scores.matches(DETECTIONS, TRUTH).above(least)
    assert scores.precision_recall(*above) == pytest.approx((precision, recall))


def test_nothing_found_and_nothing_there_are_undefined():
    matched = scores.matches(DETECTIONS, TRUTH)
    precision, recall = scores.precision_recall(*matched.above(0.95))
    assert math.isnan(precision) and recall == 0
    none = scores.matches(DETECTIONS, boxes.of_rows())
    assert not none.right.any() and math.isnan(scores.precision_recall(*none.above(0))[1])


def test_recall_over_all_thresholds_is_that_of_the_average_precision():
    """AP50 of one class is 1 exactly if a threshold finds all without a false alarm, as the matches say."""
    cars = DETECTIONS[DETECTIONS[:, 0] == 2]
    for chosen in (cars, cars[[0, 2]]):
        matched = scores.matches(chosen, TRUTH[1:])
        clean = bool(matched.right.all()) and bool((matched.claimed_by < len(chosen)).all())
        ap = average_precision.average_precision([chosen], [TRUTH[1:]], ["car"]).ap[0, 0]
        assert (ap == pytest.approx(1)) == clean


def test_threshold_picture_draws_what_counts_and_what_is_missed():
    matched = scores.matches(DETECTIONS, TRUTH)
    few, many = (scores.threshold_picture(torch.zeros(1, 64, 64), matched, least) for least in (0.85, 0.1))
    assert len(few.axes[0].patches) == 1 + 2 and len(many.axes[0].patches) == 5 + 0
    assert few.axes[0].get_title() == "1 right, 0 false alarms, 2 missed"
    assert png(few) != png(many)
    lines = np.array([line.get_ydata() for line in many.axes[1].lines[:2]])
    assert (np.diff(lines[1]) <= 0).all()  # recall falls with the threshold


def test_objects_of_a_table_are_detections_of_each_image_best_first() -> None:
    rows = pd.DataFrame(
        [[2, 0, 0.5, 1, 2, 3, 4], [0, 2, 0.3, 0, 0, 9, 9], [0, 1, 0.8, 0, 0, 5, 5], [1, *[float("nan")] * 6]],
        columns=["place", "class", "score", "x0", "y0", "x1", "y1"],
    )
    first, none, last = scores.objects_of(rows, 3)
    assert (
        first[:, 1].tolist() == pytest.approx([0.8, 0.3])
        and none.shape == (0, 6)
        and last[0, 2:].tolist() == [1, 2, 3, 4]
    )


def test_f1_is_one_for_all_boxes_and_nothing_else() -> None:
    truth = torch.tensor([[0.0, 0, 0, 10, 10], [1, 20, 20, 40, 40]])
    right = torch.cat([truth[:, :1], torch.tensor([[0.9], [0.8]]), truth[:, 1:]], 1)
    assert scores.f1(right, truth) == 1 and scores.f1(right[:1], truth) == pytest.approx(2 / 3)
    assert scores.f1(right[:0], truth) == 0
