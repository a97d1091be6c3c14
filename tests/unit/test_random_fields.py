"""Keyed draws: every scene, brain and trial rests on these numbers, so they must never change."""

from __future__ import annotations

import numpy as np

from fusionlib.support.random_fields import generator


def test_a_key_draws_the_same_numbers_for_ever() -> None:
    assert generator("night", ("a", 1)).integers(1000, size=4).tolist() == [126, 779, 774, 834]
    assert generator("x", "T1").integers(1000, size=4).tolist() == [908, 959, 633, 831]


def test_no_other_key_and_no_other_draw_matters() -> None:
    first = generator("a", 1).random(3)
    np.random.seed(5)
    generator("a", 2).random(3)
    assert (generator("a", 1).random(3) == first).all()
    assert all((generator(*key).random(3) != first).all() for key in (("a", 2), ("b", 1), ("a1",), ("a", "1")))
