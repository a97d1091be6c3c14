"""Training: the same images and the same weights after a kill, and weights that know what made them."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionlib import data, presets, training
from fusionlib.detection import Detector, DetectorConfig
from fusionlib.losses import LossWeights
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.support import boxes, long_training, machine, weights
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.training import loop
from fusionlib.training.batches import Batch, batches, made_ahead
from fusionlib.training.recipe import TrainingConfig
from fusionlib.training.run import Run

pytestmark = pytest.mark.numeric

TINY = presets.load(
    "smoke",
    recipe__start=None,
    recipe__detector=None,
    recipe__network=NetworkConfig(channels=4, msrb_widths=(8, 8), gathering_widths=(8, 8)),
    recipe__training=TrainingConfig(epochs=3, registration_epochs=1, fusion_epochs=1, batch=2, validate_every=1),
    recipe__train_pairs=4,
).recipe
# The same, all together from the first epoch to the last, with a detector on the fused feature.
TOGETHER = replace(
    TINY,
    training=replace(TINY.training, epochs=2, registration_epochs=0, fusion_epochs=0),
    detector=DetectorConfig(),
)
EXTRACTORS = ("ir_cfe", "vi_cfe", "ir_sfe", "vi_sfe")


class PowerCutError(Exception):
    """Ends a training without warning."""


def cut_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training die right after the checkpoint of an epoch is written."""

    def report(self: Run) -> None:
        if self.done == epoch:
            raise PowerCutError

    monkeypatch.setattr(Run, "report", report)


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_ends_in_the_same_weights(epoch, tmp_path, monkeypatch):
    straight, _, log = loop.train(TINY, tmp_path / "straight.safetensors", "cpu")
    path = tmp_path / "cut.safetensors"
    with monkeypatch.context() as patch:
        cut_after(epoch, patch)
        with pytest.raises(PowerCutError):
            loop.train(TINY, path, "cpu")
    assert not path.exists()  # no weights that look finished
    resumed, _, resumed_log = loop.train(TINY, path, "cpu")
    assert same(straight, resumed)
    assert resumed_log["l_t"].tolist() == log["l_t"].tolist()
    assert [file.name for file in tmp_path.iterdir() if "checkpoint" in file.name or "part" in file.name] == []


def test_a_checkpoint_of_another_recipe_is_not_taken_up(tmp_path, monkeypatch, capsys):
    path = tmp_path / "cut.safetensors"
    with monkeypatch.context() as patch:
        cut_after(1, patch)
        with pytest.raises(PowerCutError):
            loop.train(TINY, path, "cpu")
    _, _, log = loop.train(replace(TINY, seed=1), path, "cpu")
    assert "of another training, and not used" in capsys.readouterr().out
    assert len(log) == 3


def test_weights_are_reused_only_if_the_recipe_made_them(tmp_path):
    first = training.train_or_load(TINY, tmp_path)
    again = training.train_or_load(TINY, tmp_path)
    assert (first.reused, again.reused) == (False, True)
    assert same(first.network, again.network)
    assert again.log["epoch"].tolist() == [1, 2, 3]
    assert not training.train_or_load(TINY, tmp_path, retrain=True).reused
    assert not training.train_or_load(replace(TINY, losses=LossWeights(gamma=1.0)), tmp_path).reused


def test_the_log_names_every_term_and_the_validation_error(tmp_path):
    log = training.train_or_load(TINY, tmp_path).log
    assert {"l_c", "l_s", "l_reg", "l_coarse", "l_match", "l_b", "l_g", "l_t", "epe", "epe_share"} <= set(log)
    assert log["l_s"].isna().tolist() == [True, False, False]  # the first epoch trains the registration alone


def test_registration_epochs_leave_the_fusion_alone(tmp_path):
    recipe = replace(TINY, training=replace(TINY.training, epochs=1, registration_epochs=1, fusion_epochs=0))
    torch.manual_seed(recipe.seed)
    before = loop.FusionNetwork(recipe.network).state_dict()
    after = loop.train(recipe, tmp_path / "w.safetensors", "cpu")[0].state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(("head", "ir_sfe", "vi_sfe")) for name in moved)
    assert any(name.startswith("ir_cfe") for name in moved)


def test_fusion_epochs_leave_the_registration_as_it_is(tmp_path):
    recipe = replace(TINY, training=replace(TINY.training, epochs=2, registration_epochs=1, fusion_epochs=1))
    fusion = ("head", "ir_sfe", "vi_sfe")
    torch.manual_seed(recipe.seed)
    alone = replace(recipe, training=replace(recipe.training, epochs=1, fusion_epochs=0))
    before = loop.train(alone, tmp_path / "before.safetensors", "cpu")[0].state_dict()
    after = loop.train(recipe, tmp_path / "after.safetensors", "cpu")[0].state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith(fusion) for name in moved)


