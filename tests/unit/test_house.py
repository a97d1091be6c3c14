"""The library's shape: folders in an order, imports downwards only, and no folder or module too large to be read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

METHOD = ("registration", "network", "deformation", "losses", "detection")
# From the ground up; a name without a folder is a module at the root. Whoever stands on one line may use each other.
ORDER = (
    ("support",),
    METHOD,
    ("data",),
    ("metrics",),
    ("training",),
    ("methods",),
    ("benches", "presets"),
    ("experiments",),
    ("probes",),
    ("notebook",),
    ("report",),
    ("reproduce",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(ORDER) for name in names}
KNOWN_UPWARD: dict[tuple[str, str], str] = {}  # (module, what it imports) to the reason


def imported(path: Path) -> Iterator[str]:
    """Folders and root modules of the library that a file imports anywhere, in functions and for types, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            dotted = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            dotted = [f"{node.module}.{each.name}" for each in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in dotted if name.split(".")[0] == "fusionlib" and "." in name)


@pytest.fixture(scope="module")
def files(root: Path) -> dict[str, Path]:
    """Module, as a path below the package without its suffix, to its file."""
    package = root / "fusionlib"
    return {path.relative_to(package).with_suffix("").as_posix(): path for path in sorted(package.rglob("*.py"))}


def test_imports_run_downwards(files: dict[str, Path]) -> None:
    upward = {
        (module, name)
        for module, path in files.items()
        if module != "__init__"
        for name in imported(path)
        if FLOOR[name] > FLOOR[module.split("/")[0]]
    }
    assert upward == set(KNOWN_UPWARD)


def test_the_root_is_the_paper_alone(files: dict[str, Path]) -> None:
    at_root = {module: path for module, path in files.items() if "/" not in module}
    assert set(at_root) <= {"__init__", "__main__", "presets", "benches", *METHOD}
    assert len(at_root) <= 11
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in at_root.values()) <= 1900


def test_folders_and_modules_stay_small(files: dict[str, Path]) -> None:
    folders = {module.split("/")[0] for module in files if "/" in module}
    assert folders <= set(FLOOR) and len(folders) <= 10
    rooms: dict[str, int] = {}
    for module in files:
        room = module.rpartition("/")[0]
        rooms[room] = rooms.get(room, 0) + 1
    rooms.pop("methods/baselines")  # a system of others a file, however many they are
    assert {room: count for room, count in rooms.items() if count > 16} == {}
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in files.items()}
    assert {module: count for module, count in lines.items() if count > 300} == {}
