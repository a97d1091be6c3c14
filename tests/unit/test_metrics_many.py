"""The faster metrics have the values of the plain ones, and both those of a second writing in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_metrics import GOLDENS, assert_golden, synthetic
from torch import Tensor

from fusionlib import metrics
from fusionlib.experiments import profiling
from fusionlib.metrics import fusion_plain
from fusionlib.metrics.fusion_many import fusion_metrics, fusion_metrics_many
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

SYNTHETIC = [triple for triple in GOLDENS["triples"] if triple["id"].startswith("SYN")]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 5e-5}  # relative; of the float32 goldens


def triple(height: int, width: int, batch: int = 1) -> list[Tensor]:
    """Two sources and a fused image of 8 bits, with smooth parts and noise."""
    noise = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(2))
    ir, vi = profiling.pair(height, width)
    ir = 0.8 * ir + 0.2 * noise
    return [(image.expand_as(noise) * 255).round() / 255 for image in (ir, vi, (ir + vi) / 2)]


def arrays(images: list[Tensor]) -> list[np.ndarray]:
    return [(image[0, 0].double() * 255).round().numpy() for image in images]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=TOLERANCE[dtype], atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("golden", SYNTHETIC, ids=[golden["id"] for golden in SYNTHETIC])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_synthetic_goldens(golden: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    images = synthetic(golden)
    monkeypatch.setattr(metrics, "fusion_metrics", fusion_metrics)  # `assert_golden` asks there
    assert_golden(golden, images, dtype)


@pytest.mark.parametrize(
    "golden", [one for one in SYNTHETIC if None not in one["values"].values()], ids=lambda one: one["id"]
)
def test_the_second_writing_has_the_values_of_the_goldens(golden: dict) -> None:
    found = fusion_plain.fusion_metrics(*(image.astype(float) for image in synthetic(golden)))
    for name, value in found.items():
        assert value == pytest.approx(golden["values"][name], rel=1e-11, abs=1e-9)


@pytest.mark.parametrize("size", [(11, 11), (130, 70), (300, 33)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_strips_of_all_sizes_in_a_batch(size: tuple, dtype: torch.dtype) -> None:
    images = [image.to(dtype) for image in triple(*size, batch=3)]
    images[1][2] = 0.5  # a constant source of the last, whose NaN stays there
    images[2][1] = torch.rand(size)  # not from 8 bits
    found, expected = fusion_metrics(*images), metrics.fusion_metrics(*images)
    assert found["Q_CC"].isnan().tolist() == [False, False, True]
    assert_same(found, expected, dtype)


def test_flat_and_black_images() -> None:
    a, b, f = triple(40, 48)
    a[..., :20, :] = 0.2
    f[..., 10:30, :] = 0.4
    black = torch.zeros_like(f)
    for images in ((a, b, f), (a, b, black), (black, b, f)):
        assert_same(fusion_metrics(*images), metrics.fusion_metrics(*images), torch.float32)


def test_many_fused_images_score_as_one_by_one_and_stay_as_they_are() -> None:
    ir, vi, fused = (image.double() for image in triple(60, 80, batch=2))
    given = {"mean": fused, "infrared": ir, "visible": vi}
    before = {name: image.clone() for name, image in given.items()}
    found = fusion_metrics_many(ir, vi, given)
    assert list(found) == list(given) and all(torch.equal(before[name], image) for name, image in given.items())
    for name, image in given.items():
        assert_same(found[name], metrics.fusion_metrics(ir, vi, image), torch.float64)
    assert fusion_metrics_many(ir, vi, {}) == {}


def test_what_cannot_be_scored_is_told() -> None:
    ir, vi, fused = triple(40, 40)
    with pytest.raises(InputError, match="fused has values from"):
        fusion_metrics(ir, vi, fused * 255)
    with pytest.raises(InputError, match="mine is"):
        fusion_metrics_many(ir, vi, {"mine": fused[..., :30]})
