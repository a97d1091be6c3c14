"""make: its targets, and which Python it sets the environment up with on machines that have one, many or none."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(root: Path, *arguments: str, **variables: str) -> str:
    """Output of make, which is not told of a make that may be running these tests."""
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PRESET", "JOBS", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in outer} | variables
    command = [shutil.which("make"), *arguments]
    return subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout


# --- targets


def test_make_installs_under_the_constraints(root):
    plan = make(root, "--dry-run", "--always-make", "test").replace("\\\n", "")
    (install,) = [line for line in plan.splitlines() if "pip install" in line]
    words = shlex.split(install)
    assert words[words.index("-c") + 1] == "constraints.txt"
    assert words[words.index("-e") + 1] == ".[test]"
    assert any("torch==" in word for word in words)
    assert "--nbval-lax --nbval-current-env" in plan and "--dist loadfile notebooks" in plan


def test_make_reproduce_takes_a_preset(root):
    assert "fusionlib reproduce --preset smoke --jobs 2" in make(root, "--dry-run", "reproduce")
    assert "fusionlib reproduce --preset mini --jobs 4" in make(root, "--dry-run", "reproduce", "PRESET=mini", "JOBS=4")


def test_make_help_is_the_default_and_lists_every_target(root):
    targets = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert re.findall(r"^  make (\w+)", make(root), re.MULTILINE) == targets
    assert targets == ["help", "reproduce", "test", "numeric", "browser", "lab", "clean"]


def test_make_keeps_state_inside_the_checkout(root, tmp_path):
    (tmp_path / "show.mk").write_text("include Makefile\nshow: ; @env\n")
    shown = make(root, "--silent", "-f", str(tmp_path / "show.mk"), "show")
    state = dict(re.findall(r"^(JUPYTER_\w+_DIR|IPYTHONDIR|MPLCONFIGDIR)=(.*)$", shown, re.MULTILINE))
    expected = {"IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"}
    assert expected <= set(state)
    assert [name for name in expected if not Path(state[name]).is_relative_to(root)] == []


def test_make_clean_leaves_what_is_committed(root, tmp_path):
    shutil.copy(root / "Makefile", tmp_path)
    made = [".venv/a", "results/smoke/a", "fusionlib/__pycache__/a.pyc", "notebooks/.ipynb_checkpoints/a", "dist/a"]
    kept = ["results/mini/tables/a.csv", "fusionlib/a.py", "data/a.json", "Makefile"]
    for name in (*made, *kept[:-1]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    make(tmp_path, "clean")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


# --- the choice of Python

TOOLS = ("sed", "grep", "rm", "mkdir", "cp", "touch", "uname")
PYTHON = """#!/bin/sh
# Says of itself that it is Python {version}, makes no real environment, and notes what it was told to run.
case "$1" in
-c) exec {real} -I -S -c 'import sys
sys.version_info = ({version}, "final", 0)
sys.modules |= dict.fromkeys([{without}])
exec(sys.argv[1])' "$2" ;;
-m) echo "{name} $*" >>log ;;
esac
if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
"""
UV = """#!/bin/sh
echo "uv $*" >>log; mkdir -p .venv/bin; printf '#!/bin/sh\\n' >.venv/bin/python; chmod +x .venv/bin/python
"""
STAND_IN = "#!/bin/sh\necho 'command not found' >&2; exit 127\n"  # as pyenv puts it into PATH


class Machine:
    """A checkout, and a PATH of tools and of programs that play Pythons."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.path = folder / "checkout", folder / "bin"
        for each in (self.folder, self.path):
            each.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(root / name, self.folder)
        for tool in (*TOOLS, "chmod"):
            (self.path / tool).symlink_to(shutil.which(tool))

    def add(self, name: str, kind: str) -> None:
        """Put a program into PATH: "stand-in", "uv", or a Python by its version, "-" after it for one without venv."""
        version = kind.rstrip("-").replace(".", ", ") + ", 0"
        without = '"ensurepip"' if kind.endswith("-") else ""
        python = PYTHON.format(name=name, version=version, real=shlex.quote(sys.executable), without=without)
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).write_text({"stand-in": STAND_IN, "uv": UV}.get(kind, python))
        (self.path / name).chmod(0o755)

    def make(self, *arguments: str) -> str:
        """What made the environment and what it was told, "" if it was kept; raises with what make says, if it fails.

        Every call finds constraints.txt changed.
        """
        (self.folder / "log").unlink(missing_ok=True)
        (self.folder / ".venv" / ".ready").unlink(missing_ok=True)
        try:
            make(self.folder, ".venv/.ready", *arguments, PATH=str(self.path))
        except subprocess.CalledProcessError as failure:
            raise ValueError(failure.stderr) from None
        lines = (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []
        return "".join(line for line in lines if " venv " in line)


@pytest.fixture
def machine(root: Path, tmp_path: Path) -> Machine:
    return Machine(root, tmp_path)


@pytest.mark.parametrize(
    ("programs", "taken"),
    [
        ({"python3.11": "3.11", "python3.12": "3.12", "python3.13": "3.13", "uv": "uv"}, "python3.13"),
        ({"python3.11": "3.11", "python3.13": "stand-in", "python3": "3.11"}, "python3.11"),
        ({"python3.11": "3.11", "python3.12": "3.12-"}, "python3.11"),
        ({"python3": "3.12", "python": "3.10"}, "python3"),
        ({"python3": "3.10", "python": "2.7", "uv": "uv"}, "uv"),
        ({"python3": "3.14", "uv": "uv"}, "uv"),
        ({"python3.12": "3.12-", "uv": "uv"}, "uv"),
    ],
)
def test_make_takes_the_newest_python_that_fits_or_uv(machine, programs, taken):
    for name, kind in programs.items():
        machine.add(name, kind)
    how = "uv venv --quiet --seed --python >=3.11,<3.14 .venv" if taken == "uv" else f"{taken} -m venv .venv"
    assert machine.make() == how


@pytest.mark.parametrize(
    ("programs", "named", "message"),
    [
        ({}, [], r"3\.13 is needed and none was found: install one, or install uv, .* run make again\."),
        ({"python3": "3.10", "python3.13": "stand-in"}, [], "3.13 is needed and none was found"),
        (
            {"python3": "3.10", "python3.12": "3.12-"},
            [],
            r"^python3\.12 has no module venv: install it \(Debian: apt-get install python3\.12-venv\), or install uv",
        ),
        ({"python3": "3.12", "uv": "uv"}, ["PYTHON=no-such-python"], "is needed and 'no-such-python' is not one: name"),
        ({"python3": "3.12", "python3.10": "3.10"}, ["PYTHON=python3.10"], "needed and 'python3.10' is not one: name"),
    ],
)
def test_make_says_what_is_missing_in_a_sentence(machine, programs, named, message):
    for name, kind in programs.items():
        machine.add(name, kind)
    (machine.folder / ".venv").mkdir()
    with pytest.raises(ValueError, match=message) as failure:
        machine.make(*named)
    assert len(str(failure.value).splitlines()) == 2  # make adds which target failed
    assert (machine.folder / ".venv").exists()


def test_make_keeps_a_python_that_fits_unless_another_one_is_named(machine):
    machine.add("python3.11", "3.11")
    assert machine.make() == "python3.11 -m venv .venv"
    machine.add("python3.13", "3.13")
    left = machine.folder / ".venv" / "of-the-old-one"
    left.touch()
    assert machine.make() == "" and left.exists()
    assert machine.make("PYTHON=python3.13") == "python3.13 -m venv .venv" and not left.exists()
    (machine.folder / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")  # its Python is gone
    assert machine.make() == "python3.13 -m venv .venv"


def test_make_says_that_there_is_no_pytorch_for_old_macs(machine):
    machine.add("python3.13", "3.13")
    (machine.path / "uname").unlink()
    (machine.path / "uname").write_text("#!/bin/sh\necho Darwin x86_64\n")
    (machine.path / "uname").chmod(0o755)
    with pytest.raises(ValueError, match=r"^There is no PyTorch [\d.]+ for Macs with an Intel"):
        machine.make()
