"""The images that detectors learn on and are scored on: labelled pairs, deformed and fused, kept with 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib import data
from fusionlib.benches import DetectionBenchConfig
from fusionlib.data import PairSet, data_root, labels, open_set
from fusionlib.data.images import from_uint8, to_uint8
from fusionlib.experiments import evaluation
from fusionlib.methods import Method
from fusionlib.support import boxes
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.weights import key_of, read_state, save_weights

TRAIN = "train"  # the name of the training images beside those of the tests
IN_FULL = "M3FD_full"


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labelled pairs of a split: their places in `pairs` and the boxes (N, 5) of each."""

    pairs: PairSet
    places: list[int]
    boxes: list[Tensor]

    def deformed(self, level: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Infrared, deformed as in `evaluation.deform`, and visible image of each pair, (1, 1, H, W)."""
        for place in self.places:
            ir, vi = self.pairs.stack([place])
            yield evaluation.deform(ir, self.pairs.names[place], level).ir, vi


def with_dataset(config: DetectionBenchConfig, dataset: str) -> DetectionBenchConfig:
    """The same bench on M3FD in full: detectors learn its six classes on its training split, and its test split counts.

    Raises:
        InputError: another set, or one that is not here; the message has the steps.
    """
    if dataset.lower() != IN_FULL.lower():
        raise InputError(f"Table 3 is made on the preset's sets or on {IN_FULL.lower()}, not on {dataset!r}.")
    for split in (TRAIN, "test"):
        open_set(IN_FULL, split)
    six = {
        name: replace(training, detector=replace(training.detector, names=tuple(labels.M3FD_CLASSES.values())))
        for name, training in {"start": config.start, "own": config.own}.items()
    }
    tests = (("M3FD in full", IN_FULL, ("test",)),)
    return replace(config, dataset=IN_FULL, tests=tests, **six)


def labelled(
    dataset: str, split: str, size: int, count: int | None = None, classes: Sequence[str] = boxes.CLASSES
) -> Labelled:
    """The pairs of a split that somebody has labelled, those that were found empty included; boxes of `classes`."""
    pairs = open_set(dataset, split, size, count=count)
    if dataset.lower() == "synthetic":
        return Labelled(pairs, list(range(len(pairs))), [boxes.of_classes(pair.boxes, classes) for pair in pairs])
    known = set(labels.labelled(dataset, pairs.names, empty=True))
    read = labels.boxes_of(dataset, data_root(), size, classes)
    places = [place for place, name in enumerate(pairs.names) if name in known]
    known_boxes = [read(pairs.names[place]) for place in places]
    no_boxes = boxes.of_rows()
    return Labelled(pairs, places, [no_boxes if image_boxes is None else image_boxes for image_boxes in known_boxes])


def trained(config: DetectionBenchConfig) -> Labelled:
    """The labelled pairs that detectors learn on."""
    return labelled(config.dataset, TRAIN, config.size, config.count, config.own.detector.names)


def tested(config: DetectionBenchConfig) -> dict[str, list[Labelled]]:
    """The labelled pairs of each test, by its name in the table, split by split."""
    size, count, classes = config.size, config.count, config.own.detector.names
    return {
        title: [labelled(dataset, split, size, count, classes) for split in splits]
        for title, dataset, splits in config.tests
    }


def fused(method: Method, seen: Labelled, level: str, side: int | None = None) -> Tensor:
    """What a method makes of the deformed pairs: (N, 1, H, W) in [0, 1], made at another side if one is given."""
    images = []
    for ir, vi in seen.deformed(level):
        inputs = [F.interpolate(source, (side, side), mode="area") if side else source for source in (ir, vi)]
        image = method.fuse(*inputs).image
        images.append(F.interpolate(image, ir.shape[-2:], mode="bilinear") if side else image)
    return torch.cat(images)


def pictures(method: Method, mark: Key, config: DetectionBenchConfig, folder: Path) -> Path:
    """The file of all that a method makes of the pairs, kept in `folder`: uint8 (N, 1, H, W), by TRAIN and by test."""
    path, side = folder / f"{method.name}_pictures.safetensors", dict(config.own_sides).get(method.name)
    key = images_key(config) | mark | Key.of(side=side or config.size)
    if not path.exists() or key.differing(key_of(path)):
        images = {TRAIN: fused(method, trained(config), config.level, side)}
        for title, splits in tested(config).items():
            images[title] = torch.cat([fused(method, split, config.level, side) for split in splits])
        save_weights(path, {name: to_uint8(image) for name, image in images.items()}, {}, key)
    return path


def read_images(path: Path) -> dict[str, Tensor]:
    """The images of a file of `pictures`, float32 in [0, 1]."""
    return {name: from_uint8(image) for name, image in read_state(path).items()}


def images_key(config: DetectionBenchConfig, *more: object) -> Key:
    """What the images of every method rest on: the pairs, their boxes, size, number and deformation, and `more`.

    Other classes than usual are part of it, too.
    """
    sets = {config.dataset: [TRAIN]}
    for _, dataset, splits in config.tests:
        sets.setdefault(dataset, []).extend(splits)
    splits_of = {name: data.splits(name) for name in sets}
    names = {name: [each for split in sets[name] for each in splits_of[name].get(split, [])] for name in sets}
    pairs = {name: data.checksum(name, members, labels=True) for name, members in names.items()}
    behaviour = dict.fromkeys(each for name in sets for each in data.components_of(name, labels=True))
    settings = [config.dataset, config.tests, config.level, config.count, *more]
    if config.own.detector.names != boxes.CLASSES:
        settings.append(config.own.detector.names)
    behaviour = [*behaviour, "deformation", "average-precision"]  # the last for `fused`
    return Key.of(behaviour, size=config.size, settings=settings, **pairs)
