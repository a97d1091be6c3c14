"""The detection head: boxes, scales and decoding agree, l_ob reaches the features, and ultralytics leaves no traces."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fusionlib.detection import Detector, DetectorConfig, Predictions, decode, nms
from fusionlib.support import boxes
from fusionlib.support.boxes import CLASSES
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

PERSON, BICYCLE, CAR = range(3)
SHOWN = [(CAR, 20.0, 30.0, 70.0, 60.0), (PERSON, 80.0, 10.0, 92.0, 44.0)]


def detector(channels: int = 1, seed: int = 0, **settings: object) -> Detector:
    torch.manual_seed(seed)
    return Detector(channels, DetectorConfig(**settings))


def stated(net: Detector, found: Tensor, height: int, width: int, certainty: float = 9.0) -> Predictions:
    """Predictions that say exactly these boxes (N, 5): at the cell below each box's centre, on the finest grid."""
    said = net(torch.zeros(1, net.channels, height, width))
    sides = torch.full_like(said.boxes, -100.0).unflatten(1, (4, -1))
    scores = torch.full_like(said.scores, -20.0)
    columns = said.grids[0][1]
    for label, *corners in found.tolist():
        x, y = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
        column, row = int(x // 8), int(y // 8)
        place, centre = row * columns + column, (8 * column + 4, 8 * row + 4)
        distances = [centre[0] - corners[0], centre[1] - corners[1], corners[2] - centre[0], corners[3] - centre[1]]
        for side, distance in enumerate(distances):
            low, share = int(distance / 8), distance / 8 % 1
            sides[0, side, low, place] = torch.tensor(1 - share + 1e-9).log()
            sides[0, side, low + 1, place] = torch.tensor(share + 1e-9).log()
        scores[0, int(label), place] = certainty
    return Predictions(sides.flatten(1, 2), scores, said.grids, said.size)


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 101), (128, 128)])
def test_what_is_said_is_detected_where_it_is(height, width):
    net, found = detector(), boxes.crop(boxes.of_rows(SHOWN), 0, 0, height, width)
    (seen,) = decode(stated(net, found, height, width), net.config)
    seen = seen[seen[:, 0].argsort(descending=True)]
    assert seen[:, 0].tolist() == [CAR, PERSON] and (seen[:, 1] > 0.99).all()
    assert seen[:, 2:] == pytest.approx(found[:, 1:], abs=0.01)


def test_decoding_agrees_with_upstreams():
    net = detector().eval()
    image = torch.rand(1, 1, 96, 160)
    theirs = net.net(image)[0][0]  # (4 + K, A): centre and size, then scores
    ours = decode(net(image), DetectorConfig(confidence=0.0, overlap=1.0, most=10**6))[0]
    x, y, w, h = theirs[:4]
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    corners = corners.clamp(min=0).minimum(torch.tensor([160, 96, 160, 96]))
    for label in range(len(CLASSES)):
        mine = ours[ours[:, 0] == label]
        order = theirs[4 + label].argsort(descending=True, stable=True)
        assert torch.allclose(mine[:, 1], theirs[4 + label, order], atol=1e-7)
        assert torch.allclose(mine[:, 2:], corners[order], atol=1e-3)


def test_what_is_said_of_the_padding_is_no_detection():
    net = detector()
    beyond = boxes.of_rows([(CAR, 100, 20, 124, 52), (CAR, 90, 20, 110, 52)])  # the image ends at 97, the grids at 128
    (seen,) = decode(stated(net, beyond, 64, 97), net.config)
    assert seen[:, 2:] == pytest.approx(torch.tensor([[90.0, 20, 97, 52]]), abs=0.01)


def test_low_scores_and_all_beyond_the_most_are_left_out():
    net, found = detector(), boxes.of_rows(SHOWN)
    unsure = stated(net, found, 64, 96, certainty=-1.0)  # a score of 0.27
    assert [len(decode(unsure, DetectorConfig(confidence=c))[0]) for c in (0.2, 0.3)] == [2, 0]
    assert [len(decode(unsure, DetectorConfig(confidence=0.2, most=most))[0]) for most in (2, 1)] == [2, 1]
    assert decode(unsure, DetectorConfig(confidence=0.3))[0].shape == (0, 6)


def test_detections_are_sorted_and_within_the_image():
    net = detector(confidence=0.0, overlap=1.0)
    for seen in net.detect(torch.rand(2, 1, 75, 50)):
        assert seen.shape == (300, 6) and not seen.requires_grad
        assert all(a >= b for a, b in pairwise(seen[:, 1].tolist()))
        assert (seen[:, 2:] >= 0).all() and (seen[:, 2:] <= torch.tensor([50, 75, 50, 75])).all()
        assert (boxes.area(seen) > 0).all()
        assert set(seen[:, 0].tolist()) <= {0, 1, 2}


