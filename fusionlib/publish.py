"""Everything that is written from the tables of all presets: pages, model cards, the block of the README."""

from __future__ import annotations

from pathlib import Path

from fusionlib import model_cards, pages
from fusionlib.data import ROOT
from fusionlib.files import write_text


def publish(results: Path | str, preset: str) -> Path:
    """Write what the results of a preset change: its model card and the page of results; return the page.

    Of the checkout's own results the README's block is written, too.
    """
    results = Path(results)
    page = _pages(results, preset)
    if text := model_cards.card(results / preset):
        write_text(results / preset / "weights" / "README.md", text)
    return page


def _pages(results: Path, preset: str) -> Path:
    if preset not in pages.PRESETS:
        return write_text(results / preset / "README.md", pages.results_page(results, [preset]))
    page = write_text(results / "README.md", pages.results_page(results))
    readme = ROOT / "README.md"
    if results.resolve() == ROOT / "results" and readme.exists():
        pages.update_block(readme, "results", pages.results_tables(results, levels=1))
    return page


def publish_all(results: Path | str = ROOT / "results") -> list[Path]:
    """`publish` for every preset that has results; return the pages."""
    found = [preset for preset in (*pages.PRESETS, "smoke") if (Path(results) / preset / "tables").is_dir()]
    return list(dict.fromkeys(publish(results, preset) for preset in found))
