"""The boxes that sets come with: RoadScene's from FLIR's annotations of the raw frames, M3FD's in four file forms.

RoadScene has no boxes of its own. Its pairs are frames of FLIR ADAS v1, whose boxes were drawn on the raw thermal
frame; the homography that made the aligned crop takes them along. FLIR's files are fetched, only homographies and the
status of the frames without such a file are committed, and of M3FD the boxes of the 17 pairs.

Convention:
    Boxes as in `fusionlib.support.boxes`. For one pair they are a tensor (N, 5), which is (0, 5) where nothing is to be
    found, and None where nobody has looked: such an image must not enter a detection loss, nor a count of false alarms.
    Classes that are not asked for are dropped (a dog, a lamp); one that the set does not have is refused. A box is cut
    at the border of its image, and dropped if less than `boxes.MIN_VISIBLE` of it lies inside.
"""

from __future__ import annotations

import codecs
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from fusionlib.data.images import IMAGE_SUFFIXES, Size, height_width, size_of
from fusionlib.support.boxes import CLASSES, NAMES, checked, crop, of_classes, of_rows, project, scale
from fusionlib.support.files import InputError
from fusionlib.support.paths import FACTS

STATES = ("boxes", "probably_empty", "unlabelled")
# What a set calls our classes, or None. FLIR writes COCO's numbers, 17 and 18 being animals, 91 "other vehicle".
FLIR_CLASSES = {"1": "person", "2": "bicycle", "3": "car"} | dict.fromkeys(("17", "18", "91"))
M3FD_ORDER = ("People", "Car", "Bus", "Lamp", "Motorcycle", "Truck")  # of its YOLO files without a classes.txt
M3FD_CLASSES = {"People": "person"} | {name: name.lower() for name in M3FD_ORDER[1:]}
M3FD_BOXES = FACTS / "m3fd_boxes.json"  # of the 17 pairs
M3FD_UPSTREAM = "ganlumomo/TarDAL at commit c453fe1afefd4eaa09db2e4acb44f6f629b2a6f5"

Labelled = tuple[Tensor, tuple[int, int]]  # boxes on the image that was labelled, or a crop of it, and its (H, W)


def label_status() -> dict[str, str]:
    """What is known of each RoadScene pair: "boxes", "probably_empty" (none seen by eye) or "unlabelled"."""
    lists = json.loads((FACTS / "label_status.json").read_text(encoding="utf-8"))
    state_of = {name: state for state in STATES[1:] for name in lists[state]}
    return {name: state_of.get(name, "boxes") for name in _homographies()}


def labelled(name: str, members: Iterable[str], empty: bool = False) -> list[str]:
    """Those of the pairs of a set that have labels; `empty` adds RoadScene's that were looked at and found empty."""
    members, key = list(members), name.lower()
    if key == "roadscene":
        wanted, status = STATES[: 1 + empty], label_status()
        return [member for member in members if status.get(member) in wanted]
    return members if key in ("m3fd", "m3fd_full", "synthetic") else []


def boxes_of(
    name: str, root: Path | str, size: Size | None = None, classes: Sequence[str] = CLASSES
) -> Callable[[str], Tensor | None]:
    """A function from the name of a pair to its boxes, to be put beside its images.

    Args:
        name: RoadScene, M3FD or M3FD_full; of other sets, which have no labels, the function gives None. The pairs of
            synthetic carry their boxes already.
        root: Data root.
        size: To which the images are resized, as in `data.open_set`.
        classes: Of `boxes.NAMES`, those that are asked for.

    Raises:
        InputError: The labels of the set are not below the root; later, a pair of it is not among them, or a file
            cannot be read.
    """
    if name.lower() == "synthetic":
        raise InputError("Boxes of synthetic scenes come with the scenes: take them from Pair.boxes.")
    readers = {"roadscene": _roadscene, "m3fd": _m3fd, "m3fd_full": partial(_m3fd, committed=None)}
    read = readers[name.lower()](Path(root)) if name.lower() in readers else lambda member: None

    def boxes(member: str) -> Tensor | None:
        labels = read(member)
        if labels is None:
            return None
        on_image, old_size = of_classes(checked(labels[0]), classes), labels[1]
        whole = crop(on_image, 0, 0, *old_size)
        return whole if size is None else scale(whole, old_size, height_width(size))

    return boxes