def test_a_batch_depends_on_seed_and_epoch_only():
    pairs = data.open_set("synthetic", "train", 64, count=4)
    recipe = replace(TINY, training=replace(TINY.training, crop=32))
    first = list(batches(pairs, recipe, epoch=5))
    list(batches(pairs, recipe, epoch=0))
    torch.rand(7), np.random.default_rng().random()
    for old, new in zip(first, batches(pairs, recipe, epoch=5), strict=True):
        assert all(torch.equal(getattr(old, part), getattr(new, part)) for part in ("ir", "vi", "moved", "phi_gt"))
    assert first[0].ir.shape == (2, 1, 32, 32) and first[0].boxes == [None, None]  # nobody asked for boxes
    other = next(batches(pairs, recipe, epoch=6))
    assert not torch.equal(first[0].moved, other.moved)


def test_batches_made_ahead_are_the_same_and_so_are_their_errors():
    recipe = replace(TINY, train_pairs=4)
    pairs = data.open_set("synthetic", "train", recipe.size, count=4)
    for one, other in zip(batches(pairs, recipe, 0), made_ahead(batches(pairs, recipe, 0)), strict=True):
        assert torch.equal(one.moved, other.moved) and torch.equal(one.phi_gt, other.phi_gt)

    def broken() -> Iterator[Batch]:
        yield from batches(pairs, recipe, 0)
        raise InputError("no such pair")

    with pytest.raises(InputError, match="no such pair"):
        list(made_ahead(broken()))
    next(made_ahead(broken()))  # and whoever stops early is not kept waiting


