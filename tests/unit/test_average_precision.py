"""Average precision: by hand on few boxes, the library's rules in the resampling, and sets that cannot be scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionlib.metrics import average_precision as module
from fusionlib.metrics.average_precision import THRESHOLDS, average_precision, intervals, resampled
from fusionlib.support import boxes
from fusionlib.support.files import InputError

PERSON, BICYCLE, CAR = range(3)
BOX = (10.0, 10.0, 30.0, 50.0)


def found(*rows: tuple[float, ...]) -> Tensor:
    """Detections (M, 6) of rows of class, score and corners."""
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)


def drawn(images: int, most: int, seed: int = 0, steps: int | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Random boxes and detections, most of them near a box; `steps` lets many scores be equal."""
    rng = np.random.default_rng(seed)
    detections, truth = [], []
    for _ in range(images):
        count, claims = rng.integers(0, 8), rng.integers(0, most)
        corner, side = rng.uniform(0, 200, (count, 2)), rng.uniform(5, 60, (count, 2))
        there = np.concatenate([rng.integers(0, 3, (count, 1)), corner, corner + side], 1)
        near = there[rng.integers(0, count, claims)] if count else np.tile([0, 5, 5, 40, 40], (claims, 1))
        moved = near[:, 1:] + rng.normal(0, 1, (claims, 4)) * rng.uniform(0, 6, (claims, 1))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        score = rng.uniform(0, 1, (claims, 1))
        score = np.round(score * steps) / steps if steps else score
        detections.append(torch.tensor(np.concatenate([near[:, :1], score, moved], 1), dtype=torch.float32))
        truth.append(torch.tensor(there, dtype=torch.float32).reshape(-1, 5))
    return detections, truth


def test_a_perfect_detector_scores_one_at_every_threshold():
    truth = [boxes.of_rows([(PERSON, *BOX), (CAR, 60, 60, 90, 80)]), boxes.of_rows(), boxes.of_rows([(CAR, *BOX)])]
    score = average_precision([torch.cat([t[:, :1], torch.ones(len(t), 1), t[:, 1:]], 1) for t in truth], truth)
    assert score.classes == ("person", "bicycle", "car") and score.boxes == (1, 0, 2)
    assert np.isnan(score.ap[BICYCLE]).all()
    assert score.ap[[PERSON, CAR]] == pytest.approx(1)
    assert score.means == pytest.approx({"mAP50": 1, "mAP50:90": 1, "mAP50:95": 1})


