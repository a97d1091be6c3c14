"""Files are whole or absent, and a fingerprint changes with every part."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fusionlib.support import files
from fusionlib.support.files import InputError, atomic, fingerprint, locked, sha256, write_json, write_text


def test_an_input_error_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    with atomic(path) as part:
        assert part.parent == path.parent and part.suffix == ".csv" and part != path
        part.write_text("half")
        assert not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with atomic(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path, existing: bool, error: type) -> None:
    path = tmp_path / "weights.bin"
    if existing:
        path.write_text("old")
    with pytest.raises(error), atomic(path) as part:
        part.write_text("half")
        raise error
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == ({"weights.bin": "old"} if existing else {})


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with atomic(path) as first:
        first.write_text("first, ")
        with atomic(path) as second:
            second.write_text("second")
        with first.open("a") as part:
            part.write("to its end")
        assert path.read_text() == "second"
    assert path.read_text() == "first, to its end" and [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_a_block_that_writes_nothing_is_an_error_and_harms_nothing(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), atomic(path):
        pass
    assert path.read_text() == "old"


HOLD = """
import sys, time
from pathlib import Path
from fusionlib.support.files import locked
with locked(sys.argv[1]):
    print("mine", flush=True)
    sys.stdin.read()
    time.sleep(0.5)  # whoever does not wait is noticed
    Path(sys.argv[2]).touch()
"""


def test_one_process_waits_for_another_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights" / "ours.safetensors"
    order = [sys.executable, "-c", HOLD, str(path), str(tmp_path / "done")]
    said: list[str] = []

    def let_go(line: str) -> None:
        said.append(line)
        other.stdin.close()

    with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "mine\n"
        with monkeypatch.context() as patch:
            patch.setattr(files.LOGGER, "info", let_go)
            with locked(path):
                assert (tmp_path / "done").exists() and not path.exists()
    assert len(said) == 1 and "ours: another process works in" in said[0]
    with locked(path), locked(path.with_stem("theirs")):  # free again, and other files are not concerned
        pass
    assert capsys.readouterr().out == ""


def test_a_killed_process_holds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    order = [sys.executable, "-c", HOLD, str(tmp_path / "a"), str(tmp_path / "done")]
    with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "mine\n"
        other.kill()
    with pytest.raises(KeyError), locked(tmp_path / "a"):
        raise KeyError  # an error inside frees it, too
    with locked(tmp_path / "a"):
        assert capsys.readouterr().out == ""  # nobody was waited for


def test_text_and_json_are_utf_8(tmp_path: Path) -> None:
    assert write_text(str(tmp_path / "a.txt"), "φ → ψ") == tmp_path / "a.txt"
    assert (tmp_path / "a.txt").read_bytes() == "φ → ψ".encode()
    value = {"name": "φ", "rows": [1, 2.5, None]}
    path = write_json(tmp_path / "a.json", value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == value and "φ" in text and text.endswith("}\n")


def test_json_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()


def test_a_fingerprint_follows_values_and_not_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2, 3]}, "x") == fingerprint({"b": [2, 3], "a": 1}, "x")
    different = [
        fingerprint(*parts) for parts in ([{"a": 1}], [{"a": 2}], [{"b": 1}], [[1, 2]], [[2, 1]], [1, 2], [12])
    ]
    assert len(set(different)) == len(different)
    assert all(len(f) == 16 and int(f, 16) >= 0 for f in different)
