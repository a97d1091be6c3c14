"""Which test pairs show one scene: a claim over pairs needs scenes that differ, and six frames of one street are one.

`data/scenes.json` names the groups. An interval or a test over pairs draws whole groups (`metrics.statistics`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

import torch
import torch.nn.functional as F

from fusionlib.data.sets import PairSet
from fusionlib.support.paths import FACTS

SIDE, LEAST = 64, 0.8  # of the thumbnails that are compared, and their smallest correlation


@cache
def _groups() -> dict[str, str]:
    known = json.loads((FACTS / "scenes.json").read_text(encoding="utf-8"))
    groups = [group for name, each in known.items() if name != "about" for group in each]
    return {pair: group[0] for group in groups for pair in group}


def scenes_of(pairs: Iterable[str]) -> list[str]:
    """The scene of each pair: the first pair of its group, or its own name. Names are unique over all sets.

    >>> scenes_of(["00003", "00082", "00000"])
    ['00000', '00082', '00000']
    """
    return [_groups().get(pair, pair) for pair in pairs]


def near_duplicates(pairs: PairSet) -> list[tuple[str, str]]:
    """Pairs of names whose thumbnails, infrared and visible together, correlate by at least `LEAST`.

    Args:
        pairs: of one size for all.
    """
    seen = []
    for _, *images in pairs.one_by_one():
        small = [F.interpolate(image, (SIDE, SIDE), mode="area").flatten() for image in images]
        seen.append(torch.cat([(each - each.mean()) / (each.std(correction=0) + 1e-6) for each in small]))
    thumbnails = torch.stack(seen) / (2 * SIDE**2) ** 0.5
    first, second = (thumbnails @ thumbnails.T >= LEAST).triu(1).nonzero().T.tolist()
    return [(pairs.names[one], pairs.names[two]) for one, two in zip(first, second, strict=True)]
