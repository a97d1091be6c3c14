"""The folder of a benchmark as it is read: parts, cases, and whether a file is still the one that was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusionlib.support.files import InputError

SETS = {"roadscene": "RoadScene", "m3fd": "M3FD", "tno": "TNO", "llvip": "LLVIP", "drawn": "drawn scenes"}
LEVELS = ("light", "medium", "heavy", "zero", "raw")
SIZES = ("native", "256", "512")
FORMAT = 1
MANIFEST = "manifest.json"
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
    """Open a benchmark; InputError if the folder holds none, or one of another format."""
    folder = Path(folder)
    path = folder / MANIFEST
    advice = "make one with `python -m fusionlib benchmark make`"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        parts = {
            name: Part(name, part["set"], part["level"], part["size"], part["digest"], part["cases"])
            for name, part in facts["parts"].items()
        }
        written_format, files = facts["format"], facts["files"]
    except FileNotFoundError:
        raise InputError(f"{folder} holds no benchmark, since {path} is not there: {advice}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {advice}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no manifest of a benchmark: {advice}.") from None
    if written_format != FORMAT:
        raise InputError(f"{folder} has format {written_format} and this version reads format {FORMAT}: {advice}.")
    return Benchmark(folder, parts, files)


def digest(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()
