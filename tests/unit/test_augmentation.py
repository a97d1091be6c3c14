"""Photometric augmentation: it moves nothing, is the same in every run, and does what its shares say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from fusionlib import presets
from fusionlib.data import open_set
from fusionlib.deformation import warp
from fusionlib.experiments import sweeps
from fusionlib.experiments.sweep_rows import AUGMENTATIONS, further_recipe
from fusionlib.support.files import InputError
from fusionlib.training import augmentation
from fusionlib.training.augmentation import Augmentation
from fusionlib.training.batches import Batch, batches
from fusionlib.training.recipe import Recipe, TrainingConfig

NOTHING = Augmentation(single=0, relit=0, degraded=0)
PLAIN = Recipe(
    "synthetic", size=64, train_pairs=8, training=TrainingConfig(batch=4, levels=("medium",), registration_epochs=2)
)


def recipe_with(chosen: Augmentation | None) -> Recipe:
    return replace(PLAIN, training=replace(PLAIN.training, augmentation=chosen))


def first_batch(chosen: Augmentation | None, epoch: int = 0) -> Batch:
    return next(batches(open_set("synthetic", "train", 64, count=8), recipe_with(chosen), epoch))


def images_of(batch: Batch) -> Tensor:
    return torch.stack([batch.ir, batch.vi, batch.moved])


def test_pairs_order_and_deformations_stay_those_of_a_training_without() -> None:
    plain, nothing, all_of_it = map(first_batch, (None, NOTHING, Augmentation()))
    assert torch.equal(images_of(plain), images_of(nothing))
    assert torch.equal(plain.phi_gt, all_of_it.phi_gt)
    for image, changed in zip(images_of(plain).flatten(0, 1), images_of(all_of_it).flatten(0, 1), strict=True):
        assert not torch.equal(image, changed)


def test_the_same_in_every_run_and_another_in_every_epoch() -> None:
    once, again, later = first_batch(Augmentation()), first_batch(Augmentation()), first_batch(Augmentation(), 1)
    assert torch.equal(images_of(once), images_of(again))
    assert not torch.equal(images_of(once), images_of(later))
    assert images_of(once).min() >= 0 and images_of(once).max() <= 1 and images_of(once).dtype == torch.float32


def test_the_field_still_undoes_the_deformation() -> None:
    batch = first_batch(Augmentation(single=1, relit=1, degraded=0))
    undone, inside = warp(batch.moved, batch.phi_gt), (..., slice(16, -16), slice(16, -16))
    error, before = ((image - batch.ir)[inside].abs().mean() for image in (undone, batch.moved))
    assert error < 0.5 * before


def test_a_single_image_gives_both_and_its_edges_lie_in_one_place() -> None:
    rng = np.random.default_rng(0)
    step = torch.zeros(1, 16, 16)
    step[..., 9:] = 0.7
    edges = 0
    for _ in range(10):
        ir, vi = augmentation.before_deformation(step, step, Augmentation(1, 0, 0), rng)
        for image in (ir, vi):
            jumps = (image[..., 1:] - image[..., :-1]).abs()
            edges += int(jumps[..., 8].max() > 0)
            assert jumps[..., :8].max() == 0 == jumps[..., 9:].max()
    assert edges > 10


def test_what_is_fused_is_not_augmented() -> None:
    plain, augmented = (first_batch(chosen, epoch=2) for chosen in (None, Augmentation()))
    assert torch.equal(images_of(plain), images_of(augmented))


@pytest.mark.parametrize("step", [augmentation.relit, augmentation.degraded, augmentation.remapped])
def test_images_stay_images(step) -> None:
    for seed in range(40):
        given = torch.rand(1, 24, 31, generator=torch.Generator().manual_seed(seed))
        kept = given.clone()
        image = step(given, np.random.default_rng(seed))
        assert image.shape == given.shape and image.dtype == torch.float32
        assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1
        assert torch.equal(given, kept)  # what was given is not written into
    flat = step(torch.zeros(1, 24, 31), np.random.default_rng(0))
    assert flat.isfinite().all()


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_shares_are_from_0_to_1(wrong: float) -> None:
    with pytest.raises(InputError, match="single of Augmentation is"):
        Augmentation(single=wrong)


def test_a_training_without_it_keeps_its_key() -> None:
    plain, augmented, other = (recipe_with(each).key() for each in (None, Augmentation(), NOTHING))
    assert "augmentation" not in plain.parts and "augmentation" in augmented.parts
    assert augmented.differing(other) == ["settings"]


def test_every_augmentation_goes_on_from_the_same_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset, trained = presets.load("smoke", bench__count=2), []
    recipes = [further_recipe(row, preset, 0) for row in AUGMENTATIONS]
    assert len({str(recipe.key()) for recipe in recipes}) == len(AUGMENTATIONS)
    assert {recipe.start for recipe in recipes} == {preset.recipe.start}
    monkeypatch.setattr(
        sweeps, "train", lambda recipe, *rest, of=sweeps.train: trained.append(recipe) or of(recipe, *rest)
    )
    found = sweeps.augmentations(preset, tmp_path / "a.csv", tmp_path, AUGMENTATIONS, (0,))
    assert len(trained) == 2 and set(found["row"]) == {"none", "augmented"}
    per_row = found.groupby(["row", "seed", "method", "condition"])["pair"].nunique()
    assert len(per_row) == 2 * 2 * 5 and (per_row == 2).all() and (found["EPE"] > 0).all()
    pd.testing.assert_frame_equal(
        found, sweeps.augmentations(preset, tmp_path / "a.csv", tmp_path, AUGMENTATIONS, (0,))
    )
    assert len(trained) == 2
