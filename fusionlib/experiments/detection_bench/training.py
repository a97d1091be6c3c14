"""One detector for every method and seed: its start, its training, what it finds, its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch

from fusionlib import data
from fusionlib.benches import DetectionBenchConfig
from fusionlib.detection import Detector
from fusionlib.experiments import runner
from fusionlib.experiments.detection_bench import differences
from fusionlib.experiments.detection_bench.images import TRAIN, images_key, pictures, read_images, trained
from fusionlib.experiments.detection_bench.scoring import DETECTORS, Found, look_at, read_or_find, scores, scoring_key
from fusionlib.methods import Method
from fusionlib.support.files import sha256
from fusionlib.support.keys import Key
from fusionlib.support.parallel import spread
from fusionlib.training import coco, detectors
from fusionlib.training.anchor_detector import AnchorDetector

SHOWN = 0.25  # smallest score of a box that is drawn, as usual
PIXELS_PER_SECOND = 2e6  # that one core learns from, of a detector whose backbone is frozen: 0.09 to 0.16 s at 512 px


def start(config: DetectionBenchConfig, seed: int, path: Path) -> Detector | AnchorDetector:
    """The detector that all others of a seed begin with; kept at `path`, and trained if it is not there or other
    settings, images or boxes made it.
    """
    train_pairs = trained(config)
    ir, vi = train_pairs.pairs.stack(train_pairs.places)
    images = torch.cat([ir, vi, (ir + vi) / 2])
    return detectors.train_detector(images, train_pairs.boxes * 3, config.start, seed, path)


@dataclass(frozen=True)
class Job:
    """The detector of one method and seed: the files of its images, its start and itself, and what it rests on."""

    config: DetectionBenchConfig
    seed: int
    pictures: Path
    start: Path
    path: Path
    key: Key


def train_and_find(job: Job) -> Found:
    """What the detector of a job finds on the test images: as it was kept, or with the detector, which may be trained
    for it, or go on where it was stopped.
    """

    def find() -> Found:
        train_pairs = trained(job.config)
        images, start_detector = read_images(job.pictures), detectors.read(job.start)
        detector = detectors.train_detector(
            images[TRAIN], train_pairs.boxes, job.config.own, job.seed, job.path, start=start_detector
        )
        return look_at(detector.detect, images, job.config)

    if not job.start.exists():
        start(job.config, job.seed, job.start)
    # A start that was trained again need not be the same to the bit.
    key = job.key | Key.of(start=sha256(job.start)[:8])
    return read_or_find(job.path.with_name(f"{job.path.stem}_found.safetensors"), key, find)


def train_and_score(job: Job) -> pd.DataFrame:
    """The rows of the detector of a job."""
    rows = scores(train_and_find(job), job.config)
    rows.insert(0, "start", f"sha256:{sha256(job.start)[:8]}")
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
        folder: where images (57 MB a method at 512 pixels), starts, detectors and what they find are kept.
        cluster: as in `parallel.spread`; its workers must see `folder`.
    """
    config, parts = _fitting(config, path, partial(_parts, methods=methods))
    method_of = {method.name: method for method in methods}

    def work(missing: list[runner.Part]) -> Iterator[tuple[runner.Part, pd.DataFrame]]:
        jobs = {
            str(part): _job(config, method_of[part.where["method"]], methods, part.where["seed"], folder)
            for part in missing
        }
        starts = {f"start, seed {job.seed}": (config, job.seed, job.start) for job in jobs.values()}
        for _ in spread(_train_start, starts, cluster):
            pass
        parts_by_name = {str(part): part for part in missing}
        for name, rows in spread(train_and_score, jobs, cluster):
            yield parts_by_name[name], rows

    return runner.run(path, parts, minutes=minutes(config), work=work)


