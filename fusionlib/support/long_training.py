"""Nothing long is trained unasked: what counts as long, who has asked, and what is said otherwise."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from fusionlib.support.files import InputError

LOGGER = logging.getLogger(__name__)
ASKED = "FUSIONLIB_TRAIN"  # environment variable: set by `reproduce --train` and `--retrain`
LONG = 1.0  # minutes
# Pixels of training images that two cores learn from in a second: 1.0e5 (all together) to 2.4e5 (registration alone) in
# the logs of mini's weights. Good enough to tell seconds from hours.
PIXELS_PER_SECOND = 1.5e5


def asked() -> bool:
    """Whether whoever started this process wants long trainings."""
    return os.environ.get(ASKED, "") not in ("", "0")


def minutes_for(pixels: float) -> float:
    """Minutes that a training takes on two CPU cores, roughly; `pixels` as often as they are seen."""
    return pixels / PIXELS_PER_SECOND / 60


def may_start(minutes: float) -> bool:
    """Whether a training of so many minutes may start now."""
    return minutes <= LONG or asked()


def refused(what: str, minutes: float) -> InputError:
    """The error for a training that nobody has asked for."""
    return InputError(
        f"{what} would have to be trained, about {minutes:.0f} min on two cores: add --train to `reproduce`, or set "
        f"{ASKED}=1."
    )


def show_earlier(what: str, changed: Iterable[str], minutes: float | None = None) -> None:
    """Say in one line that a result of earlier code or data is shown as it is."""
    cost = "" if minutes is None else f", about {minutes:.0f} min"
    LOGGER.info(
        f"{what}: made before a change of {', '.join(changed)}, and shown as it was; "
        f"`reproduce --train` makes it again{cost}."
    )
