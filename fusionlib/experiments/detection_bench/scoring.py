"""What detectors find, and its average precision; of COCO's detector as published, and of Ours' own head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fusionlib import data
from fusionlib.benches import DetectionBenchConfig
from fusionlib.data import scenes_of
from fusionlib.detection import Detector, DetectorConfig
from fusionlib.experiments import runner
from fusionlib.experiments.detection_bench.images import images_key, pictures, read_images, tested
from fusionlib.methods import Method, Ours
from fusionlib.metrics import average_precision
from fusionlib.support import boxes
from fusionlib.support.keys import Key
from fusionlib.support.weights import key_of, read_state, save_weights
from fusionlib.training import coco
from fusionlib.training.anchor_detector import ENLARGED, AnchorDetector

Find = Callable[[Tensor, Tensor], list[Tensor]]  # deformed infrared and visible (B, 1, H, W) to detections of each
Found = Mapping[str, list[Tensor]]  # detections (M, 6) on each image of each test
DETECTORS = ("detector", "anchor-detector")  # components of the code


def look_at(
    detect: Callable[[Tensor], list[Tensor]], images: Mapping[str, Tensor], config: DetectionBenchConfig
) -> Found:
    """What a detector finds on images (N, 1, H, W) in [0, 1] of each test."""
    return {title: [detect(each[None])[0] for each in images[title]] for title, *_ in config.tests}


def read_or_find(path: Path, key: Key, find: Callable[[], Found]) -> Found:
    """Detections from the file `path` if it is there and its key fits, else those that `find` gives, which are kept."""
    if not path.exists() or key.differing(key_of(path)):
        tensors = {}
        for title, of_images in find().items():
            tensors[title] = torch.cat(of_images)
            tensors[f"{title}, counts"] = torch.tensor([len(each) for each in of_images])
        save_weights(path, tensors, {}, key)
    tensors = read_state(path)
    counts = {name.removesuffix(", counts"): tensors.pop(name) for name in list(tensors) if name.endswith(", counts")}
    return {title: list(tensors[title].split(counts[title].tolist())) for title in counts}


@dataclass(frozen=True, eq=False)
class Truth:
    """The boxes (N, 5) of each image of a test, the classes that have any, and the scene that each image shows."""

    boxes: list[Tensor]
    classes: list[str]
    scenes: list[str]


def truth(config: DetectionBenchConfig) -> dict[str, Truth]:
    """What detections are scored against, by test."""
    truths = {}
    for title, splits in tested(config).items():
        of_images = [each for split in splits for each in split.boxes]
        together = torch.cat(of_images)
        present = [name for name in config.own.detector.names if len(boxes.of_classes(together, [name]))]
        scenes = scenes_of(split.pairs.names[place] for split in splits for place in split.places)
        truths[title] = Truth(of_images, present, scenes)
    return truths


def scores(found: Found, config: DetectionBenchConfig) -> pd.DataFrame:
    """The rows of detections, see the top of the package, without method and seed."""
    rows = []
    for title, true in truth(config).items():
        table = average_precision.average_precision(found[title], true.boxes, true.classes).table()
        intervals = average_precision.intervals(found[title], true.boxes, true.classes, scenes=true.scenes)
        intervals = intervals.set_index("mean")
        overall = table["class"] == "all"
        for mean, end in ((mean, end) for mean in intervals.index for end in ("low", "high")):
            table[f"{mean}_{end}"] = float("nan")
            table.loc[overall, f"{mean}_{end}"] = intervals.at[mean, end]
        table.insert(0, "dataset", title)
        rows.append(table)
    return pd.concat(rows, ignore_index=True)


def scoring_key(config: DetectionBenchConfig) -> Key:
    """What the rows of detections rest on besides these: how precision is averaged, and the scenes that are drawn."""
    splits = [(name, split) for _, name, parts in config.tests for split in parts]
    return Key.of(["average-precision"], scenes=[scenes_of(data.splits(name).get(split, [])) for name, split in splits])


def untrained(config: DetectionBenchConfig, methods: Mapping[Method, Key], path: Path, folder: Path) -> pd.DataFrame:
    """The rows of COCO's detector as published, on the images of every method, kept in the CSV file `path`.

    Images are enlarged before by `anchor_detector.ENLARGED`. Arguments as in `run`. Without COCO's weights, the rows
    that are kept.
    """
    key = published_key(config) | scoring_key(config)

    def measure(method: Method, mark: Key) -> pd.DataFrame:
        return scores(published(read_images(pictures(method, mark, config, folder)), config), config)

    parts = [
        runner.Part(
            {"method": method.name}, key | mark if coco.is_available() else None, partial(measure, method, mark)
        )
        for method, mark in methods.items()
    ]
    return runner.run(path, parts)


def published_key(config: DetectionBenchConfig) -> Key:
    """What the detections of `published` rest on, besides the method whose images they are of."""
    return images_key(config) | Key.of(["anchor-detector"], enlarged=ENLARGED)


def published(images: Mapping[str, Tensor], config: DetectionBenchConfig) -> Found:
    """What COCO's detector as published finds, on images as in `look_at`."""
    detector = AnchorDetector.published(1, DetectorConfig(names=config.own.detector.names))
    return look_at(partial(detector.detect, enlarged=ENLARGED), images, config)


def head(config: DetectionBenchConfig, ours: Ours, detector: Detector, key: Key, path: Path) -> pd.DataFrame:
    """The rows of the detection head that learned along with Ours, end to end, kept as "ours, head"."""
    where = {"method": f"{ours.name}, head", "seed": 0}

    def measure() -> pd.DataFrame:
        find = end_to_end(ours, detector)
        detections = {
            title: [find(ir, vi)[0] for split in splits for ir, vi in split.deformed(config.level)]
            for title, splits in tested(config).items()
        }
        return scores(detections, config)

    mark = images_key(config) | Key.of(DETECTORS) | scoring_key(config) | key
    return runner.run(path, [runner.Part(where, mark, measure)])


def end_to_end(ours: Ours, head: Detector) -> Find:
    """Find objects on the fused feature, as the paper's own detection head does."""

    @torch.inference_mode()
    def find(ir: Tensor, vi: Tensor) -> list[Tensor]:
        return head.detect(ours.network(ir, vi).fused)

    return find
