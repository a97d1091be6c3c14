"""YOLOv5 with anchors: its geometry against plain examples, its loss, and its start from COCO."""

from __future__ import annotations

import pytest
import torch
from coco_weights import made_up
from torch import Tensor

from fusionlib.detection import DetectorConfig
from fusionlib.metrics.average_precision import average_precision
from fusionlib.support import boxes
from fusionlib.support.files import InputError
from fusionlib.training import anchor_detector, coco
from fusionlib.training.anchor_detector import AnchorDetector, Anchored, ciou, responsible

ANCHORS = torch.tensor([[1.0, 2.0], [4.0, 4.0], [20.0, 20.0]])


@pytest.fixture
def published(monkeypatch) -> dict[str, Tensor]:
    state = made_up()
    monkeypatch.setattr(coco, "tensors", lambda: dict(state))
    return state


def test_an_anchor_is_responsible_in_the_cell_of_the_centre_and_in_the_two_nearest() -> None:
    anchor, box, cell = responsible(torch.tensor([[2.3, 1.8]]), torch.tensor([[2.0, 2.0]]), ANCHORS, (4, 4))
    assert set(box.tolist()) == {0} and set(anchor.tolist()) == {0, 1}  # the third is ten times as large
    for one in (0, 1):
        assert {tuple(at) for at in cell[anchor == one].tolist()} == {(2, 1), (1, 1), (2, 2)}


def test_no_cell_outside_of_the_grid_is_responsible() -> None:
    centre, size = torch.tensor([[0.2, 0.2], [3.9, 3.9], [0.5, 3.2]]), torch.full((3, 2), 4.0)
    anchor, box, cell = responsible(centre, size, ANCHORS[1:2].expand(3, 2), (4, 4))
    places = [{tuple(at) for at in cell[(box == one) & (anchor == 0)].tolist()} for one in range(3)]
    assert places == [{(0, 0)}, {(3, 3)}, {(0, 3), (1, 3), (0, 2)}]


def test_an_anchor_is_responsible_up_to_the_factor_in_width_and_in_height() -> None:
    centre, anchors = torch.full((4, 2), 2.2), torch.tensor([[2.0, 2.0]]).expand(3, 2)
    size = torch.tensor([[7.9, 2.0], [8.1, 2.0], [2.0, 0.51], [2.0, 0.49]])
    assert set(responsible(centre, size, anchors, (5, 5))[1].tolist()) == {0, 2}


def test_ciou_is_iou_for_boxes_of_one_centre_and_shape_and_falls_with_distance_and_shape() -> None:
    low, high = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[4.0, 4.0]], dtype=torch.float64)
    assert ciou(low, high, low, high).item() == pytest.approx(1, abs=1e-6)
    assert ciou(low + 1, high - 1, low, high).item() == pytest.approx(4 / 16, abs=1e-6)
    # Shifted by 4: IoU 0, centres 4 apart, the hull 8 x 4.
    assert ciou(low + torch.tensor([4, 0]), high + torch.tensor([4, 0]), low, high).item() == pytest.approx(-16 / 80)
    wide = ciou(low + torch.tensor([0, 1]), high - torch.tensor([0, 1]), low, high).item()  # IoU 1/2, one centre
    shape = (2 / torch.pi * (torch.atan(torch.tensor(2.0)) - torch.pi / 4)).item() ** 2
    assert wide == pytest.approx(0.5 - shape**2 / (0.5 + shape), abs=1e-6)


def perfect(detector: AnchorDetector, box: Tensor, size: tuple[int, int]) -> Anchored:
    """Predictions that say where the box is at every responsible position, and nothing elsewhere."""
    grids = []
    for sizes, stride in zip(detector.net.model[-1].anchors, anchor_detector.STRIDES, strict=True):
        rows, columns = size[0] // stride, size[1] // stride
        grid = torch.zeros(1, 3, 8, rows, columns)
        grid[:, :, 4:] = -12
        low, high = box[1:3] / stride, box[3:] / stride
        anchor, _, cell = responsible((low + high)[None] / 2, (high - low)[None], sizes, (rows, columns))
        for one, (column, row) in zip(anchor.tolist(), cell.tolist(), strict=True):
            offset = ((low + high) / 2 - torch.tensor([column, row]) + 0.5) / 2
            grid[0, one, :2, row, column] = offset.logit()
            grid[0, one, 2:4, row, column] = (((high - low) / sizes[one]).sqrt() / 2).logit()
            grid[0, one, 4, row, column] = 12
            grid[0, one, 5 + int(box[0]), row, column] = 12
        grids.append(grid)
    return Anchored(grids, size)


