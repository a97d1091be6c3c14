"""Pairs of infrared and visible images: the sets by name, their splits, two folders of one's own.

Convention:
    Images are as `fusionlib.data.images` reads them. Infrared `ir` and visible `vi` have one channel; `vi` is the luma,
    and its colour travels beside it as `rgb` until `recolour` puts it back. Of a brain T1 plays the visible image,
    which stays in place, and T2 the infrared one, which is deformed.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fusionlib.data import volumes
from fusionlib.data.drawn.brain import brain
from fusionlib.data.drawn.synthetic import scene
from fusionlib.data.images import (
    IMAGE_SUFFIXES,
    Size,
    from_uint8,
    height_width,
    luma,
    read_infrared,
    read_visible,
    resize,
    to_uint8,
)
from fusionlib.data.lists import DRAWN, splits
from fusionlib.support.files import InputError
from fusionlib.support.paths import FACTS, data_root

CACHE_BYTES = 4 << 30  # largest memory of a set; further pairs are read again each time
SYNTHETIC_SCENES = {"train": 64, "val": 8, "test": 16}

# (infrared, visible) below the data root; of several layouts the first that exists is used.
SETS = {
    "RoadScene": (("RoadScene/cropinfrared", "RoadScene/crop_LR_visible"),),
    "M3FD": (("M3FD/M3FD_Detection/Ir", "M3FD/M3FD_Detection/Vis"), ("M3FD/Ir", "M3FD/Vis"), ("M3FD/ir", "M3FD/vi")),
    "TNO": (("TNO/ir", "TNO/vi"),),
    "LLVIP": (("LLVIP/ir", "LLVIP/vi"),),
    "M3FD_full": (("M3FD/M3FD_Detection/Ir", "M3FD/M3FD_Detection/Vis"), ("M3FD/Ir", "M3FD/Vis")),
}


@dataclass(frozen=True, eq=False)
class Pair:
    """One scene in both modalities: `ir` and `vi` (1, H, W), `rgb` (3, H, W) the colour of the visible image.

    `boxes` (N, 5), class and corners x0, y0, x1, y1 in pixels, is there where the set is drawn together with its boxes.
    """

    name: str
    ir: Tensor
    vi: Tensor
    rgb: Tensor
    boxes: Tensor | None = None


class PairSet(Sequence[Pair]):
    """Pairs in the order of `names`; each is read when first asked for and kept in memory, as bytes, from then on."""

    def __init__(self, names: Iterable[str], load: Callable[[str], Pair], title: str = "") -> None:
        self.names = list(names)
        self.title = title  # of the set, where it is one that `open_set` knows
        self._load = load
        self._cache: dict[str, Pair] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        return _map_images(self._in_bytes(index), from_uint8)

    def _in_bytes(self, index: int) -> Pair:
        """A pair as it is kept, in bytes."""
        name = self.names[index]
        stored = self._cache.get(name)
        if stored is None:
            stored = _map_images(self._load(name), to_uint8)
            size = stored.ir.numel() + stored.vi.numel() + stored.rgb.numel()
            if self._cached_bytes + size <= CACHE_BYTES:
                self._cache[name] = stored
                self._cached_bytes += size
        return stored

    def one_by_one(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, `ir` and `vi` of every pair, images (1, 1, H, W)."""
        for index, name in enumerate(self.names):
            yield name, *self.stack([index])

    def stack(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Batch the pairs at these positions: `ir` and `vi`, each (B, 1, H, W); InputError if they differ in size."""
        pairs = [self._in_bytes(index) for index in indices]
        if not pairs:
            raise InputError("A batch needs a pair: give the positions of one or more.")
        for pair in pairs:
            if pair.ir.shape != pairs[0].ir.shape:
                raise InputError(
                    f"{pairs[0].name} is {_extent(pairs[0].ir)} and {pair.name} is {_extent(pair.ir)} pixels: "
                    "open the set with size=..., so that its pairs fit into one batch."
                )
        ir, vi = (torch.stack(images) for images in zip(*((pair.ir, pair.vi) for pair in pairs), strict=True))
        return from_uint8(ir), from_uint8(vi)


def read_pair(
    ir_path: Path | str,
    vi_path: Path | str,
    size: Size | None = None,
    name: str | None = None,
    page: int | None = None,
) -> Pair:
    """Read two images of one scene, resized to `size` (bicubic, on 8 bits); `name` defaults to the visible file's stem.

    `page`, from 1, chooses one of a file that has several.

    Raises:
        InputError: As `read_infrared`, or the two images differ in size.
    """
    ir, (vi, rgb) = read_infrared(ir_path, page), read_visible(vi_path, page)
    if ir.shape != vi.shape:
        sizes = f"{ir_path} is {_extent(ir)} and {vi_path} is {_extent(vi)}"
        raise InputError(f"{sizes} pixels: crop or resize one of them, so that both have the same width and height.")
    if size is not None:
        # The colour is resized and the luma taken from it, so that the two keep belonging together.
        ir, rgb = resize(ir, size), resize(rgb, size)
        vi = luma(rgb)
    return Pair(name or Path(vi_path).stem, ir, vi, rgb)


def open_set(
    name: str,
    split: str | None = None,
    size: Size | None = None,
    root: Path | str | None = None,
    count: int | None = None,
) -> PairSet:
    """Open a set by its name: RoadScene, M3FD, TNO, LLVIP, or synthetic (drawn scenes, which need no download); or
    M3FD_full, the 4,200 pairs of M3FD, which have to be downloaded by hand.

    Brains, T2 as `ir` and T1 as `vi`: open_ms, brats_format, BraTS2020, or brains (drawn ones).

    Args:
        name: The set, in upper or lower case.
        split: train, val, test or external of RoadScene; train, val or test of M3FD_full, open_ms, BraTS2020 and what
            is drawn; test of the others, which is what `data fetch` brings of them. None or "all" is every pair there
            is.
        size: None for the size of the files, a side for a square, or (H, W).
        root: Data root, by default `data_root()`.
        count: Only the first `count` pairs; of synthetic and brains, how many of each split are drawn.

    Raises:
        InputError: Unknown set or split, data that are not there, or volumes as `volumes.read_subject` refuses them.
    """
    key, split, known = name.lower(), (split or "all").lower(), [*SETS, *DRAWN, *volumes.SETS]
    title = {title.lower(): title for title in known}.get(key)
    if title is None:
        raise InputError(f"There is no set {name!r}: choose one of {', '.join(known)}.")
    root = data_root() if root is None else Path(root)
    members = SYNTHETIC_SCENES if key in DRAWN else splits(key, root) or dict.fromkeys(volumes.SPLITS)
    if split not in (*members, "all"):
        raise InputError(f"{title} has no split {split!r}: choose one of {', '.join([*members, 'all'])}.")
    if count is not None and count < 1:
        raise InputError(f"A set of {count} pairs is none: give a count of 1 or more, or none for all.")
    if key in DRAWN:
        return _open_drawn(key, split, size, count)

    command = _how_to_get(key, root)
    if title in volumes.SETS:
        names, read = volumes.open_slices(title, split, members.get(split), root, command, size, count)
        return PairSet(names, lambda member: _of_brain(member, *read(member)), title)

    layouts = [(root / ir, root / vi) for ir, vi in SETS[title]]
    ir_dir, vi_dir = next(((ir, vi) for ir, vi in layouts if ir.is_dir() and vi.is_dir()), (None, None))
    if ir_dir is None:
        raise InputError(f"{title} is not in {root}: {command}, or set FUSIONLIB_DATA to the folder that has it.")
    paths = matched(ir_dir, vi_dir, command)
    names = sorted(paths) if split == "all" else members[split]
    if names is None:
        raise InputError(f"The lists of {title}'s splits are not in {root}: {command}.")
    absent = [member for member in names if member not in paths]
    if absent:
        some = f"{len(absent)} of the {len(names)} pairs of {title} {split}, such as {absent[0]}"
        raise InputError(f"{some}, are not in {vi_dir}: {command}.")
    return PairSet(names[:count], lambda member: read_pair(*paths[member], size=size, name=member), title)


def open_folders(ir_dir: Path | str, vi_dir: Path | str, size: Size | None = None) -> PairSet:
    """Open two folders whose images belong together by stem; extensions may differ, other files are ignored.

    Raises:
        InputError: A folder is not there or has no image, or an image has no twin.
    """
    paths = matched(Path(ir_dir), Path(vi_dir))
    return PairSet(sorted(paths), lambda member: read_pair(*paths[member], size=size, name=member))


def matched(
    ir_dir: Path, vi_dir: Path, advice: str = "give both folders images of the same names"
) -> dict[str, tuple[Path, Path]]:
    """Stem to infrared and visible file of two folders, in the order of the stems; errors as in `open_folders`."""
    ir, vi = images_by_stem(ir_dir), images_by_stem(vi_dir)
    for images, other_images, folder, other_folder in ((ir, vi, ir_dir, vi_dir), (vi, ir, vi_dir, ir_dir)):
        unmatched = sorted(images.keys() - other_images.keys())
        if unmatched:
            more = f" and {len(unmatched) - 3} more" if len(unmatched) > 3 else ""
            raise InputError(
                f"No image in {other_folder} goes with {', '.join(unmatched[:3])}{more} of {folder}: {advice}."
            )
    return {stem: (ir[stem], vi[stem]) for stem in sorted(ir)}


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Stem to image file of a folder; InputError if it is none, has no image, or two of one stem."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the images.")
    images: dict[str, Path] = {}
    try:
        inside = sorted(folder.iterdir())
    except PermissionError as error:
        raise InputError(f"{folder} cannot be opened ({error.strerror}): give a folder that you may read.") from None
    for path in inside:
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir():
            stem = unicodedata.normalize("NFC", path.stem)  # macOS writes an accent as a letter of its own
            if stem in images:
                raise InputError(f"{folder} has both {images[stem].name} and {path.name}: remove one of them.")
            images[stem] = path
    if not images:
        raise InputError(f"{folder} has no image: give a folder of {', '.join(IMAGE_SUFFIXES)} files.")
    return images


def count_of(name: str, split: str) -> int:
    """How many pairs a split of a set has, by its list; of a set without one, as many as are drawn."""
    return len(splits(name).get(split, [])) or SYNTHETIC_SCENES[split]


def drawn_keys(name: str, split: str, count: int | None = None) -> dict[str, tuple[str, int, int]]:
    """Name to key of the pairs that are drawn for a set, of `DRAWN`: of a split, or of each one if it is "all".

    `count` says how many are drawn of a split, as many as `SYNTHETIC_SCENES` has if it is None.
    """
    return {
        f"{name}_{part}_{number:04d}": (part, 0, number)
        for part in SYNTHETIC_SCENES
        if split in (part, "all")
        for number in range(SYNTHETIC_SCENES[part] if count is None else count)
    }


def _open_drawn(key: str, split: str, size: Size | None, count: int | None) -> PairSet:
    sides = () if size is None else height_width(size)
    keys = drawn_keys(key, split, count)

    def draw(name: str) -> Pair:
        if key == "brains":
            drawn = brain(keys[name], *sides)
            return _of_brain(name, drawn.t1, drawn.t2)
        drawn = scene(keys[name], *sides)
        return Pair(name, drawn.ir, drawn.vi, drawn.rgb, drawn.boxes)

    return PairSet(keys, draw, key)


def _of_brain(name: str, t1: Tensor, t2: Tensor) -> Pair:
    return Pair(name, ir=t2, vi=t1, rgb=t1.expand(3, -1, -1))


def _how_to_get(key: str, root: Path) -> str:
    entry = json.loads((FACTS / "registry" / f"{key}.json").read_text(encoding="utf-8"))
    return entry.get("by_hand", f"run `python -m fusionlib data fetch {key}`").format(root=root)


def _extent(image: Tensor) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"


def _map_images(pair: Pair, change: Callable[[Tensor], Tensor]) -> Pair:
    boxes = None if pair.boxes is None else pair.boxes.clone()  # as the images, those of the set stay as they are
    return replace(pair, ir=change(pair.ir), vi=change(pair.vi), rgb=change(pair.rgb), boxes=boxes)
