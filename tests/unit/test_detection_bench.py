"""The bench of Table 3: the same pairs, start and boxes for every method, and nothing measured twice."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from coco_weights import made_up

from fusionlib import data, methods, presets, training
from fusionlib.benches import DetectionBenchConfig
from fusionlib.data import labels
from fusionlib.detection import Detector, DetectorConfig
from fusionlib.experiments import detection_bench, evaluation
from fusionlib.experiments.detection_bench import differences, labelled, scoring
from fusionlib.experiments.detection_bench import training as bench_training
from fusionlib.support import boxes
from fusionlib.support.keys import Key
from fusionlib.support.weights import read_state
from fusionlib.training import coco, detectors
from fusionlib.training.anchor_detector import AnchorDetector

TINY = presets.load("smoke").detection
TINY = replace(
    TINY,
    count=3,
    start=replace(TINY.start, epochs=1, batch=4),
    own=replace(TINY.own, epochs=1, batch=4),
    methods=("average",),
    seeds=(0, 1),
)
COCO = replace(TINY, start=replace(TINY.start, detector=DetectorConfig(start="coco"), frozen=10))


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


def test_a_method_with_a_side_of_its_own_fuses_at_that_side() -> None:
    seen, sides = labelled("synthetic", "test", 64, count=1), []

    class Half:
        name = "half"

        def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> methods.Fused:
            sides.append((ir.shape, vi.shape))
            return methods.Fused((ir + vi) / 2, None, None)

    image = detection_bench.fused(Half(), seen, "medium", side=32)
    assert sides == [(torch.Size([1, 1, 32, 32]),) * 2] and image.shape == (1, 1, 64, 64)


def test_all_boxes_found_is_perfect_and_none_found_is_nothing() -> None:
    config = DetectionBenchConfig("synthetic", tests=(("drawn", "synthetic", ("test",)),), size=64, count=4)
    truth = [pair.boxes for pair in data.open_set("synthetic", "test", 64, count=4)]
    oracle = [torch.cat([each[:, :1], torch.ones(len(each), 1), each[:, 1:]], 1) for each in truth]
    rows = detection_bench.scores({"drawn": oracle}, config).set_index("class")
    assert rows.at["all", "mAP50:95"] == pytest.approx(1) and rows.at["all", "mAP50:90_low"] == pytest.approx(1)
    assert rows["dataset"].unique().tolist() == ["drawn"] and rows["mAP50_low"].isna().sum() == len(rows) - 1
    nothing = detection_bench.scores({"drawn": [torch.zeros(0, 6)] * 4}, config).set_index("class")
    assert nothing.at["all", "mAP50"] == 0 and nothing.at["all", "boxes"] == rows.at["all", "boxes"]


def test_a_row_is_measured_once(tmp_path, monkeypatch) -> None:
    trainings, whole = [], bench_training.train_and_score
    monkeypatch.setattr(bench_training, "train_and_score", lambda job: trainings.append(job.path.stem) or whole(job))
    compared = {methods.load(name): methods.origin(name).key for name in ("average", "visible")}
    path = tmp_path / "detection.csv"
    first = detection_bench.run(TINY, compared, path, tmp_path)
    assert trainings == ["average_0", "average_1", "visible_0", "visible_1"]
    assert first.groupby(["method", "seed"], sort=False).ngroups == 4
    starts = first.groupby("seed")["start"].unique()
    assert starts.str.len().eq(1).all() and starts[0][0] != starts[1][0]  # one for all methods of a seed
    again = detection_bench.run(TINY, compared, path, tmp_path)
    assert len(trainings) == 4 and again.equals(first)
    detection_bench.run(
        replace(TINY, seeds=(0,)), {methods.load("average"): Key({"simple-fusion": "0"})}, path, tmp_path
    )
    assert trainings[4:] == ["average_0"]


def test_images_are_made_once_for_all_seeds_and_kept_with_8_bits(tmp_path) -> None:
    method, mark, calls = methods.load("average"), methods.origin("average").key, []

    class Counted:
        name = "average"

        def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> methods.Fused:
            calls.append(1)
            return method.fuse(ir, vi)

    path = detection_bench.pictures(Counted(), mark, TINY, tmp_path)
    assert len(calls) == 6 and detection_bench.pictures(Counted(), mark, TINY, tmp_path) == path and len(calls) == 6
    kept, seen = read_state(path), labelled("synthetic", "train", 64, count=3)
    exact = detection_bench.fused(method, seen, "medium")
    assert kept["train"].dtype == torch.uint8 and kept["drawn scenes"].shape == (3, 1, 64, 64)
    assert (kept["train"] / 255 - exact).abs().max() <= 0.5 / 255 + 1e-6
    detection_bench.pictures(Counted(), Key({"simple-fusion": "0"}), TINY, tmp_path)
    assert len(calls) == 12


def test_all_detectors_of_a_seed_begin_with_the_same_weights(tmp_path) -> None:
    begin = [detection_bench.start(TINY, seed, tmp_path / f"start_{seed}.safetensors") for seed in (0, 1)]
    again = detection_bench.start(TINY, 0, tmp_path / "start_0.safetensors")
    one, other, third = (torch.cat([weight.flatten() for weight in each.parameters()]) for each in (*begin, again))
    assert torch.equal(one, third) and not torch.equal(one, other)


def test_without_the_weights_of_coco_detectors_start_from_random_ones(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(coco, "weight_file", lambda name, file: None)
    compared = {methods.load("average"): methods.origin("average").key}
    asked = replace(COCO, seeds=(0,))
    rows = detection_bench.run(asked, compared, tmp_path / "detection.csv", tmp_path)
    assert len(rows) and "start from random ones" in capsys.readouterr().out
    detector = detectors.read(tmp_path / "average_0.safetensors")
    assert isinstance(detector, Detector) and detector.config.start == "random" and detector.config.begin_small
    begun, after = detectors.read(tmp_path / "start_0.safetensors").state_dict(), detector.state_dict()
    assert not torch.equal(begun["net.model.0.conv.weight"], after["net.model.0.conv.weight"])
    assert detection_bench.untrained(asked, compared, tmp_path / "untrained.csv", tmp_path).empty


def test_rows_from_coco_are_shown_where_its_weights_are_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(coco, "tensors", made_up)
    monkeypatch.setattr(coco, "weight_file", lambda name, file: tmp_path / file)
    compared, asked = {methods.load("average"): methods.origin("average").key}, replace(COCO, seeds=(0,))
    asked = replace(asked, own=replace(asked.own, detector=asked.start.detector))
    rows = detection_bench.run(asked, compared, tmp_path / "detection.csv", tmp_path)
    assert isinstance(detectors.read(tmp_path / "average_0.safetensors"), AnchorDetector)
    found = detection_bench.untrained(asked, compared, tmp_path / "untrained.csv", tmp_path)
    ((method, mark),), boxed = compared.items(), tmp_path / "found.csv"
    drawn = detection_bench.detections(asked, method, mark, boxed, tmp_path)
    monkeypatch.setattr(coco, "weight_file", lambda name, file: None)
    monkeypatch.setattr(bench_training, "train_and_score", None)
    assert detection_bench.run(asked, compared, tmp_path / "detection.csv", tmp_path).equals(rows)
    assert detection_bench.untrained(asked, compared, tmp_path / "untrained.csv", tmp_path).equals(found)
    (tmp_path / "average_0.safetensors").unlink()
    assert detection_bench.detections(asked, method, mark, boxed, tmp_path).equals(drawn)


def test_methods_are_compared_seed_by_seed_and_over_scenes() -> None:
    rows = [
        {"method": method, "seed": seed, "dataset": "drawn", "class": name, "mAP50": value + seed / 10, "mAP50:90": 0.1}
        for method, value in {"ours": 0.5, "average": 0.3, "visible": 0.5}.items()
        for seed in (0, 1, 2)
        for name in ("car", "all")
    ]
    scenes = [("drawn", mean, name, 0.05) for mean in ("mAP50", "mAP50:90") for name in ("average", "visible")]
    scenes = pd.DataFrame(scenes, columns=["dataset", "mean", "method", "deviation"])
    lines = detection_bench.against(pd.DataFrame(rows), scenes).set_index(["mean", "method"])
    better, equal = lines.loc[("mAP50", "average")], lines.loc[("mAP50", "visible")]
    # The seeds agree, so only the scenes make it uncertain: 4 deviations, p = 6.3e-5, for the first of four questions.
    assert better["difference"] == pytest.approx(0.2) and better["seeds"] == 3
    assert better["low"] == pytest.approx(0.2 - 1.96 * 0.05) and better["p"] == pytest.approx(4 * 6.334e-5, rel=1e-3)
    assert equal["difference"] == pytest.approx(0) and equal["p"] == 1
    exact = detection_bench.pairwise(pd.DataFrame(rows), scenes.assign(deviation=0.0)).set_index(["mean", "method"])
    assert exact.at[("mAP50", "average"), "p"] == 0
    assert detection_bench.against(pd.DataFrame(rows), scenes, reference="imf").empty
    assert detection_bench.against(pd.DataFrame(rows), scenes[scenes["method"] == "visible"])["method"].nunique() == 1


def test_scenes_are_drawn_for_both_methods_at_once() -> None:
    """What makes a scene hard for both cancels out: a method that finds the same differs from the other in no draw."""
    config = DetectionBenchConfig("synthetic", tests=(("drawn", "synthetic", ("test",)),), size=64, count=6)
    boxes_of = [pair.boxes for pair in data.open_set("synthetic", "test", 64, count=6)]
    found = [torch.cat([each[:, :1], torch.ones(len(each), 1), each[:, 1:]], 1) for each in boxes_of]
    some = {"drawn": [each if place % 2 else each[:0] for place, each in enumerate(found)]}  # none in every other scene
    alone = differences.draws([some], config)
    assert alone["drawn", "mAP50"].std() > 0.05
    same = differences.over_scenes(alone, differences.draws([some, some], config))
    assert (same["deviation"] == 0).all() and len(same) == 3
    other = differences.over_scenes(alone, differences.draws([{"drawn": found}], config)).set_index("mean")
    assert other.at["mAP50", "deviation"] == pytest.approx(alone["drawn", "mAP50"].std(), rel=0.2)


def test_what_detectors_find_is_kept_and_scored_again_without_looking(tmp_path, monkeypatch) -> None:
    compared = {methods.load(name): methods.origin(name).key for name in ("average", "visible")}
    ours = next(iter(compared))
    rows = detection_bench.run(TINY, compared, tmp_path / "detection.csv", tmp_path)
    scenes = detection_bench.over_scenes(TINY, ours, compared, tmp_path / "scenes.csv", tmp_path)
    assert set(scenes["method"]) == {"visible"} and scenes["deviation"].notna().all()
    shown = detection_bench.detections(TINY, ours, compared[ours], tmp_path / "found.csv", tmp_path)
    assert set(shown["place"]) == {0, 1, 2}
    monkeypatch.setattr(bench_training, "look_at", None)
    for file in ("detection.csv", "scenes.csv"):
        (tmp_path / file).unlink()
    assert detection_bench.run(TINY, compared, tmp_path / "detection.csv", tmp_path).equals(rows)
    again = detection_bench.over_scenes(TINY, ours, compared, tmp_path / "scenes.csv", tmp_path)
    assert again.equals(scenes)


def test_detections_are_read_as_they_were_found(tmp_path) -> None:
    found = {"drawn": [torch.rand(2, 6), torch.zeros(0, 6), torch.rand(1, 6)], "none": [torch.zeros(0, 6)]}
    path, key = tmp_path / "found.safetensors", Key({"images": "1"})
    first = scoring.read_or_find(path, key, lambda: found)
    again = scoring.read_or_find(path, key, pytest.fail)
    for each in (first, again):
        assert set(each) == set(found)
        assert all(torch.equal(a, b) for title in found for a, b in zip(each[title], found[title], strict=True))
    other = {"drawn": [torch.rand(3, 6)]}
    assert scoring.read_or_find(path, Key({"images": "2"}), lambda: other)["drawn"][0].equal(other["drawn"][0])


def test_layers_that_are_frozen_stay_as_they_began(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(coco, "tensors", made_up)
    images, found = torch.rand(4, 1, 64, 64), [boxes.of_rows([(0, 5, 5, 40, 40)])] * 4
    settings = detectors.DetectorTraining(
        detector=DetectorConfig(start="coco"), epochs=1, batch=2, side=64, mosaic=0, frozen=10
    )
    begin = AnchorDetector.published().state_dict()
    after = detectors.train_detector(images, found, settings).state_dict()
    first = [name for name in begin if int(name.split(".")[2]) < 10]
    assert all(torch.equal(begin[name], after[name]) for name in first)
    assert not all(torch.equal(begin[name], after[name]) for name in begin)


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
    assert torch.equal(found, direct) and found.shape[1] == boxes.of_rows().shape[1] + 1