def over_scenes(
    config: DetectionBenchConfig, reference: Method, methods: Mapping[Method, Key], path: Path, folder: Path
) -> pd.DataFrame:
    """Standard deviation, over redrawn scenes, of the difference in average precision from `reference` to each method.

    Other arguments as in `run`, which has trained the detectors; `reference` is one of `methods`.

    Returns:
        The rows of `differences.over_scenes` for each other method, with `method` in front.
    """

    def draws(method: Method, config: DetectionBenchConfig) -> differences.Draws:
        jobs = [_job(config, method, methods, seed, folder) for seed in config.seeds]
        return differences.draws(map(train_and_find, jobs), config)

    of_reference = cache(partial(draws, reference))

    def measure(method: Method, config: DetectionBenchConfig) -> pd.DataFrame:
        return differences.over_scenes(of_reference(config), draws(method, config))

    def parts_of(config: DetectionBenchConfig) -> list[runner.Part]:
        key = _key(config) | scoring_key(config) | Key.of(reference=methods[reference].digest, seeds=config.seeds)
        return [
            runner.Part({"method": method.name}, key | mark, partial(measure, method, config))
            for method, mark in methods.items()
            if method is not reference
        ]

    config, parts = _fitting(config, path, parts_of)
    return runner.run(path, parts, minutes=_minutes_left(config, methods, folder))


def detections(config: DetectionBenchConfig, method: Method, mark: Key, path: Path, folder: Path) -> pd.DataFrame:
    """What the detector of a method and the first seed finds with a score above `SHOWN`, kept in the CSV file `path`.

    Arguments as in `run`, which has trained the detector.

    Returns:
        A row an object: dataset, place (of the image among those of its set), class, score, x0, y0, x1, y1 in pixels;
        of an image without any, a row without numbers.
    """
    seed = config.seeds[0]

    def measure() -> pd.DataFrame:
        found, rows = train_and_find(_job(config, method, {method: mark}, seed, folder)), []
        for title, *_ in config.tests:
            for place, objects in enumerate(found[title]):
                shown = objects[objects[:, 1] > SHOWN].tolist() or [[float("nan")] * 6]
                rows += [(title, place, *values) for values in shown]
        return pd.DataFrame(rows, columns=["dataset", "place", "class", "score", "x0", "y0", "x1", "y1"])

    part = runner.Part({"method": method.name, "seed": seed}, _key(config) | mark, measure)
    left = _minutes_left(replace(config, seeds=(seed,)), [method], folder)
    return runner.run(path, [part], minutes=left)


def _job(config: DetectionBenchConfig, method: Method, methods: Mapping[Method, Key], seed: int, folder: Path) -> Job:
    images, path = pictures(method, methods[method], config, folder), _detector_path(folder, method.name, seed)
    return Job(config, seed, images, _start_path(folder, seed), path, _key(config) | methods[method])


def _detector_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}_{seed}.safetensors"


def _minutes_left(config: DetectionBenchConfig, methods: Iterable[Method], folder: Path) -> float | None:
    """How long the trainings of a method take; None if all detectors and their starts are there."""
    paths = [_detector_path(folder, method.name, seed) for method in methods for seed in config.seeds]
    paths += [_start_path(folder, seed) for seed in config.seeds]
    return None if all(path.exists() for path in paths) else len(config.seeds) * minutes(config)


def _start_path(folder: Path, seed: int) -> Path:
    return folder / f"start_{seed}.safetensors"


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


def _fitting(
    config: DetectionBenchConfig, path: Path, parts_of: Callable[[DetectionBenchConfig], list[runner.Part]]
) -> tuple[DetectionBenchConfig, list[runner.Part]]:
    """The settings for what has yet to be measured, by the weights that are here, and all parts of the table."""
    parts = parts_of(config)
    wanted = {str(part) for part, _ in runner.lacking(path, parts)}
    available = _with_available_weights(config) if wanted else config
    new_parts = {str(part): part for part in parts_of(available)}
    return available, [new_parts[str(part)] if str(part) in wanted else part for part in parts]


def _parts(config: DetectionBenchConfig, methods: Mapping[Method, Key]) -> list[runner.Part]:
    """A part for every method and seed."""
    key = _key(config) | scoring_key(config)
    return [
        runner.Part({"method": method.name, "seed": seed}, key | mark)
        for method, mark in methods.items()
        for seed in config.seeds
    ]


def _key(config: DetectionBenchConfig) -> Key:
    """What the detections of every method rest on."""
    return images_key(config, config.start, config.own) | Key.of(DETECTORS)


def minutes(config: DetectionBenchConfig) -> float:
    """How long the detector of one method takes on one core, without the common start and without fusing."""
    pairs = config.count or data.count_of(config.dataset, TRAIN)
    return pairs * config.own.epochs * config.own.side**2 / PIXELS_PER_SECOND / 60
