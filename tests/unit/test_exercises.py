"""Exercises: a right answer is called right, a known mistake gets its hint, and code is held against the library's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionlib.notebook import exercises
from fusionlib.notebook.exercises import EXERCISES, check, compare
from fusionlib.support.files import InputError

# What a reader finds on paper.
ON_PAPER = {
    "rows down": 5,
    "rows lost": 5,
    "enlarged": 5 / 4,
    "folds": 5,
    "least l_s": -2,
    "search range": 32,
    "fused channels": 4,
    "Q_SSIM of one image": 2,
    "Q_CC of a negative": 0,
}


def said(capsys, *arguments) -> str:
    check(*arguments)
    return capsys.readouterr().out.strip()


def test_every_exercise_is_solved_on_paper_here():
    assert set(ON_PAPER) == set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_answers_on_paper_are_right(name, capsys):
    assert said(capsys, name, ON_PAPER[name]).startswith("Right")
    assert said(capsys, name, torch.tensor([float(ON_PAPER[name])])).startswith("Right")


@pytest.mark.parametrize("name", EXERCISES)
def test_known_mistakes_get_their_own_hint_and_others_the_general_one(name, capsys):
    exercise = EXERCISES[name]
    for hint, slip in exercise.mistakes.items():
        wrong = slip(ON_PAPER[name])
        assert abs(wrong - ON_PAPER[name]) > exercise.tolerance, "a mistake that gives the right answer"
        assert said(capsys, name, wrong) == f"Not {wrong:g}. {hint}"
    assert said(capsys, name, 123.0) == f"Not 123. {exercise.hint}"


@pytest.mark.parametrize("name", EXERCISES)
def test_without_an_answer_the_question_is_asked(name, capsys):
    assert said(capsys, name) == f"Your turn: {EXERCISES[name].question}"


def test_what_is_no_number_is_no_answer(capsys):
    assert said(capsys, "folds", "five").startswith("Not a number")
    assert said(capsys, "folds", torch.zeros(3)).startswith("Not a number")
    assert said(capsys, "folds", float("nan")).startswith("Not nan")


def test_unknown_exercise():
    with pytest.raises(InputError, match="no exercise 'foldz'; there are rows down"):
        check("foldz", 1)


def compared(capsys, *arguments) -> str:
    compare("warp", *arguments)
    return capsys.readouterr().out.strip()


def test_compare_says_the_same_within_the_tolerance(capsys):
    a = torch.rand(1, 1, 4, 5, dtype=torch.float64)
    assert compared(capsys, a[0, 0].numpy() + 1e-6, a).startswith("warp: the same; the largest difference is 1.0e-06")
    assert compared(capsys, 2.0, torch.tensor(2.0)).startswith("warp: the same")
    assert compared(capsys, float("nan"), torch.tensor(float("nan"))).startswith("warp: the same")


def test_compare_says_where_the_largest_difference_is(capsys):
    a = np.zeros((4, 5))
    b = a.copy()
    b[2, 3] = 0.5
    line = compared(capsys, a, b)
    assert (
        line
        == "warp: not the same. The largest difference is 0.5 at (2, 3): 0 instead of 0.5. 5% of the values are off."
    )
    assert compared(capsys, 1.0, 2.0) == "warp: not the same. The largest difference is 1: 1 instead of 2."


def test_compare_says_when_shapes_or_nans_do_not_fit(capsys):
    assert "shape (2,)" in compared(capsys, np.zeros(2), np.zeros(3))
    assert "1 values that are not numbers" in compared(capsys, [float("nan"), 0], [0, 0])


def test_compare_returns_the_largest_difference():
    assert compare("x", [1.0, 2.0], [1.0, 2.5]) == 0.5 and compare("x", [1.0], [1.0]) == 0
    assert compare("x", np.zeros(2), np.zeros(3)) == compare("x", [float("nan"), 0], [0, 0]) == float("inf")


def test_answers_are_measured_not_kept(monkeypatch):
    """With a library that warps the other way, the content goes the other way."""
    right = exercises.warp
    monkeypatch.setattr(exercises, "warp", lambda image, phi: right(image, -phi))
    assert EXERCISES["rows down"].solve() == -5
