"""Which test pairs show the same scene: six frames of one street, or slices of one head, are no independent pairs.

`data/scenes.json` names the groups. An interval or a test over pairs draws whole groups (`metrics.statistics`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

from fusionlib.data.volumes import subject_of
from fusionlib.support.paths import FACTS


@cache
def _groups() -> dict[str, str]:
    known = json.loads((FACTS / "scenes.json").read_text(encoding="utf-8"))
    groups = [group for name, groups_of_set in known.items() if name != "about" for group in groups_of_set]
    return {pair: group[0] for group in groups for pair in group}


def scenes_of(pairs: Iterable[str]) -> list[str]:
    """The scene of each pair: the first pair of its group, the head of a slice, or its own name.

    Names are unique over all sets.

    >>> scenes_of(["00003", "00082", "00000", "patient07_z087"])
    ['00000', '00082', '00000', 'patient07']
    """
    return [_groups().get(pair) or subject_of(pair) for pair in pairs]
