"""What all trainings share: a log, lines of progress, and a checkpoint from which a killed training goes on."""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor

from fusionlib.support.files import InputError, atomic
from fusionlib.support.keys import Key
from fusionlib.support.long_training import check_time
from fusionlib.support.weights import save_weights

LOGGER = logging.getLogger(__name__)
REPORTS = 20  # lines of progress of one training, about


class Stateful(Protocol):
    """A module, an optimiser, a schedule: what a checkpoint has to hold."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


class Run:
    """The progress of a training towards the weights at `path`, with a checkpoint that an earlier, killed run has left.

    Attributes:
        rows: the log: of each span of the training, an epoch or some steps, the number of its last one, its loss, its
            seconds, ...
        total: number of the last epoch, or of the last step.

    Args:
        path: of the weights, `.safetensors`; log (`.csv`) and checkpoint (`.checkpoint`) lie beside it. None keeps
            nothing.
        key: of the weights; a checkpoint with another key is not used.
        unit: the column of the log that counts, "epoch" or "step".
        loss: the column that is reported and has to stay finite.

    Raises:
        InputError: there is a checkpoint, and it cannot be read.
    """

    def __init__(
        self,
        path: Path | None,
        key: Key,
        total: int,
        unit: str = "epoch",
        loss: str = "l_t",
    ) -> None:
        self.path, self.key, self.total, self.unit, self.loss = path, key, total, unit, loss
        self.name = path.stem if path else "detector"
        self._saved = self._checkpoint() if path and path.with_suffix(".checkpoint").exists() else {}
        self.rows: list[dict[str, float]] = self._saved.get("rows", [])
        self._since = time.perf_counter()
        if self.rows:
            LOGGER.info(f"{self.name}: going on after {unit} {self.done} of {total}")

    @property
    def done(self) -> int:
        """Number of the last epoch, or step, that is in the log; 0 before the first."""
        return self.rows[-1][self.unit] if self.rows else 0

    def restore(self, **parts: Stateful) -> None:
        """Give each part its state in the checkpoint, if there is one; call it once, with the names given to `add`."""
        for name, part in parts.items() if self._saved else ():
            part.load_state_dict(self._saved[name])
        self._saved = {}

    def add(self, row: Mapping[str, float], **parts: Stateful) -> None:
        """Append a row to the log, write a checkpoint with the state of each part, and report the progress.

        Raises:
            InputError: the loss is NaN or infinite.
            OutOfTimeError: there is no time for another one (`fusionlib.support.long_training.allowed`).
        """
        self.check(row[self.loss], row[self.unit])
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        self.rows.append({**row, "seconds": row.get("seconds", seconds)})
        if self.path:
            with atomic(self.path.with_suffix(".checkpoint")) as part:
                states = {name: stateful.state_dict() for name, stateful in parts.items()}
                content = io.BytesIO()  # on a full disk, torch's own writing hides why it failed
                torch.save({**states, "rows": self.rows, "made_by": str(self.key)}, content)
                part.write_bytes(content.getbuffer())
        self.report()
        if self.done < self.total:
            check_time(f"{self.name} is trained to {self.unit} {self.done} of {self.total}", seconds)

    def check(self, value: float, at: int, what: str = "loss") -> None:
        """InputError if the loss of an epoch or step, or `what` else is given, is NaN or infinite."""
        if not math.isfinite(value):
            raise InputError(f"The {what} of {self.name} is {value} at {self.unit} {at}: lower the learning rate.")

    def report(self) -> None:
        """Log the last loss, the last validation error, and the minutes left; about `REPORTS` times in a training."""
        if len(self.rows) > 1 and self.done < self.total and self.done % max(1, self.total // REPORTS):
            return
        minutes_left = (self.total - self.done) * sum(row["seconds"] for row in self.rows) / self.done / 60
        error = next((f", validation EPE {row['epe']:.2f} px" for row in reversed(self.rows) if "epe" in row), "")
        loss = f"{self.loss} {self.rows[-1][self.loss]:.3f}{error}"
        LOGGER.info(f"{self.name}: {self.unit} {self.done}/{self.total}, {loss}, {minutes_left:.0f} min left")

    def finish(self, weights: Mapping[str, Tensor], recipe: dict) -> pd.DataFrame:
        """Write weights and log, numbers to six digits; remove the checkpoint and return the log."""
        log = pd.DataFrame(self.rows)
        if self.path:
            with atomic(self.path.with_suffix(".csv")) as part:
                log.to_csv(part, index=False, float_format="%.6g")
            save_weights(self.path, weights, recipe, self.key)
            self.path.with_suffix(".checkpoint").unlink(missing_ok=True)
        return log

    def _checkpoint(self) -> dict:
        checkpoint = self.path.with_suffix(".checkpoint")
        try:
            # To the CPU: each part copies its state to its own device, and Adam counts its steps on the CPU.
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            made_by = state["made_by"]
        except OSError as error:
            fact = f"{checkpoint} cannot be read ({error.strerror})"
            raise InputError(f"{fact}: make it readable, or delete it.") from None
        except Exception:  # torch and pickle raise many kinds of errors for damaged files
            advice = "delete it, and the training begins again"
            raise InputError(f"{checkpoint} is damaged or not a checkpoint of a training: {advice}.") from None
        if self.key.differing(Key.parse(made_by)):
            LOGGER.info(f"{self.name}: {checkpoint.name} is of another training, and not used")
            return {}
        return state
