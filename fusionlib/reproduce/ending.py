"""The last lines of `reproduce`: what was run, what came out, where to go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from fusionlib import presets
from fusionlib.notebook.sentences import percent
from fusionlib.report import registration_findings, verdicts
from fusionlib.report.index_page import own_numbers
from fusionlib.support.paths import SHIPPED, Results


def ending(results: Results, good: int, run: int, took: str, short: Callable[[Path], str]) -> str:
    """About ten lines.

    Args:
        results: of the preset that was run.
        good: how many notebooks have an up-to-date result.
        run: how many were asked for.
        took: the time of all, as text.
        short: a path as a reader types it.
    """
    config = presets.load(results.preset)
    shown, location = (SHIPPED, f" (kept in {short(SHIPPED.folder)})") if config.shows_shipped else (results, "")
    lines = [f"Preset {results.preset}: {good} of {run} notebooks are run and up to date, after {took}."]
    if good < run:
        lines.append("Correct what failed, and the same command goes on from here.")
    own = own_numbers(results.folder) if config.shows_shipped else None
    if own is not None and "ours" in own.means.index:
        left = percent(own.means.at["ours", "left"])
        lines.append(f"Measured now, {own.scenes} drawn scenes: Ours leaves {left} of a misalignment ({own.level}).")
    lines += [config.warning.replace("*", "")] if config.warning else _brief(shown, location)
    own_python = Path(sys.executable).is_relative_to(Path.cwd())
    command = f"{short(Path(sys.executable)) if own_python else 'python'} -m fusionlib"
    steps = {
        short(results.folder / "index.html"): "open it in a browser: all findings, all pages",
        "make lab": "the notebooks in JupyterLab, where the sliders answer",
        f"{command} fuse infrared.png visible.png -o fused.png": "your own two images",
    }
    if results.preset == "smoke":
        steps[f"{command} reproduce --preset mini"] = "real pairs; the README names the data to fetch"
    return "\n".join([*lines, "Where to go on:", *(f"  {what}   {why}" for what, why in steps.items())])


def _brief(results: Results, location: str) -> list[str]:
    """The findings in three lines; fewer where tables are missing."""
    lines = []
    for level in ("medium", "light"):
        if results.table("generalisation").exists():
            shares = ", ".join(
                f"{name} {percent(share)}"
                for name, share in registration_findings.share_left(results.folder, level).items()
            )
            lines.append(f"  misalignment that Ours leaves, {level + ':':7} {shares}")
    if results.table("table1").exists():
        compared = verdicts.compare(results.folder)
        counts, chance = verdicts.summary(compared).loc["all"], verdicts.by_chance(compared).loc["all"]
        lines.append(
            f"  the paper's {counts['values']} values: {counts[verdicts.AGREES]} lie in our intervals, "
            f"{counts[verdicts.RANKED]} more keep their rank; by chance: {chance['by chance']:.0f}"
        )
    return [f"What came out on real pairs{location}:", *lines] if lines else []
