"""Table 3: how well objects are found on what each method makes of unregistered pairs.

Protocol, the same for every method: the pairs are deformed and fused; one detector of the same kind learns on the
fused training images, with the same budget and the same seed; it is scored on fused images that it has not seen. All
detectors begin with the same weights, learned on the aligned training pairs as they are. What has a detection head of
its own is scored end to end: its head finds objects on its fused feature.

PAPER-GAP: the paper says "YOLOv5", "M3FD" and "mAP 50->90" and nothing about who trained which detector on what, nor
where the boxes of its 152 training pairs come from, since RoadScene has none. Here they are those that FLIR drew on the
same frames (`fusionlib.data.labels`). There are too few for weights from nothing, and no pretrained ones are fetched:
hence the common start.

Columns of the table: method, seed, dataset, class ("all" is their mean), boxes, AP50 to AP95, mAP50, mAP50:90,
mAP50:95; of "all" also the ends of the bootstrap interval over images, as mAP50:90_low and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fusionlib import data
from fusionlib.benches import DetectionBenchConfig
from fusionlib.data import PairSet, data_root, labels, open_set
from fusionlib.detection import Detector
from fusionlib.experiments import evaluation, runner
from fusionlib.methods import Method, Ours
from fusionlib.metrics import average_precision
from fusionlib.support import boxes
from fusionlib.support.keys import Key
from fusionlib.support.long_training import minutes_for
from fusionlib.training import detectors

Find = Callable[[Tensor, Tensor], list[Tensor]]  # deformed infrared and visible (B, 1, H, W) to detections of each


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labelled pairs of a split: their places in `pairs` and the boxes (N, 5) of each."""

    pairs: PairSet
    places: list[int]
    boxes: list[Tensor]


def labelled(dataset: str, split: str, size: int, count: int | None = None) -> Labelled:
    """The pairs of a split that somebody has labelled, those that were found empty included."""
    pairs = open_set(dataset, split, size, count=count)
    if dataset.lower() == "synthetic":
        return Labelled(pairs, list(range(len(pairs))), [pair.boxes for pair in pairs])
    known, read = set(labels.labelled(dataset, pairs.names, empty=True)), labels.boxes_of(dataset, data_root(), size)
    places = [place for place, name in enumerate(pairs.names) if name in known]
    found = [read(pairs.names[place]) for place in places]
    none = boxes.tensor()
    return Labelled(pairs, places, [none if each is None else each for each in found])


def fused(method: Method, seen: Labelled, level: str) -> Tensor:
    """What a method makes of the pairs, the infrared deformed as in `evaluation.deform`: (N, 1, H, W) in [0, 1]."""
    images = []
    for place in seen.places:
        ir, vi = seen.pairs.stack([place])
        images.append(method.fuse(evaluation.deform(ir, seen.pairs.names[place], level).ir, vi).image)
    return torch.cat(images)


def start(config: DetectionBenchConfig, seed: int, path: Path) -> Detector:
    """The detector that all others begin with; kept at `path`, and trained only if it is not there."""
    seen = labelled(config.dataset, "train", config.size, config.count)
    ir, vi = seen.pairs.stack(seen.places)
    images = torch.cat([ir, vi, (ir + vi) / 2])
    return detectors.train_detector(images, seen.boxes * 3, config.start, seed, path)


def detector_on(method: Method, begin: Detector, config: DetectionBenchConfig, seed: int, path: Path) -> Detector:
    """The detector of a method: the common start, trained further on the method's images."""
    seen = labelled(config.dataset, "train", config.size, config.count)
    return detectors.train_detector(fused(method, seen, config.level), seen.boxes, config.own, seed, path, start=begin)


def on_images(method: Method, detector: Detector) -> Find:
    """Fuse, then find objects on the fused image."""
    return lambda ir, vi: detector.detect(method.fuse(ir, vi).image)


