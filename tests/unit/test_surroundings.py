"""Options, names, folders and outputs that people have: each command works or says why not in one sentence."""

from __future__ import annotations

import builtins
import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import picture
from odd_images import ODDS
from PIL import Image

from fusionlib import methods
from fusionlib.__main__ import main
from fusionlib.methods import retraining
from fusionlib.notebook import widgets
from fusionlib.support.command_line import system_error_message
from fusionlib.support.files import InputError, atomic, locked, remove_partial_files
from fusionlib.support.inputs import checked_device, without_evidence

AVERAGE = ("--method", "average")
LONG = "热" * 82  # 246 bytes
NO_TEXT = os.fsdecode(b"a\xff\xfeb[1]")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    paths = tmp_path / "ir.png", tmp_path / "vi.png"
    for seed, path in enumerate(paths):
        Image.fromarray(picture(40, 48, seed)).save(path)
    return str(paths[0]), str(paths[1])


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one sentence that refuses a command."""
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("fusionlib: error: ") and said.err.count("\n") == 1 and said.err.endswith(".\n"), (
        said.err
    )
    return said.err


# --- options


@pytest.mark.parametrize("device", ["gpu", "0", "meta", "cuda:99", "cpu:x", "x:0"])
def test_a_device_that_is_not_there_is_refused(pair, tmp_path, capsys, device):
    said = refused(capsys, "fuse", *pair, "-o", tmp_path / "out.png", *AVERAGE, "--device", device)
    assert f"The device {device!r} cannot be used here: choose cpu" in said
    assert not (tmp_path / "out.png").exists()
    assert device in refused(capsys, "retrain", "emma", "--preset", "smoke", "--device", device)


def test_a_build_without_cuda_says_so(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "zeros", lambda *_, device: 1 / 0 if device.type == "cuda" else torch.ones(1))
    assert "'cuda' cannot be used" in refused(capsys, "fuse", *pair, "-o", tmp_path / "o.png", "--device", "cuda")
    assert checked_device("cpu") == "cpu" and checked_device(None) in ("cpu", "cuda")


def test_weights_that_were_asked_for_are_used_or_refused(pair, tmp_path, capsys):
    command = ("fuse", *pair, "-o", tmp_path / "out.png")
    (folder := tmp_path / "weights").mkdir()
    for method in ("ours", "ours_refined", "ecc+ours"):
        said = refused(capsys, *command, "--method", method, "--weights", folder)
        assert f"{folder / 'ours.safetensors'} is not there" in said
    assert "emma.safetensors is not there" in refused(capsys, *command, "--method", "emma", "--weights", folder)
    assert "no weights at" in refused(capsys, *command, "--weights", tmp_path / "none")
    assert "takes no weights" in refused(capsys, *command, *AVERAGE, "--weights", folder)
    assert "takes no weights" in refused(capsys, *command, "--method", "ecc+average", "--weights", folder)
    (folder / "ours.safetensors").write_text("not weights")
    assert "is not a readable safetensors file" in refused(capsys, *command, "--method", "ours", "--weights", folder)
    assert f"{folder / 'robust' / 'ours.safetensors'} is not there" in refused(capsys, *command, "--weights", folder)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--jobs", text) for text in ("0", "x")),
        *(("--seed", text) for text in ("-1", str(2**32))),
        *(("--timeout", text) for text in ("nan", "0", "x")),
        *(("--cluster", text) for text in ("junk", "local:0", "tcp://host")),
    ],
)
def test_values_that_no_run_can_have_are_refused(capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", option, value])
    assert f"argument {option}: '{value}' is n" in capsys.readouterr().err


def test_a_page_is_chosen_by_its_number(pair, tmp_path, capsys):
    many, out = tmp_path / "many.tif", tmp_path / "out.png"
    first, second = (Image.fromarray(picture(40, 48, seed)) for seed in (5, 6))
    first.save(many, save_all=True, append_images=[second])
    command = ["fuse", str(many), pair[1], "-o", str(out), "--method", "infrared", "--page"]
    assert main([*command, "2"]) == 0
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(second))
    assert "has 2 pages and no page 3: choose one from 1 to 2" in refused(capsys, *command, "3")
    with pytest.raises(SystemExit, match="2"):
        main([*command, "0"])


# --- names


@pytest.mark.parametrize("name", [LONG, NO_TEXT, "a b'\"$", "-x", "x" * 251])
def test_any_name_is_fused(tmp_path, name, monkeypatch):
    for folder in ("ir", "vi"):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture(40, 48)).save(tmp_path / folder / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    with open(tmp_path / "said", "w", encoding="utf-8") as said:  # as strict as a terminal is
        monkeypatch.setattr(sys, "stdout", said)
        for _ in range(2):
            assert main(["fuse", "ir", "vi", "-o", "out", *AVERAGE, "--skip-existing"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{name}.png"]
    lines = (tmp_path / "said").read_text().splitlines()
    assert len(lines) == 2 and lines[0].startswith("1/1  wrote out") and lines[1].endswith("is there")


def test_no_name_is_too_long_for_what_stands_around_it(tmp_path):
    for name in (LONG, "x" * 251, NO_TEXT, "a[1]"):
        path = tmp_path / f"{name}.txt"
        with locked(path), atomic(path) as part:
            part.write_text("half")
            remove_partial_files(path)
            assert not part.exists()
            part.write_text("whole")
        assert path.read_text() == "whole"


@pytest.mark.parametrize("name", ["热" * 200 + ".png", "..", "", "a/../../b.png", "x\0y.png", NO_TEXT])
def test_an_upload_of_any_name_is_read(tmp_path, name):
    Image.fromarray(picture(40, 48)).save(tmp_path / "it.png")
    one = {"name": name, "content": (tmp_path / "it.png").read_bytes()}
    assert widgets.uploaded_pair((one,), (one,)).ir.shape == (1, 40, 48)
    with pytest.raises(InputError) as failure:
        widgets.uploaded_pair(({**one, "content": b"no image"},), (one,))
    assert str(failure.value).startswith(f"{name} cannot be read as an image")


# --- folders and outputs


def test_a_folder_in_the_place_of_a_file_is_told(pair, tmp_path, capsys):
    for name in ("x.png", "f.npz", "out/a.png"):
        (tmp_path / name).mkdir(parents=True)
    assert "x.png is a folder: give the name of a file" in refused(capsys, "fuse", *pair, "-o", tmp_path / "x.png")
    field = ("--field", tmp_path / "f.npz")
    assert "f.npz is a folder" in refused(capsys, "fuse", *pair, "-o", tmp_path / "y.png", *field)
    for folder, path in zip(("ir", "vi"), pair, strict=True):
        (tmp_path / folder).mkdir()
        Path(path).rename(tmp_path / folder / "a.png")
    said = refused(capsys, "fuse", tmp_path / "ir", tmp_path / "vi", "-o", tmp_path / "out", *AVERAGE)
    assert "a.png is a folder" in said and not (tmp_path / "y.png").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOSPC])
def test_what_surroundings_do_is_one_sentence(capsys, monkeypatch, number):
    def closed(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), NO_TEXT)

    monkeypatch.setattr(methods, "overview", closed)
    assert f"cannot be used ({os.strerror(number)}): give a place" in refused(capsys, "methods")
    monkeypatch.setattr(retraining, "recipe", closed)
    assert "cannot be used" in refused(capsys, "retrain", "emma")


def test_an_error_of_the_program_is_not_hidden(monkeypatch):
    def broken() -> None:
        raise OSError(errno.EBADF, "a mistake of ours")

    monkeypatch.setattr(methods, "overview", broken)
    with pytest.raises(OSError, match="mistake of ours"):
        main(["methods"])


def test_closed_folders_and_files_are_told(pair, tmp_path, capsys, monkeypatch):
    """Root may read everything, so the system's answer is played."""

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", closed)
        said = refused(capsys, "fuse", tmp_path, tmp_path.parent, "-o", tmp_path / "out")
        assert f"{tmp_path} cannot be opened (Permission denied): give a folder that you may read" in said
    opened = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda path, *rest, **o: closed() if path == Path(pair[0]) else opened(path, *rest, **o)
    )
    said = refused(capsys, "fuse", *pair, "-o", tmp_path / "out.png", *AVERAGE)
    assert "ir.png cannot be opened (Permission denied): give a file that you may read" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.png").exists()


