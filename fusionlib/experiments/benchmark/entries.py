"""Entries: what a method has scored on a benchmark, in one JSON file, and whether such a file is sound.

    {"format": 1, "name": ..., "made_with": {...}, "parts": [{
        "part": "roadscene_medium_256", "set": ..., "level": ..., "size": ..., "digest": ..., "fields": true,
        "scores": {PAIR: {METRIC: value or null}},
        "means": {METRIC: {"mean": ..., "low": ..., "high": ..., "images": ...}},
        "against": {NAME: {METRIC: {"difference": ..., "p": ..., "verdict": ..., "images": ...}}}}]}

Intervals are 95 % bootstrap intervals of the mean over the scenes of a part (`data.scenes`), null of fewer than
`statistics.LEAST_SCENES`; of one's own images, which have no `set`, each is a scene. The mean EPE_share is the mean EPE
over that of the identity, as in `evaluation.means`. Comparisons are paired by image, and their p-values
(`statistics.sign_flips`) are corrected by Holm's method over the metrics of one comparison. EPE_share is not compared:
pair by pair it says the same as EPE. Parts may be compared where their digests are equal, since then the images are.
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
from fusionlib.metrics.statistics import LEAST_SCENES, holm, share_interval, sign_flips, verdict
from fusionlib.support.files import InputError, fingerprint, write_text
from fusionlib.support.paths import ROOT

FORMAT = 1
FOLDER = ROOT / "results" / "benchmark" / "entries"
REFERENCES = ("ours", "average")  # Ours, and no registration: the average of the two images as they are
CARD = ("What it is", "What it was trained on", "How it was run", "Licence")  # headings of a method card


def make_entry(name: str, parts: Sequence[dict], others: Sequence[Mapping]) -> dict:
    """The entry of parts with their scores: means and, with every other entry that has the same part, comparisons."""
    made_with = {"fusionlib": fusionlib.__version__, "python": platform.python_version()}
    made_with |= {package: version(package) for package in ("numpy", "torch")}
    finished = []
    for part in parts:
        against = {}
        for other in others:
            same_part = next((candidate for candidate in other["parts"] if candidate["digest"] == part["digest"]), None)
            if same_part is not None and other["name"] != name:
                against[other["name"]] = compare(part, same_part)
        finished.append(part | {"means": means(part), "against": against})
    return {"format": FORMAT, "name": name, "made_with": made_with, "parts": finished}


def means(part: Mapping, intervals: bool = True) -> dict[str, dict]:
    """The mean of every metric over the images where it is defined, its interval, and the number of these images."""
    summaries, scores = {}, part["scores"]
    for metric in dict.fromkeys(metric for values in scores.values() for metric in values):
        defined = {pair: row[metric] for pair, row in scores.items() if row.get(metric) is not None}
        values, totals = list(defined.values()), [1.0] * len(defined)
        if metric == "EPE_share":
            values = [scores[pair]["EPE"] for pair in defined]
            # Of the identity; where the error is exactly 0, it cannot be told from the share, and counts as 0.
            totals = [error / (share or 1) for error, share in zip(values, defined.values(), strict=True)]
        if values:
            scenes = _scenes(part, defined)
            enough = intervals and len(set(scenes)) >= LEAST_SCENES
            ends = share_interval(values, totals, scenes) if enough else (None, None)
            numbers = {"mean": math.fsum(values) / (math.fsum(totals) or 1), "low": ends[0], "high": ends[1]}
            summaries[metric] = {key: _rounded(number) for key, number in numbers.items()} | {"images": len(values)}
    return summaries


def compare(part: Mapping, other: Mapping) -> dict[str, dict]:
    """Of every metric that both have: mean difference to the other entry, p after Holm, and the verdict at 5 %."""
    differences, scores, other_scores = {}, part["scores"], other["scores"]
    names = dict.fromkeys(metric for values in scores.values() for metric in values)
    for metric in (name for name in names if direction(name) and name != "EPE_share"):
        values = {pair: (row.get(metric), other_scores.get(pair, {}).get(metric)) for pair, row in scores.items()}
        if by_pair := {
            pair: value - reference for pair, (value, reference) in values.items() if None not in (value, reference)
        }:
            differences[metric] = by_pair
    p_values = holm(
        {metric: sign_flips(list(each.values()), _scenes(part, each)) for metric, each in differences.items()}
    )
    comparisons = {}
    for metric, by_pair in differences.items():
        mean, p = math.fsum(by_pair.values()) / len(by_pair), p_values[metric]
        facts = {"difference": _rounded(mean), "p": _rounded(p), "verdict": verdict(mean, p, metric)}
        comparisons[metric] = facts | {"images": len(by_pair)}
    return comparisons


def references() -> list[dict]:
    """The committed entries of Ours and of no registration."""
    return [read(path) for name in REFERENCES if (path := FOLDER / f"{name}.json").is_file()]


def read(path: Path | str) -> dict:
    """An entry from its file, its intervals by the rule of today; InputError says what is wrong with it."""
    try:
        entry = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give an entry that `score` has written.") from None
    except (ValueError, RecursionError):  # the latter of thousands of nested brackets
        raise InputError(f"{path} is no JSON: give an entry that `score` has written.") from None
    check(entry, path)
    return entry | {"parts": [part | {"means": means(part)} for part in entry["parts"]]}


def check(entry: object, path: Path | str) -> None:
    """InputError unless an entry has the form of this module, sound numbers, and means that are those of its scores."""
    advice = "score the images again with `python -m fusionlib score`"
    try:
        if entry["format"] != FORMAT:
            raise InputError(f"{path} has format {entry['format']} and not {FORMAT}: {advice}.")
        if not entry["name"].strip() or not entry["parts"]:
            raise InputError(f"{path} has no name or no part: {advice}.")
        for part in entry["parts"]:
            if not part["scores"] or not re.fullmatch("[0-9a-f]{16}", part["digest"]):
                raise InputError(f"{path} has no scores or no digest in {part['part']}: {advice}.")
            if not isinstance(part["part"], str):  # parts are sorted by it
                raise TypeError
            numbers = [value for values in part["scores"].values() for value in values.values() if value is not None]
            if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
                raise InputError(f"{path} has scores in {part['part']} that are not numbers: {advice}.")
            for metric, facts in means(part, intervals=False).items():
                stored = part["means"][metric]
                if stored["images"] != facts["images"] or not math.isclose(stored["mean"], facts["mean"], rel_tol=1e-6):
                    raise InputError(
                        f"{path} has a mean of {metric} in {part['part']} that is not its scores': {advice}."
                    )
    except (KeyError, TypeError, AttributeError, OverflowError):  # the last of an integer with hundreds of digits
        raise InputError(f"{path} is not an entry of the benchmark: {advice}.") from None


def read_card(path: Path) -> dict[str, str]:
    """A method card: heading to what stands under it; InputError unless it says something under each of `CARD`."""
    if not path.is_file():
        raise InputError(f"{path} is not there: every entry needs a method card beside it.")
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    sections = {heading.strip(): text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}
    for heading in CARD:
        if not sections.get(heading):
            raise InputError(f"{path} says nothing under `## {heading}`: fill it in.")
    return sections


def write(path: Path, entry: Mapping) -> None:
    """Write an entry, one line per image, so that a change can be read."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    parts = []
    for part in entry["parts"]:
        rows = [f"   {encode(key)}: {encode(value)}" for key, value in part.items() if not isinstance(value, dict)]
        for key in ("means", "against", "scores"):
            lines = ",\n".join(f"    {encode(name)}: {encode(value)}" for name, value in part[key].items())
            rows.append(f"   {encode(key)}: {{\n{lines}\n   }}" if lines else f"   {encode(key)}: {{}}")
        parts.append("  {\n" + ",\n".join(rows) + "\n  }")
    head = [f" {encode(key)}: {encode(value)}" for key, value in entry.items() if key != "parts"]
    write_text(path, "{\n" + ",\n".join(head) + ',\n "parts": [\n' + ",\n".join(parts) + "\n ]\n}\n")


def digest_of(sources: Mapping[str, str]) -> str:
    """The digest of one's own images: names and fingerprints of their sources."""
    return fingerprint(sorted(sources.items()))


def _scenes(part: Mapping, pairs: Sequence[str]) -> Sequence[str]:
    """The scene of each pair; names of one's own images mean nothing, even if a set of this project has the same."""
    return scenes_of(pairs) if part.get("set") else list(pairs)


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.7g}")
