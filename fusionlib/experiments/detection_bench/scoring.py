"""Average precision: of detections, of detectors that learned nothing here, and what those of two methods differ by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fusionlib.benches import DetectionBenchConfig
from fusionlib.data import scenes_of
from fusionlib.detection import Detector, DetectorConfig
from fusionlib.experiments import runner
from fusionlib.experiments.detection_bench.images import images_key, pictures, read_images, tested
from fusionlib.methods import Method, Ours
from fusionlib.metrics import average_precision
from fusionlib.metrics.statistics import holm, paired_t
from fusionlib.support import boxes
from fusionlib.support.keys import Key
from fusionlib.training import coco
from fusionlib.training.anchor_detector import ENLARGED, AnchorDetector

Find = Callable[[Tensor, Tensor], list[Tensor]]  # deformed infrared and visible (B, 1, H, W) to detections of each
BEHAVIOUR = ("detector", "anchor-detector", "average-precision")


def score_images(
    detect: Callable[[Tensor], list[Tensor]], images: Mapping[str, Tensor], config: DetectionBenchConfig
) -> pd.DataFrame:
    """The rows of a detector on images (N, 1, H, W) in [0, 1] of each test."""
    return scores({title: [detect(each[None])[0] for each in images[title]] for title, *_ in config.tests}, config)


def scores(found: Mapping[str, list[Tensor]], config: DetectionBenchConfig) -> pd.DataFrame:
    """The rows, see the top of this module, without method and seed, of the detections (M, 6) of each test's images."""
    rows = []
    for title, splits in tested(config).items():
        detections, truth = found[title], [each for split in splits for each in split.boxes]
        all_boxes = torch.cat(truth)
        present = [name for name in config.own.detector.names if len(boxes.of_classes(all_boxes, [name]))]
        scenes = scenes_of(split.pairs.names[place] for split in splits for place in split.places)
        table = average_precision.average_precision(detections, truth, present).table()
        intervals = average_precision.intervals(detections, truth, present, scenes=scenes if config.scenes else None)
        intervals = intervals.set_index("mean")
        overall = table["class"] == "all"
        for mean, end in ((mean, end) for mean in intervals.index for end in ("low", "high")):
            table[f"{mean}_{end}"] = float("nan")
            table.loc[overall, f"{mean}_{end}"] = intervals.at[mean, end]
        table.insert(0, "dataset", title)
        rows.append(table)
    return pd.concat(rows, ignore_index=True)


def untrained(config: DetectionBenchConfig, methods: Mapping[Method, Key], path: Path, folder: Path) -> pd.DataFrame:
    """The rows of COCO's detector as published, on the images of every method, kept in the CSV file `path`.

    Images are enlarged before by `anchor_detector.ENLARGED`. Arguments as in `run`. Without COCO's weights, the rows
    that are kept.
    """
    key = published_key(config)

    def measure(method: Method, mark: Key) -> pd.DataFrame:
        return published(read_images(pictures(method, mark, config, folder)), config)

    parts = [
        runner.Part(
            {"method": method.name}, key | mark if coco.is_available() else None, partial(measure, method, mark)
        )
        for method, mark in methods.items()
    ]
    return runner.run(path, parts)


def published_key(config: DetectionBenchConfig) -> Key:
    """What the rows of `published` rest on, besides the method whose images they are of."""
    return images_key(config) | Key.of(BEHAVIOUR[1:], enlarged=ENLARGED)


def published(images: Mapping[str, Tensor], config: DetectionBenchConfig) -> pd.DataFrame:
    """The rows of COCO's detector as published, on images as in `score_images`."""
    detector = AnchorDetector.published(1, DetectorConfig(names=config.own.detector.names))
    return score_images(partial(detector.detect, enlarged=ENLARGED), images, config)


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

    mark = images_key(config) | Key.of(BEHAVIOUR) | key
    return runner.run(path, [runner.Part(where, mark, measure)])


def end_to_end(ours: Ours, head: Detector) -> Find:
    """Find objects on the fused feature, as the paper's own detection head does."""

    @torch.inference_mode()
    def find(ir: Tensor, vi: Tensor) -> list[Tensor]:
        return head.detect(ours.network(ir, vi).fused)

    return find


def against(
    table: pd.DataFrame, reference: str = "ours", columns: Sequence[str] = ("mAP50", "mAP50:90")
) -> pd.DataFrame:
    """Every method's detectors against those of one, seed by seed: is it more than another training of them changes?

    Args:
        table: of `run`.
        reference: the method that the others are subtracted from.
        columns: means that are compared.

    Returns:
        A row for each dataset, mean and method: seeds, mean `difference` of reference - method, its 95 % interval `low`
        and `high`, and `p` of Student's t over seeds (`statistics.paired_t`), corrected by Holm for all methods
        and means of the set. None where the reference or a second seed is missing.
    """
    overall, rows = table[table["class"] == "all"], []
    for dataset, set_rows in overall.groupby("dataset", sort=False):
        values = set_rows.pivot(index="seed", columns="method", values=list(columns))
        lines = {}
        for mean in columns:
            for method in set_rows["method"].unique():
                if method == reference or reference not in values[mean]:
                    continue
                differences = (values[mean, reference] - values[mean, method]).dropna()
                if len(differences) > 1:
                    lines[mean, method] = (len(differences), differences.mean(), *paired_t(differences))
        corrected = holm({name: line[-1] for name, line in lines.items()})
        rows += [(dataset, *name, *line[:-1], corrected[name]) for name, line in lines.items()]
    return pd.DataFrame(rows, columns=["dataset", "mean", "method", "seeds", "difference", "low", "high", "p"])
