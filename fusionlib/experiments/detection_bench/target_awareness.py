"""Does the detection loss make the fusion target-aware? Short trainings with it and without, seed by seed.

Table 3 has one network of each kind, so it cannot tell what the loss does from what another seed does. Here the
replicate is the training of the network, as in Tables 4 and 5. What each network makes of the test pairs of Table 3 is
shown to COCO's detector as published (`scoring.published`), which no training here changes.

PAPER-GAP: the paper has no such ablation. Here "without" is a weight of 0 in Eq. (12), as in its Table 4.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import torch

from fusionlib.benches import DetectionBenchConfig
from fusionlib.data.images import from_uint8, to_uint8
from fusionlib.experiments import runner, sweep_rows, sweep_tables
from fusionlib.experiments.detection_bench import differences, scoring
from fusionlib.experiments.detection_bench.images import fused, tested
from fusionlib.methods import Ours
from fusionlib.network import FusionNetwork
from fusionlib.support.keys import Key
from fusionlib.training import coco


def run(config: DetectionBenchConfig, trainings: pd.DataFrame, weights: Path, path: Path, folder: Path) -> pd.DataFrame:
    """Find objects on what every network makes, or read what was measured before; a run that was stopped goes on.

    Args:
        config: the pairs of Table 3 and their deformation.
        trainings: long table of `sweeps.run` with the rows of `sweep_rows.target_awareness`.
        weights: the folder given to `sweeps.run`.
        path: CSV file in which the rows are kept. Without the weights of a network, or COCO's, what it has is read.
        folder: where detections are kept.

    Returns:
        The rows of Table 3 with the columns row and seed (of the training) in front.
    """
    parts = []
    for (row, seed), file in _files(trainings).items():
        network, key = _network(weights, file), _key(config, file)
        part_key = key | scoring.scoring_key(config) if coco.is_available() and network.exists() else None
        parts.append(runner.Part({"row": row, "seed": seed}, part_key, partial(_measure, config, network, key, folder)))
    return runner.run(path, parts)


def over_scenes(
    config: DetectionBenchConfig, trainings: pd.DataFrame, weights: Path, path: Path, folder: Path
) -> pd.DataFrame:
    """Standard deviation, over redrawn scenes, of the difference in average precision with and without the loss.

    Arguments as in `run`.
    """
    files = _files(trainings).unstack("seed")
    key = scoring.published_key(config) | scoring.scoring_key(config)
    key |= Key.of(["network"], trained=files.to_numpy().tolist())
    networks = {file: _network(weights, file) for file in files.to_numpy().flatten()}
    measurable = coco.is_available() and all(path.exists() for path in networks.values())

    def draws(row: str) -> differences.Draws:
        found = (_found(config, networks[file], _key(config, file), folder) for file in files.loc[row])
        return differences.draws(found, config)

    def measure() -> pd.DataFrame:
        return differences.over_scenes(draws(sweep_rows.OURS), draws(sweep_rows.WITHOUT_DETECTION))

    where = {"method": sweep_rows.WITHOUT_DETECTION}
    return runner.run(path, [runner.Part(where, key if measurable else None, measure)])


def _files(trainings: pd.DataFrame) -> pd.Series:
    """The names of the weights, by row and seed."""
    return trainings.groupby(["row", "seed"], sort=False)["weights"].first()


def _network(weights: Path, file: str) -> Path:
    return weights / "sweeps" / f"{file}.safetensors"


def _key(config: DetectionBenchConfig, file: str) -> Key:
    """What the detections on a network's images rest on; its file is named after all that it was trained with."""
    return scoring.published_key(config) | Key.of(["network"], trained=file)


def _measure(config: DetectionBenchConfig, network: Path, key: Key, folder: Path) -> pd.DataFrame:
    return scoring.scores(_found(config, network, key, folder), config)


def _found(config: DetectionBenchConfig, network: Path, key: Key, folder: Path) -> scoring.Found:
    """What COCO's detector finds on what a network makes."""

    def find() -> scoring.Found:
        ours = Ours(FusionNetwork.load(network))
        images = {
            title: from_uint8(to_uint8(torch.cat([fused(ours, split, config.level) for split in splits])))
            for title, splits in tested(config).items()
        }
        return scoring.published(images, config)

    return scoring.read_or_find(folder / f"{network.stem}_found.safetensors", key, find)


def effects(trainings: pd.DataFrame) -> pd.DataFrame:
    """What the loss changes in fusion and registration: `sweep_tables.differences`, the network with it - without."""
    return sweep_tables.differences(trainings, sweep_rows.WITHOUT_DETECTION)


def compared(found: pd.DataFrame, scenes: pd.DataFrame) -> pd.DataFrame:
    """What it changes in the table of `run`: `differences.against`, the network with it - without.

    Args:
        found: of `run`.
        scenes: of `over_scenes`.
    """
    return differences.against(found.rename(columns={"row": "method"}), scenes, sweep_rows.OURS)
