"""What every training leaves beside its weights: a log, and a checkpoint from which a killed run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from fusionlib.support.files import atomic
from fusionlib.support.keys import Key


def checkpoint_of(path: Path) -> Path:
    """Where the checkpoint of the training whose weights go to `path` lies."""
    return path.with_suffix(".checkpoint")


def save_checkpoint(path: Path, key: Key, state: Mapping[str, object]) -> None:
    """Write the state of a training (tensors, numbers, texts), whole or not at all; `path` is that of its weights."""
    with atomic(checkpoint_of(path)) as part:
        torch.save({**state, "made_by": str(key)}, part)


def load_checkpoint(path: Path, key: Key, device: torch.device | str = "cpu") -> dict | None:
    """The state that a killed run of this training has left; None if there is none, or one of another training."""
    checkpoint = checkpoint_of(path)
    if not checkpoint.exists():
        return None
    state = torch.load(checkpoint, map_location=device, weights_only=True)
    if key.differing(Key.parse(state.get("made_by", ""))):
        print(f"{path.stem}: {checkpoint.name} is of another training; starting anew", flush=True)
        return None
    return state


def write_log(path: Path, rows: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """Write the rows of a log as CSV beside the weights at `path`, numbers to six digits; return them as a table."""
    log = pd.DataFrame(rows)
    with atomic(path.with_suffix(".csv")) as part:
        log.to_csv(part, index=False, float_format="%.6g")
    return log