def test_detecting_leaves_the_detector_as_it_was():
    net, image = detector(), torch.rand(1, 1, 64, 64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for mode in (True, False):
        net.train(mode)
        first = net.detect(image)[0]
        assert net.training is mode and torch.equal(first, net.detect(image)[0])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# --- doubles ----------------------------------------------------------------------------------------------------------


def test_doubles_of_a_better_detection_go():
    rows = torch.tensor(
        [
            [CAR, 0.9, 0, 0, 10, 10],
            [CAR, 0.8, 0, 0, 10, 8],  # IoU 0.8 with the first
            [CAR, 0.7, 0, 4, 10, 12],  # 0.43 with the first, 0.33 with the second
            [CAR, 0.6, 50, 50, 60, 60],
        ]
    )
    assert nms(rows, 0.6).tolist() == [0, 2, 3]
    assert nms(rows, 0.9).tolist() == [0, 1, 2, 3]
    assert nms(rows, 0.4).tolist() == [0, 3]
    assert nms(rows[:0], 0.6).tolist() == []


def test_what_is_gone_takes_nothing_with_it():
    """The third overlaps the second by more than is allowed, but not the first, which has removed the second."""
    rows = torch.tensor([[CAR, 0.9, 0, 0, 10, 10], [CAR, 0.8, 3, 0, 13, 10], [CAR, 0.7, 6, 0, 16, 10]])
    assert nms(rows, 0.5).tolist() == [0, 2]


def test_classes_do_not_suppress_each_other():
    net = detector()
    both = boxes.of_rows([(CAR, 20, 30, 70, 60), (PERSON, 20, 30, 70, 60)])
    (seen,) = decode(stated(net, both, 64, 96), net.config)
    assert sorted(seen[:, 0].tolist()) == [PERSON, CAR]


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 101)])
def test_the_loss_falls_where_boxes_are_placed_as_they_are(height, width):
    net, found = detector(), boxes.crop(boxes.of_rows(SHOWN), 0, 0, height, width)
    right = net.loss(stated(net, found, height, width), [found])
    for moved in ([0, 5, 0, 5, 0], [0, 0, 0, -8, 0], [0, 0, -4, 0, -4]):
        assert net.loss(stated(net, found + torch.tensor(moved), height, width), [found]) > right + 0.3
    unsure = net.loss(stated(net, found, height, width, certainty=-2.0), [found])
    swapped = torch.cat([2 - found[:, :1], found[:, 1:]], 1)
    assert right < unsure < net.loss(stated(net, swapped, height, width), [found])


def test_the_loss_reaches_the_features_and_the_weights():
    net, features = detector(channels=6), torch.rand(2, 6, 70, 101, requires_grad=True)
    loss = net.loss(net(features), [boxes.of_rows(SHOWN), boxes.of_rows()])
    assert loss.shape == () and loss.dtype == torch.float32
    loss.backward()
    assert features.grad.isfinite().all() and (features.grad[0].abs().sum((1, 2)) > 0).all()
    still = [name for name, weight in net.named_parameters() if weight.requires_grad and not weight.grad.any()]
    assert [name for name in still if ".24.cv2." not in name] == []  # a grid without a box learns no sides


def test_a_batch_without_boxes_asks_for_low_scores_whatever_its_size():
    net = detector().eval()
    image = torch.rand(1, 1, 64, 64)
    loss = net.loss(net(image), [boxes.of_rows()])
    loss.backward()
    assert loss > 0 and all(w.grad is None or w.grad.isfinite().all() for w in net.parameters())
    alike = net.loss(net(image.repeat(3, 1, 1, 1)), [boxes.of_rows()] * 3)
    assert alike.item() == pytest.approx(loss.item(), rel=1e-4)
    high = net(image)
    high = Predictions(high.boxes, high.scores + 5, high.grids, high.size)
    assert net.loss(high, [boxes.of_rows()]) > loss


def test_an_empty_image_adds_the_scores_it_raises():
    net, found = detector(), boxes.of_rows(SHOWN)
    one = stated(net, found, 64, 96)
    both = Predictions(torch.cat([one.boxes] * 2), torch.cat([one.scores] * 2), one.grids, one.size)
    assert net.loss(both, [found, boxes.of_rows()]) > net.loss(both, [found, found]) + 1


def test_more_of_the_same_images_do_not_change_the_loss():
    net, found = detector(), boxes.of_rows(SHOWN)
    one = stated(net, found + torch.tensor([0, 0, 2, 3, 0]), 64, 96, certainty=-1.0)
    both = Predictions(torch.cat([one.boxes] * 2), torch.cat([one.scores] * 2), one.grids, one.size)
    assert net.loss(both, [found, found]).item() == pytest.approx(net.loss(one, [found]).item(), rel=1e-5)


