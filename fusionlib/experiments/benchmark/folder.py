"""The folder of a benchmark as it is read: parts, cases, and whether a file is still the one that was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fusionlib.support.files import InputError

SETS = {"roadscene": "RoadScene", "m3fd": "M3FD", "tno": "TNO", "llvip": "LLVIP", "drawn": "drawn scenes"}
LEVELS = ("light", "medium", "heavy", "zero", "raw")
SIZES = ("native", "256", "512")
FORMAT = 1
MANIFEST, BOXES = "manifest.json", "boxes.json"
FOLDERS = (("ir", "png"), ("vi", "png"), ("aligned", "png"), ("fields", "npz"))


@dataclass(frozen=True)
class Part:
    """One set at one level and size: `cases` is the name of each file to that of its pair."""

    name: str
    set: str
    level: str
    size: str
    digest: str
    cases: Mapping[str, str]


@dataclass(frozen=True)
class Benchmark:
    """A folder that `make` has written."""

    folder: Path
    parts: Mapping[str, Part]
    files: Mapping[str, str]

    def read(self, name: str) -> bytes:
        """A file of the benchmark; InputError if it is not the one that was made."""
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{path} cannot be read ({reason}): make the benchmark again.") from None
        if digest(content) != self.files.get(name):
            raise InputError(f"{path} is not as the benchmark was made: make the benchmark again.")
        return content


def open_benchmark(folder: Path | str) -> Benchmark:
    """Open a benchmark.

    Raises:
        InputError: the folder holds none, or one of another format, or one with a part that is not as it was made.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    advice = "make one with `python -m fusionlib benchmark make`"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if (written_format := facts["format"]) != FORMAT:
            fact = f"{folder} has format {written_format} and this version reads format {FORMAT}"
            raise InputError(f"{fact}: {advice}.")
        files, parts = dict(facts["files"]), {}
        for name, part in facts["parts"].items():
            parts[name] = Part(name, part["set"], part["level"], part["size"], part["digest"], dict(part["cases"]))
            if any(case != f"{name}_{pair}" for case, pair in parts[name].cases.items()):  # one pair, one case
                raise ValueError
            if part["digest"] != part_digest(parts[name].cases, files):  # scores count as those of all of its cases
                raise InputError(f"{path} has other cases in {name} than were made: make the benchmark again.")
    except FileNotFoundError:
        raise InputError(f"{folder} holds no benchmark, since {path} is not there: {advice}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {advice}.") from None
    except InputError:
        raise  # which is a ValueError, too
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is not a manifest of a benchmark: {advice}.") from None
    if not parts or not all(part.cases for part in parts.values()):
        raise InputError(f"{path} has no part or a part without cases: {advice}.")
    return Benchmark(folder, parts, files)


def part_digest(cases: Iterable[str], files: Mapping[str, str]) -> str:
    """The digest of a part: that of the names and the SHA-256 of the files of its cases; KeyError if one has none."""
    from fusionlib.experiments.benchmark import bytes_of  # needs numpy, which `--help` should not wait for

    digests = {f"{kind}/{case}": files[f"{kind}/{case}.{suffix}"] for case in cases for kind, suffix in FOLDERS}
    return digest(bytes_of.text(digests))[:16]


def digest(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()