def test_results_that_are_not_there_are_not_published(tmp_path, capsys):
    assert "is not a folder" in refused(capsys, "publish", "--results", tmp_path / "none")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_output_is_told(capsys, monkeypatch):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["methods"]) == 2
        full.flush()  # as Python does at its end: there is nothing left that could fail
    assert capsys.readouterr().err.startswith("fusionlib: error: The output cannot be used (No space left on device)")


def test_an_unset_variable_of_the_shell_is_not_this_folder(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(pair[0]).parent)
    assert "IR is empty: give one" in refused(capsys, "fuse", "", "", "-o", tmp_path / "out", *AVERAGE)
    assert "RESULTS is empty: give one" in refused(capsys, "reproduce", "01", "--results", "")
    assert not (tmp_path / "out").exists()


def test_one_image_is_no_pair_and_a_link_to_nothing_no_image(pair, tmp_path, capsys):
    said = refused(capsys, "fuse", pair[0], pair[0], "-o", tmp_path / "out.png", *AVERAGE)
    assert "is given as the infrared and as the visible image" in said
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "it.png").symlink_to(tmp_path / "nowhere.png")
    command = ("fuse", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out", *AVERAGE)
    for more in ((), ("--skip-existing",)):
        assert "it.png is a link to nothing" in refused(capsys, *command, *more)


def test_data_root_with_a_mistyped_name_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path / "nowhere"))
    assert main(["data", "check"]) == 0
    assert "nowhere, which FUSIONLIB_DATA names, is not a folder" in capsys.readouterr().err