def test_precision_by_hand():
    """Two boxes and, from the highest score down, hit, false alarm, hit: 1 up to half of the recall, 2/3 beyond."""
    truth = [boxes.of_rows([(CAR, *BOX), (CAR, 60, 60, 90, 80)])]
    claims = found((CAR, 0.9, *BOX), (CAR, 0.8, 100, 100, 120, 120), (CAR, 0.7, 60, 60, 90, 80))
    assert average_precision([claims], truth).ap[CAR, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_each_threshold_asks_for_its_overlap():
    """A detection three quarters as wide as its box has an IoU of exactly 0.75."""
    ap = average_precision([found((CAR, 0.9, 0, 0, 75, 40))], [boxes.of_rows([(CAR, 0, 0, 100, 40)])]).ap[CAR]
    assert ap.tolist() == [1 if threshold <= 0.75 else 0 for threshold in THRESHOLDS]
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_a_box_is_claimed_once_and_by_its_own_class():
    truth = [boxes.of_rows([(CAR, *BOX), (CAR, 60, 60, 90, 80)])]
    twice = average_precision([found((CAR, 0.9, *BOX), (CAR, 0.8, *BOX))], truth).ap[CAR, 0]
    assert twice == pytest.approx(51 / 101)  # half of the recall, at full precision
    assert average_precision([found((PERSON, 0.9, *BOX))], truth).means["mAP50"] == 0


def test_false_alarms_on_an_empty_image_cost_precision_if_they_score_higher():
    truth, hit = [boxes.of_rows([(CAR, *BOX)]), boxes.of_rows()], found((CAR, 0.5, *BOX))
    assert average_precision([hit, found((CAR, 0.9, *BOX))], truth).ap[CAR, 0] == pytest.approx(1 / 2)
    assert average_precision([hit, found((CAR, 0.1, *BOX))], truth).ap[CAR, 0] == 1


def test_nothing_found_scores_zero():
    score = average_precision([found(), found()], [boxes.of_rows([(CAR, *BOX)]), boxes.of_rows()])
    assert score.means == {"mAP50": 0, "mAP50:90": 0, "mAP50:95": 0}


def test_classes_without_boxes_and_classes_not_asked_for_do_not_count():
    truth = [boxes.of_rows([(CAR, *BOX), (BICYCLE, 60, 60, 90, 80)])]
    claims = [found((CAR, 0.9, *BOX))]
    assert average_precision(claims, truth).means["mAP50"] == pytest.approx(1 / 2)
    some = average_precision(claims, truth, classes=("person", "car"))
    assert some.means["mAP50"] == pytest.approx(1) and some.classes == ("person", "car") and some.boxes == (0, 1)


def test_the_means_of_nine_and_of_ten_thresholds_belong_together():
    score = average_precision(*drawn(12, 60))
    at_95 = np.nanmean(score.ap[:, 9])
    assert 0 < at_95 < score.means["mAP50:90"]
    assert score.means["mAP50:95"] == pytest.approx(0.9 * score.means["mAP50:90"] + 0.1 * at_95)
    assert score.means["mAP50:90"] == pytest.approx(np.nanmean(score.ap[:, :9]))


def test_the_table_has_a_row_a_class_and_their_mean():
    score = average_precision(*drawn(12, 60))
    table = score.table().set_index("class")
    assert list(table.index) == ["person", "bicycle", "car", "all"]
    assert list(table.columns) == ["boxes", *(f"AP{p}" for p in range(50, 100, 5)), "mAP50", "mAP50:90", "mAP50:95"]
    assert table.loc["all", "boxes"] == sum(score.boxes)
    assert table.loc["all", list(score.means)].to_dict() == pytest.approx(score.means)
    assert table.loc["car", "mAP50:90"] == pytest.approx(score.ap[CAR, :9].mean())
    assert table.loc["car", "AP75"] == score.ap[CAR, 5]


# --- resampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 20])
@pytest.mark.parametrize("seed", range(4))
def test_the_resampling_counts_as_the_library_does(seed, steps, monkeypatch):
    """With every image drawn once; also where scores are equal, and where an image has more than 300 of a class."""
    detections, truth = drawn(8, 1500, seed, steps)
    once = np.ones((1, len(truth)), int)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: type("Once", (), {"multinomial": lambda *a: once})())
    ours = resampled(detections, truth, draws=1)[0]
    assert ours == pytest.approx(average_precision(detections, truth).ap, abs=1e-12)


def test_a_draw_counts_as_the_library_does_on_the_drawn_images():
    detections, truth = drawn(10, 80)
    weights = np.random.default_rng(7).multinomial(10, np.full(10, 0.1), 5)
    for ap, weight in zip(resampled(detections, truth, draws=5, seed=7), weights, strict=True):
        chosen = np.repeat(np.arange(10), weight)
        assert len(set(chosen)) < 10
        expected = average_precision([detections[i] for i in chosen], [truth[i] for i in chosen]).ap
        assert ap == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_intervals_hold_the_value_and_repeat():
    detections, truth = drawn(30, 60)
    table = intervals(detections, truth, draws=200)
    assert table.equals(intervals(detections, truth, draws=200))
    assert not table.equals(intervals(detections, truth, draws=200, seed=1))
    assert table["mean"].tolist() == ["mAP50", "mAP50:90", "mAP50:95"]
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    narrow = intervals(detections, truth, draws=200, level=0.5)
    assert (table["low"] < narrow["low"]).all() and (narrow["high"] < table["high"]).all()


