"""Long trainings start only on request: what counts as long, whether it was requested, how much time there is."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fusionlib.support.files import InputError

LOGGER = logging.getLogger(__name__)
ASKED = "FUSIONLIB_TRAIN"  # environment variable: set by `reproduce --train` and `--retrain`
LONG = 1.0  # minutes
# Pixels of training images that two cores learn from in a second: 1.0e5 (all together) to 2.4e5 (registration alone) in
# the logs of mini's weights. Good enough to tell seconds from hours.
PIXELS_PER_SECOND = 1.5e5

_end = ContextVar("end of the time for trainings, by the clock of `time.monotonic`", default=math.inf)


class OutOfTimeError(Exception):
    """The time for trainings is over. The message says how far they came; what was done is kept."""


@contextmanager
def allowed(minutes: float | None = None) -> Iterator[None]:
    """Long trainings may start in this block, and end with an `OutOfTimeError` before these minutes are over.

    Args:
        minutes: None sets no limit. At least one piece of work is done, however few the minutes are, so that every
            call makes progress; see `check_time`.
    """
    before = os.environ.get(ASKED, "")
    token = _end.set(math.inf if minutes is None else time.monotonic() + 60 * minutes)
    os.environ[ASKED] = "1"
    try:
        yield
    finally:
        os.environ[ASKED] = before
        _end.reset(token)


def check_time(done: str, seconds: float = 0.0) -> None:
    """Called after each piece of work, an epoch or some rows of a table, once it is kept, if there is another one.

    Args:
        done: how far the work has come, for the message.
        seconds: that the next piece takes, about as many as the last.

    Raises:
        OutOfTimeError: it would not end in the time that `allowed` gives.
    """
    if time.monotonic() + seconds > _end.get():
        raise OutOfTimeError(done)


def is_allowed() -> bool:
    """Whether this process may start long trainings: `allowed` or the environment variable says so."""
    return os.environ.get(ASKED, "") not in ("", "0")


def minutes_for(pixels: float) -> float:
    """Approximate minutes of a training on two CPU cores; `pixels` are counted each time that they are used."""
    return pixels / PIXELS_PER_SECOND / 60


def may_start(minutes: float) -> bool:
    """Whether a training of so many minutes may start now."""
    return minutes <= LONG or is_allowed()


def refused(what: str, minutes: float) -> InputError:
    """The error for a long training that was not requested."""
    return InputError(
        f"{what} would have to be trained, about {minutes:.0f} min on two cores: add --train to `reproduce`, or set "
        f"{ASKED}=1."
    )


def show_earlier(what: str, changed: Iterable[str], minutes: float | None = None) -> None:
    """Log one line: a result of earlier code or data is shown unchanged."""
    cost = "" if minutes is None else f", about {minutes:.0f} min"
    LOGGER.info(
        f"{what}: made before a change of {', '.join(changed)}, and shown as it was; "
        f"`reproduce --train` makes it again{cost}."
    )