def test_pages_of_no_results_are_told(tmp_path, capsys):
    assert "There are no results in" in refused(capsys, "publish", "--results", tmp_path)


def test_a_closed_output_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["methods"]) == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["data", "fetch", "nothing"]) == 2


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("odd", ODDS, ids=lambda odd: odd.what)
def test_odd_images_are_fused_or_refused_and_leave_no_halves(tmp_path, capsys, odd):
    (tmp_path / "ir.tif").write_bytes(odd.content())
    Image.fromarray(picture()).save(tmp_path / "vi.png")
    command = ("fuse", tmp_path / "ir.tif", tmp_path / "vi.png", "-o", tmp_path / "out" / "it.png", *AVERAGE)
    if odd.refused:
        assert "ir.tif" in refused(capsys, *command) and not (tmp_path / "out").exists()
        return
    assert main([str(each) for each in command]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == bool(odd.told) and said.startswith("fusionlib: warning: " if odd.told else "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["it.png"]


def test_a_pipe_is_not_waited_for(pair, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    said = refused(capsys, "fuse", tmp_path / "pipe.png", pair[1], "-o", tmp_path / "out.png", *AVERAGE)
    assert "pipe.png is not a file: write the image to a file first" in said


def test_every_kind_of_image_that_is_read_alone_is_read_in_a_folder(tmp_path):
    for folder in ("ir", "vi"):
        (tmp_path / folder).mkdir()
        for suffix in ("png", "webp", "gif"):
            Image.fromarray(picture(40, 48)).save(tmp_path / folder / f"{suffix}.{suffix}", lossless=True)
    command = ("fuse", tmp_path / "ir", tmp_path / "vi", "-o", tmp_path / "out", *AVERAGE)
    assert main([str(each) for each in command]) == 0
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["gif", "png", "webp"]


def test_links_and_homes_that_lead_nowhere_are_named(pair, tmp_path, capsys):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    said = refused(capsys, "fuse", *pair, "-o", tmp_path / "loop.png", *AVERAGE)
    assert "loop" in said
    with pytest.raises(RuntimeError) as raised:
        Path("~nobody-of-this-name/data").expanduser()
    assert "~ before a name that nobody has" in system_error_message(raised.value)


# --- a missing package


def test_a_missing_package_is_named(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    said = refused(capsys, "fuse", *pair, "-o", tmp_path / "out.png", "--method", "simpleitk")
    assert "SimpleITK cannot be loaded" in said and "install it with" in said

    def missing() -> None:
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(methods, "overview", missing)
    assert "The package pandas is missing: run `pip install" in refused(capsys, "methods")


# --- nothing to register by


def flat(kind: str) -> np.ndarray:
    noise = np.random.default_rng(0)
    return {
        "black": np.zeros((64, 80), np.uint8),
        "constant": np.full((64, 80), 90, np.uint8),
        "noise": noise.integers(0, 256, (64, 80)).astype(np.uint8),
        "faint noise": (100 + noise.normal(0, 3, (64, 80))).astype(np.uint8),
    }[kind]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["black", "constant", "noise", "faint noise"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_image_without_evidence_is_warned_about(tmp_path, capsys, kind, place):
    paths = [tmp_path / "ir.png", tmp_path / "vi.png"]
    for index, path in enumerate(paths):
        Image.fromarray(flat(kind) if index == place else picture(64, 80)).save(path)
    command = ["fuse", *map(str, paths), "-o", str(tmp_path / "out.png"), "--method"]
    assert main([*command, "phase_correlation"]) == 0
    said = capsys.readouterr().err
    assert f"{paths[place].name} is {kind.split()[-1]}: nothing in it tells how to register" in said
    assert said.count("is ") == 1 + said.count("is deeper")
    assert main([*command, "average"]) == 0 and capsys.readouterr().err == ""


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["phase_correlation", "simpleitk"])
def test_a_registration_that_found_nothing_says_so(tmp_path, capsys, method):
    """Two images that have nothing to do with each other: the registration fails, and its field is zero."""
    for name, seed in (("ir", 1), ("vi", 2)):
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6)).astype(np.uint8))
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in ("ir", "vi", "out")]
    assert main(["fuse", *paths[:2], "-o", paths[2], "--method", method]) == 0
    said = capsys.readouterr().err
    assert f"ir.png: {method} found no displacement that it could trust, so the infrared was not moved." in said


def test_scenes_are_evidence() -> None:
    assert without_evidence(torch.from_numpy(picture(64, 80)).float()[None] / 255) == ""
    noisy = picture(64, 80) / 255 + np.random.default_rng(0).normal(0, 0.2, (64, 80))
    assert without_evidence(torch.from_numpy(noisy)[None].clamp(0, 1)) == ""
