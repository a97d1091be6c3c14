"""Keyed draws: every scene, brain and trial rests on these numbers, so they must never change."""

from __future__ import annotations

import numpy as np
import torch

from fusionlib.deformation import sample_field
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


def test_a_number_of_numpy_is_the_same_key() -> None:
    assert generator(np.int64(1), ("a", np.float64(0.5))).random() == generator(1, ("a", 0.5)).random()
    field = sample_field("medium", 32, 32, key=(np.int64(0), "x"))
    assert torch.equal(field, sample_field("medium", 32, 32, key=(0, "x")))
