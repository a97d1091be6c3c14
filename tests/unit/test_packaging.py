"""The environment is one and the same whichever way it is made, and what is packed says truly what it is."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import fusionlib
from fusionlib.support.files import sha256

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """Package name to version, from what constraints.txt says to this Python on this platform."""
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate()]
    assert len({canonicalize_name(pin.name) for pin in pinned}) == len(pinned), "a package is pinned twice"
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pinned}


def named(project: dict) -> list[Requirement]:
    """What pyproject.toml asks for: to run, to test, to develop and to build."""
    extras = project["project"]["optional-dependencies"].values()
    lists = [project["project"]["dependencies"], *extras, project["build-system"]["requires"]]
    return [Requirement(text) for one in lists for text in one]


# --- versions


def test_versions_stand_once(project, pins):
    assert [r.name for r in named(project) if r.specifier] == [], "a version belongs into constraints.txt"
    assert [r.name for r in named(project) if canonicalize_name(r.name) not in pins] == []
    # A local suffix such as +cpu would keep everybody else's build of torch out.
    assert {version for version in pins.values() if not re.fullmatch(r"\d[\w.]*", version)} == set()


def test_whole_tree_is_pinned_and_installed_as_pinned(project, pins):
    """Whatever a requirement brings, however deep, has a pin, and this very environment keeps to it."""
    extras = project["project"]["optional-dependencies"]  # .venv holds neither `dev` nor the build backend
    wanted = [Requirement(text) for text in project["project"]["dependencies"] + extras["test"]]
    seen, wrong = set(), {}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue  # torch pins its CUDA libraries itself
        seen.add((name, *sorted(requirement.extras)))
        installed = importlib.metadata.distribution(name)
        if installed.version.split("+")[0] != pins.get(name):
            wrong[name] = f"{installed.version} installed, {pins.get(name, 'nothing')} pinned"
        for below in map(Requirement, installed.requires or []):
            asked = ("", *requirement.extras)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in asked):
                wanted.append(below)
    assert len(seen) > 100
    assert wrong == {}


def test_conda_gives_the_same_environment(root, project):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert environment["name"] == project["project"]["name"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python = project["project"]["requires-python"]
    assert conda == [f"python{python}", "pip"]
    assert pip == ["-c constraints.txt", "-e .[test]"]
    versions = ("3.10.19", "3.11.0", "3.12.14", "3.13.9", "3.14.0")
    assert [v for v in versions if v in SpecifierSet(python)] == ["3.11.0", "3.12.14", "3.13.9"]


# --- what is packed and what is committed


def test_console_script_leads_to_a_function(project):
    target = project["project"]["scripts"]["fusionlib"]
    assert callable(EntryPoint("fusionlib", target, "console_scripts").load())


def test_licence_is_the_unmodified_agpl(root, project):
    # Digest of the text as the Free Software Foundation publishes it.
    assert sha256(root / "LICENSE") == "0d96a4ff68ad6d4b6f1f30f713b18d5184912ba8dd389f86aa7710db079abcb0"
    assert project["project"]["license"] == "AGPL-3.0-or-later"


def test_citation_names_this_version_and_the_paper(root, project):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == fusionlib.__version__
    assert citation["license"] == project["project"]["license"]
    assert citation["authors"] == project["project"]["authors"]
    paper = citation["preferred-citation"]
    assert paper["doi"] == "10.3389/fphy.2025.1599968"
    assert paper["title"] in citation["title"]
    surnames = ["Hu", "Wang", "Zhang", "Liu", "Che", "Dong", "Kong"]
    assert [author["family-names"] for author in paper["authors"]] == surnames


KEPT = [
    "data/README.md",
    "data/registry/roadscene.txt",
    "data/splits/roadscene/test.txt",
    "data/homographies.json",
    "data/paper_tables.csv",
    "results/README.md",
    "results/mini/provenance.json",
    "results/mini/figures/table1.png",
    "results/mini/weights/ours.safetensors",
    "results/mini/weights/emma.safetensors",
]
IGNORED = [
    "data/RoadScene/infrared/FLIR_00006.jpg",
    "data/splits.zip",
    "results/smoke/tables/table1.csv",
    "results/mini/notebooks/00_quickstart.ipynb",
    "results/mini/weights/ours.checkpoint",
    "results/mini/weights/crossraft.safetensors",
    "results/mini/tables/.table1.4711.part.csv",
    "fusionlib/__pycache__/files.cpython-311.pyc",
    ".venv/bin/python",
]


@needs_git
def test_gitignore_keeps_facts_and_leaves_out_images(root, tmp_path):
    shutil.copy(root / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    check = ["git", "check-ignore", "--no-index", *KEPT, *IGNORED]
    shown = subprocess.run(check, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.split() == IGNORED


def test_hook_strips_all_but_the_checked_outputs(root, tmp_path):
    """nbval passes over a checked cell that lost its output or its count, so the hook has to leave both."""
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    program, *options = shlex.split({hook["id"]: hook["entry"] for hook in hooks}["nbstripout"])
    assert Path(program).name == "nbstripout"

    output = nbformat.v4.new_output("stream", text="41\n")
    tags = (["nbval-check-output", "keep_output"], [])
    cells = [
        nbformat.v4.new_code_cell(
            "print(41)", outputs=[output], execution_count=1, metadata={"tags": tag, "papermill": {}, "execution": {}}
        )
        for tag in tags
    ]
    file = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"papermill": {}, "widgets": {}}), file)
    subprocess.run([sys.executable, "-m", "nbstripout", *options, str(file)], check=True)

    stripped = nbformat.read(file, as_version=4)
    assert [[o.text for o in cell.outputs] for cell in stripped.cells] == [["41\n"], []]
    assert stripped.cells[0].execution_count == 1
    assert [set(cell.metadata) for cell in stripped.cells] == [{"tags"}, {"tags"}]
    assert not stripped.metadata


def test_code_and_notebooks_are_clean(root: Path) -> None:
    for asked in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *asked, "--no-cache", "."], cwd=root, capture_output=True)
        assert done.returncode == 0, done.stdout.decode()


def test_the_readme_names_every_folder_and_what_is_at_the_root(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    package = root / "fusionlib"
    at_root = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    folders = {f"{path.parent.relative_to(package).as_posix()}/" for path in package.glob("*/**/__init__.py")}
    assert [name for name in sorted(at_root | folders) if f"`{name}`" not in text] == []