def test_perfect_predictions_cost_nothing_and_are_decoded_to_the_box(published) -> None:
    detector, box = AnchorDetector.published(), torch.tensor([2.0, 37, 22, 75, 61])
    found = perfect(detector, box, (96, 128))
    assert detector.loss(found, [box[None]]).item() == pytest.approx(0, abs=1e-4)
    assert detector.loss(found, [box[None] + torch.tensor([-1.0, 0, 0, 0, 0])]).item() > 0.1  # another class
    assert detector.loss(found, [boxes.of_rows()]).item() > 0.01  # an object where there is none
    corners, scores = detector._decoded(found)
    best = scores[0, 2].argmax()
    assert torch.allclose(corners[0, best], box[1:], atol=1e-3) and scores[0, 2, best] > 0.99


def test_the_loss_does_not_grow_with_the_batch(published) -> None:
    detector = AnchorDetector.published().eval()
    image, found = torch.rand(1, 1, 64, 96), torch.tensor([[0.0, 10, 12, 30, 50], [2.0, 40, 5, 90, 40]])
    one = detector.loss(detector(image), [found])
    three = detector.loss(detector(image.expand(3, -1, -1, -1)), [found] * 3)
    assert three.item() == pytest.approx(one.item(), rel=1e-4)


def test_the_same_questions_are_refused_as_by_the_other_detector() -> None:
    detector = AnchorDetector(1)
    predictions = detector(torch.rand(2, 1, 64, 64))
    with pytest.raises(InputError, match="give one each"):
        detector.loss(predictions, [boxes.of_rows()])
    with pytest.raises(InputError, match="Nobody has looked"):
        detector.loss(predictions, [boxes.of_rows(), None])


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 64, 64)])
def test_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"takes \(B, 1, H, W\), not"):
        AnchorDetector(1).eval().detect(torch.rand(shape))


def test_one_grey_channel_and_three_equal_ones_give_the_same(published) -> None:
    image = torch.rand(1, 1, 64, 64)
    outputs = [AnchorDetector.published(channels).eval()(image.expand(-1, channels, -1, -1)) for channels in (1, 3, 8)]
    for other in outputs[1:]:
        for left, right in zip(outputs[0].grids, other.grids, strict=True):
            assert torch.allclose(left, right, atol=1e-4)


def test_its_head_is_the_published_one_for_our_classes(published) -> None:
    head = AnchorDetector.published().state_dict()["net.model.24.m.1.weight"]
    whole = published["model.24.m.1.weight"]
    assert torch.equal(head[:8], whole[:8]) and torch.equal(head[8:16], whole[85:93])


def test_only_the_size_of_the_published_one_can_start_from_it(published) -> None:
    with pytest.raises(InputError, match="use 'n'"):
        AnchorDetector.published(1, DetectorConfig(size="s"))


@pytest.mark.skipif(not coco.is_available(), reason="the published weights are not here")
def test_the_published_detector_finds_people_and_cars_in_a_drawn_scene() -> None:
    from fusionlib.data import open_set

    detector, scenes = AnchorDetector.published(), open_set("synthetic", "test", 256, count=4)
    found = [detector.detect(scene.vi[None], enlarged=anchor_detector.ENLARGED)[0] for scene in scenes]
    every = torch.cat(found)
    assert every[:, 1].max() <= 1 and set(every[:, 0].tolist()) <= {0.0, 1.0, 2.0}
    assert average_precision(found, [scene.boxes for scene in scenes]).means["mAP50"] > 0.6
