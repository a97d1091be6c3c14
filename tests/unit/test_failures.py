"""A full disk, a closed folder, a cut connection: one clear sentence each, and nothing half-written is left."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pooch
import pytest
import requests
import torch
from matplotlib.figure import Figure
from pictures import noise, write
from test_download import FILES, fetched, upstream  # noqa: F401 - a fixture

from fusionlib.__main__ import main
from fusionlib.data import download
from fusionlib.data.images import save_image
from fusionlib.notebook import reporting
from fusionlib.reproduce.reproduce import reproduce
from fusionlib.support import result_tables
from fusionlib.support.files import InputError, atomic, check_writable, locked, write_json, write_text
from fusionlib.support.keys import Key
from fusionlib.support.paths import Results
from fusionlib.support.weights import save_weights

TABLE = pd.DataFrame({"method": ["ours"], "value": [1.0]})
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda folder: write_text(folder / "a.txt", "text"),
    "json": lambda folder: write_json(folder / "a.json", [1]),
    "table": lambda folder: reporting.write_table(TABLE, Results(folder, "mini"), "a"),
    "part of a table": lambda folder: result_tables.replace_part(folder / "a.csv", {"level": "light"}, Key(), TABLE),
    "figure": lambda folder: reporting.write_figure(Figure(), Results(folder, "mini"), "a"),
    "image": lambda folder: save_image(folder / "a.png", torch.zeros(1, 40, 40)),
    "weights": lambda folder: save_weights(folder / "a.safetensors", {"a": torch.zeros(9)}, {}, Key()),
}


def files(folder: Path) -> list[str]:
    """All files but locks, which are hidden and empty."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(str(path.relative_to(folder)) for path in paths)


def failing(number: int, filename: str | None = None) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), filename)

    return fail


# --- a full disk


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    WRITERS[writer](tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    assert len(before) == 1
    monkeypatch.setattr(os, "replace", failing(errno.ENOSPC))
    with pytest.raises(InputError, match=r"a\.\w+ cannot be written \(No space left on device\): free some space"):
        WRITERS[writer](tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_room_that_ends_while_a_file_is_written_is_told_by_every_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For once not feigned: the system allows this process files of 15 bytes."""
    monkeypatch.setattr("fusionlib.support.weights.git_revision", lambda: "none")  # git would be under the limit, too
    WRITERS["figure"](tmp_path / "before")  # matplotlib writes its cache of fonts now, if ever
    told, (soft, hard) = {}, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, hard))
    try:
        for name, writer in WRITERS.items():
            try:
                writer(tmp_path / "small" / name)
            except InputError as error:
                told[name] = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert WRITERS.keys() - told.keys() == {"text", "json"}  # of 4 bytes; all else is larger
    for sentence in told.values():
        assert "cannot be written (" in sentence and sentence.endswith("free some space and run it again.")
    assert files(tmp_path / "small") == ["json/a.json", "text/a.txt"]


def test_the_command_says_so_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ir, vi = write(tmp_path / "ir.png", noise(40, 40)), write(tmp_path / "vi.png", noise(40, 40))
    monkeypatch.setattr(os, "replace", failing(errno.ENOSPC))
    out = tmp_path / "made" / "fused.png"
    assert main(["fuse", str(ir), str(vi), "-o", str(out), "--method", "average"]) == 2
    told = capsys.readouterr()
    assert told.err == (
        f"fusionlib: error: {out} cannot be written (No space left on device): free some space and run it again.\n"
    )
    assert told.out == "" and files(tmp_path) == ["ir.png", "vi.png"]


def test_a_full_disk_during_a_download_is_told_with_what_is_missing(
    upstream: type,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    download.fetch("tiny", progress=False)
    (tmp_path / "root" / "Tiny" / "vi" / "a b.png").unlink()
    registry = download.REGISTRY / "tiny.json"
    registry.write_text(registry.read_text().replace(f'"bytes": {len(FILES["vi/a b.png"])}', '"bytes": 3000000'))

    def full(self: object, url: str, output_file: str, *_: object, **__: object) -> None:
        Path(output_file).write_bytes(b"half")
        failing(errno.ENOSPC)()

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    with pytest.raises(InputError, match="Tiny is full: 3 MB of tiny are still to be fetched, so free some space"):
        download.fetch("tiny", progress=False)
    assert fetched(tmp_path) == {name: content for name, content in FILES.items() if name != "vi/a b.png"}


# --- a folder that is closed


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_closed_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folder = tmp_path / "closed" / "deep"
    monkeypatch.setattr(Path, "mkdir", failing(number, str(folder)))
    for use in (atomic, locked):
        told = pytest.raises(
            InputError, match=r"a.txt cannot be written \(.*\): choose a folder that can be written to"
        )
        with told, use(folder / "a.txt"):
            pytest.fail("nothing can be written there")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    told = pytest.raises(InputError, match=r"a.txt cannot be written \(No such file or directory\): choose a folder")
    with told, atomic(folder / "a.txt") as part:
        folder.rmdir()
        part.write_text("a")


def test_an_error_about_another_file_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), atomic(tmp_path / "a.txt"):
        failing(errno.EACCES, "/elsewhere/b.txt")()
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a.txt"):
        (tmp_path / "b.txt").read_text()


def test_results_that_cannot_be_written_are_told_before_anything_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_writable(tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == []
    file = write_text(tmp_path / "file", "text")
    with pytest.raises(InputError, match=r"cannot be written to, since .*file is a file: choose another folder"):
        reproduce(["01"], results=file, folder=root / "notebooks")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    with pytest.raises(InputError, match=r"cannot be written to, since .* is closed to us"):
        reproduce(["01"], results=tmp_path / "results", folder=root / "notebooks")
    assert capsys.readouterr().out == "" and files(tmp_path) == ["file"]


def test_no_network_is_one_sentence_and_exit_status_2(
    upstream: type,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_route(*_: object, **__: object) -> None:
        raise requests.exceptions.ConnectionError("Temporary failure in name resolution")

    monkeypatch.setattr("requests.get", no_route)
    monkeypatch.setattr("requests.Session.get", no_route)
    assert main(["data", "fetch", "tiny"]) == 2
    told = capsys.readouterr().err
    assert "could not be fetched (ConnectionError): check the connection and run the command again; 0 of 3" in told
    assert told.count("\n") == 1 and fetched(tmp_path) == {}
