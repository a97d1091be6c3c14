"""M3FD in full, which is had by hand, on a folder in its layout: splits, six classes, and Table 3 made on them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coco_weights import made_up
from m3fd_folder import CLASSES, HEIGHT, WIDTH, annotate, annotation, image, make, names

from fusionlib import data, methods, presets
from fusionlib.data import labels
from fusionlib.detection import Detector, DetectorConfig, select
from fusionlib.experiments import detection_bench
from fusionlib.experiments.detection_bench.images import images_key, trained
from fusionlib.metrics.average_precision import average_precision
from fusionlib.support import boxes
from fusionlib.support.files import InputError
from fusionlib.support.weights import key_of
from fusionlib.training import coco, detectors
from fusionlib.training.anchor_detector import AnchorDetector

SIX = ("person", "car", "bus", "lamp", "motorcycle", "truck")
STEPS = (
    r"download M3FD_Detection\.zip by hand .*Annotation; .*m3fd-test\.json of the GitHub repository ganlumomo/TarDAL"
)
SMOKE = presets.load("smoke").detection
SMALL = replace(SMOKE, start=replace(SMOKE.start, epochs=1, batch=4), own=replace(SMOKE.own, batch=4))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def root(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data root; not to be written to."""
    monkeypatch.setenv("FUSIONLIB_DATA", str(made))
    return made


