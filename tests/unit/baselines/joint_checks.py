"""Golden values of the systems that register and fuse at once, whose networks have several outputs."""

from __future__ import annotations

import golden
from registering_checks import check_output
from torch import Tensor


def waves(case: dict, *channels: int) -> list[Tensor]:
    """The inputs of a golden case, (1, C, H, W) each."""
    return [golden.waves(*case["size"], c, phase) for c, phase in zip(channels, case["phases"], strict=True)]


def check_outputs(found: dict[str, Tensor], case: dict) -> None:
    """Shape, mean, standard deviation and single values of every output, to within its tolerance."""
    assert found.keys() == case["outputs"].keys()
    for name, expected in case["outputs"].items():
        check_output(found[name], expected)
