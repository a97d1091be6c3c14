"""The bench of Table 3: the same pairs, start and boxes for every method, and nothing measured twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusionlib import data, methods, presets, training
from fusionlib.benches import DetectionBenchConfig
from fusionlib.data import labels
from fusionlib.experiments import detection_bench, evaluation
from fusionlib.experiments.detection_bench import labelled
from fusionlib.support import boxes
from fusionlib.support.keys import Key

TINY = presets.load("smoke").detection
TINY = replace(
    TINY,
    count=3,
    start=replace(TINY.start, epochs=1, batch=4),
    own=replace(TINY.own, epochs=1, batch=4),
    methods=("average",),
    seeds=(0, 1),
)


def test_every_drawn_scene_is_labelled() -> None:
    seen = labelled("synthetic", "test", 64, count=3)
    assert seen.places == [0, 1, 2] and all(
        torch.equal(a, b.boxes) for a, b in zip(seen.boxes, seen.pairs, strict=True)
    )


@pytest.mark.data
@pytest.mark.skipif(not (data.data_root() / "FLIR_ADAS_v1").is_dir(), reason="FLIR_ADAS_v1 is not here")
def test_pairs_that_nobody_has_labelled_are_left_out() -> None:
    seen, status = labelled("RoadScene", "train", 64), labels.label_status()
    names = [seen.pairs.names[place] for place in seen.places]
    assert {status[name] for name in names} == {"boxes", "probably_empty"}
    assert {status[name] for name in seen.pairs.names if name not in names} == {"unlabelled"}
    empty = [found for name, found in zip(names, seen.boxes, strict=True) if status[name] == "probably_empty"]
    assert empty and all(found.shape == (0, 5) for found in empty)


def test_methods_are_given_the_deformed_infrared() -> None:
    seen = labelled("synthetic", "test", 64, count=2)
    given = detection_bench.fused(methods.load("infrared"), seen, "medium")
    for place, image in zip(seen.places, given, strict=True):
        ir, _ = seen.pairs.stack([place])
        assert torch.equal(image[None], evaluation.deform(ir, seen.pairs.names[place], "medium").ir)


def test_a_finder_that_knows_the_boxes_is_perfect_and_one_that_finds_nothing_has_none() -> None:
    config = DetectionBenchConfig("synthetic", tests=(("drawn", "synthetic", ("test",)),), size=64, count=4)
    truth = iter(data.open_set("synthetic", "test", 64, count=4))

    def oracle(ir: torch.Tensor, vi: torch.Tensor) -> list[torch.Tensor]:
        found = next(truth).boxes
        return [torch.cat([found[:, :1], torch.ones(len(found), 1), found[:, 1:]], 1)]

    rows = detection_bench.scores(oracle, config).set_index("class")
    assert rows.at["all", "mAP50:95"] == pytest.approx(1) and rows.at["all", "mAP50:90_low"] == pytest.approx(1)
    assert rows["dataset"].unique().tolist() == ["drawn"] and rows["mAP50_low"].isna().sum() == len(rows) - 1
    nothing = detection_bench.scores(lambda ir, vi: [torch.zeros(0, 6)], config).set_index("class")
    assert nothing.at["all", "mAP50"] == 0 and nothing.at["all", "boxes"] == rows.at["all", "boxes"]


def test_a_row_is_measured_once(tmp_path, monkeypatch) -> None:
    trainings = []
    own = detection_bench.detector_on
    monkeypatch.setattr(detection_bench, "detector_on", lambda m, *rest: trainings.append(m.name) or own(m, *rest))
    compared = {methods.load(name): methods.origin(name).key for name in ("average", "visible")}
    path = tmp_path / "detection.csv"
    first = detection_bench.run(TINY, compared, path, tmp_path, seeds={"visible": (0, 1)})
    assert trainings == ["average", "visible", "visible"]
    assert first.groupby(["method", "seed"], sort=False).ngroups == 3
    again = detection_bench.run(TINY, compared, path, tmp_path, seeds={"visible": (0, 1)})
    assert len(trainings) == 3 and again.equals(first)
    detection_bench.run(TINY, {methods.load("average"): Key({"simple-fusion": "0"})}, path, tmp_path)
    assert trainings[3:] == ["average"]


def test_the_head_is_scored_on_the_fused_feature(tmp_path) -> None:
    recipe = presets.load("smoke", recipe__start=None, recipe__training__epochs=1, recipe__train_pairs=4).recipe
    run = training.train_or_load(recipe, tmp_path)
    ours = methods.Ours(run.network)
    rows = detection_bench.head(TINY, ours, run.detector, methods.key_of_network(run.path), tmp_path / "detection.csv")
    assert set(rows["method"]) == {"ours, head"} and {"all"} < set(rows["class"])
    seen = labelled("synthetic", "test", 64, count=1)
    ir, vi = seen.pairs.stack([0])
    (found,) = detection_bench.end_to_end(ours, run.detector)(ir, vi)
    direct = run.detector.detect(run.network(ir, vi).fused)[0]
    assert torch.equal(found, direct) and found.shape[1] == boxes.tensor().shape[1] + 1
