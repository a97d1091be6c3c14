"""Entries: what a method has scored on a benchmark, in one JSON file, and whether such a file is sound.

    {"format": 1, "name": ..., "made_with": {...}, "parts": [{
        "part": "roadscene_medium_256", "set": ..., "level": ..., "size": ..., "digest": ..., "fields": true,
        "scores": {PAIR: {METRIC: value or null}},
        "means": {METRIC: {"mean": ..., "low": ..., "high": ..., "images": ...}},
        "against": {NAME: {METRIC: {"difference": ..., "p": ..., "verdict": ..., "images": ...}}}}]}

Intervals are 95 % bootstrap intervals of the mean over the scenes of a part (`data.scenes`); comparisons are paired by
image, and their p-values (`statistics.sign_flips`) are corrected by Holm's method over the metrics of one comparison.
Parts may be compared where their digests are equal, since then the images are.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import fusionlib
from fusionlib.data.scenes import scenes_of
from fusionlib.metrics.directions import direction
from fusionlib.metrics.statistics import holm, interval, sign_flips, verdict
from fusionlib.support.files import InputError, fingerprint, write_text
from fusionlib.support.paths import ROOT

FORMAT = 1
FOLDER = ROOT / "results" / "benchmark" / "entries"
REFERENCES = ("ours", "average")  # Ours, and no registration: the average of the two images as they are
CARD = ("What it is", "What it was trained on", "How it was run", "Licence")  # headings of a method card


def made(name: str, parts: Sequence[dict], others: Sequence[Mapping]) -> dict:
    """The entry of parts with their scores: means and, with every other entry that has the same part, comparisons."""
    made_with = {"fusionlib": fusionlib.__version__, "python": platform.python_version()}
    made_with |= {package: version(package) for package in ("numpy", "torch")}
    finished = []
    for part in parts:
        against = {}
        for other in others:
            same = next((each for each in other["parts"] if each["digest"] == part["digest"]), None)
            if same is not None and other["name"] != name:
                against[other["name"]] = compared(part["scores"], same["scores"])
        finished.append(part | {"means": means(part["scores"]), "against": against})
    return {"format": FORMAT, "name": name, "made_with": made_with, "parts": finished}


def means(scores: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict]:
    """Of every metric its mean over the images where it is defined, the interval of that, and their number."""
    found = {}
    for metric in dict.fromkeys(metric for values in scores.values() for metric in values):
        there = {pair: each[metric] for pair, each in scores.items() if each.get(metric) is not None}
        if values := list(there.values()):
            low, high = interval(values, scenes_of(there))
            numbers = {"mean": math.fsum(values) / len(values), "low": low, "high": high}
            found[metric] = {key: _short(number) for key, number in numbers.items()} | {"images": len(values)}
    return found


def compared(scores: Mapping[str, Mapping], other: Mapping[str, Mapping]) -> dict[str, dict]:
    """Of every metric that both have: mean difference to the other entry, p after Holm, and the verdict at 5 %."""
    apart = {}
    for metric in dict.fromkeys(metric for values in scores.values() for metric in values if direction(metric)):
        both = {pair: (mine.get(metric), other.get(pair, {}).get(metric)) for pair, mine in scores.items()}
        if differences := {pair: mine - its for pair, (mine, its) in both.items() if None not in (mine, its)}:
            apart[metric] = differences
    tested = holm({metric: sign_flips(list(each.values()), scenes_of(each)) for metric, each in apart.items()})
    found = {}
    for metric, differences in apart.items():
        differences = list(differences.values())
        mean, p = math.fsum(differences) / len(differences), tested[metric]
        facts = {"difference": _short(mean), "p": _short(p), "verdict": verdict(mean, p, metric)}
        found[metric] = facts | {"images": len(differences)}
    return found


def references() -> list[dict]:
    """The committed entries of Ours and of no registration."""
    return [read(path) for name in REFERENCES if (path := FOLDER / f"{name}.json").is_file()]


def read(path: Path | str) -> dict:
    """An entry from its file; InputError says what is wrong with it."""
    try:
        entry = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give an entry that `score` has written.") from None
    except ValueError:
        raise InputError(f"{path} is no JSON: give an entry that `score` has written.") from None
    check(entry, path)
    return entry


def check(entry: object, path: Path | str) -> None:
    """InputError unless an entry has the form of this module, sound numbers, and means that are those of its scores."""
    again = "score the images again with `python -m fusionlib score`"
    try:
        if entry["format"] != FORMAT:
            raise InputError(f"{path} has format {entry['format']} and not {FORMAT}: {again}.")
        if not str(entry["name"]).strip() or not entry["parts"]:
            raise InputError(f"{path} has no name or no part: {again}.")
        for part in entry["parts"]:
            if not part["scores"] or not re.fullmatch("[0-9a-f]{16}", part["digest"]):
                raise InputError(f"{path} has no scores or no digest in {part['part']}: {again}.")
            numbers = [value for values in part["scores"].values() for value in values.values() if value is not None]
            if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
                raise InputError(f"{path} has scores in {part['part']} that are no numbers: {again}.")
            for metric, facts in means(part["scores"]).items():
                given = part["means"][metric]
                if given["images"] != facts["images"] or not math.isclose(given["mean"], facts["mean"], rel_tol=1e-6):
                    raise InputError(
                        f"{path} has a mean of {metric} in {part['part']} that is not its scores': {again}."
                    )
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no entry of the benchmark: {again}.") from None


def read_card(path: Path) -> dict[str, str]:
    """A method card: heading to what stands under it; InputError unless it says something under each of `CARD`."""
    if not path.is_file():
        raise InputError(f"{path} is not there: every entry needs a method card beside it.")
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {heading.strip(): text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}
    for heading in CARD:
        if not found.get(heading):
            raise InputError(f"{path} says nothing under `## {heading}`: fill it in.")
    return found


def write(path: Path, entry: Mapping) -> None:
    """Write an entry, one line an image, so that a change can be read."""
    text = json.JSONEncoder(ensure_ascii=False).encode
    parts = []
    for part in entry["parts"]:
        rows = [f"   {text(key)}: {text(value)}" for key, value in part.items() if not isinstance(value, dict)]
        for key in ("means", "against", "scores"):
            inside = ",\n".join(f"    {text(name)}: {text(value)}" for name, value in part[key].items())
            rows.append(f"   {text(key)}: {{\n{inside}\n   }}" if inside else f"   {text(key)}: {{}}")
        parts.append("  {\n" + ",\n".join(rows) + "\n  }")
    head = [f" {text(key)}: {text(value)}" for key, value in entry.items() if key != "parts"]
    write_text(path, "{\n" + ",\n".join(head) + ',\n "parts": [\n' + ",\n".join(parts) + "\n ]\n}\n")


def digest_of(sources: Mapping[str, str]) -> str:
    """The digest of one's own images: names and fingerprints of their sources."""
    return fingerprint(sorted(sources.items()))


def _short(number: float) -> float:
    return float(f"{number:.7g}")