def test_random_numbers_of_the_caller_go_on_as_they_were(tmp_path):
    before = torch.get_rng_state()
    training.train(TINY, tmp_path / "ours.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_full_disk_is_said_when_a_checkpoint_is_written(tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    run = Run(tmp_path / "net.safetensors", Key.of(), 2, "epoch", "loss")
    with pytest.raises(InputError, match=r"net\.checkpoint cannot be written \(No space left on device\): free some"):
        run.add({"epoch": 1, "loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_is_no_number_spoils_no_checkpoint(tmp_path, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: clip(*given) * float("nan"))
    with pytest.raises(InputError, match="The gradient of ours is nan at epoch 1: lower the learning rate"):
        loop.train(TINY, tmp_path / "ours.safetensors", "cpu")
    assert not list(tmp_path.iterdir())


def test_boxes_follow_every_flip_and_crop():
    pairs = data.open_set("synthetic", "train", 128, count=4)
    recipe = replace(TOGETHER, size=128, training=replace(TOGETHER.training, crop=96))
    seen = set()
    for epoch in range(8):
        for batch in batches(pairs, recipe, epoch):
            for picture, found in zip(batch.ir, batch.boxes, strict=True):
                whole = [_place(picture, pair.ir) for pair in pairs]
                index = next(i for i, place in enumerate(whole) if place is not None)
                turned, top, left = whole[index]
                expected = pairs[index].boxes
                expected = boxes.crop(boxes.flip(expected, 128) if turned else expected, top, left, 96, 96)
                assert torch.allclose(found, expected)
                seen.add(turned)
    assert seen == {False, True}


def _place(window: torch.Tensor, image: torch.Tensor) -> tuple[bool, int, int] | None:
    """Whether mirrored, and where, a window (1, h, w) was cut from an image (1, H, W)."""
    side = window.shape[-1]
    for turned in (False, True):
        whole = image.flip(-1) if turned else image
        for top in range(image.shape[-2] - side + 1):
            for left in range(image.shape[-1] - side + 1):
                if whole[0, top, left] == window[0, 0, 0] and torch.equal(
                    whole[:, top : top + side, left : left + side], window
                ):
                    return turned, top, left
    return None


def test_a_batch_is_labelled_with_the_field_that_aligns_it():
    from fusionlib.deformation import valid_mask, warp

    pairs = data.open_set("synthetic", "train", 128, count=2)
    batch = next(batches(pairs, TINY, epoch=0))
    inside = valid_mask(batch.phi_gt)
    left = (warp(batch.moved, batch.phi_gt) - batch.ir).abs()[inside].mean()
    assert left < 0.5 * (batch.moved - batch.ir).abs()[inside].mean()


def test_the_detection_loss_reaches_all_four_extractors(tmp_path):
    """Eq. (12): with lambda_3 = 0 the network learns as if there were no detector, with lambda_3 > 0 it does not."""
    silent = replace(TOGETHER, losses=replace(TOGETHER.losses, lambda_detection=0.0))
    alone, together, unheard = (
        loop.train(recipe, tmp_path / f"{name}.safetensors", "cpu")[0].state_dict()
        for name, recipe in (("alone", replace(TOGETHER, detector=None)), ("together", TOGETHER), ("unheard", silent))
    )
    assert all(torch.equal(alone[name], unheard[name]) for name in alone)
    for extractor in EXTRACTORS:
        changed = [not torch.equal(alone[name], together[name]) for name in alone if name.startswith(extractor)]
        assert any(changed), extractor


def test_pairs_that_nobody_has_labelled_have_no_detection_loss(tmp_path):
    pairs = data.open_set("synthetic", "train", 64, count=2)
    batch, model = next(batches(pairs, TOGETHER, 0)), loop.Model(TOGETHER)
    unknown = replace(batch, boxes=[None, None])
    assert model.terms(batch, False, False)["l_ob"] > 0
    assert model.terms(unknown, False, False)["l_ob"] == 0
    half = replace(batch, boxes=[batch.boxes[0], None])
    assert model.terms(half, False, False)["l_ob"] > 0


def test_a_detector_comes_back_with_its_network(tmp_path):
    first, again = training.train_or_load(TOGETHER, tmp_path), training.train_or_load(TOGETHER, tmp_path)
    assert again.reused and same(first.detector, again.detector) and "l_ob" in first.log
    loop.detector_path(again.path).unlink()
    assert not training.train_or_load(TOGETHER, tmp_path).reused
    with pytest.raises(InputError, match="without a detector"):
        Detector.load(training.train_or_load(TINY, tmp_path, "plain").path)


def test_a_training_goes_on_from_its_start(tmp_path):
    still = replace(TINY.training, epochs=1, registration_epochs=0, learning_rate=0.0, frozen_statistics=True)
    recipe = replace(TINY, training=replace(still, fusion_epochs=0), start=TINY)
    made = training.train_or_load(recipe, tmp_path)
    start = training.train_or_load(TINY, tmp_path, training.START)
    assert start.reused and len(start.log) == 3 and len(made.log) == 1
    kept = ("ir_cfe", "vi_cfe", "ir_cseb", "vi_cseb", "msrb", "head")  # the specific extractors count on
    before, after = start.network.state_dict(), made.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(kept))
    with pytest.raises(InputError, match="Give a start to a recipe that has one"):
        loop.train(recipe, tmp_path / "alone.safetensors", "cpu")
    with pytest.raises(InputError, match="different networks"):
        replace(recipe, network=NetworkConfig())


def test_a_recipe_changes_with_its_start_and_its_detector():
    recipes = [TINY, TOGETHER, replace(TINY, start=TINY), replace(TINY, start=replace(TINY, seed=1))]
    assert len({str(recipe.key()) for recipe in recipes}) == 4
    assert recipes[2].key().differing(recipes[3].key()) == ["start"]


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    wild = replace(TINY, training=replace(TINY.training, learning_rate=1e30, schedule="constant"))
    with pytest.raises(InputError, match=r"The loss of \w+ is (nan|inf) at epoch \d: lower the learning rate"):
        loop.train(wild, tmp_path / "wild.safetensors", "cpu")
    assert not (tmp_path / "wild.safetensors").exists()


def test_the_learning_rate_follows_its_schedule():
    rate = loop._rate("one-cycle", 100)
    rates = [rate(step) for step in range(100)]
    assert max(rates) == pytest.approx(1) and rates.index(max(rates)) in (9, 10)
    assert rates[-1] < 0.01 and all(type(value) is float for value in rates)  # what a checkpoint can hold
    assert loop._rate("constant", 100)(50) == 1


def test_unreadable_weights_say_what_to_do(tmp_path):
    missing, broken = tmp_path / "missing.safetensors", tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a weights file")
    with pytest.raises(InputError, match=r"There are no weights at .*missing.safetensors; check the path"):
        FusionNetwork.load(missing)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        FusionNetwork.load(broken)


def test_weights_come_back_as_they_were(tmp_path: Path):
    made = training.train_or_load(TINY, tmp_path)
    header = weights.read_header(made.path)
    assert header["made_by"] == str(TINY.key()) and header["revision"]
    assert json.loads(header["machine"]) == machine.machine()  # another one rounds differently
    loaded = FusionNetwork.load(made.path)
    assert loaded.config == TINY.network and not loaded.training
    assert same(loaded, made.network)


def test_a_long_training_starts_when_asked_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.delenv(long_training.ASKED, raising=False)
    made = training.train_or_load(TINY, tmp_path)
    monkeypatch.setattr(long_training, "PIXELS_PER_SECOND", 1.0)  # a slow machine: everything is long
    assert training.train_or_load(TINY, tmp_path).reused
    with pytest.raises(InputError, match="--train"):
        training.train_or_load(replace(TINY, seed=1), tmp_path)  # never weights of another seed in its place
    with pytest.raises(InputError, match="--train"):
        training.train_or_load(TINY, tmp_path, "elsewhere")

    header = weights.read_header(made.path)
    state = weights.read_state(made.path)
    earlier = Key({**Key.parse(header["made_by"]).parts, "training": "0"})
    weights.save_weights(made.path, state, asdict(TINY), earlier)
    capsys.readouterr()
    assert training.train_or_load(TINY, tmp_path).reused
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith("ours: made before a change of training")
    monkeypatch.setattr(long_training, "PIXELS_PER_SECOND", 1e9)
    assert not training.train_or_load(TINY, tmp_path).reused  # seconds: made again without a word
