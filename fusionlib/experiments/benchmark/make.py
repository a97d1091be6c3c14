"""Make the benchmark: moved infrared, visible, aligned infrared, true fields and boxes of test pairs, and a manifest.

    DIR/README.md        what is in it, the convention, and the field applied with OpenCV, torch and scipy
    DIR/manifest.json    parts, cases, versions, and the SHA-256 of every file
    DIR/ir, DIR/vi       CASE.png, what a method is given: moved infrared (grey) and visible image (colour)
    DIR/aligned          CASE.png, the infrared before it was moved: what fused images are scored against
    DIR/fields           CASE.npz, the true field `phi`, its mask `valid` and `convention`
    DIR/boxes.json       case to its boxes, or null where nobody has looked

A part is one set at one level and size; a case, PART_PAIR, is one pair of it. The deformations are those of the
project's tables, rounded to 1/256 px (`fields`). Levels are those of `deformation.LEVELS` used in the tables, "zero",
where the infrared stays, and "raw", RoadScene's raw frames with the field of their homography (`data.raw_pairs`).

Images of others are made from the user's own copy; drawn scenes may be passed on by anyone.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

import fusionlib
from fusionlib.data import PairSet, data_root, open_set
from fusionlib.data.drawn.synthetic import scene
from fusionlib.data.images import to_uint8
from fusionlib.data.labels import boxes_of
from fusionlib.data.raw_pairs import FRAME, RawSet, open_raw
from fusionlib.data.sets import Pair, drawn_keys
from fusionlib.deformation import sample_field
from fusionlib.experiments.benchmark import bytes_of, fields
from fusionlib.experiments.benchmark.folder import (
    BOXES,
    FOLDERS,
    FORMAT,
    LEVELS,
    MANIFEST,
    SETS,
    SIZES,
    digest,
    part_digest,
)
from fusionlib.experiments.benchmark.guide import CONVENTION, guide
from fusionlib.support.boxes import CLASSES
from fusionlib.support.files import InputError, check_writable, locked, write_bytes

LOGGER = logging.getLogger(__name__)
KNOWN = {MANIFEST, "README.md", BOXES, *(name for name, _ in FOLDERS)}  # all that lies in the folder


@dataclass(frozen=True)
class _Source:
    """The pairs of a set: `pairs`, `raw` where there are raw frames, `boxes` of a pair or None where unknown."""

    name: str
    pairs: PairSet
    raw: RawSet | None

    def boxes(self, pair: Pair, read: Callable[[str], Tensor | None] | None) -> list[list[float]] | None:
        boxes = pair.boxes if pair.boxes is not None else read(pair.name) if read else None
        return None if boxes is None else [[round(value, 2) for value in row] for row in boxes.tolist()]


def make(
    sets: Sequence[str],
    out: Path | str,
    levels: Sequence[str] = ("light", "medium", "heavy"),
    size: str = "256",
    count: int | None = None,
) -> Path:
    """Write the benchmark folder; a folder that holds one already is replaced, whole or not at all.

    Of two processes that write one folder, the second waits for the first, and then replaces what that has made.

    Args:
        sets: of `SETS`.
        out: the folder, or a link to it; it must not be there, be empty or hold a benchmark and nothing else.
        levels: of `LEVELS`; "raw" is left out of sets without raw frames, and a line says so.
        size: of `SIZES`. Natively, drawn scenes have 512 x 640 pixels.
        count: only the first pairs of each set, 1 or more, for a trial; of drawn scenes, how many are drawn.

    Returns:
        The folder.

    Raises:
        InputError: an unknown name, a count below 1, no data, a folder that holds something else or is a mount point,
            or a link that leads to itself; nothing is written then.
    """
    folder = _real(out)
    for kind, names, known in (("set", sets, SETS), ("level", levels, LEVELS), ("size", [size], SIZES)):
        for name in names:
            if name not in known:
                raise InputError(f"There is no {kind} {name!r} in the benchmark: choose among {', '.join(known)}.")
    if count is not None and count < 1:
        raise InputError(f"A benchmark of {count} pairs is none: give a count of 1 or more, or none for all.")
    _check_replaceable(folder)
    check_writable(folder)
    sets, levels = list(dict.fromkeys(sets)), list(dict.fromkeys(levels))
    sources = [_open(name, size, count, "raw" in levels) for name in sets]
    if "raw" in levels:
        for source in (source for source in sources if source.raw is None):
            LOGGER.info("There are no raw frames of %s: the level raw is left out.", SETS[source.name])
    if not any(_available_levels(source, levels) for source in sources):
        raise InputError("Nothing is left to make: raw frames are RoadScene's alone, so add a level or roadscene.")
    with locked(folder):  # another process would remove what this one has half-written
        _check_replaceable(folder)  # again, since somebody may have put something there while this one waited
        _replace(folder, sources, levels, size)
    return Path(out)


def _real(out: Path | str) -> Path:
    """The folder behind a link, which is the one to replace: the link stays; InputError if it leads to itself."""
    try:
        folder = Path(out).resolve()
        circular = any(path.is_symlink() for path in (folder, *folder.parents))  # left as they are by Python 3.13
    except RuntimeError:  # before
        circular = True
    if circular:
        raise InputError(f"{out} is or lies behind a link that leads to itself: remove it, or give another folder.")
    return folder


def _replace(out: Path, sources: Sequence[_Source], levels: Sequence[str], size: str) -> None:
    """Write a benchmark beside `out` and put it in its place; if that is interrupted, the old one stays."""
    unfinished, previous = (out.with_name(f".{out.name}.{end}") for end in ("part", "old.part"))
    if not out.exists() and previous.exists():  # left by a kill between the two renames
        previous.rename(out)
    for leftover in (unfinished, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _write(unfinished, sources, levels, size)
        if out.exists():
            _set_aside(out, previous)  # removed last: that takes a while, in which an interruption would leave neither
        unfinished.rename(out)
    finally:
        if previous.exists() and not out.exists():
            previous.rename(out)
        for leftover in (unfinished, previous):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_replaceable(out: Path) -> None:
    """InputError if a folder holds anything but a benchmark: it will be removed when the new one is complete."""
    if Path.cwd().is_relative_to(out):
        raise InputError(f"{out} is the folder that you are in, or one above it: give a folder below it.")
    if os.path.ismount(out):
        raise InputError(_mounted(out))
    if out.is_dir():
        names = {path.name for path in out.iterdir()}
        if foreign := sorted(names - KNOWN):
            fact = f"{out} holds {foreign[0]}, which is no part of a benchmark and would be lost"
            raise InputError(f"{fact}: move it away, or give a new or an empty folder.")
        if names and MANIFEST not in names:
            raise InputError(f"{out} holds no complete benchmark: give a new or an empty folder.")
    elif out.exists():
        raise InputError(f"{out} is a file: give a new or an empty folder.")


def _set_aside(out: Path, previous: Path) -> None:
    """Rename the old folder; InputError if it is a mount point of the same disk, which only shows now."""
    try:
        out.rename(previous)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise InputError(_mounted(out)) from None


def _mounted(out: Path) -> str:
    return f"{out} is a mount point, which cannot be replaced: give a folder inside it."


def _write(folder: Path, sources: Sequence[_Source], levels: Sequence[str], size: str) -> None:
    parts, boxes, files = {}, {}, {}
    total = sum(len(source.pairs) * len(_available_levels(source, levels)) for source in sources)
    with tqdm(total=total, unit="case", mininterval=5) as bar:
        for source in sources:
            read = _labels(source.name, size)
            source_levels = _available_levels(source, levels)
            for index, name in enumerate(source.pairs.names):
                pair = source.pairs[index]
                for level in source_levels:
                    part = f"{source.name}_{level}_{size}"
                    facts = {"set": source.name, "level": level, "size": size, "cases": {}}
                    parts.setdefault(part, facts)["cases"][case := f"{part}_{name}"] = name
                    boxes[case] = source.boxes(pair, read)
                    for (kind, suffix), content in _files(source, index, pair, level):
                        file_name = f"{kind}/{case}.{suffix}"
                        write_bytes(folder / file_name, content)
                        files[file_name] = digest(content)
                    bar.update()
    for part in parts.values():
        part["digest"] = part_digest(part["cases"], files)
    for name, content in ((BOXES, bytes_of.text(boxes)), ("README.md", guide(parts, boxes).encode())):
        write_bytes(folder / name, content)
        files[name] = digest(content)
    made_with = {"fusionlib": fusionlib.__version__} | {
        name: version(name).partition("+")[0] for name in ("numpy", "pillow", "torch")
    }
    facts = {"format": FORMAT, "made_with": made_with, "classes": CLASSES, "parts": parts, "files": files}
    write_bytes(folder / MANIFEST, bytes_of.text(facts))


def _files(source: _Source, index: int, pair: Pair, level: str) -> Iterator[tuple[tuple[str, str], bytes]]:
    """((folder, suffix), content) of one case."""
    aligned, height, width = _as_uint8(pair.ir)[0], *pair.ir.shape[1:]
    if level == "raw":
        raw = source.raw[index]
        moved, phi = _as_uint8(raw.ir)[0], fields.quantised(raw.phi_gt.numpy())
        valid = fields.inside(phi) & raw.valid[0].numpy()
    else:
        psi = np.zeros((2, height, width), np.int64)
        if level != "zero":
            psi = fields.quantised(sample_field(level, height, width, ("test", 0, pair.name))[0].numpy())
        moved, phi = fields.move(aligned, psi), fields.inverse(psi)
        valid = fields.inside(phi)
    rgb = np.ascontiguousarray(_as_uint8(pair.rgb).transpose(1, 2, 0))
    yield ("ir", "png"), bytes_of.png(moved)
    yield ("vi", "png"), bytes_of.png(rgb)
    yield ("aligned", "png"), bytes_of.png(aligned)
    phi = (phi / fields.STEP).astype(np.float32)  # exact
    yield ("fields", "npz"), bytes_of.npz(phi=phi, valid=valid, convention=np.array(CONVENTION))


def _as_uint8(image: Tensor) -> np.ndarray:
    return to_uint8(image).numpy()


def _available_levels(source: _Source, levels: Sequence[str]) -> list[str]:
    return [level for level in levels if level != "raw" or source.raw is not None]


def _open(name: str, size: str, count: int | None, raw: bool) -> _Source:
    side = None if size == "native" else int(size)
    if name == "drawn":
        shape = (side, side) if side else FRAME
        keys = drawn_keys("synthetic", "test", count)

        def draw(member: str) -> Pair:
            drawn = scene(keys[member], *shape, dtype=np.float64)
            return Pair(member, drawn.ir, drawn.vi, drawn.rgb, drawn.boxes)

        return _Source(name, PairSet(keys, draw), None)
    pairs = open_set(name, "test", side, count=count)
    return _Source(name, pairs, open_raw(name, "test", side, count=count) if raw and name == "roadscene" else None)


def _labels(name: str, size: str) -> Callable[[str], Tensor | None] | None:
    """A function from the name of a pair to its boxes; None for a set without, or whose boxes are not here."""
    if name not in ("roadscene", "m3fd"):
        return None
    try:
        return boxes_of(name, data_root(), None if size == "native" else int(size))
    except InputError as error:
        LOGGER.info("Boxes of %s are left out. %s", SETS[name], error)
        return None
