"""Retraining: the same images in every run, a kill that does no harm, published parts that stay as they are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import halfway
import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import methods, presets
from fusionlib.data import open_set, systems
from fusionlib.deformation import warp
from fusionlib.methods import checkpoints, registry, retraining
from fusionlib.methods.retraining import Retraining, recipe, train, train_or_load
from fusionlib.report import retrainings
from fusionlib.support.behaviour import record
from fusionlib.support.files import InputError
from fusionlib.support.paths import SHIPPED
from fusionlib.support.weights import read_header, read_state
from fusionlib.training.run import Run


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Retraining:
    halfway.install(tmp_path, monkeypatch)
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path / "root" / "data"))
    return Retraining("halfway", "synthetic", 48, 8, ("light", "medium"), 0, systems.Budget(steps=6, batch=2, crop=32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "halfway.safetensors"


class Killed(Exception):
    """Stands for a power cut."""


def kill_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def until_killed(self: Run, loss: float, at: int) -> None:
        if at == step:
            raise Killed

    monkeypatch.setattr(Run, "check", until_killed)


def test_it_learns_and_says_what_made_the_weights(settings: Retraining, path: Path) -> None:
    settings = replace(settings, budget=systems.Budget(steps=60, batch=4, crop=32), learning_rate=1e-2)
    before = torch.get_rng_state()
    log = train(settings, path)
    assert torch.equal(torch.get_rng_state(), before)  # it seeds a generator of its own
    assert len(log) == 20 and log["step"].tolist() == list(range(3, 61, 3))
    assert log["loss"].iloc[-3:].mean() < 0.8 * log["loss"].iloc[:3].mean()
    assert path.with_suffix(".csv").exists() and not path.with_suffix(".checkpoint").exists()
    header = read_header(path)
    assert header["made_by"] == str(settings.key()) and '"steps": 60' in header["recipe"]
    assert methods.origin("halfway", path).weights == "retrained"
    assert methods.load("halfway", path).fuse(*torch.rand(2, 1, 1, 32, 32)).image.shape == (1, 1, 32, 32)


def test_killed_and_resumed_it_ends_in_the_same_weights(
    settings: Retraining, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retraining, "REPORTS", 3)  # a checkpoint every other step; an epoch has four
    train(settings, path)
    straight = read_state(path)
    path.unlink()
    with monkeypatch.context() as patch:
        kill_before(6, patch)
        with pytest.raises(Killed):
            train(settings, path)
    assert not path.exists()
    capsys.readouterr()
    train(settings, path)
    assert capsys.readouterr().out.splitlines()[0] == "halfway: going on after step 4 of 6"
    assert all(torch.equal(value, straight[name]) for name, value in read_state(path).items())


def test_the_checkpoint_of_another_recipe_is_not_taken_up(
    settings: Retraining, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        kill_before(6, patch)
        with pytest.raises(Killed):
            train(settings, path)
    train(replace(settings, seed=1), path)
    assert "halfway.checkpoint is of another training, and not used" in capsys.readouterr().out


def test_weights_of_the_same_recipe_are_reused(settings: Retraining, path: Path) -> None:
    assert train_or_load(settings, path.parent) == path
    made = path.stat().st_mtime_ns
    train_or_load(settings, path.parent)
    assert path.stat().st_mtime_ns == made
    train_or_load(replace(settings, clip=1.0), path.parent)
    changed = path.stat().st_mtime_ns
    assert changed != made
    train_or_load(replace(settings, clip=1.0), path.parent, retrain=True)
    assert path.stat().st_mtime_ns != changed


def test_the_key_knows_settings_pairs_and_behaviour(settings: Retraining, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {str(each.key()) for each in (settings, replace(settings, seed=1), replace(settings, dataset="RoadScene"))}
    monkeypatch.setattr(record, "versions", lambda names: dict.fromkeys(names, "2"))
    assert len(keys | {str(settings.key())}) == 4


def test_batches_depend_on_seed_and_step_alone(settings: Retraining) -> None:
    pairs = open_set("synthetic", "train", 48, count=8)
    stream = retraining.batches(pairs, settings)
    straight = [next(stream) for _ in range(6)]
    for done in (1, 4, 5):  # within the first epoch, at its end, within the second
        later = next(retraining.batches(pairs, settings, done=done))
        assert torch.equal(later.moved, straight[done].moved) and torch.equal(later.vi, straight[done].vi)
    other = next(retraining.batches(pairs, replace(settings, seed=1)))
    assert not torch.equal(other.vi, straight[0].vi)
    assert not torch.equal(straight[0].vi, straight[4].vi)


def test_a_batch_holds_the_truth(settings: Retraining) -> None:
    pairs = open_set("synthetic", "train", 96, count=2)
    far = replace(settings, size=96, levels=("heavy",), budget=replace(settings.budget, crop=64))
    batch = next(retraining.batches(pairs, far))
    assert batch.ir.shape == batch.vi.shape == batch.moved.shape == (2, 1, 64, 64)
    assert batch.phi_gt.shape == (2, 2, 64, 64)
    inside = (..., slice(16, -16), slice(16, -16))
    before = (batch.moved - batch.ir)[inside].abs().mean()
    assert (warp(batch.moved, batch.phi_gt) - batch.ir)[inside].abs().mean() < 0.6 * before


def test_published_parts_stay_and_are_not_written(
    settings: Retraining, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = {key: torch.full_like(value, 0.1) for key, value in methods.network("halfway").mix.state_dict().items()}
    torch.save(mix, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    facts = {"a.pth": {"sha256": sha256(content).hexdigest(), "bytes": len(content), "url": "https://example.org"}}
    halfway.install(tmp_path, monkeypatch, published={"mix": "a.pth"}, files=facts, partial={})
    with pytest.raises(InputError, match="published weights of Halfway are not here"):
        train(settings, path)
    (tmp_path / "root" / "data" / "weights" / "halfway").mkdir(parents=True)
    (tmp_path / "root" / "data" / "weights" / "halfway" / "a.pth").write_bytes(content)
    train(settings, path)
    assert read_state(path).keys() == {"last.weight", "last.bias"}
    assert checkpoints.find(systems.system("halfway"), path).kind == "published + retrained"
    assert (methods.load("halfway", path).network.mix.weight == 0.1).all()
    train(replace(settings, anew=True), path)
    assert len(read_state(path)) == 4 and checkpoints.find(systems.system("halfway"), path).kind == "retrained"


def test_a_recipe_is_that_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    mini, smoke = presets.load("mini", seed=5), presets.load("smoke")
    found = recipe("emma", mini.recipe)
    assert (found.dataset, found.size, found.seed) == ("RoadScene", 256, 5)
    assert found.levels == mini.recipe.training.levels and found.budget == systems.system("emma").budget
    quick = recipe("datfuse", smoke.recipe, smoke=True)
    assert not found.anew and quick.anew and quick.budget == retraining.SMOKE
    with pytest.raises(
        InputError, match=r"weights of DATFuse are published .* `python -m fusionlib data fetch datfuse`"
    ):
        recipe("datfuse", mini.recipe)
    with pytest.raises(InputError, match="no compared system 'magic'"):
        recipe("magic", mini.recipe)


def test_only_what_has_to_be_trained_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    monkeypatch.setattr(retraining, "train_or_load", lambda settings, *_, **__: trained.append(settings.system))
    retraining.prepare(["emma", "datfuse", "murf"], presets.load("mini").recipe, tmp_path)
    assert trained == []
    retraining.prepare(["emma", "datfuse", "murf"], presets.load("mini").recipe, tmp_path, retrain=True)
    assert trained == ["emma", "murf"]
    retraining.prepare(["emma", "datfuse"], presets.load("smoke").recipe, tmp_path, smoke=True)
    assert trained[2:] == ["emma", "datfuse"]


def test_ours_is_trained_as_shortly_as_the_others_only_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(retraining.shared_weights, "train_or_load", lambda *given: asked.append(given))
    monkeypatch.delenv("FUSIONLIB_TRAIN", raising=False)
    ours = presets.load("mini").recipe
    for retrain, smoke in ((False, False), (True, True), (True, False)):
        retraining.prepare([registry.SAME_BUDGET], ours, tmp_path, retrain, smoke)
    assert asked == [(retraining.same_budget(ours), tmp_path / "same_budget", "ours", True)]
    short, whole = retraining.same_budget(ours), ours
    assert short.start.network == whole.start.network and short.losses == whole.losses
    for one, other in ((short, whole), (short.start, whole.start)):
        assert one.training.epochs == pytest.approx(retraining.SHARE * other.training.epochs, abs=1)  # whole epochs


def test_weights_of_ours_after_that_budget_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path)
    with pytest.raises(
        InputError, match=r"'same_budget/ours' .* `python -m fusionlib reproduce 04 --preset mini --train`"
    ):
        methods.load("ours_same_budget")
    path = tmp_path / "results" / "mini" / "weights" / "same_budget" / "ours.safetensors"
    path.parent.mkdir(parents=True)
    shutil.copyfile(SHIPPED.weights / "ours.safetensors", path)
    assert methods.origin("ours_same_budget").weights == "trained"
    assert methods.load("ours_same_budget").name == "ours_same_budget"


def test_a_loss_that_is_no_number_stops_the_training(
    settings: Retraining, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code" / "halfway_code.py"
    code.write_text(halfway.CODE.replace("return fusion_loss(", "return torch.inf * fusion_loss("), encoding="utf-8")
    with pytest.raises(InputError, match=r"The loss of halfway is inf at step 1: lower the learning rate"):
        train(settings, path)
    assert not path.exists()


def test_whether_a_training_had_ended_is_said_for_each_system(tmp_path: Path) -> None:
    steps, jump = range(1, 16), np.random.default_rng(0).normal(0, 0.1, 15)
    for name, slope in {"imf": -1.0, "murf": 1.0, "ivfwsr": 0.0}.items():
        log = pd.DataFrame({"step": steps, "loss": 20 + slope * np.arange(15) + jump, "seconds": 1.0})
        log.to_csv(tmp_path / f"{name}.csv", index=False)
    pd.DataFrame({"step": steps[:5], "loss": 1.0, "seconds": 1.0}).to_csv(tmp_path / "emma.csv", index=False)
    text = retrainings.still_learning(["imf", "murf", "ivfwsr", "emma", "superfusion"], tmp_path)
    assert text.startswith("The loss of IMF was still falling, so ")
    assert "The loss of MURF rose at the end. Of IVFWSR, no change of the loss" in text
    assert text.endswith("The log of EMMA is too short to tell.")
    assert retrainings.still_learning(["murf"], tmp_path) == "The loss of MURF rose at the end."
    assert retrainings.still_learning(["superfusion"], tmp_path) == "Nothing was trained here."