def _roadscene(root: Path) -> Callable[[str], Labelled | None]:
    folder, facts, status = root / "FLIR_ADAS_v1", _homographies(), label_status()
    files = {file.stem: file for split in ("train", "val") for file in (folder / split).glob("*.txt")}
    fetch = "run `python -m fusionlib data fetch flir_adas_v1`"
    if not files:
        raise InputError(f"The boxes of RoadScene's frames are not in {folder}: {fetch}.")

    def read(member: str) -> Labelled | None:
        if member not in facts:
            raise InputError(f"{member} is not a pair of RoadScene that the project knows: open one of its splits.")
        shape = facts[member]["h"], facts[member]["w"]
        if status[member] != "boxes":
            return (of_rows(), shape) if status[member] == "probably_empty" else None
        if member not in files:
            raise InputError(f"{folder} has no {member}.txt, a frame with boxes: {fetch}.")
        return project(read_flir(files[member]), np.array(facts[member]["H"])), shape

    return read


def _m3fd(root: Path, committed: Path | None = M3FD_BOXES) -> Callable[[str], Labelled | None]:
    """From the files beside the images; what is in none of them, from the committed list."""
    folder = root / "M3FD"
    for base in (folder / "M3FD_Detection", folder):
        for kind, reader in (("Annotation", read_voc), ("labels", _read_yolo_beside_images)):
            suffix = ".xml" if reader is read_voc else ".txt"
            if any((base / kind).glob(f"*{suffix}")):
                return lambda member, subfolder=base / kind, read=reader, end=suffix: read(subfolder / f"{member}{end}")
    labels = ({} if committed is None else read_listed(committed)) | read_coco(sorted(folder.glob("meta/m3fd-*.json")))
    if (list_file := folder / "boxes.json").is_file():
        labels |= read_listed(list_file)
    if not labels:
        files = "data/M3FD/meta/m3fd-train.json, m3fd-val.json and m3fd-test.json"
        get = f"put {files} of the GitHub repository {M3FD_UPSTREAM} into {folder / 'meta'}"
        raise InputError(f"{folder} has no boxes: {get}, or the official Annotation folder beside its Ir and Vis.")

    def read(member: str) -> Labelled:
        if member not in labels:
            raise InputError(f"The boxes in {folder} do not cover {member}: add the file that has them.")
        return labels[member]

    return read


def read_flir(path: Path) -> Tensor:
    """FLIR ADAS v1 as text: a line `class x y w h` a box, COCO's class number and pixels of the raw 640x512 frame."""
    return _boxes(path, [(f"line {number}", *line.split()) for number, line in _lines(path)], FLIR_CLASSES)