def test_whole_scenes_are_drawn_where_they_are_known():
    detections, truth = drawn(10, 80)
    scenes = ["a", "b", "a", "c", "d", "b", "e", "f", "a", "g"]
    weights = np.random.default_rng(7).multinomial(7, np.full(7, 1 / 7), 5)
    for ap, weight in zip(resampled(detections, truth, draws=5, seed=7, scenes=scenes), weights, strict=True):
        chosen = [i for i, scene in enumerate(scenes) for _ in range(weight["abcdefg".index(scene)])]
        expected = average_precision([detections[i] for i in chosen], [truth[i] for i in chosen]).ap
        assert ap == pytest.approx(expected, abs=1e-12, nan_ok=True)
    apart = [str(place) for place in range(10)]
    assert intervals(detections, truth, draws=50, scenes=apart).equals(intervals(detections, truth, draws=50))


def test_copies_of_an_image_make_an_interval_narrower_and_their_scene_does_not():
    detections, truth = drawn(12, 60)
    four = [detections * 4, truth * 4]
    once, copied, grouped = (
        intervals(*each, draws=400, scenes=scenes).set_index("mean").loc["mAP50:90"]
        for each, scenes in (((detections, truth), None), (four, None), (four, [*map(str, range(12))] * 4))
    )
    width = {name: each["high"] - each["low"] for name, each in (("once", once), ("copied", copied), ("of", grouped))}
    assert width["copied"] < 0.7 * width["once"] and width["of"] == pytest.approx(width["once"], rel=0.05)


def test_a_class_that_a_draw_misses_does_not_count_in_it():
    truth = [boxes.of_rows([(CAR, *BOX)]), boxes.of_rows([(PERSON, *BOX)]), boxes.of_rows([(CAR, *BOX)])]
    ap = resampled([found((CAR, 0.9, *BOX))] * 3, truth, draws=50)
    assert np.isnan(ap[:, PERSON]).any() and not np.isnan(ap[:, PERSON]).all()
    table = intervals([found((CAR, 0.9, *BOX))] * 3, truth, draws=50)
    assert table["high"].tolist() == [1, 1, 1] and not table.isna().any(axis=None)


# --- what cannot be scored --------------------------------------------------------------------------------------------

SHOWN = [boxes.of_rows([(CAR, *BOX)])]


@pytest.mark.parametrize(
    ("detections", "truth", "classes", "message"),
    [
        ([], [], boxes.CLASSES, "no image to score"),
        ([found(), found()], SHOWN, boxes.CLASSES, "detections for 2 images and boxes for 1"),
        ([found()], [None], boxes.CLASSES, "Nobody has looked"),
        ([found()], [boxes.of_rows()], boxes.CLASSES, "No image has a box of person, bicycle, car"),
        ([found()], SHOWN, ("person",), "No image has a box of person"),
        ([found()], SHOWN, ("lorry",), r"\('lorry',\) cannot be scored"),
        ([found()], SHOWN, (), "cannot be scored"),
        ([boxes.of_rows()], SHOWN, boxes.CLASSES, r"Detections are \(0, 5\)"),
        ([torch.tensor([[CAR, torch.nan, *BOX]])], SHOWN, boxes.CLASSES, "A detection has NaN or infinity"),
        ([found()], [torch.tensor([[7.0, *BOX]])], boxes.CLASSES, "no class 7"),
    ],
)
def test_what_cannot_be_scored_is_said(detections, truth, classes, message):
    for score in (average_precision, resampled):
        with pytest.raises(InputError, match=message):
            score(detections, truth, classes)


def test_boxes_are_matched_once_for_all_draws_and_at_most_300_an_image(monkeypatch):
    """Matching costs nearly all of the time; a draw only weighs what was matched."""
    match, most = module._matches, []

    def counting(found: np.ndarray, boxes: np.ndarray) -> tuple:
        most.append(np.bincount(found[:, 0].astype(int)).max())
        return match(found, boxes)

    monkeypatch.setattr(module, "_matches", counting)
    detections, truth = drawn(20, 1500)
    resampled(detections, truth, draws=30)
    assert len(most) == len(boxes.CLASSES) and max(most) == module.MOST == 300
