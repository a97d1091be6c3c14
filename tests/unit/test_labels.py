"""Labels of the sets: FLIR's through the homographies, M3FD's in each of its forms, and what is missing is named."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import noise, write

from fusionlib import data
from fusionlib.data import labels
from fusionlib.data.labels import boxes_of, label_status, labelled
from fusionlib.support import boxes
from fusionlib.support.files import InputError

real = Path(os.environ.get("FUSIONLIB_DATA") or "not-there")
needs = {
    name: pytest.mark.skipif(not (real / path).exists(), reason=f"{path} is not here")
    for name, path in (
        ("reference", "RoadScene/boxes.json"),
        ("flir", "FLIR_ADAS_v1/train"),
        ("m3fd", "M3FD/boxes.json"),
    )
}
SHARED = real.parent / "cases" / "labels"  # beside the data sets, where they are
VOC_SIZE = "<size><width>{}</width><height>{}</height></size>"
VOC = f"<annotation>{VOC_SIZE}<object><name>Car</name><bndbox><xmin>{{}}</xmin><ymin>1</ymin>"
VOC += "<xmax>{}</xmax><ymax>9</ymax></bndbox></object></annotation>"
FRAME = "FLIR_00006"  # a frame with labels, one without objects, one nobody looked at
EMPTY, UNKNOWN = "FLIR_00550", "FLIR_video_00069"


def flir(root: Path, text: str) -> Path:
    file = root / "FLIR_ADAS_v1" / "train" / f"{FRAME}.txt"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return root


# --- RoadScene --------------------------------------------------------------------------------------------------------


def test_every_pair_has_a_status_and_the_splits_hold_enough():
    status = label_status()
    assert Counter(status.values()) == {"boxes": 185, "probably_empty": 18, "unlabelled": 18}
    splits = data.splits("RoadScene")
    assert sorted(status) == sorted(name for names in splits.values() for name in names)
    found = {split: len(labelled("RoadScene", names)) for split, names in splits.items()}
    assert found == {split: sum(status[name] == "boxes" for name in names) for split, names in splits.items()}
    assert found["train"] > 100


def test_which_pairs_are_labelled():
    names = [UNKNOWN, FRAME, EMPTY, "not_a_pair"]
    assert labelled("roadscene", names) == [FRAME]
    assert labelled("RoadScene", names, empty=True) == [FRAME, EMPTY]
    assert labelled("synthetic", ["a"]) == labelled("M3FD", ["a"]) == ["a"]
    assert labelled("TNO", ["a"]) == []


def test_flir_boxes_go_through_the_homography(tmp_path, monkeypatch):
    facts = {FRAME: {"H": [[0.5, 0, 10], [0, 0.25, 0], [0, 0, 1]], "w": 200, "h": 100}}
    monkeypatch.setattr(labels, "_homographies", lambda: facts)
    of = boxes_of("RoadScene", flir(tmp_path, "3  101 40 100 80\n\n1 0 0 20 40\n18 5 5 50 50\n"))(FRAME)
    # edges 101 and 201 lie at 100.5 and 200.5 of the raw pixel centres, those at 60.25 and 110.25 of the crop
    assert of.tolist() == [[2, 60.75, 10.375, 110.75, 30.375], [0, 10.25, 0.375, 20.25, 10.375]]
    squeezed = boxes_of("RoadScene", tmp_path, size=(50, 400))(FRAME)
    assert torch.equal(squeezed, boxes.scale(of, (100, 200), (50, 400)))


def test_boxes_are_cut_at_the_crop_and_dropped_under_30_percent(tmp_path, monkeypatch):
    facts = {FRAME: {"H": np.eye(3).tolist(), "w": 200, "h": 100}}
    monkeypatch.setattr(labels, "_homographies", lambda: facts)
    root = flir(tmp_path, "1 160 0 100 40\n2 180 0 100 40\n3 300 0 10 10\n3 10 90 10 20\n")
    assert boxes_of("RoadScene", root)(FRAME).tolist() == [[0, 160, 0, 200, 40], [2, 10, 90, 20, 100]]


def test_none_is_not_the_same_as_no_box(tmp_path):
    read = boxes_of("RoadScene", flir(tmp_path, ""), size=64)
    assert read(FRAME).shape == read(EMPTY).shape == (0, 5)
    assert read(UNKNOWN) is None


def test_what_is_missing_or_wrong_is_named(tmp_path):
    with pytest.raises(InputError, match="data fetch flir_adas_v1"):
        boxes_of("RoadScene", tmp_path)
    read = boxes_of("RoadScene", flir(tmp_path, "3 1 2 3\n"))
    with pytest.raises(InputError, match=r"FLIR_00006\.txt has the box .*: give a class, x, y, width and height"):
        read(FRAME)
    with pytest.raises(InputError, match=r"no FLIR_00018\.txt, a frame with boxes"):
        read("FLIR_00018")
    with pytest.raises(InputError, match="not a pair of RoadScene"):
        read("other")


@pytest.mark.parametrize("row", ["4 1 2 3 4", "person 1 2 3 4"])
def test_a_class_that_flir_does_not_have_is_refused(tmp_path, row):
    with pytest.raises(InputError, match="does not have: correct the file"):
        boxes_of("RoadScene", flir(tmp_path, row))(FRAME)


@needs["reference"]
@needs["flir"]
def test_real_boxes_are_those_mapped_independently():
    reference = json.loads((real / "RoadScene" / "boxes.json").read_text())
    read, worst, count = boxes_of("RoadScene", real), 0.0, 0
    for name, entry in reference.items():
        rows = [row for row in entry["boxes"] if row[0] in boxes.CLASSES]
        expected = boxes.of_rows([(boxes.CLASSES.index(row[0]), *row[1:]) for row in rows])
        mapped = read(name)
        assert mapped.shape == expected.shape and torch.equal(mapped[:, 0], expected[:, 0]), name
        worst = max([worst, *(mapped - expected).abs().flatten().tolist()])
        count += len(mapped)
    assert count == 1288 and 0 < worst < 0.5
    assert {name for name, state in label_status().items() if state == "boxes"} == set(reference)


@needs["reference"]
def test_real_status_is_the_recorded_one():
    assert label_status() == json.loads((real / "RoadScene" / "label_status.json").read_text())


# --- M3FD -------------------------------------------------------------------------------------------------------------

# One image, 100 x 50, in every form: a person, a car, and a lamp, which is dropped.
EXPECTED = [[0, 10, 20, 20, 40], [2, 50, 0, 100, 25]]
LISTED = [["People", 10, 20, 10, 20], ["Car", 50, 0, 50, 25], ["Lamp", 0, 0, 5, 5]]


def listed(folder: Path) -> None:
    entry = {"width": 100, "height": 50, "boxes_xywh": LISTED}
    (folder / "boxes.json").write_text(json.dumps({"00001": entry}))


def coco(folder: Path) -> None:
    (folder / "meta").mkdir()
    kinds = ("People", "Car", "Motorcycle", "Bus", "Truck", "Lamp")
    facts = {"categories": [{"id": i, "name": name} for i, name in enumerate(kinds, start=1)]}
    image = {"id": "00001", "file_name": "00001.png", "width": 100, "height": 50}
    objects = [{"image_id": "00001", "category_id": kinds.index(name) + 1, "bbox": box} for name, *box in LISTED]
    text = json.dumps({**facts, "images": [image], "annotations": objects})
    (folder / "meta" / "m3fd-train.json").write_text(text)
    other = {**image, "id": "00002", "file_name": "00002.png"}
    (folder / "meta" / "m3fd-val.json").write_text(json.dumps({**facts, "images": [other], "annotations": []}))


def voc(folder: Path) -> None:
    things = ""
    for name, x, y, w, h in LISTED:
        corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        things += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
    size = "<size><width>100</width><height>50</height><depth>3</depth></size>"
    (folder / "M3FD_Detection" / "Annotation").mkdir(parents=True)
    file = folder / "M3FD_Detection" / "Annotation" / "00001.xml"
    file.write_text(f"<annotation>{size}{things}</annotation>")


def yolo(folder: Path) -> None:
    (folder / "labels").mkdir()
    (folder / "labels" / "00001.txt").write_text("0 0.15 0.6 0.1 0.4\n1 0.75 0.25 0.5 0.5\n3 0.025 0.05 0.05 0.1\n\n")
    write(folder / "Vis" / "00001.png", noise(50, 100, 3))


@pytest.mark.parametrize("form", [listed, coco, voc, yolo])
def test_m3fd_reads_the_same_from_every_form(tmp_path, form):
    (tmp_path / "M3FD").mkdir()
    form(tmp_path / "M3FD")
    read = boxes_of("M3FD", tmp_path)
    assert read("00001") == pytest.approx(torch.tensor(EXPECTED, dtype=torch.float32), abs=1e-4)
    assert boxes_of("m3fd", tmp_path, size=(100, 100))("00001")[1].tolist() == pytest.approx([2, 50, 0, 100, 50])
    with pytest.raises(InputError, match=r"do not cover other|no boxes at .*other"):
        read("other")


def test_a_labelled_image_may_be_empty(tmp_path):
    (tmp_path / "M3FD").mkdir()
    coco(tmp_path / "M3FD")
    assert boxes_of("M3FD", tmp_path)("00002").shape == (0, 5)


def test_the_order_of_yolo_classes_can_be_given(tmp_path):
    (tmp_path / "M3FD").mkdir()
    yolo(tmp_path / "M3FD")
    (tmp_path / "M3FD" / "labels" / "classes.txt").write_text("Car\nPeople\nBus\nTruck\n")
    assert boxes_of("M3FD", tmp_path)("00001")[:, 0].tolist() == [2, 0]


def test_m3fd_in_full_without_boxes_says_where_to_get_them(tmp_path):
    with pytest.raises(
        InputError, match=r"m3fd-train\.json.* of the GitHub repository ganlumomo/TarDAL at commit c453fe1"
    ):
        boxes_of("M3FD_full", tmp_path)


def test_m3fd_has_boxes_for_who_has_fetched_its_images_alone(tmp_path):
    read = boxes_of("M3FD", tmp_path)
    found = torch.cat([read(name) for name in data.splits("M3FD")["test"]])
    assert torch.bincount(found[:, 0].long(), minlength=3).tolist() == [101, 0, 88]
    (tmp_path / "M3FD").mkdir()
    listed(tmp_path / "M3FD")  # one's own file is read instead
    assert boxes_of("M3FD", tmp_path)("00001").tolist() == EXPECTED


@pytest.mark.parametrize(
    ("form", "file", "text", "message"),
    [
        (listed, "boxes.json", "{", "is not a list of boxes"),
        (listed, "boxes.json", '{"00001": {"width": 9}}', "is not a list of boxes"),
        (listed, "boxes.json", '{"1": {"width": 9, "height": 9, "boxes_xywh": [["Cow", 1, 1, 1, 1]]}}', "class 'Cow'"),
        (listed, "boxes.json", '{"1": {"width": 9, "height": 9, "boxes_xywh": [["Car", 1, 1]]}}', "give a class, x, y"),
        (coco, "meta/m3fd-train.json", '{"images": []}', "is no COCO file"),
        (voc, "M3FD_Detection/Annotation/00001.xml", "<annotation>", "is no VOC annotation"),
        (voc, "M3FD_Detection/Annotation/00001.xml", "<annotation></annotation>", "is no VOC annotation"),
        (yolo, "labels/00001.txt", "0 0.5 0.5\n", "give `class cx cy w h`, class below 6"),
        (yolo, "labels/00001.txt", "9 0.5 0.5 0.1 0.1\n", "class below 6"),
    ],
)
def test_files_that_are_no_labels_are_named(tmp_path, form, file, text, message):
    (tmp_path / "M3FD").mkdir()
    form(tmp_path / "M3FD")
    (tmp_path / "M3FD" / file).write_text(text)
    with pytest.raises(InputError, match=message) as failure:
        boxes_of("M3FD", tmp_path)("00001")
    assert Path(file).name in str(failure.value)


@pytest.mark.parametrize(
    ("form", "file", "text", "message"),
    [
        (yolo, "labels/00001.txt", "0 0.5 0.5 0.1 0.1\n-1 0.5 0.5 0.1 0.1\n", r"line 2 '-1 0\.5 .*not below 0"),
        (yolo, "labels/00001.txt", "0 64 48 20 20\n", r"line 1 '0 64 .*parts of the image, from 0 to 1: divide pixels"),
        (yolo, "labels/00001.txt", "0 0.5 0.5 nan 0.1\n", r"line 1 .*from 0 to 1"),
        (yolo, "labels/00001.txt", "0 0.5 0.5 0.1 -0.1\n", r"line 1 .*from 0 to 1"),
        (
            listed,
            "boxes.json",
            '{"1": {"width": 0, "height": 9, "boxes_xywh": []}}',
            "an image of 0 x 9 pixels: give the",
        ),
        (
            listed,
            "boxes.json",
            '{"1": {"width": 9, "height": 9, "boxes_xywh": [["Car", 1, 1, -2, 1]]}}',
            "sizes below 0",
        ),
        (
            listed,
            "boxes.json",
            '{"1": {"width": 9, "height": 9, "boxes_xywh": [["Car", 1, null, 2, 1]]}}',
            r"\(1\): give",
        ),
        (listed, "boxes.json", "[1]", "is not a list of boxes"),
        (coco, "meta/m3fd-train.json", "[1]", "is no COCO file"),
        (voc, "M3FD_Detection/Annotation/00001.xml", VOC.format(9, 9, 30, 5), r"\(object 1\): .*sizes below 0"),
        (voc, "M3FD_Detection/Annotation/00001.xml", VOC.format(9, 9, 1, "nan"), r"\(object 1\): give"),
        (voc, "M3FD_Detection/Annotation/00001.xml", VOC.format(0, 0, 1, 5), "no size of its image, and there is none"),
    ],
)
def test_values_that_no_box_has_are_named_with_their_place(tmp_path, form, file, text, message):
    (tmp_path / "M3FD").mkdir()
    form(tmp_path / "M3FD")
    (tmp_path / "M3FD" / file).write_text(text)
    with pytest.raises(InputError, match=message) as failure:
        boxes_of("M3FD", tmp_path, size=64)("00001")
    assert Path(file).name in str(failure.value) and str(failure.value).endswith(".")


@pytest.mark.parametrize("size", [VOC_SIZE.format(0, 0), "", VOC_SIZE.format(-1, 40)])
@pytest.mark.parametrize("name", ["00001.png", "other.PNG"])
def test_a_size_of_nothing_is_that_of_the_image(tmp_path, size, name):
    folder = tmp_path / "M3FD"
    voc(folder)
    text = VOC.format(9, 9, 1, 5).replace(VOC_SIZE.format(9, 9), f"<filename>{name}</filename>{size}")
    (folder / "M3FD_Detection" / "Annotation" / "00001.xml").write_text(text)
    write(folder / "M3FD_Detection" / "Vis" / name, noise(50, 100, 3))
    assert boxes_of("M3FD", tmp_path, size=(100, 100))("00001").tolist() == [[2, 1, 2, 5, 18]]


@pytest.mark.parametrize("coding", ["latin-1", "utf-8", "utf-8-sig", "utf-16"])
def test_text_of_every_coding_is_read(tmp_path, coding):
    file = tmp_path / "a.txt"
    file.write_bytes("3 10 20 30 40\n# café\n\n".encode(coding))
    assert labels.read_flir(file).tolist() == [[2, 10, 20, 40, 60]]
    (tmp_path / "a.xml").write_bytes(VOC.format(9, 9, 1, 5).replace("<object>", "<!-- é --><object>").encode(coding))
    assert labels.read_voc(tmp_path / "a.xml")[0].tolist() == [[2, 1, 1, 5, 9]]


def test_files_that_cannot_be_opened_are_told(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match=r"a\.txt cannot be opened \(Is a directory\)"):
        labels.read_flir(tmp_path / "a.txt")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared cases are not here")
def test_the_shared_cases_are_right_or_told(tmp_path):
    assert labels.read_flir(SHARED / "flir_latin1.txt").tolist() == [[2, 10, 20, 40, 60]]
    for name, message in (
        ("yolo_in_pixels", "line 1 .*divide pixels"),
        ("yolo_class_below_zero", "line 1 .*not below 0"),
    ):
        with pytest.raises(InputError, match=rf"{name}\.txt has in {message}"):
            labels.read_yolo(SHARED / f"{name}.txt", (768, 1024))
    annotation = tmp_path / "Annotation" / "00001.xml"
    annotation.parent.mkdir()
    annotation.write_bytes((SHARED / "voc_size_zero.xml").read_bytes())
    write(tmp_path / "Vis" / "00001.png", noise(768, 1024))
    found, shape = labels.read_voc(annotation)
    assert found.tolist() == [[2, 100, 80, 300, 200]] and shape == (768, 1024)


def test_yolo_labels_need_their_image(tmp_path):
    (tmp_path / "M3FD").mkdir()
    yolo(tmp_path / "M3FD")
    (tmp_path / "M3FD" / "Vis" / "00001.png").unlink()
    with pytest.raises(InputError, match="no image 00001 beside it"):
        boxes_of("M3FD", tmp_path)("00001")


@needs["m3fd"]
def test_real_m3fd_has_the_boxes_that_were_counted(tmp_path):
    read, committed = boxes_of("M3FD", real), boxes_of("M3FD", tmp_path)
    assert all(torch.equal(read(name), committed(name)) for name in data.splits("M3FD")["test"])
    found = torch.cat([read(name) for name in data.splits("M3FD")["test"]])
    assert torch.bincount(found[:, 0].long(), minlength=3).tolist() == [101, 0, 88]
    assert (found[:, 3:] <= torch.tensor([1024.0, 768.0])).all() and (boxes.area(found) > 0).all()
    read = boxes_of("M3FD_full", real, classes=boxes.NAMES)
    every = torch.cat([read(name) for name in data.splits("M3FD")["test"]])
    counts = dict(zip(boxes.NAMES, torch.bincount(every[:, 0].long(), minlength=7).tolist(), strict=True))
    others = {"bicycle": 0, "bus": 1, "lamp": 0, "motorcycle": 2, "truck": 4}
    assert counts == {"person": 101, "car": 88} | others and torch.equal(
        boxes.of_classes(every, ["person", "car"]), found
    )


# --- other sets -------------------------------------------------------------------------------------------------------


def test_sets_without_labels_give_none_and_drawn_scenes_have_their_own(tmp_path):
    assert boxes_of("TNO", tmp_path)("TNO_001") is None
    with pytest.raises(InputError, match=r"Pair\.boxes"):
        boxes_of("synthetic", tmp_path)
