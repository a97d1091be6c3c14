"""Keys by behaviour: maintenance leaves every version as it is, and a change of behaviour is noticed.

A few changes are tried in every run; with FUSIONLIB_MUTATIONS=all, all of them (about a quarter of an hour).
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from mutations import CHANGED, NEUTRAL, REWRITTEN, Edit

from fusionlib.support.behaviour import components, normal_form, record, source

EVERY = os.environ.get("FUSIONLIB_MUTATIONS") == "all"
DIGESTS = """
import json
from fusionlib.support.behaviour import components, source
print(json.dumps({name: source.digest(components.entries(name)) for name in components.names()}))
"""
VERSION = "import sys; from fusionlib.support.behaviour import record; print(*record.versions(sys.argv[1:]).values())"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A copy of the library and its facts, to be edited and put back."""
    copy = tmp_path_factory.mktemp("checkout")
    shutil.copytree(root / "fusionlib", copy / "fusionlib", ignore=shutil.ignore_patterns("__pycache__"))
    facts = shutil.ignore_patterns(*(path.name for path in (root / "data").iterdir() if path.name in DOWNLOADED))
    shutil.copytree(root / "data", copy / "data", ignore=facts)
    return copy


DOWNLOADED = ("RoadScene", "M3FD", "TNO", "LLVIP", "FLIR_ADAS_v1", "open_ms", "brats_format", "BraTS2020", "weights")


def run_edited(checkout: Path, edits: Iterable[Edit], *order: str) -> str:
    """What Python prints in the copy while the edits are in it."""
    before: dict[Path, str] = {}
    try:
        for edit in edits:
            path = checkout / "fusionlib" / edit.file
            text = path.read_text(encoding="utf-8")
            before.setdefault(path, text)
            assert edit.old in text, f"{edit.name}: {edit.file} has no such text any more, so nothing would be tried"
            path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, "-c", *order],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    finally:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_record_is_of_this_code() -> None:
    """If this fails, run `python -m fusionlib results accept`: it says whether the behaviour has changed."""
    recorded = record.read()
    assert list(recorded) == components.names()
    stale = [name for name, each in recorded.items() if each["source"] != source.digest(components.entries(name))]
    assert stale == []


def test_maintenance_is_no_change(checkout: Path) -> None:
    """All edits at once; if that changes anything, one by one, so that the message names the one."""
    before = {name: each["source"] for name, each in record.read().items()}
    if json.loads(run_edited(checkout, NEUTRAL, DIGESTS)) != before:
        for edit in NEUTRAL:
            assert json.loads(run_edited(checkout, [edit], DIGESTS)) == before, edit.name
        pytest.fail("only several edits together change a digest")


@pytest.mark.parametrize("edit", REWRITTEN, ids=lambda edit: edit.name)
def test_a_rewritten_line_is_another_source_and_the_same_behaviour(checkout: Path, edit: Edit) -> None:
    after = json.loads(run_edited(checkout, [edit], DIGESTS))
    assert after["training"] != record.read()["training"]["source"]
    assert run_edited(checkout, [edit], VERSION, "training").strip() == str(record.read()["training"]["version"])
    remembered = json.loads((checkout / "results" / ".probed.json").read_text(encoding="utf-8"))
    assert True in remembered.values()


@pytest.mark.parametrize("edit", CHANGED if EVERY else CHANGED[:3] + CHANGED[-2:], ids=lambda edit: edit.name)
def test_a_change_of_behaviour_is_noticed(checkout: Path, edit: Edit) -> None:
    number = record.read()[edit.component]["version"]
    assert run_edited(checkout, [edit], VERSION, edit.component).startswith(f"{number}+")


@pytest.mark.parametrize("name", components.names() if EVERY else ["deformation", "scores", "network", "datfuse"])
def test_the_probe_sees_what_is_recorded(name: str) -> None:
    seen = record.probed([name])[name]
    assert not isinstance(seen, str), seen
    assert record.differing(seen, record.read()[name]["probe"]) == []


