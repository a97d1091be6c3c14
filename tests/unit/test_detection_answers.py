"""Sentences of notebook 06 say what the numbers say."""

from __future__ import annotations

import pandas as pd
import pytest

from fusionlib.experiments.comparison import METRICS
from fusionlib.notebook import detection_answers


def bench(extra: float) -> pd.DataFrame:
    """With and without: the same but for noise that no pair shares, and `extra` pixels at heavy."""
    lines = [
        {"set": "s", "level": level, "pair": f"p{pair}", "draw": draw, "method": name, "EPE_identity": 8.0}
        | {"EPE": 2 + (name == "with") * (0.1 * (-1) ** pair + extra * (level == "heavy"))}
        for level in ("light", "heavy")
        for pair in range(12)
        for draw in range(2)
        for name in ("with", "without")
    ]
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (1.0, "**Harm to the fused images in Q_CC. Harm to the registration at `heavy`.**"),
        (0.0, "in Q_CC. No significant harm to the registration at any level.**"),
        (-1.0, "significant gain at `heavy`"),
    ],
)
def test_harm_is_what_the_paired_test_finds(extra: float, says: str) -> None:
    found = detection_answers.difference_by_level(bench(extra), "with", "without")
    assert found["pairs"].eq(12).all() and found.loc["light", "without"] == pytest.approx(0.25, abs=0.02)
    assert found.loc["heavy", "difference"] == pytest.approx(extra, abs=0.1)
    text = detection_answers.does_it_harm(found, "l_ob", replicated({"Q_CC": "worse"})).data
    assert says in text and "at `light` it leaves 0.2" in text


def replicated(verdicts: dict[str, str], seeds: int = 8) -> pd.DataFrame:
    lines = {metric: verdicts.get(metric, "not significantly different") for metric in METRICS}
    table = pd.DataFrame({"metric": list(lines), "verdict": list(lines.values())})
    return table.assign(data="all", seeds=seeds, difference=0.25, low=-0.5, high=1.0)


def test_harm_over_trainings_is_said_metric_by_metric() -> None:
    found = detection_answers.difference_by_level(bench(0.0), "with", "without")
    verdicts = {"Q_CC": "worse", "Q_CV": "worse", "Q_SSIM": "better"}
    text = detection_answers.does_it_harm(found, "l_ob", replicated(verdicts)).data
    assert "those with l_ob are significantly better in Q_SSIM and significantly worse in Q_CC and Q_CV" in text
    assert "differs by +0.25 px (-0.5" in text and "Over 8 short trainings" in text
    assert text.startswith(
        "**Harm to the fused images in Q_CC and Q_CV. No significant harm to the registration at any"
    )
    text = detection_answers.does_it_harm(found, "l_ob", replicated({"EPE": "worse"})).data
    assert text.startswith("**No significant harm to the registration at any level, but over several short trainings")
    none = detection_answers.does_it_harm(found, "l_ob", replicated({})).data
    assert "in no metric" in none and none.startswith("**No significant harm to the registration")
    assert "short trainings" not in detection_answers.does_it_harm(found, "l_ob", replicated({}, seeds=1)).data


def seeds(points: float, low: float, high: float, p: float) -> dict[str, float]:
    return {"seeds": 5, "difference": points, "low": low, "high": high, "p": p}


def test_precision_names_the_best_other_method_and_says_what_is_certain() -> None:
    found = pd.DataFrame(
        {"value": [30.0, 24.0, 20.0, 31.0], "low": [27.0, 22.0, 18.0, 29.0], "high": [33.0, 28.0, 22.0, 34.0]},
        index=["ours", "imf", "murf", "ours, head"],
    )
    text = detection_answers.precision(found, pd.DataFrame([seeds(6, 4, 8, 0.01)], index=["imf"]))
    assert "above the best other method, `imf`" in text
    assert "is more than other trainings of the detector and other scenes change" in text
    found.loc["imf"] = [40.0, 36.0, 44.0]
    text = detection_answers.precision(found, pd.DataFrame([seeds(-10, -22, 2, 0.3)], index=["imf"]))
    assert "below the best other method" in text and "is no more than other trainings" in text
    assert detection_answers.precision(found, pd.DataFrame(columns=["difference", "p"])).endswith("(36.0 to 44.0).")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [((3, 0.01), (2, 0.02), "Yes"), ((3, 0.01), (1, 0.4), "In part"), ((1, 0.4), (-1, 0.6), "Undecided"),
     ((-3, 0.01), (-2, 0.02), "No"), ((3, 0.01), (-3, 0.01), "No")],
)  # fmt: skip
def test_whether_the_detection_loss_helps_is_what_the_trainings_of_the_network_say(
    first: tuple, second: tuple, verdict: str
) -> None:
    lines = [
        {"dataset": name, "mean": "mAP50", "method": "without l_ob"} | seeds(points / 100, 0, 0, p)
        for name, (points, p) in {"RoadScene": first, "M3FD": second}.items()
    ]
    replicated = pd.DataFrame(lines)
    in_full = replicated.assign(method="ours, without l_ob", difference=0.07, p=0.001)
    images = pd.DataFrame(
        [
            (method, f"{pair}", metric, 0.5 + (method == "with") * (metric == "Q_CC") * 0.1 + pair / 100)
            for method in ("with", "without") for metric in METRICS for pair in range(9)
        ], columns=["method", "pair", "metric", "value"],
    )  # fmt: skip
    lines = detection_answers.difference_by_metric(images, "with", "without")
    assert lines.at["Q_CC", "difference"] == pytest.approx(0.1) and lines.at["Q_CC", "p"] < 0.05
    text = detection_answers.does_it_help(replicated, in_full, lines).data
    assert text.startswith(f"**{verdict}.**") and "differ significantly in Q_CC." in text
    assert f"detector finds {first[0]:+.1f} points" in text and "+7.0 points of mAP50" in text
    once = detection_answers.does_it_help(replicated.assign(seeds=1), in_full, lines).data
    assert once.startswith("**Undecided here**")


def test_the_finding_says_what_trainings_of_the_network_change() -> None:
    lines = [
        {"dataset": name, "mean": mean, "method": "without l_ob"} | seeds(points / 100, 0, 0, p)
        for name, points, p in (("RoadScene", 2.0, 0.01), ("M3FD", -1.0, 0.4)) for mean in ("mAP50", "mAP50:90")
    ]  # fmt: skip
    text = detection_answers.in_short(pd.DataFrame(lines), replicated({"Q_CV": "worse"}))
    assert "by +2.0 points on RoadScene (significant) and -1.0 points on M3FD (not significant)" in text
    assert text.endswith("the fused images are significantly worse in Q_CV.")


def test_the_best_rows_stand_beside_the_printed_range() -> None:
    rows = pd.DataFrame(
        {"mAP50": [50.0, 60.0], "mAP50:90": [20.0, 30.0]}, index=pd.MultiIndex.from_product([["M3FD"], ["a", "b"]])
    )
    text = detection_answers.highest(rows, pd.Series([80.1, 82.5]))
    assert "on M3FD `b` with 30.0 % (60.0 % mAP50)" in text and "80.1 to 82.5" in text
