"""Everything that is written from what the results of a preset hold: pages, the README's findings, model card, index,
and the executed notebooks as they may be passed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusionlib import presets
from fusionlib.experiments.benchmark import leaderboard
from fusionlib.methods.checkpoints import ON_REAL_PAIRS
from fusionlib.report import index_page, model_cards, pages, results_check, shipped
from fusionlib.support.files import InputError, write_text
from fusionlib.support.paths import ROOT


def publish(results: Path | str, preset: str) -> tuple[Path, Path]:
    """Write what the results of a preset change: its model card, the page of results and the index of its notebooks.

    Of a preset with real numbers, the executed notebooks as they may be passed on (`fusionlib.report.shipped`) are
    written, too; of the checkout's own results, the README's findings.

    Returns:
        The page and the index.

    Raises:
        InputError: a table or a log is damaged, and no page is written.
    """
    results = Path(results)
    _check(results / preset)
    if preset in ON_REAL_PAIRS:
        shipped.ship(results / preset)
    with _explained(results / preset):
        card = model_cards.card(results / preset)
        page = _pages(results, preset)
        if card:
            write_text(results / preset / "weights" / "README.md", card)
        return page, index_page.write_index(results / preset)


def _check(folder: Path) -> None:
    """InputError for the first damaged table of a preset: without this, the findings in it would only be left out."""
    for path in results_check.measurements(folder):
        results_check.read_whole(path)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what pandas says about tables that do not hold what they should into one sentence; its cause stays with it.

    Raises:
        InputError: a page could not be made from the tables in `folder`.
    """
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        fact = f"The pages of {folder} cannot be made from the tables in it ({type(error).__name__}: {error})"
        advice = f"`results check --preset {folder.name}` looks for damage; restore the tables, for example with git"
        raise InputError(f"{fact}: {advice}, or make them again with `reproduce --preset {folder.name}`.") from error


def _pages(results: Path, preset: str) -> Path:
    if preset not in ON_REAL_PAIRS:
        return write_text(results / preset / "README.md", pages.results_page(results, [preset]))
    page = write_text(results / "README.md", pages.results_page(results))
    readme, folder = ROOT / "README.md", pages.best_preset(results)
    if results.resolve() == ROOT / "results" and readme.exists() and folder is not None:
        pages.update_block(readme, "findings", pages.findings_text(folder, ROOT))
    return page


def publish_all(results: Path | str = ROOT / "results") -> list[Path]:
    """`publish` for every preset that has results, and the leaderboard; return what was written, each path once.

    Raises:
        InputError: there are no results; or as `publish` does, before anything is written where a table is damaged.
    """
    there = [preset for preset in presets.PRESETS if (Path(results) / preset / "tables").is_dir()]
    if not there:
        raise InputError(f"There are no results in {results}: run `reproduce` first, or name another folder.")
    for preset in there:  # all of them before anything is written
        _check(Path(results) / preset)
    written = [path for preset in there for path in publish(results, preset)]
    return list(dict.fromkeys([*written, *leaderboard.write(Path(results) / "benchmark")]))


def command(results: Path | str) -> int:
    """`python -m fusionlib publish`: write all pages, and say which; exit status."""
    if not Path(results).is_dir():
        raise InputError(f"{results} is not a folder: give the one that holds results.")
    for page in publish_all(results):
        print(f"wrote {page}")
    return 0
