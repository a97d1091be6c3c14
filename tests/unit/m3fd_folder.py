"""M3FD in full as its authors lay it out, of drawn scenes: images, one annotation each, and the lists of its splits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from pictures import write

from fusionlib.data.drawn import synthetic
from fusionlib.data.images import to_uint8

HEIGHT, WIDTH = 96, 128
CLASSES = ("People", "Car", "Bus", "Lamp", "Motorcycle", "Truck")
SPLITS = {"train": 8, "val": 1, "test": 4}
THING = "<object><name>{}</name><pose>Unspecified</pose><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
THING += "<ymax>{}</ymax></bndbox></object>"


def names(split: str) -> list[str]:
    """The names of the pairs of a split: five digits, counted through all splits."""
    before = sum(SPLITS[other] for other in list(SPLITS)[: list(SPLITS).index(split)])
    return [f"{before + place:05}" for place in range(SPLITS[split])]


def annotation(root: Path, name: str) -> Path:
    """The file with the boxes of a pair."""
    return root / "M3FD" / "M3FD_Detection" / "Annotation" / f"{name}.xml"


def annotate(root: Path, name: str, things: Iterable[tuple]) -> None:
    """Write the boxes of a pair: class and corners x0, y0, x1, y1 each."""
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    path = annotation(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(THING.format(*thing) for thing in things)
    path.write_text(f"<annotation><filename>{name}.png</filename>{size}{text}</annotation>", encoding="utf-8")


def make(root: Path, lists: bool = True) -> Path:
    """Thirteen scenes in the official layout below the data root; the drawn objects get the six classes in turn."""
    turn, base = count(), root / "M3FD" / "M3FD_Detection"
    for split in SPLITS:
        for name in names(split):
            drawn = synthetic.scene(("m3fd", int(name)), HEIGHT, WIDTH)
            write(base / "Ir" / f"{name}.png", to_uint8(drawn.ir.expand(3, -1, -1)).permute(1, 2, 0).numpy())
            write(base / "Vis" / f"{name}.png", to_uint8(drawn.rgb).permute(1, 2, 0).numpy())
            annotate(root, name, [(CLASSES[next(turn) % 6], *map(round, box)) for box in drawn.boxes[:, 1:].tolist()])
    if lists:
        (root / "M3FD" / "meta").mkdir()
        for split in SPLITS:
            listed = {"images": [image(name) for name in names(split)], "annotations": [], "categories": []}
            (root / "M3FD" / "meta" / f"m3fd-{split}.json").write_text(json.dumps(listed), encoding="utf-8")
    return root


def image(name: str) -> dict[str, object]:
    """An image as COCO's form lists it."""
    return {"id": name, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
