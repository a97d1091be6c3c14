"""Weights that are shared: of two processes that want the same weights, one trains them and the other reads them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from test_training import TINY, TOGETHER

from fusionlib import presets, training
from fusionlib.data import systems
from fusionlib.methods import retraining
from fusionlib.methods.retraining import Retraining
from fusionlib.report.our_numbers import minutes_of
from fusionlib.support import long_training
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.paths import SHIPPED
from fusionlib.support.weights import key_of, save_weights
from fusionlib.training import shared_weights
from fusionlib.training.recipe import Recipe

WANT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fusionlib import training
from test_training import TINY
print("reused" if training.train_or_load(TINY, Path(sys.argv[2]), device="cpu").reused else "trained")
"""


def test_two_processes_train_once(tmp_path: Path) -> None:
    order = [sys.executable, "-c", WANT, str(Path(__file__).parent), str(tmp_path)]
    (tmp_path / ".ours.1.part.safetensors").touch()  # left by one that was killed
    both = [subprocess.Popen(order, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(lines[-1] for lines in said) == ["reused", "trained"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".training.lock", "ours.csv", "ours.safetensors"}
    run = training.train_or_load(TINY, tmp_path, device="cpu")
    assert run.reused and not TINY.key().differing(key_of(run.path))


def test_a_chain_of_trainings_needs_its_first_start_once(tmp_path: Path) -> None:
    begun = replace(TINY, training=replace(TINY.training, epochs=1, registration_epochs=1, fusion_epochs=0))
    second = replace(begun, seed=1, start=begun)
    third = replace(begun, seed=2, start=second)
    source, folder = tmp_path / "streets", tmp_path / "brains"
    folder.mkdir()
    training.train_or_load(begun, source, training.START, device="cpu")

    def start() -> Key:
        return key_of(folder / f"{training.START}.safetensors")

    training.copy_start(third, folder, source)
    assert start() == begun.key()
    assert not training.train_or_load(third, folder, device="cpu").reused
    assert start() == second.key()  # the first has given way to what began with it

    (folder / "ours.safetensors").unlink()
    training.copy_start(third, folder, source)
    assert start() == second.key()  # it stays, or it would have to be trained again
    training.copy_start(second, folder, source)
    assert start() == begun.key()  # of another chain


@pytest.mark.parametrize("recipe", [TINY, replace(TINY, start=TINY)], ids=["no start", "a start still to be trained"])
def test_what_is_not_there_is_not_copied(recipe: Recipe, tmp_path: Path) -> None:
    training.copy_start(recipe, tmp_path, tmp_path / "nowhere")
    assert not list(tmp_path.glob("*.safetensors"))


def test_who_breaks_down_at_the_rate_of_all_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini, rates = presets.load("mini"), {}
    monkeypatch.delenv(long_training.ASKED, raising=False)
    monkeypatch.setattr(
        retraining, "train_or_load", lambda settings, *_, **__: rates.update({settings.system: settings.learning_rate})
    )
    retraining.prepare(["bsafusion", "emma", "datfuse"], mini.recipe, tmp_path)
    assert rates == {}
    retraining.prepare(["bsafusion", "emma", "datfuse"], mini.recipe, tmp_path, retrain=True)
    assert rates == {"bsafusion": systems.system("bsafusion").learning_rate, "emma": Retraining.learning_rate}
    assert rates["bsafusion"] < rates["emma"]
    rates.clear()
    monkeypatch.setenv(long_training.ASKED, "1")  # what is missing is trained, what is published is not
    retraining.prepare(["bsafusion", "emma", "datfuse"], mini.recipe, tmp_path)
    assert rates.keys() == {"bsafusion", "emma"}
    for preset in presets.PRESETS:
        assert retraining.recipe("bsafusion", presets.load(preset).recipe).learning_rate == rates["bsafusion"]


def test_weights_of_earlier_code_are_shown_under_a_line(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv(long_training.ASKED, raising=False)
    source = root / "results" / "mini" / "weights" / "emma.safetensors"
    earlier = Key({**key_of(source).parts, "retraining": "0"})
    save_weights(tmp_path / "emma.safetensors", {"x": torch.zeros(1)}, {}, earlier)
    retraining.prepare(["emma"], presets.load("mini").recipe, tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("emma: made before a change of retraining, and shown as it was; `reproduce --train`")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no log of a training"),
        (b"\xff\xfe\x00", "is no log of a training"),
        (b"epoch,l_t\n1,0.5\n", "lacks the column seconds"),
        (b"step,loss,seconds\n1,0.5,long\n", "has text in the column seconds"),
        (b"seconds\n1\n", "lacks the column epoch"),
    ],
)
def test_a_damaged_log_is_named_by_all_that_read_it(
    content: bytes, why: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(long_training.ASKED, raising=False)
    recipe, weights = presets.load("mini").recipe, root / "results" / "mini" / "weights"
    for name in ("ours.safetensors", "ours_detector.safetensors"):
        shutil.copyfile(weights / name, tmp_path / name)
    log = tmp_path / "ours.csv"
    log.write_bytes(content)
    for read in (minutes_of, lambda log: shared_weights.train_or_load(recipe, log.parent)):
        with pytest.raises(InputError, match=rf"ours\.csv {why}.*: restore it, .* train again"):
            read(log)
    assert log.read_bytes() == content


def test_a_detector_of_another_training_is_not_handed_out(tmp_path: Path) -> None:
    recipe = replace(TOGETHER, training=replace(TOGETHER.training, epochs=1))
    run = training.train_or_load(recipe, tmp_path, device="cpu")
    other = replace(recipe, seed=5).key()  # of a training that was killed once it had written its detector
    save_weights(training.detector_path(run.path), run.detector.state_dict(), asdict(recipe), other)
    assert not training.train_or_load(recipe, tmp_path, device="cpu").reused
    assert training.train_or_load(recipe, tmp_path, device="cpu").reused


def test_weights_without_their_log_are_told_of(tmp_path: Path) -> None:
    preset = presets.load("mini")
    for path in SHIPPED.weights.glob("ours*.safetensors"):
        shutil.copy(path, tmp_path)
    with pytest.raises(
        InputError, match=r"ours\.safetensors is there without ours\.csv: copy that, too, or add --train"
    ):
        training.train_or_load(preset.recipe, tmp_path)


def test_trained_and_read_networks_learn_alike(tmp_path: Path) -> None:
    for _ in range(2):
        run = training.train_or_load(TINY, tmp_path, device="cpu")
        assert all(weight.requires_grad for weight in run.network.parameters())
    assert run.reused