def test_boxes_are_cut_at_the_image_and_do_not_count_outside_of_it():
    net = detector().eval()
    said = net(torch.rand(1, 1, 70, 101))
    inside, cut = boxes.of_rows([(CAR, 60, 30, 101, 70)]), boxes.of_rows([(CAR, 60, 30, 180, 200)])
    assert torch.equal(net.loss(said, [inside]), net.loss(said, [cut]))
    outside = boxes.of_rows(
        [(CAR, 60, 30, 101, 70), (CAR, 110, 10, 125, 60), (PERSON, -30, 0, -5, 40), (CAR, 5, 5, 5, 9)]
    )
    assert torch.equal(net.loss(said, [inside]), net.loss(said, [outside]))
    assert torch.equal(net.loss(said, [outside[1:]]), net.loss(said, [boxes.of_rows()]))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "boxes for 0 images and predictions for 1"),
        ([None], "Nobody has looked for boxes"),
        ([torch.tensor([[3.0, 1, 1, 9, 9]])], "a box of a bus, and the detector finds person, bicycle, car: leave"),
        ([torch.tensor([[0.0, 9, 1, 1, 9]])], "ends before it begins"),
        ([torch.zeros(2, 6)], r"Boxes are \(2, 6\)"),
    ],
)
def test_what_cannot_be_learned_from_is_said(targets, message):
    net = detector()
    with pytest.raises(InputError, match=message):
        net.loss(net(torch.zeros(2, 1, 64, 64)[:1].repeat(1, 1, 1, 1)), targets)


def test_half_precision_predicts_and_the_loss_is_exact():
    net, found = detector(), [boxes.of_rows(SHOWN)]
    features = torch.rand(1, 1, 64, 96, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        said = net(features)
        loss = net.loss(said, found)
        seen = net.detect(features)[0]
    assert said.scores.dtype == torch.bfloat16
    assert loss.dtype == seen.dtype == torch.float32
    exact = Predictions(said.boxes.float(), said.scores.float(), said.grids, said.size)
    assert torch.equal(loss, net.loss(exact, found))
    loss.backward()
    assert features.grad.isfinite().all() and features.grad.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_says_the_same():
    net, image, found = detector().eval(), torch.rand(2, 1, 70, 101), [boxes.of_rows(SHOWN), boxes.of_rows()]
    loss, seen = net.loss(net(image), found).item(), net.detect(image)
    net.to("cuda")
    assert net.loss(net(image.to("cuda")), found).item() == pytest.approx(loss, rel=1e-3)
    assert [len(one) for one in net.detect(image.to("cuda"))] == [len(one) for one in seen]


# --- the module -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "millions"), [("n", 2.5), ("s", 9.1)])
def test_the_number_of_weights_is_as_stated(size, millions):
    assert sum(weight.numel() for weight in detector(size=size).parameters()) == pytest.approx(millions * 1e6, rel=0.01)
    assert f"{millions} M" in DetectorConfig.__doc__


def test_weights_depend_on_the_seed_and_drawing_them_is_all_that_is_drawn():
    first, same, other = detector().state_dict(), detector().state_dict(), detector(seed=1).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    net, state = detector(), torch.get_rng_state()
    net.loss(net(torch.zeros(1, 1, 64, 64)), [boxes.of_rows(SHOWN)])
    net.detect(torch.zeros(1, 1, 64, 64))
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_come_back_from_a_file(tmp_path):
    net, other, image = detector(channels=3).eval(), detector(channels=3, seed=1).eval(), torch.rand(1, 3, 64, 64)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    assert torch.equal(net.detect(image)[0], other.detect(image)[0])


def test_what_the_detector_does_not_take_is_said():
    with pytest.raises(InputError, match="size of DetectorConfig cannot be 'x'; choose 'n' or 's'"):
        DetectorConfig(size="x")
    for shape in ((1, 2, 64, 64), (1, 64, 64)):
        with pytest.raises(InputError, match=r"takes \(B, 1, H, W\)"):
            detector()(torch.zeros(shape))


IMPORT = """
import os, socket, sys, tempfile, warnings
import cv2, numpy, torch
from PIL import Image
def noisy(*args, **kwargs): raise AssertionError("looked for a network")
socket.getaddrinfo = socket.socket.connect = noisy
def state():
    names = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    numbers = str(torch.tensor([1 / 3, 1e-9])), numpy.get_printoptions(), torch.get_rng_state().tolist()
    threads = cv2.getNumThreads(), torch.get_num_threads()
    return [dict(os.environ), list(warnings.filters), torch.save, Image.open, sys.excepthook, numbers, threads, names]
before = state()
import fusionlib.detection
assert "ultralytics" not in sys.modules
fusionlib.detection.DetectorConfig()
assert "ultralytics" not in sys.modules
with torch.random.fork_rng():
    net = fusionlib.detection.Detector(1)
net.loss(net(torch.zeros(1, 1, 64, 64)), [torch.zeros(0, 5)])
net.detect(torch.zeros(1, 1, 64, 64))
after = state()
assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
"""


def test_ultralytics_leaves_no_traces(tmp_path):
    """Neither in the process nor on the disk, and it neither warns, prints nor looks for a network."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir(), work.mkdir()
    environment = {"HOME": str(home), "TMPDIR": str(work), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", IMPORT]
    ran = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert set(tmp_path.rglob("*")) == {home, work}
