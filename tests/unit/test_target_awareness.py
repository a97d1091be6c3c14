"""COCO's detector on the images of every training: measured once, kept without the networks, compared by seed."""

from __future__ import annotations

import pandas as pd
import pytest
import small_sweep
from coco_weights import made_up
from test_detection_bench import TINY

from fusionlib.experiments import sweep_rows, sweeps
from fusionlib.experiments.detection_bench import scoring, target_awareness
from fusionlib.training import coco


def test_every_network_is_looked_at_once_and_rows_are_kept_without_its_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(coco, "tensors", made_up)
    monkeypatch.setattr(coco, "weight_file", lambda name, file: tmp_path / file)
    rows, path, weights = sweep_rows.target_awareness(), tmp_path / "found.csv", tmp_path / "weights"
    trainings = sweeps.run(rows, small_sweep.preset(), tmp_path / "table.csv", weights)
    assert trainings.groupby("row")["weights"].nunique().tolist() == [2, 2]
    found = target_awareness.run(TINY, trainings, weights, path, tmp_path)
    scenes = target_awareness.over_scenes(TINY, trainings, weights, tmp_path / "scenes.csv", tmp_path)
    assert set(scenes["mean"]) == {"mAP50", "mAP50:90", "mAP50:95"} and (scenes["deviation"] >= 0).all()
    overall = found[found["class"] == "all"]
    assert set(zip(overall["row"], overall["seed"], strict=True)) == set(
        zip(trainings["row"], trainings["seed"], strict=True)
    )
    assert len(overall) == 4 and overall["mAP50"].between(0, 1).all()
    monkeypatch.setattr(scoring, "published", None)
    assert target_awareness.run(TINY, trainings, weights, path, tmp_path).equals(found)
    for file in (weights / "sweeps").glob("*.safetensors"):
        file.unlink()
    assert target_awareness.run(TINY, trainings, weights, path, tmp_path).equals(found)
    assert target_awareness.over_scenes(TINY, trainings, weights, tmp_path / "scenes.csv", tmp_path).equals(scenes)
    assert target_awareness.run(TINY, trainings, weights, tmp_path / "none.csv", tmp_path).empty


def test_the_two_are_compared_training_by_training() -> None:
    rows = [
        {"row": row, "seed": seed, "dataset": "drawn", "class": "all", "mAP50:90": 0.1}
        | {"mAP50": seed / 10 + 0.2 * (row == sweep_rows.OURS)}
        for row in (sweep_rows.OURS, sweep_rows.WITHOUT_DETECTION)
        for seed in range(4)
    ]
    scenes = pd.DataFrame({"mean": ["mAP50", "mAP50:90"], "deviation": 0.01})
    scenes = scenes.assign(dataset="drawn", method=sweep_rows.WITHOUT_DETECTION)
    lines = target_awareness.compared(pd.DataFrame(rows), scenes).set_index("mean")
    assert set(lines["method"]) == {sweep_rows.WITHOUT_DETECTION} and (lines["seeds"] == 4).all()
    assert lines.at["mAP50", "difference"] == pytest.approx(0.2) and lines.at["mAP50:90", "p"] == 1
