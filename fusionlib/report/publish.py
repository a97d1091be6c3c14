"""Everything that is written from what the results of a preset hold: pages, the README's findings, model card, index,
and the executed notebooks as they may be passed on.
"""

from __future__ import annotations

from pathlib import Path

from fusionlib.experiments.benchmark import leaderboard
from fusionlib.presets import PRESETS
from fusionlib.report import index_page, model_cards, pages, shipped
from fusionlib.support.files import InputError, write_text
from fusionlib.support.paths import ROOT


def publish(results: Path | str, preset: str) -> tuple[Path, Path]:
    """Write what the results of a preset change: its model card, the page of results and the index of its notebooks.

    Of a preset with real numbers, the executed notebooks as they may be passed on (`fusionlib.report.shipped`) are
    written, too; of the checkout's own results, the README's findings.

    Returns:
        The page and the index.
    """
    results = Path(results)
    if preset in pages.PRESETS:
        shipped.ship(results / preset)
    page = _pages(results, preset)
    if text := model_cards.card(results / preset):
        write_text(results / preset / "weights" / "README.md", text)
    return page, index_page.write_overview(results / preset)


def _pages(results: Path, preset: str) -> Path:
    if preset not in pages.PRESETS:
        return write_text(results / preset / "README.md", pages.results_page(results, [preset]))
    page = write_text(results / "README.md", pages.results_page(results))
    readme, folder = ROOT / "README.md", pages.best_preset(results)
    if results.resolve() == ROOT / "results" and readme.exists() and folder is not None:
        pages.update_block(readme, "findings", pages.findings_text(folder, ROOT))
    return page


def publish_all(results: Path | str = ROOT / "results") -> list[Path]:
    """`publish` for every preset that has results, and the leaderboard; return what was written, each path once."""
    presets = [preset for preset in PRESETS if (Path(results) / preset / "tables").is_dir()]
    written = [path for preset in presets for path in publish(results, preset)]
    return list(dict.fromkeys([*written, *leaderboard.write(Path(results) / "benchmark")]))


def command(results: Path | str) -> int:
    """`python -m fusionlib publish`: write all pages, and say which; exit status."""
    if not Path(results).is_dir():
        raise InputError(f"{results} is no folder: give the one that holds results.")
    for page in publish_all(results):
        print(f"wrote {page}")
    return 0
