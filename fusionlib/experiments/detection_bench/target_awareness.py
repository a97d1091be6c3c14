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
from fusionlib.experiments import runner, sweep_rows, sweep_tables
from fusionlib.experiments.detection_bench import scoring
from fusionlib.experiments.detection_bench.images import from_8_bits, fused, tested, with_8_bits
from fusionlib.methods import Ours
from fusionlib.network import FusionNetwork
from fusionlib.support.keys import Key
from fusionlib.training import coco


def run(config: DetectionBenchConfig, trainings: pd.DataFrame, weights: Path, path: Path) -> pd.DataFrame:
    """Find objects on what every network makes, or read what was measured before; a run that was stopped goes on.

    Args:
        config: the pairs of Table 3 and their deformation.
        trainings: long table of `sweeps.run` with the rows of `sweep_rows.target_awareness`.
        weights: the folder given to `sweeps.run`.
        path: CSV file in which the rows are kept. Without the weights of a network, or COCO's, what it has is read.

    Returns:
        The rows of Table 3 with the columns row and seed (of the training) in front.
    """
    key, parts = scoring.published_key(config), []
    for (row, seed), file in trainings.groupby(["row", "seed"], sort=False)["weights"].first().items():
        network = weights / "sweeps" / f"{file}.safetensors"
        mark = Key.of(["network"], trained=file)  # the file is named after all that it was trained with
        part_key = key | mark if network.exists() and coco.is_available() else None
        parts.append(runner.Part({"row": row, "seed": seed}, part_key, partial(_measure, config, network)))
    return runner.run(path, parts)


def _measure(config: DetectionBenchConfig, network: Path) -> pd.DataFrame:
    ours = Ours(FusionNetwork.load(network))
    images = {
        title: from_8_bits(with_8_bits(torch.cat([fused(ours, split, config.level) for split in splits])))
        for title, splits in tested(config).items()
    }
    return scoring.published(images, config)


def effects(trainings: pd.DataFrame) -> pd.DataFrame:
    """What the loss changes in fusion and registration: `sweep_tables.differences`, the network with it - without."""
    return sweep_tables.differences(trainings, sweep_rows.WITHOUT_DETECTION)


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """What it changes in the table of `run`, training by training: `scoring.against`, the network with it - without."""
    return scoring.against(found.rename(columns={"row": "method"}), sweep_rows.OURS)
