"""Fetching: a verified file or none, never twice, and the committed registries agree with the splits and the data."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha1, sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import halfway
import pooch
import pytest

from fusionlib import data
from fusionlib.__main__ import main
from fusionlib.data import download, systems
from fusionlib.support.files import InputError
from fusionlib.support.paths import FACTS

FILES = {"ir/a b.png": b"infrared", "vi/a b.png": b"visible", "vi/c.png": b"another"}
BY_HAND = {"brats2020", "m3fd_full"}
# At a commit, or an asset of a release.
PINNED = re.compile(
    r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/[\w./-]+"
    r"|https://github\.com/[\w-]+/[\w-]+/releases/download/v[\d.]+/[\w.-]+"
)


class Upstream(SimpleHTTPRequestHandler):
    """Serves a folder, notes what was asked for, and cuts the files in `cut` off in the middle, once."""

    asked: list[str]
    cut: set[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path not in self.cut:
            return super().do_GET()
        self.cut.remove(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Upstream]]:
    """A server with the files of the registered set `tiny`, one of them at an address of its own."""
    served, registries = tmp_path / "served", tmp_path / "registry"
    for file, content in FILES.items():
        (served / file).parent.mkdir(parents=True, exist_ok=True)
        (served / file).write_bytes(content)
    (served / "vi" / "c.png").rename(served / "renamed.png")

    class Handler(Upstream):
        asked: list[str] = []  # noqa: RUF012 - one class per test
        cut: set[str] = set()  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}/"
    facts = {file: {"sha256": sha256(content).hexdigest(), "bytes": len(content)} for file, content in FILES.items()}
    facts["vi/c.png"]["url"] = base + "renamed.png"
    entry = dict.fromkeys(("title", "terms", "citation", "upstream", "commit"), "-") | {
        "folder": "Tiny",
        "base_url": base,
    }
    registries.mkdir()
    (registries / "tiny.json").write_text(json.dumps(entry | {"files": facts}))
    monkeypatch.setattr(download, "REGISTRY", registries)
    monkeypatch.setattr(systems, "SYSTEMS", tmp_path / "methods")
    monkeypatch.setattr(download, "RETRIES", 0)
    for name in ("NO_PROXY", "no_proxy"):  # requests asks for the latter first
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path / "root"))
    yield Handler
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(root: Path) -> dict[str, bytes]:
    folder = root / "root" / "Tiny"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_set_is_fetched_once(upstream: type[Upstream], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.fetch("Tiny") == tmp_path / "root" / "Tiny"
    assert fetched(tmp_path) == FILES
    assert sorted(upstream.asked) == ["/ir/a%20b.png", "/renamed.png", "/vi/a%20b.png"]
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"tiny: {done}/3 files" for done in range(4)]
    assert printed.err == "" and not pooch.get_logger().isEnabledFor(logging.INFO)
    (tmp_path / "any").touch()  # fetched files are as open to others as any that the user makes
    modes = {path.stat().st_mode for path in (tmp_path / "root").rglob("*.png")}
    assert modes == {(tmp_path / "any").stat().st_mode}
    upstream.asked.clear()
    download.fetch("tiny")
    assert not upstream.asked
    assert capsys.readouterr().out == "tiny: 3/3 files\n"
    (tmp_path / "root" / "Tiny" / "vi" / "c.png").write_bytes(b"altered by somebody")
    download.fetch("tiny", progress=False)
    assert upstream.asked == ["/renamed.png"]
    assert fetched(tmp_path) == FILES
    assert capsys.readouterr().out == ""


def test_a_file_that_is_not_the_recorded_one_is_not_kept(upstream: type[Upstream], tmp_path: Path) -> None:
    (tmp_path / "served" / "renamed.png").write_bytes(b"something else")
    with pytest.raises(
        InputError, match=r"renamed\.png is not the file whose checksum is recorded, so it was not kept"
    ):
        download.fetch("tiny", progress=False)
    assert fetched(tmp_path) == {file: content for file, content in FILES.items() if file != "vi/c.png"}


@pytest.mark.parametrize("trouble", ["gone", "cut", "no server"])
def test_a_broken_connection_leaves_whole_files_and_goes_on_later(
    upstream: type[Upstream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    there, elsewhere = tmp_path / "served" / "vi" / "a b.png", tmp_path / "elsewhere.png"
    reason = {"gone": "404", "cut": "ChunkedEncodingError", "no server": "ConnectionError"}[trouble]
    if trouble == "gone":
        there.rename(elsewhere)
    elif trouble == "cut":
        upstream.cut.add("/vi/a%20b.png")
    else:
        registry = download.REGISTRY / "tiny.json"
        known = registry.read_text()
        entry = json.loads(known)
        entry["files"]["vi/a b.png"]["url"] = "http://127.0.0.1:9/vi/a.png"  # the discard port: nobody answers
        registry.write_text(json.dumps(entry))
    with pytest.raises(
        InputError, match=rf"could not be fetched \({reason}\): check .*; 1 of 3 files are there and are kept"
    ):
        download.fetch("tiny", progress=False)
    assert fetched(tmp_path) == {"ir/a b.png": FILES["ir/a b.png"]}
    if trouble == "gone":
        elsewhere.rename(there)
    elif trouble == "no server":
        registry.write_text(known)
    upstream.asked.clear()
    download.fetch("tiny", progress=False)
    assert fetched(tmp_path) == FILES
    assert "/ir/a%20b.png" not in upstream.asked


def test_a_file_is_tried_again_before_it_fails(
    upstream: type[Upstream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRIES", 1)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    upstream.cut.add("/vi/a%20b.png")
    download.fetch("tiny", progress=False)
    assert upstream.asked.count("/vi/a%20b.png") == 2
    assert fetched(tmp_path) == FILES


def test_an_interrupt_leaves_no_part(upstream: type[Upstream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, url: str, output_file: str, *_: object, **__: object) -> None:
        Path(output_file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.fetch("tiny", progress=False)
    assert fetched(tmp_path) == {}


def test_a_root_that_cannot_be_written_is_named(
    upstream: type[Upstream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(pooch.Pooch, "fetch", refuse)
    with pytest.raises(InputError, match="Tiny cannot be written to: set FUSIONLIB_DATA to a folder of your own"):
        download.fetch("tiny", progress=False)


def test_check_tells_present_missing_and_altered(
    upstream: type[Upstream], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download.check_command() == 0  # nothing fetched is nothing wrong
    assert download.check_command("tiny") == 1  # unless it is asked for
    download.fetch("tiny", progress=False)
    assert download.check("tiny")[0].complete and download.check_command("tiny") == 0
    folder = tmp_path / "root" / "Tiny"
    (folder / "ir" / "a b.png").unlink()
    (folder / "vi" / "c.png").write_bytes(b"altered")
    (report,) = download.check()
    assert (report.present, report.missing, report.wrong) == (1, ("ir/a b.png",), ("vi/c.png",))
    capsys.readouterr()
    assert download.check_command() == 1
    line = "tiny: 1 of 3 files present, 1 missing (first ir/a b.png), 1 with a wrong checksum (first vi/c.png)\n"
    assert capsys.readouterr().out == line


def test_weights_of_a_system_are_a_set_under_its_name(
    upstream: type[Upstream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = json.loads((download.REGISTRY / "tiny.json").read_text())
    files = {"a.pth": entry["files"]["vi/c.png"]}
    halfway.install(tmp_path, monkeypatch, files=files, published={"": "a.pth"})
    assert download.weight_names() == download.members("Weights") == ["halfway"] and download.members("tiny") == [
        "tiny"
    ]
    assert [report.name for report in download.check()] == ["tiny", "halfway"]
    assert download.fetch_commands(["Weights"]) == 0
    folder = tmp_path / "root" / "weights" / "halfway"
    assert (folder / "a.pth").read_bytes() == FILES["vi/c.png"]
    printed = capsys.readouterr().out
    assert f"folder: {folder}\n  terms: MIT\n  cite: N. N.: Halfway, 2025\n" in printed
    assert download.check_command("weights") == 0
    halfway.install(tmp_path, monkeypatch)
    assert download.weight_names() == []
    with pytest.raises(
        InputError, match=r"^No weights of Halfway .*`python -m fusionlib retrain halfway` makes some\.$"
    ):
        download.fetch("halfway")


def test_a_file_that_nobody_has_seen_is_held_against_its_git_blob(
    upstream: type[Upstream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = json.loads((download.REGISTRY / "tiny.json").read_text())["base_url"]
    blob = sha1(b"blob 7\0another").hexdigest()  # what `git hash-object` prints for the content "another"
    files = {"deep/a.pth": {"git_blob": blob, "url": base + "renamed.png"}}
    halfway.install(tmp_path, monkeypatch, files=files, untried={"": "deep/a.pth"})
    assert download.weight_names() == ["halfway"]
    path = download.fetch("halfway", progress=False) / "deep" / "a.pth"
    assert path.read_bytes() == b"another" and download.check("halfway")[0].complete
    path.write_bytes(b"altered")
    assert download.check("halfway")[0].wrong == ("deep/a.pth",)
    download.fetch("halfway", progress=False)
    assert path.read_bytes() == b"another"
    path.unlink()
    (tmp_path / "served" / "renamed.png").write_bytes(b"tampered with")
    with pytest.raises(
        InputError, match=r"renamed\.png is not the file whose checksum is recorded, so it was not kept"
    ):
        download.fetch("halfway", progress=False)
    assert [each for each in path.parent.iterdir()] == []


def test_one_upstream_that_does_not_answer_keeps_nobody_from_the_others(
    upstream: type[Upstream], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = json.loads((download.REGISTRY / "tiny.json").read_text())
    (download.REGISTRY / "gone.json").write_text(
        json.dumps(known | {"folder": "Gone", "base_url": known["base_url"] + "gone/"})
    )
    assert main(["data", "fetch", "gone", "tiny"]) == 2
    assert fetched(tmp_path) == FILES
    printed = capsys.readouterr()
    assert "(404)" in printed.out + printed.err
    assert printed.err.endswith("fusionlib: error: Of 2 to be fetched, 1 failed, as said above: gone.\n")


def test_the_fetch_command_says_where_and_on_what_terms(
    upstream: type[Upstream], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download.fetch_command("tiny")
    assert f"folder: {tmp_path / 'root' / 'Tiny'}\n  terms: -\n  cite: -\n" in capsys.readouterr().out


def upstream_path(name: str, file: str) -> str:
    """Where the upstream of a set has a file, by the rule that the project was told."""
    folder, _, own = file.partition("/")
    if name == "tno":
        return f"dataset/TNO/{'IR' if folder == 'ir' else 'VIS'}/{own}"
    case = {"TCGA-FG-6692": "OtherEXampleFromTCIA"}.get(folder, folder)
    modality = own.removeprefix(f"{folder}_").removesuffix(".nii.gz")
    return f"BraTS-Toolkit/data/{case}/{case}_brainles/raw_bet/{case}_{modality}_bet.nii.gz"


@pytest.mark.parametrize("name", ["tno", "brats_format"])
def test_sets_that_are_renamed_on_the_way_come_file_by_file(
    upstream: type[Upstream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The committed addresses, on a server that has a small file at each, cut off once and taken up again."""
    base = json.loads((download.REGISTRY / "tiny.json").read_text())["base_url"]
    known = json.loads((FACTS / "registry" / f"{name}.json").read_text())
    pinned = f"https://raw.githubusercontent.com/{known['upstream']}/{known['commit']}/"
    for file, facts in known["files"].items():
        path = tmp_path / "served" / upstream_path(name, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
        assert facts["url"].startswith(pinned)
        facts |= {"url": facts["url"].replace(pinned, base), "sha256": sha256(file.encode()).hexdigest()}
    (download.REGISTRY / f"{name}.json").write_text(json.dumps(known))
    upstream.cut.add(f"/{upstream_path(name, list(known['files'])[2])}")
    with pytest.raises(InputError, match=rf"2 of {len(known['files'])} files are there and are kept"):
        download.fetch(name, progress=False)
    folder = download.fetch(name, progress=False)
    assert {file: (folder / file).read_bytes() for file in known["files"]} == {f: f.encode() for f in known["files"]}
    assert download.check(name)[0].complete and len(upstream.asked) == len(known["files"]) + 1


# --- the committed registries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", download.set_names())
def test_a_registry_is_consistent(name: str) -> None:
    entry = download.registry(name)
    assert (name in BY_HAND) == (entry.by_hand is not None)
    for file, facts in entry.files.items():
        assert not file.startswith("/") and ".." not in file
        assert re.fullmatch("[0-9a-f]{64}", facts["sha256"]) and facts["bytes"] > 0
        if entry.by_hand is None:
            url = facts.get("url") or entry.base_url + file
            assert PINNED.fullmatch(url)
            assert url.endswith(Path(file).suffix)


@pytest.mark.parametrize("title", data.SETS)
def test_no_image_is_there_twice(title: str) -> None:
    names: dict[str, list[str]] = {}
    for file, facts in download.registry(title).files.items():
        names.setdefault(facts["sha256"], []).append(file)
    twins = [files for files in names.values() if len(files) > 1]
    # In TNO one thermal frame goes with two visible ones, of an ordinary camera and of an image intensifier.
    assert twins == ([["ir/TNO_023.png", "ir/TNO_032.png"]] if title == "TNO" else [])


@pytest.mark.parametrize("title", [title for title in data.SETS if title.lower() not in BY_HAND])
def test_splits_and_registries_name_the_same_pairs(title: str) -> None:
    entry = download.registry(title)
    stems: dict[str, set[str]] = {}
    for file in entry.files:
        stems.setdefault(str(Path(file).parent), set()).add(Path(file).stem)
    members = set().union(*data.splits(title).values())
    for ir, vi in data.SETS[title][-1:]:  # the layout that is fetched
        assert stems[Path(ir).name] == stems[Path(vi).name] == members
    assert len(entry.files) == len(stems) * len(members)


def test_the_label_files_belong_to_roadscene() -> None:
    stems = [Path(file).stem for file in download.registry("flir_adas_v1").files]
    assert len(stems) == len(set(stems)) == 185
    assert set(stems) <= set().union(*data.splits("roadscene").values())


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_a_set_to_be_had_by_hand_says_how(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{name} cannot be fetched by this command: .*{re.escape(str(tmp_path))}/"):
        download.fetch(name.replace("_", "-").upper(), root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_sets_are_refused() -> None:
    for function in (download.fetch, download.check, download.registry):
        with pytest.raises(InputError, match=r"no data set '\.\./kaist' .*: choose one of brats2020, .*roadscene, tno"):
            function("../kaist")
    with pytest.raises(InputError, match="brats2020 cannot be checked: it is downloaded by hand"):
        download.check("brats2020")


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("FUSIONLIB_DATA"), reason="FUSIONLIB_DATA is not set")
def test_the_data_at_hand_are_the_recorded_ones() -> None:
    reports = [report for report in download.check() if report.folder.is_dir()]
    if not reports:
        pytest.skip("the data root has no set")
    assert [str(report) for report in reports if not report.complete] == []
