"""Where things lie: the checkout, the committed facts in it, the data root, and the results of a preset."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = re.compile(r"(\d\d[a-z]?)_\w+")  # the name of a notebook: its number, then what it is about
FACTS = ROOT / "data"  # the committed facts: registries, splits, homographies
SYSTEMS = FACTS / "registry" / "methods"  # a file for each compared system


def data_root() -> Path:
    """Folder of the data sets: the environment variable FUSIONLIB_DATA, else `data/` of the checkout."""
    return Path(os.environ.get("FUSIONLIB_DATA") or FACTS).expanduser()


def temporary_folder() -> Path:
    """Where this user's unfinished work lies: a process that is started again on this machine goes on from there."""
    return Path(tempfile.gettempdir(), f"fusionlib-{os.getuid()}")


def weight_file(name: str, file: str) -> Path | None:
    """Where published weights lie: `weights/NAME` of the data root, where `python -m fusionlib data fetch NAME` puts
    them, else NAME below the folder that FUSIONLIB_WEIGHTS names, else `weights/NAME` beside the data root.

    Returns:
        The file, or None. The name of a TensorFlow checkpoint leads to its .index and .data files.
    """
    weights_root = os.environ.get("FUSIONLIB_WEIGHTS")
    folders = [
        data_root() / "weights",
        *([Path(weights_root).expanduser()] if weights_root else []),
        data_root().parent / "weights",
    ]
    candidates = (folder / name / file for folder in folders)
    return next((path for path in candidates if path.exists() or path.with_name(f"{path.name}.index").exists()), None)


def notebook_number(name: str) -> str | None:
    """The number that the name of a notebook begins with; None of a name that is no notebook's.

    >>> notebook_number("03_training"), notebook_number("03b_registration_bench"), notebook_number("03_training.failed")
    ('03', '03b', None)
    """
    match = NOTEBOOK.fullmatch(name)
    return match[1] if match else None


def notebook_files(folder: Path) -> dict[str, Path]:
    """The notebooks NN_name.ipynb of a folder, by number and in this order: 03, 03b, 04."""
    numbered = [(notebook_number(path.stem), path) for path in folder.glob("*.ipynb")]
    return dict(sorted((number, path) for number, path in numbered if number))


@dataclass(frozen=True)
class Results:
    """Where the results of one preset lie: `root`/`preset`/{tables,figures,weights}.

    Attributes:
        root: folder of all presets' results, such as `results` of the checkout.
        preset: smoke, mini, paper or rehearsal.

    >>> Results("results", "mini").table("table1").as_posix()
    'results/mini/tables/table1.csv'
    """

    root: Path | str
    preset: str

    @property
    def folder(self) -> Path:
        """The folder of this preset."""
        return Path(self.root) / self.preset

    @property
    def weights(self) -> Path:
        """Where its trainings write weights and logs, and read them from."""
        return self.folder / "weights"

    @property
    def tables(self) -> Path:
        """Where its tables (CSV) lie."""
        return self.folder / "tables"

    @property
    def figures(self) -> Path:
        """Where its figures (PNG) lie."""
        return self.folder / "figures"

    def table(self, name: str) -> Path:
        """The file of a table."""
        return self.tables / f"{name.removesuffix('.csv')}.csv"


SHIPPED = Results(ROOT / "results", "mini")  # weights and tables that come with the repository
