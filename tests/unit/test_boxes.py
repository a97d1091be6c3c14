"""Boxes follow their image: resized, cropped, mirrored, warped; what cannot be a box is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionlib.data.drawn.street import BICYCLE, CAR, PERSON
from fusionlib.data.drawn.synthetic import tight_box
from fusionlib.support import boxes
from fusionlib.support.files import InputError

ROWS = [(0, 10.0, 20.0, 30.0, 60.0), (2, 0.0, 0.0, 4.0, 4.0)]


def painted(label: int, x0: int, y0: int, x1: int, y1: int, shape: tuple[int, int] = (48, 64)) -> torch.Tensor:
    """An image (1, H, W) that is 1 inside a box and 0 elsewhere."""
    image = torch.zeros(1, *shape)
    image[:, y0:y1, x0:x1] = 1
    return image


def found(image: torch.Tensor) -> list[float]:
    """The corners of what is painted."""
    return [float(edge) for edge in tight_box(image[0].numpy() > 0.5)]


def test_classes_are_those_of_the_drawn_scenes_in_order():
    assert boxes.CLASSES == ("person", "bicycle", "car") == boxes.NAMES[:3]
    assert (PERSON, BICYCLE, CAR) == (0, 1, 2)


def test_no_box_is_a_table_without_rows():
    assert boxes.of_rows().shape == (0, 5)
    assert boxes.of_rows(ROWS).dtype == torch.float32
    assert boxes.of_rows(ROWS).tolist() == [list(row) for row in ROWS]


def test_boxes_of_classes_that_are_not_asked_for_are_left_out():
    rows = boxes.of_rows([(0, 1, 1, 9, 9), (5, 2, 2, 9, 9), (2, 3, 3, 9, 9), (0, 4, 4, 9, 9)])
    assert torch.equal(boxes.of_classes(rows, ["motorcycle", "person"]), rows[[0, 1, 3]])
    assert boxes.of_classes(rows, ["truck"]).shape == boxes.of_classes(boxes.of_rows(), ["car"]).shape == (0, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3, 4), r"Boxes are \(3, 4\)"),
        (torch.zeros(5), r"Boxes are \(5,\)"),
        (torch.zeros(2, 5, dtype=torch.int64), r"Boxes are \(2, 5\) torch.int64"),
        (torch.tensor([[7.0, 0, 0, 1, 1]]), "no class 7: use 0 person, 1 bicycle, 2 car, 3 bus, .*, 6 truck"),
        (torch.tensor([[-1.0, 0, 0, 1, 1]]), "no class -1"),
        (torch.tensor([[0.5, 0, 0, 1, 1]]), r"no class 0\.5"),
        (torch.tensor([[0.0, 0, 0, float("nan"), 1]]), "NaN or infinity"),
        (torch.tensor([[0.0, 8, 8, 4, 4]]), "not as a width and a height"),
    ],
)
def test_what_is_no_box_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        boxes.checked(wrong)


def test_boxes_that_reach_out_or_have_no_area_are_let_pass():
    kept = boxes.of_rows([(1, -5, -5, 900, 3), (0, 7, 7, 7, 7)])
    assert boxes.checked(kept) is kept
    assert boxes.checked(boxes.of_rows()).shape == (0, 5)


def test_overlap_by_hand():
    one = boxes.of_rows([(0, 0, 0, 10, 10), (0, 20, 20, 20, 30)])
    other = torch.tensor([[0.0, 0.9, 5.0, 0.0, 15.0, 10.0], [0.0, 0.9, 0.0, 0.0, 10.0, 10.0]])  # with a score
    assert boxes.iou(one, other).tolist() == [pytest.approx([50 / 150, 1]), [0, 0]]
    assert boxes.area(one).tolist() == [100, 0]
    assert boxes.iou(boxes.of_rows(), other).shape == (0, 2)


def test_boxes_scale_by_each_axis_without_an_offset():
    assert boxes.scale(boxes.of_rows(ROWS), (60, 40), (30, 80))[0].tolist() == [0, 20, 10, 60, 30]
    whole = boxes.of_rows([(1, 0, 0, 40, 60)])
    assert boxes.scale(whole, (60, 40), (256, 256)).tolist() == [[1, 0, 0, 256, 256]]


def test_boxes_and_pixels_are_doubled_alike():
    image = painted(0, 10, 12, 31, 40)
    larger = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
    box = boxes.scale(boxes.of_rows([(0, *found(image))]), (48, 64), (96, 128))
    assert box[0, 1:].tolist() == found(larger)


def test_boxes_and_pixels_are_mirrored_alike():
    image = painted(0, 10, 12, 31, 40)
    box = boxes.flip(boxes.of_rows([(0, *found(image))]), 64)
    assert box[0, 1:].tolist() == found(image.flip(-1))
    assert torch.equal(boxes.flip(box, 64)[0, 1:], torch.tensor(found(image)))


def test_boxes_and_pixels_are_cropped_alike():
    image = painted(0, 10, 12, 31, 40)
    box = boxes.crop(boxes.of_rows([(2, *found(image))]), top=20, left=5, height=25, width=20)
    assert box.tolist() == [[2, *found(image[:, 20:45, 5:25])]]


def test_a_crop_drops_what_is_hardly_seen_and_what_is_not():
    one = boxes.of_rows([(0, 0, 0, 10, 10)])
    assert boxes.crop(one, 0, 6.9, 20, 20).tolist() == [pytest.approx([0, 0, 0, 3.1, 10])]  # 31 % are seen
    assert boxes.crop(one, 0, 7.1, 20, 20).shape == (0, 5)
    assert len(boxes.crop(one, 0, 7.5, 20, 20, min_visible=0.25)) == 1  # exactly as much
    assert len(boxes.crop(one, 0, 9, 20, 20, min_visible=0)) == 1
    for top, left in ((0, 10), (10, 0), (-30, 0), (0, 300)):  # beside it, touching or not
        assert boxes.crop(one, top, left, 20, 20, min_visible=0).shape == (0, 5)


@pytest.mark.parametrize("row", [(1, 5, 5, 5, 9), (1, 5, 5, 9, 5), (1, 5, 5, 5, 5)])
def test_a_crop_drops_boxes_without_area(row):
    assert boxes.crop(boxes.of_rows([row]), 0, 0, 20, 20, min_visible=0).shape == (0, 5)


def test_nothing_stays_nothing():
    none = boxes.of_rows()
    assert boxes.crop(none, 0, 0, 9, 9).shape == boxes.flip(none, 9).shape == (0, 5)
    assert boxes.scale(none, (9, 9), (3, 3)).shape == boxes.project(none, np.eye(3)).shape == (0, 5)


def test_a_homography_takes_corners_along_and_the_box_stays_upright():
    quarter = np.array([[0.0, -1, 63], [1, 0, 0], [0, 0, 1]])  # pixel (x, y) to (63 - y, x)
    image = painted(0, 10, 12, 31, 40, (64, 64))
    box = boxes.project(boxes.of_rows([(1, *found(image))]), quarter)
    assert box[0].tolist() == pytest.approx([1, *found(image.mT.flip(-1))], abs=1e-4)

    turned = np.array([[1.0, -1, 0], [1, 1, 0], [0, 0, 1]])  # by 45 degrees, and enlarged
    assert boxes.project(boxes.of_rows([(0, 0.5, 0.5, 2.5, 1.5)]), turned)[0].tolist() == [0, -0.5, 0.5, 2.5, 3.5]


def test_a_homography_counts_from_the_centre_of_pixels():
    """An image enlarged three times about the corner of its first pixel: pixel 0 becomes the pixels 0, 1, 2."""
    larger = np.array([[3.0, 0, 1], [0, 3, 1], [0, 0, 1]])
    assert boxes.project(boxes.of_rows([(0, 0, 0, 1, 1)]), larger).tolist() == [[0, 0, 0, 3, 3]]
