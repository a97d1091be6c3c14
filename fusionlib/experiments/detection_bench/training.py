"""One detector for every method and seed: its start, its training, its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from fusionlib import data
from fusionlib.benches import DetectionBenchConfig
from fusionlib.detection import Detector
from fusionlib.experiments import runner
from fusionlib.experiments.detection_bench.images import TRAIN, images_key, pictures, read_images, trained
from fusionlib.experiments.detection_bench.scoring import BEHAVIOUR, score_images
from fusionlib.methods import Method
from fusionlib.support.files import sha256
from fusionlib.support.keys import Key
from fusionlib.support.parallel import spread
from fusionlib.training import coco, detectors
from fusionlib.training.anchor_detector import AnchorDetector

SHOWN = 0.25  # smallest score of a box that is drawn, as usual
PIXELS_PER_SECOND = 2e6  # that one core learns from, of a detector whose backbone is frozen: 0.09 to 0.16 s at 512 px


def start(config: DetectionBenchConfig, seed: int, path: Path) -> Detector | AnchorDetector:
    """The detector that all others of a seed begin with; kept at `path`, and trained only if it is not there."""
    train_pairs = trained(config)
    ir, vi = train_pairs.pairs.stack(train_pairs.places)
    images = torch.cat([ir, vi, (ir + vi) / 2])
    return detectors.train_detector(images, train_pairs.boxes * 3, config.start, seed, path)


@dataclass(frozen=True)
class Job:
    """The detector of one method and seed: its images and its start, as files, and where it is kept while it learns."""

    config: DetectionBenchConfig
    seed: int
    pictures: Path
    start: Path
    path: Path


def train_and_score(job: Job) -> pd.DataFrame:
    """Train the detector of a job, or go on where it was stopped, and give its rows."""
    train_pairs = trained(job.config)
    images, start_detector = read_images(job.pictures), detectors.read(job.start)
    detector = detectors.train_detector(
        images[TRAIN], train_pairs.boxes, job.config.own, job.seed, job.path, start=start_detector
    )
    rows = score_images(detector.detect, images, job.config)
    rows.insert(0, "start", f"sha256:{sha256(job.start)[:8]}")  # a start trained again need not be the same to the bit
    return rows


def run(
    config: DetectionBenchConfig,
    methods: Mapping[Method, Key],
    path: Path,
    folder: Path,
    cluster: str | None = None,
) -> pd.DataFrame:
    """Train and score a detector for every method and seed, or read what was measured before; a run that was stopped
    goes on from there.

    Args:
        config: what is measured, with which seeds. Where the weights of COCO are asked for and not here, what is not
            measured yet starts from random ones.
        methods: each with the key of what it is, see `methods.origin`.
        path: CSV file in which the rows are kept, part by part.
        folder: where images (57 MB a method at 512 pixels), starts and unfinished detectors are kept.
        cluster: as in `parallel.spread`; its workers must see `folder`.
    """
    parts, methods_and_seeds = _parts(config, methods)
    wanted = {str(part) for part, _ in runner.lacking(path, parts)}
    if wanted and (available := _with_available_weights(config)) != config:
        config = available
        parts = [
            part if str(part) not in wanted else new
            for part, new in zip(parts, _parts(available, methods)[0], strict=True)
        ]

    def work(missing: list[runner.Part]) -> Iterator[tuple[runner.Part, pd.DataFrame]]:
        jobs, starts = {}, {}
        for part in missing:
            method, seed = methods_and_seeds[str(part)]
            starts[f"start, seed {seed}"] = start_job = (config, seed, folder / f"start_{seed}.safetensors")
            images = pictures(method, methods[method], config, folder)
            jobs[str(part)] = Job(config, seed, images, start_job[-1], _detector_path(folder, method.name, seed))
        for _ in spread(_train_start, starts, cluster):
            pass
        parts_by_name = {str(part): part for part in missing}
        for name, rows in spread(train_and_score, jobs, cluster):
            yield parts_by_name[name], rows

    return runner.run(path, parts, minutes=minutes(config), work=work)


def detections(config: DetectionBenchConfig, method: Method, mark: Key, path: Path, folder: Path) -> pd.DataFrame:
    """What the detector of a method and the first seed finds with a score above `SHOWN`, kept in the CSV file `path`.

    Arguments as in `run`, which has trained the detector.

    Returns:
        A row an object: dataset, place (of the image among those of its set), class, score, x0, y0, x1, y1 in pixels;
        of an image without any, a row without numbers.
    """
    seed = config.seeds[0]

    def measure() -> pd.DataFrame:
        detector, rows = detectors.read(_detector_path(folder, method.name, seed)), []
        images = read_images(pictures(method, mark, config, folder))
        for title, *_ in config.tests:
            for place, image in enumerate(images[title]):
                objects = detector.detect(image[None])[0]
                shown = objects[objects[:, 1] > SHOWN].tolist() or [[float("nan")] * 6]
                rows += [(title, place, *values) for values in shown]
        return pd.DataFrame(rows, columns=["dataset", "place", "class", "score", "x0", "y0", "x1", "y1"])

    parts, _ = _parts(replace(config, seeds=(seed,)), {method: mark})
    training_minutes = None if _detector_path(folder, method.name, seed).exists() else minutes(config)
    return runner.run(path, [replace(part, measure=measure) for part in parts], minutes=training_minutes)


def _detector_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}_{seed}.safetensors"


def _train_start(job: tuple[DetectionBenchConfig, int, Path]) -> None:
    start(*job)


def _with_available_weights(config: DetectionBenchConfig) -> DetectionBenchConfig:
    """The settings, with detectors that start from random weights, and learn in all layers, without COCO's."""
    trainings = {}
    for name in ("start", "own"):
        training = getattr(config, name)
        detector = coco.config_here(training.detector)
        if detector != training.detector:
            training = replace(training, detector=replace(detector, begin_small=True), frozen=0)
        trainings[name] = training
    return replace(config, **trainings)


def _parts(
    config: DetectionBenchConfig, methods: Mapping[Method, Key]
) -> tuple[list[runner.Part], dict[str, tuple[Method, int]]]:
    """A part for every method and seed, and by its text the method and the seed."""
    behaviour = Key.of(BEHAVIOUR)
    key, parts, methods_and_seeds = images_key(config, config.start, config.own) | behaviour, [], {}
    for method, mark in methods.items():
        for seed in config.seeds:
            parts.append(runner.Part({"method": method.name, "seed": seed}, key | mark))
            methods_and_seeds[str(parts[-1])] = method, seed
    return parts, methods_and_seeds


def minutes(config: DetectionBenchConfig) -> float:
    """How long the detector of one method takes on one core, without the common start and without fusing."""
    pairs = config.count or len(data.splits(config.dataset).get(TRAIN, [])) or data.SYNTHETIC_SCENES[TRAIN]
    return pairs * config.own.epochs * config.own.side**2 / PIXELS_PER_SECOND / 60
