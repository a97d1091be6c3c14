"""The commands as a user types them; a mistake is one sentence and exit status 2."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusionlib import __main__ as cli
from fusionlib import methods, notebook
from fusionlib.__main__ import main
from fusionlib.data import download, read_visible
from fusionlib.methods import retraining
from fusionlib.network import FusionNetwork
from fusionlib.reproduce import reproduce as reproduce_module
from fusionlib.support import command_line
from fusionlib.support.files import write_text
from fusionlib.support.keys import Key
from fusionlib.support.weights import save_weights
from fusionlib.training.recipe import Recipe


def draw(path: Path, width: int = 45, height: int = 37, colour: bool = False, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (height, width, 3) if colour else (height, width), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return str(draw(tmp_path / "ir.png")), str(draw(tmp_path / "vi.png", colour=True, seed=1))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for seed, name in enumerate(("a", "b.c")):
        draw(tmp_path / "ir" / f"{name}.png", seed=seed)
        draw(tmp_path / "vi" / f"{name}.bmp", colour=True, seed=seed + 10)
    return tmp_path / "ir", tmp_path / "vi"


def error(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Run a command that must be refused; return its one sentence."""
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("fusionlib: error: ") and message.count("\n") == 1
    return message


# --- fuse


def test_fuse_keeps_size_and_colour(files, tmp_path, capsys):
    out = tmp_path / "out" / "fused.png"
    assert main(["fuse", *files, "-o", str(out), "--method", "average"]) == 0
    assert capsys.readouterr().out == f"1/1  wrote {out}\n"
    fused, (ir, vi) = np.asarray(Image.open(out).convert("YCbCr")).astype(int), files
    sources = np.asarray(Image.open(ir)).astype(int), np.asarray(Image.open(vi).convert("YCbCr")).astype(int)
    assert fused.shape == (37, 45, 3)
    inside = np.asarray(Image.open(out)).min(-1) > 0  # where clamping did not change the colour
    inside &= np.asarray(Image.open(out)).max(-1) < 255
    assert inside.sum() > 100
    assert np.abs(fused[..., 0] - (sources[0] + sources[1][..., 0]) / 2)[inside].max() <= 1.5
    assert np.abs(fused[..., 1:] - sources[1][..., 1:])[inside].max() <= 1
    assert [path.name for path in out.parent.iterdir()] == ["fused.png"]


def test_fuse_of_a_grey_visible_image_is_grey(tmp_path):
    ir, vi, out = draw(tmp_path / "ir.png"), draw(tmp_path / "vi.png", seed=1), tmp_path / "out.png"
    assert main(["fuse", str(ir), str(vi), "-o", str(out), "--method", "maximum"]) == 0
    assert np.array_equal(np.asarray(Image.open(out)), np.maximum(Image.open(ir), Image.open(vi)))


@pytest.mark.filterwarnings("default")
def test_fuse_takes_deep_infrared_and_says_so(files, tmp_path, capsys):
    deep = tmp_path / "deep.png"
    Image.fromarray(np.linspace(20000, 24000, 37 * 45).reshape(37, 45).astype(np.uint16)).save(deep)
    assert main(["fuse", str(deep), files[1], "-o", str(tmp_path / "out.png"), "--method", "infrared"]) == 0
    assert capsys.readouterr().err.startswith(f"fusionlib: warning: {deep} is deeper than 8 bits")
    luma, _ = read_visible(tmp_path / "out.png")
    assert luma[0, 0].mean() < 0.2 and luma[0, -1].mean() > 0.8


@pytest.mark.filterwarnings("ignore:.* is noise")
def test_fuse_with_weights_writes_the_field(files, tmp_path):
    weights, out, field = tmp_path / "ours.safetensors", tmp_path / "out.png", tmp_path / "field.npz"
    torch.manual_seed(0)
    recipe = Recipe()
    save_weights(weights, FusionNetwork(recipe.network).state_dict(), asdict(recipe), Key())
    options = ["-o", str(out), "--weights", str(weights), "--field", str(field), "--device", "cpu"]
    assert main(["fuse", *files, *options]) == 0
    with np.load(field) as stored:
        assert stored["phi"].shape == (2, 37, 45) and stored["phi"].dtype == np.float32
        assert "pixels" in str(stored["convention"])
    assert read_visible(out)[0].shape == (1, 37, 45)
    loud = tmp_path / "loud" / "FIELD.NPZ"
    assert main(["fuse", *files, *options[:-4], "--field", str(loud)]) == 0
    assert [path.name for path in loud.parent.iterdir()] == ["FIELD.NPZ"] and "phi" in np.load(loud)


