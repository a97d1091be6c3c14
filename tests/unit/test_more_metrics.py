"""The nine further metrics against values of their reference codes and a second implementation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import plain_metrics
import pytest
import torch
from scipy.ndimage import gaussian_filter
from test_metrics import DTYPES, ROADSCENE, SYNTHETIC, roadscene, synthetic, unit_range

from fusionlib import metrics
from fusionlib.metrics import further
from fusionlib.metrics.directions import direction
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

GOLDENS = json.loads(Path(__file__).with_name("metric_goldens_more.json").read_text(encoding="utf-8"))
NAMES = list(further.DIRECTION)


def assert_golden(name: str, arrays: list[np.ndarray], dtype: torch.dtype) -> None:
    found = metrics.further_metrics(*unit_range(arrays, dtype))
    assert list(found) == NAMES
    for metric, golden in GOLDENS["values"][name].items():
        assert found[metric].shape == (1,) and found[metric].dtype == dtype
        rel = GOLDENS["metrics"][metric]["rel_float64" if dtype == torch.float64 else "rel_float32"]
        expected = math.nan if golden is None else golden
        assert found[metric].item() == pytest.approx(expected, rel=rel, abs=1e-12, nan_ok=True), metric


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("triple", SYNTHETIC, ids=lambda triple: triple["id"])
def test_synthetic_triples_as_in_the_reference_codes(triple, dtype):
    assert_golden(triple["id"], synthetic(triple), dtype)


@pytest.mark.data
@pytest.mark.parametrize("triple", [t for t in ROADSCENE if t["id"] in GOLDENS["values"]], ids=lambda t: t["id"])
def test_roadscene_triples_as_in_the_reference_codes(triple):
    arrays = roadscene(triple)
    for dtype in DTYPES:
        assert_golden(triple["id"], arrays, dtype)


def textures(seed: int) -> list[np.ndarray]:
    """Two sources with edges in common, and one of four fused images; whole levels."""
    rng, size = np.random.default_rng(seed), (176 + seed, 180 + 3 * (seed % 4))
    shared, *own = (gaussian_filter(rng.standard_normal(size), 1 + each % 3) * 8 for each in range(3))
    a, b = (np.clip(128 + 60 * (shared * sign + one), 0, 255).round() for sign, one in zip((1, -1), own, strict=True))
    fused = ((a + b) / 2, np.maximum(a, b), 0.8 * a + 0.2 * b, np.clip(1.4 * (a + b) / 2 - 50, 0, 255))[seed % 4]
    return [a, b, fused.round()]


@pytest.mark.parametrize("seed", range(10))
def test_a_second_implementation_has_the_same_values(seed):
    a, b, f = textures(seed)
    found = metrics.further_metrics(*unit_range([a, b, f], torch.float64))
    for name, value in plain_metrics.further_metrics(a, b, f).items():
        assert found[name].item() == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_a_batch_scores_as_its_images_do_one_by_one():
    triples = [unit_range(synthetic(t), torch.float64) for t in SYNTHETIC if (t["height"], t["width"]) == (96, 128)]
    batch = metrics.further_metrics(*(torch.cat(images) for images in zip(*triples, strict=True)))
    singles = [metrics.further_metrics(*triple) for triple in triples]
    for name, values in batch.items():
        expected = torch.cat([single[name] for single in singles])
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_small_and_flat_images_are_undefined_and_not_wrong():
    small = metrics.further_metrics(*[torch.rand(1, 1, 40, 64)] * 3)
    assert small["VIF"].isnan() and small["MS-SSIM"].isnan()
    flat = metrics.further_metrics(*[torch.full((1, 1, 48, 48), 0.5)] * 3)
    assert flat["VIF"].isnan() and flat["SCD"].isnan()
    assert [flat[name].item() for name in ("EN", "MI", "SD", "SF", "AG", "N_AB/F")] == [0] * 6


def test_every_further_metric_has_a_direction_and_refuses_what_cannot_be_scored():
    assert [name for name in NAMES if direction(name) == "lower"] == ["N_AB/F"]
    for metric in (further.entropy, further.deviation, further.spatial_frequency, further.average_gradient):
        with pytest.raises(InputError):
            metric(torch.full((1, 1, 16, 16), math.nan))
    with pytest.raises(InputError):
        metrics.further_metrics(*[torch.rand(1, 1, 16, 16)] * 2, torch.rand(1, 1, 16, 17))