def read_voc(path: Path) -> Labelled:
    """M3FD's official form: one VOC file an image, with its size and each object's name and corners.

    Where a tool has written no size, or 0 x 0, it is that of the image beside the file.
    """
    try:
        tree = _xml(path)
        shape = tuple(int(tree.findtext(f"size/{side}") or 0) for side in ("height", "width"))
        rows = []
        for number, element in enumerate(tree.iter("object"), 1):
            x0, y0, x1, y1 = (float(element.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            rows.append((f"object {number}", element.findtext("name"), x0, y0, x1 - x0, y1 - y0))
        if min(shape) < 1:
            image = _image_beside(path, tree.findtext("filename") or "")
            if image is None:
                raise ValueError("it says no size of its image, and there is none beside it")
            shape = size_of(image)
    except InputError:
        raise
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no VOC annotation ({error}): unpack the set again.") from None
    return _boxes(path, rows, M3FD_CLASSES), shape


def read_yolo(path: Path, shape: tuple[int, int], order: tuple[str, ...] = M3FD_ORDER) -> Labelled:
    """M3FD as YOLO text: a line `class cx cy w h` a box, centre and size as parts of an image of `shape` (H, W)."""
    height, width = shape
    rows = []
    for number, line in _lines(path):
        try:
            cx, cy, w, h = (float(word) for word in line.split()[1:])
            label = dict(enumerate(order))[int(line.split()[0])]
        except (ValueError, KeyError):
            form = f"`class cx cy w h`, class below {len(order)} and not below 0"
            raise InputError(f"{path} has in line {number} {line!r}: give {form}.") from None
        if not all(0 <= part <= 1 for part in (cx, cy, w, h)):
            form = "centre and size as parts of the image, from 0 to 1: divide pixels by its width and height"
            raise InputError(f"{path} has in line {number} {line!r}: give {form}.")
        rows.append((f"line {number}", label, (cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height))
    return _boxes(path, rows, M3FD_CLASSES), shape


def read_coco(paths: Iterable[Path]) -> dict[str, Labelled]:
    """M3FD as COCO files, such as TarDAL's m3fd-train.json: stem of an image to its boxes and (H, W)."""
    labels: dict[str, Labelled] = {}
    for path in paths:
        try:
            content = json.loads(_text(path))
            names = {kind["id"]: kind["name"] for kind in content["categories"]}
            images = {str(image["id"]): image for image in content["images"]}
            shapes = {key: (image["height"], image["width"]) for key, image in images.items()}
            stems = {key: Path(image.get("file_name", key)).stem for key, image in images.items()}
            rows = {key: [] for key in images}
            for number, annotation in enumerate(content["annotations"], 1):
                row = (f"annotation {number}", names[annotation["category_id"]], *annotation["bbox"])
                rows[str(annotation["image_id"])].append(row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no COCO file ({error!r}): download it again.") from None
        labels |= {stems[key]: (_boxes(path, rows[key], M3FD_CLASSES), _shape(path, *shapes[key])) for key in images}
    return labels


def read_listed(path: Path) -> dict[str, Labelled]:
    """A file {stem: {width, height, boxes_xywh: [[class, x, y, w, h]]}} of M3FD pairs."""
    try:
        content = json.loads(_text(path))
        return {
            stem: (
                _boxes(path, [(stem, *row) for row in entry["boxes_xywh"]], M3FD_CLASSES),
                _shape(path, entry["height"], entry["width"]),
            )
            for stem, entry in content.items()
        }
    except (AttributeError, KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a list of boxes ({error!r}): remove it or write it again.") from None


def _read_yolo_beside_images(path: Path) -> Labelled:
    """The size of the image comes from the picture, the order of classes from a classes.txt if there is one."""
    _text(path)  # InputError if the file is missing
    image = _image_beside(path)
    if image is None:
        raise InputError(f"{path} has no image {path.stem} beside it in Vis or Ir: unpack the set again.")
    order = path.with_name("classes.txt")
    names = tuple(line.strip() for _, line in _lines(order)) if order.is_file() else M3FD_ORDER
    return read_yolo(path, size_of(image), names)


def _image_beside(path: Path, name: str = "") -> Path | None:
    """The image that labels belong to: in Vis or Ir or beside them, with their stem or with the name they give."""
    folders = [*(path.parent.parent / each for each in ("Vis", "vi", "Ir", "ir")), path.parent]
    stems = [path.stem, *([Path(name).stem] if name else [])]
    images = (
        folder / f"{stem}{suffix}"
        for folder in folders
        for stem in stems
        for suffix in (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
    )
    return next((image for image in images if image.is_file()), None)


def _shape(path: Path, height: object, width: object) -> tuple[int, int]:
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise InputError(f"{path} has an image of {width} x {height} pixels: give the size that it has.")
    return height, width


def _boxes(path: Path, rows: Iterable, ours: dict[str, str | None]) -> Tensor:
    """Rows (where in the file, class, x, y, w, h) in the class names of a set, as a tensor; `ours` are our names."""
    kept = []
    for place, *row in rows:
        try:
            label, (x, y, w, h) = str(row[0]), (float(value) for value in row[1:])
            valid = all(map(math.isfinite, (x, y, w, h))) and min(w, h) >= 0
        except (IndexError, TypeError, ValueError, OverflowError):  # the last of an integer with hundreds of digits
            valid = False
        if not valid:
            form = "give a class, x, y, width and height, all of them numbers and none of the sizes below 0"
            raise InputError(f"{path} has the box {row} ({place}): {form}.")
        if label not in ours:
            fact = f"a box of class {label!r} ({place}), which that set does not have"
            raise InputError(f"{path} has {fact}: correct the file.")
        if ours[label]:
            kept.append((NAMES.index(ours[label]), x, y, x + w, y + h))
    return of_rows(kept)


def _homographies() -> dict[str, dict]:
    return json.loads((FACTS / "homographies.json").read_text(encoding="utf-8"))


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of every line that is neither empty nor a comment."""
    lines = enumerate(_text(path).splitlines(), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def _xml(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(_bytes(path))  # in the encoding that it declares
    except (ElementTree.ParseError, ValueError, LookupError):
        return ElementTree.fromstring(_text(path))


def _text(path: Path) -> str:
    """A file's text: UTF-16 where it says so, else UTF-8, else Latin-1, in which every byte is a character."""
    content = _bytes(path)
    try:
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"There are no boxes at {path}: unpack the set again or leave the image out.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}): give a file that you may read.") from None