def test_a_shell_changes_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells and doctest keep the last value in `builtins._`, and the code has local variables of this name."""
    entries = components.entries("network")
    before = source.digest(entries)
    for name in normal_form.OF_SHELLS:
        monkeypatch.setattr(builtins, name, 1, raising=False)
    for cached in (*vars(normal_form).values(), source._digest):
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    assert source.digest(entries) == before


# --- the source of small packages


CODE = '''
"""A module."""
from math import sqrt

SCALE = 2.0


def length(x: float, y: float = 0.0, *, a=3, b, **more) -> float:
    """Of a vector."""
    facts = {**more, "x": x}
    if x < 0:
        raise ValueError(f"negative: {x}")
    total = x**2 + y**2
    return SCALE * sqrt(total)


def other() -> int:
    return 1
'''
SAME = {
    "annotation": ("y: float = 0.0, *", "y=0.0, *"),
    "docstring": ('    """Of a vector."""\n', ""),
    "error": ("negative: {x}", "{x} is below 0"),
    "local name": ("total", "square"),
    "import": ("from math import sqrt", "import math\nfrom math import sqrt"),
    "what is not reached": ("return 1", "return 2"),
    "order": ("def other() -> int:\n    return 1\n", ""),
    "printed": ("    total = x", "    print(x)\n    total = x"),
    "logged": ("    total = x", "    LOGGER.info(f'{x}')\n    LOGGER.warning('large')\n    total = x"),
    "logger": ("from math import sqrt", "import logging\nfrom math import sqrt\nLOGGER = logging.getLogger(__name__)"),
}
OTHER = {
    "constant": ("SCALE = 2.0", "SCALE = 2.5"),
    "order of a dictionary": ('{**more, "x": x}', '{"x": x, **more}'),
    "which parameter has a default": ("*, a=3, b,", "*, a, b=3,"),
    "default": ("y: float = 0.0", "y: float = 1.0"),
    "operator": ("x**2 + y**2", "x**2 - y**2"),
    "function": ("sqrt(total)", "abs(total)"),
    "condition": ("x < 0", "x <= 0"),
    "kind of error": ("ValueError", "TypeError"),
    "name of a parameter": ("y: float", "z: float"),
    "order of statements": ("    total = x**2 + y**2\n", "    total = x**2 + y**2\n    total = total\n"),
}


def digest_of(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "module.py").write_text(code, encoding="utf-8")
    (folder / "__init__.py").touch()
    monkeypatch.setattr(normal_form, "ROOT", folder)
    caches = (normal_form._module, normal_form.resolve, normal_form.normal_form, source._digest)
    for each in caches:
        each.cache_clear()
    try:
        return source.digest(["fusionlib.module.length"])
    finally:
        for each in caches:
            each.cache_clear()


@pytest.mark.parametrize("change", SAME)
def test_wording_is_not_in_the_digest(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = SAME[change]
    assert old in CODE
    assert digest_of(CODE, tmp_path, monkeypatch) == digest_of(CODE.replace(old, new), tmp_path, monkeypatch)


@pytest.mark.parametrize("change", OTHER)
def test_what_is_done_is_in_the_digest(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = OTHER[change]
    changed = CODE.replace(old, new).replace("y**2", "z**2" if change == "name of a parameter" else "y**2")
    assert digest_of(CODE, tmp_path, monkeypatch) != digest_of(changed, tmp_path, monkeypatch)


def test_a_function_that_moves_to_another_module_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digest_of(CODE, tmp_path, monkeypatch)
    moved = CODE.replace("SCALE = 2.0\n", "from fusionlib.elsewhere import FACTOR as SCALE\n")
    (tmp_path / "elsewhere.py").write_text("FACTOR = 2.0\n", encoding="utf-8")
    assert digest_of(moved, tmp_path, monkeypatch) == whole
    (tmp_path / "elsewhere.py").write_text("FACTOR = 3.0\n", encoding="utf-8")
    assert digest_of(moved, tmp_path, monkeypatch) != whole


def test_a_module_that_moves_into_a_folder_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = CODE.replace("SCALE = 2.0\n", "from fusionlib.places import FACTS as SCALE\n")
    (tmp_path / "places.py").write_text(
        "from pathlib import Path\nFACTS = Path(__file__).resolve().parent.parent / 'data'\n"
    )
    before = digest_of(code, tmp_path, monkeypatch)
    (tmp_path / "support").mkdir()
    (tmp_path / "support" / "__init__.py").write_text("from fusionlib.support.places import FACTS\n")
    moved = tmp_path / "support" / "places.py"
    moved.write_text("from pathlib import Path\nFACTS = Path(__file__).resolve().parents[2] / 'data'\n")
    for module in ("support", "support.places"):  # by the folder's __init__, too
        code = CODE.replace("SCALE = 2.0\n", f"from fusionlib.{module} import FACTS as SCALE\n")
        assert digest_of(code, tmp_path, monkeypatch) == before
    moved.write_text("from pathlib import Path\nFACTS = Path(__file__).resolve().parents[1] / 'data'\n")
    assert digest_of(code, tmp_path, monkeypatch) != before


def test_versions_of_packages_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source.digest(components.entries("deformation"))
    own = source._version
    monkeypatch.setattr(source, "_version", lambda package: "99.0" if package == "torch" else own(package))
    source._digest.cache_clear()
    assert source.digest(components.entries("deformation")) != before
    source._digest.cache_clear()


def test_an_unknown_entry_is_told() -> None:
    with pytest.raises(ValueError, match="There is no fusionlib"):
        source.digest(["fusionlib.deformation.bend"])


def test_a_default_with_the_name_of_a_parameter_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "y = 3.0\n\n\ndef length(x: float, y: float = y) -> float:\n    return x + y\n"
    before = digest_of(code, tmp_path, monkeypatch)
    assert digest_of(code.replace("3.0", "4.0"), tmp_path, monkeypatch) != before
