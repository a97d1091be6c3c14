"""Which pairs a split of a set has: the committed lists, or, of M3FD in full, those that are put beside its images.

PAPER-GAP: the paper names no split of M3FD, which comes without one. The steps of `data fetch m3fd_full` take that of
the GitHub repository ganlumomo/TarDAL, 2,727 pairs for training, 633 and 840; lists of others can be put in its place.
It parts neighbouring frames: of six of one street, 00000 to 00005, four are trained and two are tested on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

from fusionlib.data import volumes
from fusionlib.data.images import IMAGE_SUFFIXES
from fusionlib.data.labels import read_coco
from fusionlib.support.files import InputError, fingerprint
from fusionlib.support.paths import FACTS, data_root

DRAWN = ("synthetic", "brains")  # sets that are drawn on the spot
# The committed files that boxes rest on, by set.
COMMITTED_LABELS = {"roadscene": ("homographies.json", "label_status.json"), "m3fd": ("m3fd_boxes.json",)}


def splits(name: str, root: Path | str | None = None) -> dict[str, list[str]]:
    """Names of the pairs in each split of a set, by split: committed, or, of M3FD_full, below the data root `root`."""
    if name.lower() == "m3fd_full":
        return _published((data_root() if root is None else Path(root)) / "M3FD" / "meta")
    files = sorted((FACTS / "splits" / name.lower()).glob("*.txt"))
    return {file.stem: file.read_text(encoding="utf-8").split() for file in files}


def checksum(name: str, members: Iterable[str], labels: bool = False) -> str:
    """Eight hexadecimal digits for the files of some pairs of a set, by their recorded SHA-256.

    Args:
        name: the set.
        members: names of pairs, whose order counts. Of pairs that are drawn or downloaded by hand no files are
            recorded, and the names alone count.
        labels: the boxes count, too: RoadScene's with the homographies that bring them to its crops, and M3FD's list.
    """
    members, key = list(members), name.lower()
    stems = {*members, *map(volumes.subject_of, members)}
    registries = [key, "flir_adas_v1"] if labels and key == "roadscene" else [key]
    hashes = {}
    for registry in (FACTS / "registry" / f"{each}.json" for each in registries):
        files = json.loads(registry.read_text(encoding="utf-8"))["files"] if registry.exists() else {}
        for path, facts in files.items():
            if {Path(path).stem, Path(path).parent.name} & stems:
                hashes[f"{registry.stem}/{path}"] = facts["sha256"]
    committed = COMMITTED_LABELS.get(key, ()) if labels else ()
    return fingerprint(members, hashes, [(FACTS / each).read_text(encoding="utf-8") for each in committed])[:8]


def components_of(name: str, labels: bool = False) -> list[str]:
    """The components of `fusionlib.support.behaviour` that make the pairs of a set, and their boxes if those count."""
    if name.lower() in DRAWN:
        return ["drawn-brains" if name.lower() == "brains" else "drawn-scenes"]
    of_brains = name.lower() in {each.lower() for each in volumes.SETS}
    return ["volumes" if of_brains else "images", *(["labels"] if labels else [])]


def _stem(name: str) -> str:
    """A name without the suffix of an image; another dot belongs to the name."""
    return Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else Path(name).name


def _published(folder: Path) -> dict[str, list[str]]:
    """The lists in a folder: m3fd-SPLIT.json, COCO's form, or else SPLIT.txt, a name a line; {} without any.

    Raises:
        InputError: a pair is in two of the lists.
    """
    members = {}
    for split in volumes.SPLITS:
        coco, lines = folder / f"m3fd-{split}.json", folder / f"{split}.txt"
        if coco.is_file():
            members[split] = list(read_coco([coco]))
        elif lines.is_file():
            text = lines.read_text(encoding="utf-8", errors="replace")
            members[split] = [_stem(line.strip()) for line in text.splitlines() if line.strip()]
    for one, other in combinations(members, 2):
        if shared := sorted(set(members[one]) & set(members[other])):
            fact = f"The lists in {folder} have {shared[0]} in {one} and in {other}"
            raise InputError(f"{fact}: take those of one split.")
    return members