def test_fuse_folders_and_go_on_where_it_stopped(folders, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["fuse", *map(str, folders), "-o", str(out), "--method", "average", "--skip-existing"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [f"1/2  wrote {out / 'a.png'}", f"2/2  wrote {out / 'b.c.png'}"]
    os.utime(folders[0] / "a.png", (time.time() + 60,) * 2)
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [f"1/2  wrote {out / 'a.png'}", f"2/2  {out / 'b.c.png'} is there"]


@pytest.mark.filterwarnings("ignore:.* is noise")
def test_each_pair_of_two_folders_has_a_field_and_a_missing_one_is_made_again(folders, tmp_path, capsys):
    out, fields = tmp_path / "out", tmp_path / "fields"
    command = ["fuse", *map(str, folders), "-o", str(out), "--field", str(fields), "--method", "phase_correlation"]
    assert main(command) == 0
    assert sorted(path.name for path in fields.iterdir()) == ["a.npz", "b.c.npz"]
    (fields / "a.npz").unlink()
    capsys.readouterr()
    assert main([*command, "--skip-existing"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("1/2  wrote ") and said[1] == f"2/2  {out / 'b.c.png'} is there"
    assert (fields / "a.npz").exists()


def test_fuse_refuses_before_it_writes(files, folders, tmp_path, capsys):
    (ir, vi), (ir_dir, vi_dir), out = files, folders, tmp_path / "out"
    average = ("--method", "average")
    assert "does not exist" in error(capsys, "fuse", tmp_path / "no.png", vi, "-o", out)
    assert "two files or two folders" in error(capsys, "fuse", ir, vi_dir, "-o", out)
    assert "ends in .png" in error(capsys, "fuse", ir, vi, "-o", tmp_path / "out.jpg")
    assert "ends in .npz" in error(capsys, "fuse", ir, vi, "-o", tmp_path / "out.png", "--field", tmp_path / "f")
    assert "would be overwritten" in error(capsys, "fuse", ir_dir, vi_dir, "-o", vi_dir)
    assert "is a file" in error(capsys, "fuse", ir_dir, vi_dir, "-o", ir)
    assert "Unknown method 'magic'" in error(capsys, "fuse", ir, vi, "-o", tmp_path / "out.png", "--method", "magic")
    field = ("--field", tmp_path / "fields")
    assert "leave out --field" in error(capsys, "fuse", ir_dir, vi_dir, "-o", out, *average, *field)
    (vi_dir / "a.bmp").unlink()
    assert "goes with a of" in error(capsys, "fuse", ir_dir, vi_dir, "-o", out, *average)
    assert not out.exists() and not (tmp_path / "fields").exists() and not (tmp_path / "out.png").exists()


# --- the others


def test_reproduce_passes_on_what_was_asked_for(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        reproduce_module, "reproduce", lambda numbers, **options: asked.update(options, numbers=numbers) or 1
    )
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    command = (
        "reproduce 03 4 --preset mini --jobs 3 --seed 7 --retrain -p lr 1e-3 -p name fog -p on true --results there"
        " --cluster local:2"
    )
    assert main(command.split()) == 1
    assert asked == {
        "numbers": ["03", "4"], "preset": "mini", "jobs": 3, "seed": 7, "train": False, "retrain": True, "force": False,
        "parameters": {"lr": 0.001, "name": "fog", "on": True}, "results": "there", "timeout": None,
        "cluster": "local:2",
    }  # fmt: skip


def test_mistakes_are_one_sentence(capsys):
    assert "Unknown preset 'huge'" in error(capsys, "reproduce", "--preset", "huge")
    assert "no data set 'roadscen'" in error(capsys, "data", "fetch", "roadscen")
    assert "no data set 'roadscen'" in error(capsys, "data", "check", "roadscen")
    assert "No weights of IMF that could be fetched are published" in error(capsys, "data", "fetch", "imf")
    assert "no compared system 'magic'" in error(capsys, "retrain", "emma", "magic")
    assert "weights of DATFuse are published" in error(capsys, "retrain", "datfuse")
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_out_of_memory_is_one_sentence_and_other_errors_are_not_hidden(files, monkeypatch, capsys):
    def fails(error):
        def fuse_files(**options):
            raise error

        monkeypatch.setattr("fusionlib.methods.fuse.fuse_files", fuse_files)
        return main(["fuse", *map(str, files), "-o", "fused.png"])

    assert fails(torch.OutOfMemoryError("CUDA out of memory")) == 2
    assert "memory of the GPU is too small for this: give smaller images" in capsys.readouterr().err
    for full in (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")):
        assert fails(full) == 2 and "memory of this machine is too small" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a bug"):
        fails(RuntimeError("a bug"))


@pytest.mark.parametrize("text", ["{[]: 1}", 5000 * "-" + "1"])
def test_what_python_cannot_read_is_a_text(text):
    assert command_line.parameter(text) == text


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGHUP"])
def test_what_is_written_when_the_system_ends_a_command_is_removed(tmp_path, ending):
    code = (
        "import os, signal, sys; from fusionlib import __main__; from fusionlib.support.files import atomic\n"
        f"signal.signal(signal.{ending}, signal.SIG_DFL)\n"  # where these tests run under nohup, it is ignored
        "def stopped(arguments):\n"
        f"    with atomic({str(tmp_path / 'fused.png')!r}) as part:\n"
        f"        part.write_text('half'); os.kill(os.getpid(), signal.{ending})\n"
        "__main__._fuse = stopped; sys.exit(__main__.main(['fuse', 'a', 'b', '-o', 'c']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "fusionlib: stopped\n") and not any(tmp_path.iterdir())


def test_methods_lists_every_method(capsys):
    assert main(["methods"]) == 0
    heading, *listed = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "does", "weights", "upstream", "licence"]
    assert [line.split()[0] for line in listed] == methods.names()
    (emma,) = [line for line in listed if line.startswith("emma")]
    assert "Zhaozixiang1228/MMIF-EMMA@9983ca2" in emma and emma.endswith("none stated")


def test_a_reader_that_leaves_early_is_no_error():
    order = [sys.executable, "-m", "fusionlib", "methods"]
    with subprocess.Popen(order, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # as `| head` does when it has seen enough
        assert (process.stderr.read(), process.wait()) == ("", 141)


def test_weights_are_fetched_by_the_names_of_their_systems(monkeypatch):
    fetched = []
    monkeypatch.setattr(download, "fetch_command", lambda name: fetched.append(name) or 0)
    assert main(["data", "fetch", "tardal", "weights"]) == 0
    assert fetched == ["tardal", *download.weight_names()] and {"datfuse", "murf"} < set(fetched)


def test_retrain_trains_what_was_asked_for(monkeypatch, tmp_path, capsys):
    asked, folder = [], tmp_path / "smoke" / "weights"
    write_text(folder / "imf.safetensors", "kept")

    def train(settings, *arguments):
        asked.append((settings, *arguments))
        if settings.system == "emma":
            write_text(folder / "emma.safetensors", "new")

    monkeypatch.setattr(retraining, "train_or_load", train)
    options = ["--preset", "smoke", "--seed", "7", "--force", "--device", "cpu", "--results", str(tmp_path)]
    assert main(["retrain", "emma", "imf", *options]) == 0
    assert [settings.system for settings, *_ in asked] == ["emma", "imf"] and asked[0][0].seed == 7
    assert asked[0][1:] == (folder, True, "cpu")
    said = f"wrote {folder / 'emma.safetensors'}\n{folder / 'imf.safetensors'} is there and fits\n"
    assert capsys.readouterr().out == said


def test_the_library_is_silent_until_somebody_listens(monkeypatch, capsys):
    logger = logging.getLogger("fusionlib")
    logger.removeHandler(command_line.LINES)
    logger.getChild("training").info("not shown")
    command_line.prepare_output()
    command_line.prepare_output()  # asked twice, told once
    logger.getChild("training").info("epoch 1, \udcff.png")
    logger.getChild("support").warning("changed")
    assert capsys.readouterr() == ("epoch 1, \\udcff.png\n", "changed\n")
    logger.removeHandler(command_line.LINES)
    importlib.reload(notebook)  # outside of a notebook nothing changes
    assert command_line.LINES not in logger.handlers
    monkeypatch.setattr("IPython.get_ipython", object)
    importlib.reload(notebook)
    assert command_line.LINES in logger.handlers


def test_help_needs_nothing_heavy(root):
    code = "import sys; from fusionlib.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('loaded', {'torch', 'pandas', 'papermill', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "reproduce" in done.stdout and done.stdout.endswith("loaded set()\n")
