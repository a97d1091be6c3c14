"""Detectors of plain images: what they see, the same weights after a kill, and that they learn to find things."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from fusionlib import data
from fusionlib.data import labels
from fusionlib.detection import Detector, DetectorConfig
from fusionlib.metrics.average_precision import average_precision
from fusionlib.support import boxes
from fusionlib.support.files import InputError
from fusionlib.support.weights import key_of
from fusionlib.training import detectors
from fusionlib.training.detectors import DetectorTraining, batches, train_detector
from fusionlib.training.run import Run

TINY = DetectorTraining(epochs=3, batch=2, side=64)
WHOLE = DetectorTraining(side=64, zoom=(1, 1), mosaic=0, mirror=False)
SHAPE = (64, 64)
real = Path(os.environ.get("FUSIONLIB_DATA") or "not-there")


class PowerCutError(Exception):
    """Ends a training without warning."""


def cut_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training die right after the checkpoint of an epoch is written."""

    def report(self: Run) -> None:
        if self.done == epoch:
            raise PowerCutError

    monkeypatch.setattr(Run, "report", report)


def painted(count: int = 5, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Black images (N, 1, 64, 64), each with a white rectangle, and the box around it."""
    rng, images, found = np.random.default_rng(seed), torch.zeros(count, 1, *SHAPE), []
    for image in images:
        (x0, y0), (w, h) = rng.integers(2, 40, 2).tolist(), rng.integers(8, 22, 2).tolist()
        image[:, y0 : y0 + h, x0 : x0 + w] = 1
        found.append(boxes.of_rows([(int(rng.integers(3)), x0, y0, x0 + w, y0 + h)]))
    return images, found


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- what a detector sees ---------------------------------------------------------------------------------------------


def test_without_any_change_it_sees_the_images_themselves():
    images, found = painted()
    seen, there = next(batches(images, found, replace(WHOLE, batch=5), seed=0, epoch=0))
    order = np.random.default_rng([0, 0]).permutation(5)
    assert torch.allclose(seen, images[order], atol=1e-4)
    for box, index in zip(there, order, strict=True):
        assert box == pytest.approx(found[index], abs=1e-4)


@pytest.mark.parametrize("change", [{"mirror": True}, {"zoom": (0.5, 0.5)}, {"zoom": (2, 2)}, {"mosaic": 1.0}])
def test_boxes_lie_where_the_window_shows_their_objects(change):
    images, found = painted(8)
    config, count = replace(WHOLE, batch=4, side=96, **change), 0
    for epoch in range(5):
        for seen, there in batches(images, found, config, seed=1, epoch=epoch):
            assert seen.shape == (4, 1, 96, 96) and seen.min() > -1e-6 and seen.max() < 1 + 1e-6
            for view, box in zip(seen, there, strict=True):
                assert (box[:, 1:] >= 0).all() and (box[:, 1:] <= 96).all()
                assert not box.numel() or boxes.area(box).min() > 0
                for x0, y0, x1, y1 in box[:, 1:].tolist():
                    # A pixel that an edge cuts is neither black nor white.
                    inside = view[0, int(np.ceil(y0)) + 1 : int(y1) - 1, int(np.ceil(x0)) + 1 : int(x1) - 1]
                    assert inside.numel() == 0 or inside.min() > 0.95
                    for edge, row in ((y0, int(y0) - 2), (y1, int(np.ceil(y1)) + 1)):
                        if 2 < edge < 94 and "mosaic" not in change:
                            assert view[0, row, int(x0 + x1) // 2] < 0.6  # black, or the grey beyond the image
                    count += 1
    assert count > 20


def test_zoom_and_mosaic_show_more_and_less():
    images, found = painted(8)
    shares = []
    for change in ({"zoom": (0.5, 0.5)}, {}, {"zoom": (2, 2)}):
        there = [b for _, each in batches(images, found, replace(WHOLE, batch=8, **change), 0, 0) for b in each]
        shares.append(torch.cat(there)[:, 3:].sub(torch.cat(there)[:, 1:3]).amax().item())
    assert shares[0] < shares[1] < shares[2]
    _, single = next(batches(images, found, replace(WHOLE, batch=8, zoom=(0.5, 0.5)), 0, 0))
    _, four = next(batches(images, found, replace(WHOLE, batch=8, zoom=(0.5, 0.5), mosaic=1.0), 0, 0))
    assert sum(map(len, single)) == 8 < sum(map(len, four))


def test_what_is_seen_depends_on_seed_and_epoch_only():
    images, found = painted()
    first = [(seen, there) for seen, there in batches(images, found, TINY, seed=3, epoch=2)]
    torch.rand(7), np.random.default_rng().random()
    for (seen, there), (again, repeated) in zip(first, batches(images, found, TINY, seed=3, epoch=2), strict=True):
        assert torch.equal(seen, again) and all(map(torch.equal, there, repeated))
    assert len(first) == 2  # the fifth image waits for another epoch
    for seed, epoch in ((3, 1), (4, 2)):
        assert not torch.equal(next(batches(images, found, TINY, seed, epoch))[0], first[0][0])


def test_a_set_smaller_than_a_batch_is_one_batch():
    images, found = painted(3)
    assert [len(seen) for seen, _ in batches(images, found, replace(TINY, batch=8), 0, 0)] == [3]


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_ends_in_the_same_weights(epoch, tmp_path, monkeypatch):
    images, found = painted()
    straight = train_detector(images, found, TINY, path=tmp_path / "straight.safetensors")
    path = tmp_path / "cut.safetensors"
    with monkeypatch.context() as patch:
        cut_after(epoch, patch)
        with pytest.raises(PowerCutError):
            train_detector(images, found, TINY, path=path)
    assert not path.exists()  # no weights that look finished
    resumed = train_detector(images, found, TINY, path=path)
    assert same(straight, resumed)
    logs = [pd.read_csv(path.with_name(name)) for name in ("straight.csv", "cut.csv")]
    assert logs[0]["l_ob"].tolist() == logs[1]["l_ob"].tolist() and logs[0]["epoch"].tolist() == [1, 2, 3]
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".csv"}


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, monkeypatch, capsys):
    images, found = painted()
    path = tmp_path / "cut.safetensors"
    with monkeypatch.context() as patch:
        cut_after(1, patch)
        with pytest.raises(PowerCutError):
            train_detector(images, found, TINY, path=path)
    train_detector(images, found, TINY, seed=1, path=path)
    assert "cut.checkpoint is of another training, and not used" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of a file", b"made by hand", pickle.dumps({"rows": []})])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, content):
    images, found = painted()
    path = tmp_path / "cut.safetensors"
    path.with_suffix(".checkpoint").write_bytes(content)
    with pytest.raises(InputError, match=r"cut.checkpoint is damaged.*: delete it, and the training begins again\.$"):
        train_detector(images, found, TINY, path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["cut.checkpoint"]


def test_weights_are_kept_for_what_made_them(tmp_path, monkeypatch):
    images, found = painted()
    path = tmp_path / "w.safetensors"
    once = replace(TINY, epochs=1)
    first = train_detector(images, found, once, path=path)
    key = key_of(path)
    monkeypatch.setattr(detectors, "batches", None)  # a training would fail
    kept = train_detector(images, found, once, path=path)
    assert same(first, kept) and not kept.training
    monkeypatch.undo()
    others = [
        (images, found, replace(once, mosaic=0.0), 0, None),
        (images, found, once, 1, None),
        (images * 0.5, found, once, 0, None),
        (images, [found[0] + torch.tensor([0, 0, 0, 1, 1]), *found[1:]], once, 0, None),
        (images, found, once, 0, first),
    ]
    for pictures, there, config, seed, start in others:
        train_detector(pictures, there, config, seed, path, start)
        assert key.differing(key_of(path))


def test_without_a_path_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = train_detector(*painted(), replace(TINY, epochs=1))
    assert list(tmp_path.iterdir()) == []
    assert not net.training and next(net.parameters()).device.type == "cpu"


def test_equal_seeds_make_equal_detectors_and_disturb_nobody():
    images, found = painted()
    config = replace(TINY, epochs=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train_detector(images, found, config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert same(first, train_detector(images, found, config))
    assert not same(first, train_detector(images, found, config, seed=1))


def test_images_that_nobody_looked_at_never_enter():
    images, found = painted(4)
    config = replace(TINY, epochs=2)
    with_gaps = [found[0], None, *found[1:], None]
    pictures = [images[0], torch.full_like(images[0], float("nan")), *images[1:], torch.ones_like(images[0])]
    assert same(train_detector(images, found, config), train_detector(pictures, with_gaps, config))


def test_a_training_can_begin_with_a_detector_trained_before():
    images, found = painted()
    before = train_detector(images, found, replace(TINY, epochs=2))
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    still = train_detector(images, found, replace(TINY, epochs=1, learning_rate=1e-12), seed=9, start=before)
    for name, weight in still.named_parameters():
        assert torch.allclose(weight, kept[name], atol=1e-6), name
    assert all(torch.equal(value, kept[name]) for name, value in before.state_dict().items())


def test_the_weights_kept_are_a_running_mean():
    images, found = painted()
    config = replace(TINY, epochs=3)
    means = [train_detector(images, found, replace(config, average=average)) for average in (0.0, 0.9)]
    assert not same(*means)
    learning = detectors._Learning(Detector(1), replace(config, average=0.75), steps=2)
    values = []
    for seen, there in [next(batches(images, found, config, 0, epoch)) for epoch in range(4)]:
        learning.step(seen, there)
        values.append(next(learning.net.parameters()).detach().clone())
    mean = values[0]
    for value, share in zip(values[1:], (2 / 3, 2 / 4, 2 / 5), strict=True):
        mean = mean + share * (value - mean)
    assert torch.allclose(next(learning.averaged.parameters()), mean, atol=1e-6)


def test_the_learning_rate_rises_and_falls():
    learning = detectors._Learning(Detector(1), replace(TINY, epochs=50, warmup=0.1), steps=2)
    rates = [learning._rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1) and rates.index(max(rates)) in (9, 10)
    assert 0 < rates[-1] < 0.01


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    images, found = painted()
    with pytest.raises(InputError, match=r"The loss of wild is (nan|inf) at epoch \d: lower the learning rate"):
        train_detector(images, found, replace(TINY, learning_rate=1e30), path=tmp_path / "wild.safetensors")
    assert not (tmp_path / "wild.safetensors").exists()


def test_progress_is_told(capsys):
    train_detector(*painted(), replace(TINY, epochs=1))
    assert "detector: epoch 1/1, l_ob" in capsys.readouterr().out


def test_colour_is_a_matter_of_channels():
    images, found = painted()
    net = train_detector(images.repeat(1, 3, 1, 1), found, replace(TINY, epochs=1, detector=DetectorConfig(most=4)))
    assert net.channels == 3 and net.config.most == 4
    assert len(net.detect(torch.rand(1, 3, 70, 90))[0]) <= 4


@pytest.mark.parametrize(
    ("images", "found", "message"),
    [
        (torch.zeros(2, 1, 64, 64), [boxes.of_rows()], "There are 2 images and boxes for 1"),
        (torch.zeros(1, 1, 64, 64), [None], "None of the images is labelled"),
        (torch.zeros(0, 1, 64, 64), [], "None of the images is labelled"),
        ([torch.zeros(1, 64, 64), torch.zeros(1, 64, 65)], [boxes.of_rows()] * 2, "of one size"),
        (torch.zeros(2, 64, 64), [boxes.of_rows()] * 2, r"\(C, H, W\) of one size"),
        (torch.zeros(1, 1, 64, 64), [torch.tensor([[9.0, 0, 0, 5, 5]])], "no class 9"),
    ],
)
def test_what_cannot_be_trained_on_is_said(images, found, message):
    with pytest.raises(InputError, match=message):
        train_detector(images, found, TINY)


def test_a_start_of_another_kind_is_refused():
    with pytest.raises(InputError, match="another size, channels or classes"):
        train_detector(*painted(), TINY, start=Detector(3))


# --- learning to find things ------------------------------------------------------------------------------------------


def test_a_short_training_finds_objects_in_scenes_it_has_not_seen():
    """In the infrared of drawn scenes; about 25 s on one core."""
    train, test = (data.open_set("synthetic", split, 128) for split in ("train", "test"))
    config = DetectorTraining(epochs=22, side=128, zoom=(1, 1.5), mosaic=0, average=0.95)
    net = train_detector(train.stack(range(len(train)))[0], [pair.boxes for pair in train], config)
    score = average_precision(net.detect(test.stack(range(len(test)))[0]), [pair.boxes for pair in test])
    assert score.means["mAP50"] >= 0.5


@pytest.mark.data
@pytest.mark.skipif(not (real / "FLIR_ADAS_v1").exists(), reason="FLIR_ADAS_v1 is not here")
def test_eight_real_pairs_are_learned_by_heart():
    """Those with the most boxes, down to four pixels: boxes, scales and decoding agree; about 35 s on one core."""
    read, pairs = labels.boxes_of("RoadScene", real, 256), data.open_set("RoadScene", "train", 256, real)
    found = {name: read(name) for name in labels.labelled("RoadScene", pairs.names)}
    chosen = sorted(found, key=lambda name: -len(found[name]))[:8]
    images = pairs.stack([pairs.names.index(name) for name in chosen])[0]
    config = DetectorTraining(epochs=60, batch=4, side=256, zoom=(1, 1), mosaic=0, mirror=False, average=0.9)
    net = train_detector(images, [found[name] for name in chosen], config)
    score = average_precision(net.detect(images), [found[name] for name in chosen])
    assert sum(score.boxes) > 100 and min(score.boxes) > 0
    assert score.means["mAP50"] > 0.9