@pytest.fixture
def own(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data root, to be spoilt."""
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path / "data"))
    return Path(shutil.copytree(made, tmp_path / "data"))


# --- pairs, splits, boxes


def test_its_splits_are_those_of_the_lists_beside_it(own: Path) -> None:
    assert data.splits("M3FD_full") == {split: names(split) for split in ("train", "val", "test")}
    assert data.open_set("m3fd_full", "test").names == names("test")
    assert len(data.open_set("M3FD_full")) == 13 and data.open_set("m3fd_full", "train", 64)[3].vi.shape == (1, 64, 64)
    for file in (own / "M3FD" / "meta").iterdir():
        file.unlink()
    (own / "M3FD" / "meta" / "train.txt").write_text("a night.5\n00001.PNG\n\n00000\n", encoding="utf-8")
    assert data.splits("M3FD_full") == {"train": ["a night.5", "00001", "00000"]}
    (own / "M3FD" / "meta" / "train.txt").write_text("00001.png\n00000\n", encoding="utf-8")
    assert data.open_set("M3FD_full", "train").names == ["00001", "00000"]


def test_what_is_not_there_is_told_with_the_steps(own: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"M3FD_full is not in .*: {STEPS}"):
        data.open_set("M3FD_full", "test", root=tmp_path)
    listed = own / "M3FD" / "meta" / "m3fd-test.json"
    more = {"images": [image("04199"), image(names("test")[0])], "annotations": [], "categories": []}
    listed.write_text(json.dumps(more), encoding="utf-8")
    with pytest.raises(InputError, match=f"1 of the 2 pairs of M3FD_full test, such as 04199, .*{STEPS}"):
        data.open_set("M3FD_full", "test")
    shutil.rmtree(own / "M3FD" / "meta")
    with pytest.raises(InputError, match=f"The lists of M3FD_full's splits are not in .*: {STEPS}"):
        data.open_set("M3FD_full", "test")
    with pytest.raises(InputError, match="has no split 'external': choose one of train, val, test, all"):
        data.open_set("M3FD_full", "external")


def test_a_pair_that_is_trained_and_tested_on_is_refused(own: Path) -> None:
    (own / "M3FD" / "meta" / "m3fd-test.json").unlink()
    (own / "M3FD" / "meta" / "test.txt").write_text("00003\n", encoding="utf-8")
    with pytest.raises(InputError, match="have 00003 in train and in test: take those of one split"):
        data.splits("m3fd_full")


def test_all_six_classes_are_read_and_m3fd_as_it_was_has_people_and_cars(root: Path) -> None:
    read, few = labels.boxes_of("M3FD_full", root, classes=SIX), labels.boxes_of("M3FD", root)
    members = data.open_set("M3FD_full").names
    found, known = torch.cat([read(name) for name in members]), torch.cat([few(name) for name in members])
    counts = Counter(boxes.NAMES[int(label)] for label in found[:, 0])
    assert set(counts) == set(SIX) and min(counts.values()) >= 3
    assert torch.equal(known, boxes.of_classes(found, ["person", "car"])) and set(known[:, 0].tolist()) == {0, 2}
    assert labels.labelled("m3fd_full", members) == members
    assert dict(zip(CLASSES, SIX, strict=True)) == labels.M3FD_CLASSES


def test_a_box_is_read_as_it_is_written_cut_at_the_border_or_dropped_outside(own: Path) -> None:
    annotate(
        own,
        "00000",
        [("Bus", 10, 20, 60, 50), ("Truck", 100, 10, 148, 40), ("Lamp", 120, 5, 200, 9), ("Car", 200, 90, 220, 95)],
    )
    read = labels.boxes_of("M3FD_full", own, classes=SIX)
    assert read("00000").tolist() == [[3, 10, 20, 60, 50], [6, 100, 10, WIDTH, 40]]  # 10 % of the lamp is inside
    half = labels.boxes_of("M3FD_full", own, (HEIGHT // 2, WIDTH // 2), SIX)("00000")
    assert half.tolist() == [[3, 5, 10, 30, 25], [6, 50, 5, WIDTH // 2, 20]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, r"no boxes at .*00002\.xml: unpack the set again or leave the image out"),
        (lambda path: path.write_text("<annotation><size>"), r"00002\.xml is no VOC annotation .*: unpack the set"),
        (lambda path: path.write_bytes(b"\x00\xff\x89PNG"), r"00002\.xml is no VOC annotation .*: unpack the set"),
        (
            lambda path: path.write_text(
                path.read_text().replace("</size>", "</size><object><name>Car</name></object>")
            ),
            r"00002\.xml is no VOC annotation",
        ),
        (
            lambda path: annotate(path.parents[3], "00002", [("Tram", 1, 1, 9, 9)]),
            r"00002\.xml has a box of class 'Tram' \(object 1\), which that set does not have: correct the file",
        ),
        (
            lambda path: annotate(path.parents[3], "00002", [("Car", 9, 9, 1, 1)]),
            r"00002\.xml has the box .*\(object 1\): .*none of the sizes below 0",
        ),
    ],
    ids=["missing", "cut off", "no text", "without corners", "unknown class", "turned round"],
)
def test_a_spoilt_annotation_is_told_in_a_sentence(own: Path, spoil, message: str) -> None:
    spoil(annotation(own, "00002"))
    with pytest.raises(InputError, match=message) as failure:
        trained(detection_bench.with_dataset(SMALL, "m3fd_full"))
    assert str(failure.value).endswith(".") and "\n" not in str(failure.value)


def test_without_annotations_the_boxes_of_the_lists_count(own: Path) -> None:
    shutil.rmtree(annotation(own, "00000").parent)
    facts = {"categories": [{"id": 6, "name": "Lamp"}], "images": [image("00000"), image("00001")]}
    thing = {"image_id": "00000", "category_id": 6, "bbox": [1, 2, 3, 4]}
    (own / "M3FD" / "meta" / "m3fd-train.json").write_text(json.dumps({**facts, "annotations": [thing]}))
    listed = {"00001": {"width": WIDTH, "height": HEIGHT, "boxes_xywh": [["Bus", 0, 0, 9, 9]]}}
    (own / "M3FD" / "boxes.json").write_text(json.dumps(listed))
    read = labels.boxes_of("M3FD_full", own, classes=SIX)
    assert read("00000").tolist() == [[4, 1, 2, 4, 6]] and read("00001").tolist() == [[3, 0, 0, 9, 9]]


# --- Table 3


def test_detectors_learn_and_are_scored_on_all_six_classes(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(coco, "tensors", made_up)
    monkeypatch.setattr(coco, "weight_file", lambda name, file: tmp_path / file)
    begin = DetectorConfig(start="coco")
    asked = replace(SMALL, start=replace(SMALL.start, detector=begin), own=replace(SMALL.own, detector=begin))
    asked = detection_bench.with_dataset(asked, "m3fd_full")
    assert asked.dataset == "M3FD_full" and asked.tests == (("M3FD in full", "M3FD_full", ("test",)),)
    compared = {methods.load("average"): methods.origin("average").key}
    rows = detection_bench.run(asked, compared, tmp_path / "detection.csv", tmp_path)
    truth = [found for seen in detection_bench.tested(asked)["M3FD in full"] for found in seen.boxes]
    assert rows["class"].tolist() == [*SIX, "all"] and rows["dataset"].unique().tolist() == ["M3FD in full"]
    counts = [sum(len(boxes.of_classes(each, [name])) for each in truth) for name in SIX]
    assert rows["boxes"].tolist() == [*counts, sum(map(len, truth))]
    assert rows.set_index("class").loc["all", ["mAP50:90_low", "mAP50:90_high"]].notna().all()

    kept = detectors.read(tmp_path / "average_0.safetensors")
    assert isinstance(kept, AnchorDetector) and kept.config.names == SIX
    images = detection_bench.read_images(detection_bench.pictures(*next(iter(compared.items())), asked, tmp_path))
    found = [kept.detect(each[None])[0] for each in images["M3FD in full"]]
    six = {boxes.NAMES.index(name) for name in SIX}
    claimed = {int(label) for each in found for label in each[:, 0]}
    assert claimed <= six and claimed - set(range(len(boxes.CLASSES)))
    again = average_precision(found, truth, SIX).means["mAP50"]
    assert rows.set_index("class").at["all", "mAP50"] == pytest.approx(again, abs=1e-6)

    free = detection_bench.untrained(asked, compared, tmp_path / "untrained.csv", tmp_path)
    assert free["class"].tolist() == [*SIX, "all"]
    assert detection_bench.minutes(asked) == pytest.approx(detection_bench.minutes(replace(SMALL, count=8)))


def test_without_coco_the_other_detector_learns_six_classes(root: Path, tmp_path: Path) -> None:
    asked = detection_bench.with_dataset(SMALL, "M3FD_full")
    detector = detection_bench.start(asked, 0, tmp_path / "start_0.safetensors")
    assert isinstance(detector, Detector) and detector(torch.rand(1, 1, 64, 64)).scores.shape[1] == 6
    assert Detector.load(tmp_path / "start_0.safetensors").config.names == SIX


@pytest.mark.parametrize("kind", [Detector, AnchorDetector])
def test_a_detector_is_pulled_to_the_class_that_it_is_shown(kind: type[Detector | AnchorDetector]) -> None:
    """Its outputs are in the order of its names, its boxes in that of all names: a bus is its second class."""
    torch.manual_seed(0)
    net = kind(1, DetectorConfig(names=("truck", "bus"))).train()
    predicted = net(torch.rand(1, 1, 64, 64))
    outputs, axis = ([predicted.scores], 1) if kind is Detector else (predicted.grids, 2)
    bus = boxes.of_rows([(boxes.NAMES.index("bus"), 16, 20, 48, 44)])
    pulls = torch.autograd.grad(net.loss(predicted, [bus]), outputs)
    truck, other = (torch.cat([pull.select(axis, place).flatten() for pull in pulls]) for place in (-2, -1))
    assert (truck >= 0).all() and truck.max() > 0 and other.min() < 0
    with pytest.raises(InputError, match="a box of a person, and the detector finds truck, bus: leave it out"):
        net.loss(predicted, [boxes.of_rows([(0, 1, 1, 9, 9)])])
    found = select(bus[:, 1:], torch.tensor([[0.2], [0.7]]), net.config)
    assert [(boxes.NAMES[int(label)], round(score, 1)) for label, score, *_ in found.tolist()] == [
        ("bus", 0.7),
        ("truck", 0.2),
    ]


@pytest.mark.parametrize("listed", [(), ("person", "tram"), ("car", "car")])
def test_classes_that_no_box_can_be_of_are_refused(listed: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"cannot find .*: name some of person, bicycle, car, bus, lamp"):
        DetectorConfig(names=listed)


def test_the_head_of_coco_is_cut_to_the_classes_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made_up()
    monkeypatch.setattr(coco, "tensors", lambda: dict(whole))
    bias = AnchorDetector.published(1, DetectorConfig(names=SIX)).state_dict()["net.model.24.m.0.bias"].view(3, 11)
    places = [0, 2, 5, 9, 3, 7]  # in COCO: person, car, bus, traffic light for a lamp, motorcycle, truck
    assert torch.equal(bias[:, 5:], whole["model.24.m.0.bias"].view(3, 85)[:, [5 + place for place in places]])
    assert torch.equal(bias[:, :5], whole["model.24.m.0.bias"].view(3, 85)[:, :5])
    assert set(coco.ROWS) == set(boxes.NAMES)


def test_a_start_for_other_classes_is_refused() -> None:
    images, found = torch.rand(2, 1, 64, 64), [boxes.of_rows([(2, 5, 5, 40, 40)])] * 2
    with pytest.raises(InputError, match="another size, channels or classes"):
        detectors.train_detector(images, found, SMALL.own, start=Detector(1, DetectorConfig(names=SIX)))


def test_only_m3fd_in_full_can_be_asked_for(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="the preset's sets or on m3fd_full, not on 'kaist'"):
        detection_bench.with_dataset(SMALL, "kaist")
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path))
    with pytest.raises(InputError, match=f"M3FD_full is not in .*: {STEPS}"):
        detection_bench.with_dataset(SMALL, "m3fd_full")


def test_kept_rows_fit_the_settings_of_today(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes are a setting that counts where they are not as usual."""
    mini = presets.load("mini").detection
    shipped = data.SHIPPED.table("detection").read_text(encoding="utf-8")
    key = images_key(mini, mini.start, mini.own)
    assert f"settings={key.parts['settings']} " in shipped
    six = detection_bench.with_dataset(mini, "m3fd_full")
    others = [images_key(each) for each in (mini, six, replace(six, own=mini.own))]
    assert len({each.parts["settings"] for each in others}) == 3
    assert images_key(six).parts["M3FD_full"] != images_key(replace(six, tests=mini.tests)).parts["M3FD_full"]


def test_images_made_once_are_not_those_of_another_set(root: Path, tmp_path: Path) -> None:
    compared = methods.load("average"), methods.origin("average").key
    first = key_of(detection_bench.pictures(*compared, SMALL, tmp_path))
    second = key_of(detection_bench.pictures(*compared, detection_bench.with_dataset(SMALL, "m3fd_full"), tmp_path))
    assert {"settings", "M3FD_full"} <= set(first.differing(second))
