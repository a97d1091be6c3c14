"""What the unit tests share: random numbers that do not depend on which tests ran before, and shown messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from fusionlib.support import command_line


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def messages() -> Iterator[None]:
    """What the library logs is shown as by the commands; without this it is silent."""
    command_line.show_messages()
    yield
    logging.getLogger("fusionlib").removeHandler(command_line.LINES)
