"""Where things lie: the checkout, the committed facts in it, and the data root."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FACTS = ROOT / "data"  # the committed facts: registries, splits, homographies


def data_root() -> Path:
    """Folder of the data sets: the environment variable FUSIONLIB_DATA, else `data/` of the checkout."""
    return Path(os.environ.get("FUSIONLIB_DATA") or FACTS).expanduser()