def end_to_end(ours: Ours, head: Detector) -> Find:
    """Find objects on the fused feature, as the paper's own detection head does."""

    @torch.inference_mode()
    def find(ir: Tensor, vi: Tensor) -> list[Tensor]:
        return head.detect(ours.network(ir, vi).fused)

    return find


def scores(find: Find, config: DetectionBenchConfig) -> pd.DataFrame:
    """The rows of one detector, see the top of this module, without method and seed."""
    rows = []
    for title, dataset, splits in config.tests:
        detections, truth = [], []
        for split in splits:
            seen = labelled(dataset, split, config.size, config.count)
            for place in seen.places:
                ir, vi = seen.pairs.stack([place])
                moved = evaluation.deform(ir, seen.pairs.names[place], config.level)
                detections += find(moved.ir, vi)
            truth += seen.boxes
        there = [name for label, name in enumerate(boxes.CLASSES) if any((each[:, 0] == label).any() for each in truth)]
        found = average_precision.average_precision(detections, truth, there).table()
        ends = average_precision.intervals(detections, truth, there).set_index("mean")
        whole = found["class"] == "all"
        for mean, end in ((mean, end) for mean in ends.index for end in ("low", "high")):
            found[f"{mean}_{end}"] = float("nan")
            found.loc[whole, f"{mean}_{end}"] = ends.at[mean, end]
        found.insert(0, "dataset", title)
        rows.append(found)
    return pd.concat(rows, ignore_index=True)


def run(
    config: DetectionBenchConfig,
    methods: Mapping[Method, Key],
    path: Path,
    folder: Path,
    seeds: Mapping[str, Iterable[int]] | None = None,
) -> pd.DataFrame:
    """Measure every method, or read what was measured before; an interrupted run goes on from there.

    Args:
        config: what is measured.
        methods: each with the key of what it is, see `methods.origin`.
        path: CSV file in which the rows are kept, part by part.
        folder: where the detectors are kept, of 10 MB each, so that a training that was stopped goes on.
        seeds: of the detectors of some methods, by name; the others have seed 0 alone.
    """
    key, parts = _key(config), []

    def measure(method: Method, seed: int) -> pd.DataFrame:
        begin = start(config, 0, folder / "start.safetensors")
        own = detector_on(method, begin, config, seed, folder / f"{method.name}_{seed}.safetensors")
        return scores(on_images(method, own), config)

    for method, mark in methods.items():
        for seed in (seeds or {}).get(method.name, [0]):
            where = {"method": method.name, "seed": seed}
            parts.append(runner.Part(where, key | mark, partial(measure, method, seed)))
    return runner.run(path, parts, minutes=minutes(config))


def head(config: DetectionBenchConfig, ours: Ours, detector: Detector, key: Key, path: Path) -> pd.DataFrame:
    """The rows of the detection head that learned along with Ours, end to end, kept as "ours, head"."""
    where = {"method": f"{ours.name}, head", "seed": 0}
    return runner.run(
        path, [runner.Part(where, _key(config) | key, lambda: scores(end_to_end(ours, detector), config))]
    )


def _key(config: DetectionBenchConfig) -> Key:
    """What every row rests on, whatever the method."""
    sets = {config.dataset: ["train"]}
    for _, dataset, splits in config.tests:
        sets.setdefault(dataset, []).extend(splits)
    known = {name: data.splits(name) for name in sets}
    names = {name: [each for split in sets[name] for each in known[name].get(split, [])] for name in sets}
    pairs = {name: data.checksum(name, members, labels=True) for name, members in names.items()}
    behaviour = dict.fromkeys(each for name in sets for each in data.components_of(name, labels=True))
    settings = replace(config, methods=(), seeds=())
    return Key.of([*behaviour, "deformation", "detector", "average-precision"], settings=settings, **pairs)


def minutes(config: DetectionBenchConfig) -> float:
    """How long the detector of one method takes, without the common start and without fusing."""
    pairs = config.count or len(data.splits(config.dataset).get("train", [])) or data.SYNTHETIC_SCENES["train"]
    return minutes_for(pairs * config.own.epochs * config.own.side**2)
