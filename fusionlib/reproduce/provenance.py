"""provenance.json: with what, on what and when the results of a preset were made."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from fusionlib.support.files import locked, write_json
from fusionlib.support.machine import git_revision, machine

LOGGER = logging.getLogger(__name__)


def note(path: Path, notebook: str, facts: dict[str, object], setting: dict[str, object]) -> None:
    """Put one notebook's run into provenance.json; what stands there about the others stays.

    Args:
        path: of provenance.json.
        notebook: its name.
        facts: about this run, such as its seconds and fingerprint; date (UTC) and git revision are added.
        setting: what all runs of a preset share, such as its configuration.
    """
    now = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "revision": git_revision()}
    with locked(path):
        notebooks = _content(path).get("notebooks", {}) | {notebook: facts | now}
        write_json(path, {**now, **machine(), **setting, "notebooks": dict(sorted(notebooks.items()))})


def read(path: Path) -> tuple[pd.Series, pd.DataFrame]:
    """What provenance.json says: the facts of the last run, and of each notebook its date, revision and minutes.

    If there is no such file, the facts are those of this machine, and no notebook has run.
    """
    record = _content(path) or machine() | {"revision": git_revision()}
    packages = record.get("packages", {})
    shown = ("date", "revision", "seed", "platform", "cpu", "cores", "gpu", "python")
    facts = {name: str(record[name]) for name in shown if name in record} | packages
    runs = {
        name: {"date": run["date"], "revision": run["revision"], "minutes": run.get("seconds", float("nan")) / 60}
        for name, run in record.get("notebooks", {}).items()
    }
    columns = ["date", "revision", "minutes"]
    return pd.Series(facts, name="value", dtype=object), pd.DataFrame.from_dict(runs, orient="index", columns=columns)


def _content(path: Path) -> dict[str, object]:
    """What is in the file; nothing if there is none, or a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    # Runs are looked up by name in what was read, after hours of work it may be: a list or a number would stop that.
    if isinstance(content, dict) and isinstance(content.get("notebooks", {}), dict):
        return content
    LOGGER.warning(f"{path} is damaged and begun again.")
    return {}
