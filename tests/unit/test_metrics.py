"""The metrics against values of their reference codes, closed forms and fields made by hand."""

from __future__ import annotations

import hashlib
import json
import math
import os
from functools import cache
from pathlib import Path

import numpy as np
import plain_metrics
import pytest
import torch
from PIL import Image

from fusionlib import metrics
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

GOLDENS = json.loads(Path(__file__).with_name("metric_goldens.json").read_text(encoding="utf-8"))
SYNTHETIC = [triple for triple in GOLDENS["triples"] if "generator" in triple]
ROADSCENE = [triple for triple in GOLDENS["triples"] if "file" in triple]
DTYPES = [torch.float64, torch.float32]
RULES = {
    "avg": lambda a, b: (a + b + 1) // 2,
    "max": np.maximum,
    "vis": lambda a, b: b,
    "identical": lambda a, b: a,
}


@cache
def congruential_noise(seed: int, height: int, width: int) -> np.ndarray:
    state, pixels = seed, []
    for _ in range(height * width):
        state = (1664525 * state + 1013904223) % 2**32
        pixels.append(state >> 24)
    return np.array(pixels).reshape(height, width)


def synthetic_sources(generator: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The integer formulas that metric_goldens.json gives under `generators`."""
    if generator in ("noise", "halfround"):
        a, b = (congruential_noise(seed, height, width) for seed in (1, 2))
        if generator == "halfround":
            a, b = 20 + (a * 171) // 256, 30 + (b * 103) // 256
            a[0, :2], b[0, :2] = (20, 190), (30, 132)
        return a, b
    y, x = np.mgrid[:height, :width]
    texture = ((x * 255) // (width - 1)) ^ ((y * 255) // (height - 1))
    return {
        "tex": (texture, (x * y) % 256),
        "identical": (texture, texture),
        "constA": (np.full_like(texture, 100), texture),
    }[generator]


def hashes(arrays: list[np.ndarray]) -> list[str]:
    return [hashlib.sha256(array.astype(np.uint8).tobytes()).hexdigest() for array in arrays]


def synthetic(triple: dict) -> list[np.ndarray]:
    a, b = synthetic_sources(triple["generator"], triple["height"], triple["width"])
    return [a, b, RULES[triple["rule"]](a, b)]


def roadscene(triple: dict) -> list[np.ndarray]:
    """Of real images; skips the test where they are not here, or decoded to other pixels."""
    root = os.environ.get("FUSIONLIB_DATA")
    if not root or not (Path(root) / "RoadScene").is_dir():
        pytest.skip("FUSIONLIB_DATA names no folder with RoadScene")
    sources = []
    for folder in ("cropinfrared", "crop_LR_visible"):
        with Image.open(Path(root, "RoadScene", folder, triple["file"])) as image:
            sources.append(np.array(image.convert("L")).astype(int))
    arrays = [*sources, RULES[triple["rule"]](*sources)]
    if hashes(arrays) != triple["sha256"]:
        pytest.skip("this JPEG decoder gives other pixels than the one that the reference values were made with")
    return arrays


def unit_range(arrays: list[np.ndarray], dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.tensor(array, dtype=dtype)[None, None] / 255 for array in arrays]


def assert_golden(triple: dict, arrays: list[np.ndarray], dtype: torch.dtype) -> None:
    scores = metrics.fusion_metrics(*unit_range(arrays, dtype))
    assert scores.keys() == triple["values"].keys()
    for name, golden in triple["values"].items():
        assert scores[name].shape == (1,) and scores[name].dtype == dtype
        rel = GOLDENS["metrics"][name]["rel_float64" if dtype == torch.float64 else "rel_float32"]
        expected = math.nan if golden is None else golden
        absolute = GOLDENS["abs_where_value_is_0"] if golden == 0 else 0
        assert scores[name].item() == pytest.approx(expected, rel=rel, abs=absolute, nan_ok=True), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("triple", SYNTHETIC, ids=lambda triple: triple["id"])
def test_synthetic_triples_as_in_the_reference_codes(triple, dtype):
    arrays = synthetic(triple)
    assert hashes(arrays) == triple["sha256"]
    assert_golden(triple, arrays, dtype)


@pytest.mark.data
@pytest.mark.parametrize("triple", ROADSCENE, ids=lambda triple: triple["id"])
def test_roadscene_triples_as_in_the_reference_codes(triple):
    arrays = roadscene(triple)
    for dtype in DTYPES:
        assert_golden(triple, arrays, dtype)


@pytest.mark.parametrize("triple", [t for t in SYNTHETIC if None not in t["values"].values()], ids=lambda t: t["id"])
def test_a_second_implementation_has_the_same_values(triple):
    arrays = synthetic(triple)
    found = metrics.fusion_metrics(*unit_range(arrays, torch.float64))
    for name, value in plain_metrics.fusion_metrics(*(image.astype(float) for image in arrays)).items():
        assert value == pytest.approx(triple["values"][name], rel=1e-11, abs=1e-9)
        assert value == pytest.approx(found[name].item(), rel=1e-9, abs=1e-9)


def test_a_batch_scores_as_its_images_do_one_by_one_and_nan_stays_in_its_row():
    triples = [unit_range(synthetic(t), torch.float32) for t in SYNTHETIC if (t["height"], t["width"]) == (96, 128)]
    batch = metrics.fusion_metrics(*(torch.cat(images) for images in zip(*triples, strict=True)))
    singles = [metrics.fusion_metrics(*triple) for triple in triples]
    for name, scores in batch.items():
        expected = torch.cat([single[name] for single in singles])
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert batch["Q_CV"].isnan().tolist() == [t["id"].startswith("SYN_constA") for t in SYNTHETIC if t["width"] == 128]


@pytest.mark.parametrize("name", ["SYN_tex_70x83_avg", "SYN_noise_80x112_avg", "SYN_halfround_80x112_max"])
def test_the_two_sources_count_alike(name):
    a, b, f = unit_range(synthetic(next(t for t in SYNTHETIC if t["id"] == name)), torch.float64)
    forth, back = metrics.fusion_metrics(a, b, f), metrics.fusion_metrics(b, a, f)
    for metric in forth:  # the reference's order of epsilons makes Q_AB/F differ in the seventh digit at most
        torch.testing.assert_close(forth[metric], back[metric], rtol=1e-6, atol=0)


def q_abf_pixel_by_pixel(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    """Q_AB/F in loops and in the order of the reference, zero gradients included."""

    def edge(image: np.ndarray, row: int, column: int) -> tuple[float, float]:
        (p, q, r), (s, _, t), (u, v, w) = np.pad(image, 1)[row : row + 3, column : column + 3].tolist()
        s_x, s_y = r + 2 * t + w - p - 2 * s - u, u + 2 * v + w - p - 2 * q - r
        return math.sqrt(s_x**2 + s_y**2), math.atan(s_y / (s_x or 1e-5))

    kept = total = 0.0
    for row, column in np.ndindex(a.shape):
        g_f, alpha_f = edge(f, row, column)
        for source in (a, b):
            g, alpha = edge(source, row, column)
            stronger, g = g > g_f, g or 1e-5
            fused_over_source, g_f = g_f / g, g_f or 1e-5
            strength = fused_over_source if stronger else g / g_f
            angle = 1 - abs(alpha - alpha_f) * 2 / math.pi
            kept += g * 0.9994 / (1 + math.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + math.exp(-22 * (angle - 0.8)))
            total += g
    return kept / total


def test_q_abf_in_flat_areas():
    a, b, f = np.full((16, 18), 80.0), np.full((16, 18), 60.0), np.full((16, 18), 90.0)
    a[:, 9:], b[:, :9] = 81, np.linspace(60, 60.001, 9)  # edges where f has none, and areas where none has any
    images = [torch.tensor(image)[None, None] for image in (a, b, f)]
    assert metrics.q_abf(*images).item() == pytest.approx(q_abf_pixel_by_pixel(a, b, f), rel=1e-13)


def test_identical_images_have_the_closed_form():
    image = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = {name: value.item() for name, value in metrics.fusion_metrics(image, image, image).items()}
    most = 0.9994 / (1 + math.exp(-7.5)) * 0.9879 / (1 + math.exp(-4.4))
    assert most == pytest.approx(0.974793625, abs=1e-9)
    assert scores == pytest.approx({"Q_CC": 1, "Q_AB/F": most, "Q_CV": 0, "Q_SSIM": 2}, rel=1e-11, abs=1e-9)


FROM_8_BITS = {
    "divided": lambda levels: levels.float() / 255,
    "multiplied": lambda levels: levels.float() * (1 / 255),
    "then double": lambda levels: (levels.float() / 255).double(),
}


@pytest.mark.parametrize("way", FROM_8_BITS)
def test_values_from_8_bits_return_to_exact_integers_before_halves_are_rounded(way):
    triple = next(t for t in SYNTHETIC if t["generator"] == "halfround")
    levels = [torch.tensor(array)[None, None] for array in synthetic(triple)]
    images = [FROM_8_BITS[way](x) for x in levels]
    exact = [x.to(images[0].dtype) for x in levels]
    scores = metrics.fusion_metrics(*images)
    for name, metric in (("Q_CC", metrics.q_cc), ("Q_AB/F", metrics.q_abf), ("Q_CV", metrics.q_cv)):
        assert torch.equal(scores[name], metric(*exact))
    if way != "divided":  # without the integers the halves fall elsewhere, beyond the tolerance of the reference values
        rough = metrics.q_cv(*(x * 255 for x in images))
        assert not torch.isclose(rough, metrics.q_cv(*exact), rtol=GOLDENS["metrics"]["Q_CV"]["rel_float32"])


def test_values_not_from_8_bits_are_left_alone():
    generator = torch.Generator().manual_seed(1)
    a, b, f = (torch.rand(1, 1, 32, 32, generator=generator, dtype=torch.float64) / 50 for _ in range(3))
    scores = metrics.fusion_metrics(a, b, f)["Q_AB/F"]
    assert torch.equal(scores, metrics.q_abf(a * 255, b * 255, f * 255))
    assert not torch.isclose(scores, metrics.q_abf(*((x * 255).round() for x in (a, b, f))), rtol=1e-2)


def test_constant_sources():
    texture = torch.tensor(synthetic_sources("tex", 64, 64)[0], dtype=torch.float32)[None, None] / 255
    for gray in (0.0, 0.3, 1.0):
        scores = metrics.fusion_metrics(torch.full_like(texture, gray), texture, texture)
        assert scores["Q_CC"].isnan() and scores["Q_AB/F"].isfinite() and scores["Q_SSIM"].isfinite()
        assert scores["Q_CV"].isnan().item() == (gray > 0)  # black is the constant image that can be stretched
    black = torch.zeros_like(texture)
    assert metrics.fusion_metrics(black, black, texture)["Q_CV"].isnan()
    assert metrics.q_cc_bound(black, texture).isnan()


def test_interior_q_cv_takes_the_frame_away():
    source = torch.full((1, 1, 80, 80), 100.0, dtype=torch.float64)
    source[..., 40, 40], source[..., 44, 44] = 0, 255  # keeps the range, and is the only edge inside
    fused = source.clone()
    fused[..., 2:10, 2:10] = 180  # a change where the source has no edge but its frame
    published, interior = (metrics.q_cv(source, source, fused, interior=inside).item() for inside in (False, True))
    assert published > 10
    assert interior < published / 100

    at_frame = torch.full_like(source, 100)
    at_frame[..., 0, 40], at_frame[..., 0, 44] = 0, 255  # edges in the first two rows: the second one still counts
    assert metrics.q_cv(at_frame, at_frame, fused, interior=True).isfinite()


def test_no_fused_image_exceeds_the_bound_of_q_cc():
    generator = torch.Generator().manual_seed(2)
    a, b = unit_range(synthetic(SYNTHETIC[0])[:2], torch.float64)
    bound = metrics.q_cc_bound(a, b)
    candidates = [(a + b) / 2, torch.maximum(a, b), a, b]
    candidates += [torch.rand(a.shape, generator=generator, dtype=a.dtype) for _ in range(5)]
    candidates += [share * a + (1 - share) * b for share in torch.linspace(0, 1, 11).tolist()]
    for fused in candidates:
        assert metrics.fusion_metrics(a, b, fused)["Q_CC"] <= bound + 1e-12
    best = (a - a.mean()) / a.std() + (b - b.mean()) / b.std()
    best = (best - best.min()) / (best.max() - best.min())
    assert metrics.fusion_metrics(a, b, best)["Q_CC"].item() == pytest.approx(bound.item(), rel=1e-12)


IMAGE = torch.linspace(0, 1, 2 * 16 * 16).view(2, 1, 16, 16)
BAD = {
    "shape": IMAGE[0],
    "channels": IMAGE.expand(2, 3, 16, 16),
    "size": IMAGE[..., :15],
    "batch": IMAGE[:1],
    "empty": IMAGE[:0],
    "dtype": IMAGE.half(),
    "mixed dtypes": IMAGE.double(),
    "integers": (IMAGE * 255).to(torch.uint8),
    "nan": IMAGE.masked_fill(IMAGE > 0.9, math.nan),
    "infinite": IMAGE.masked_fill(IMAGE > 0.9, -math.inf),
    "range": IMAGE * 255,
    "negative": IMAGE - 0.5,
}


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_images_that_cannot_be_scored(bad, position):
    images = [IMAGE] * 3
    images[position] = bad
    with pytest.raises(InputError) as error:
        metrics.fusion_metrics(*images)
    message = str(error.value)
    assert message.endswith(".") and ". " not in message and "\n" not in message


def test_images_smaller_than_the_window_of_ssim():
    assert metrics.fusion_metrics(*[IMAGE[..., :11, :11]] * 3)["Q_SSIM"].tolist() == pytest.approx([2, 2])
    with pytest.raises(InputError, match="at least 11 pixels"):
        metrics.fusion_metrics(*[IMAGE[..., :10]] * 3)


def test_endpoint_error_of_a_field_made_by_hand():
    phi_gt = torch.zeros(2, 2, 4, 5)
    phi = phi_gt.clone()
    phi[0, 0, 1, 2], phi[0, 1, 1, 2] = 3, -4  # 5 px off at one of 20 pixels
    phi[1, 0] = 2  # 2 px off everywhere
    assert metrics.endpoint_error(phi, phi_gt).tolist() == pytest.approx([5 / 20, 2])

    valid = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    valid[0, :, 1, :4] = True
    phi[0, :, 3, 3] = math.nan  # an invalid pixel may hold anything
    errors = metrics.endpoint_error(phi, phi_gt, valid)
    assert errors[0].item() == pytest.approx(5 / 4)
    assert errors[1].isnan()


def test_ncc_and_mse():
    generator = torch.Generator().manual_seed(3)
    a = torch.rand(3, 1, 12, 13, generator=generator, dtype=torch.float64)
    b = torch.stack([0.5 * a[0] + 0.2, 1 - a[1], torch.full_like(a[2], 0.3)])
    assert metrics.ncc(a, b).tolist() == pytest.approx([1, -1, math.nan], nan_ok=True)
    assert metrics.mse(a, a + 0.1).tolist() == pytest.approx([0.01] * 3)

    valid = torch.zeros(3, 1, 12, 13, dtype=torch.bool)
    valid[:2, :, 2:9, 3:8] = True
    c, d = (torch.where(valid, x, math.nan) for x in (a, a.flip(0)))
    inside = np.corrcoef(a[0, 0, 2:9, 3:8].flatten(), a[2, 0, 2:9, 3:8].flatten())[0, 1]
    assert metrics.ncc(c[:1], a[2:], valid[:1]).item() == pytest.approx(inside, rel=1e-12)
    assert metrics.mse(c, d, valid)[1].item() == 0
    assert metrics.ncc(c, d, valid)[2].isnan() and metrics.mse(c, d, valid)[2].isnan()


@pytest.mark.parametrize("metric", [metrics.endpoint_error, metrics.ncc, metrics.mse])
def test_registrations_that_cannot_be_scored(metric):
    good = torch.zeros(1, 2 if metric is metrics.endpoint_error else 1, 6, 7)
    mask = torch.ones(1, 1, 6, 7, dtype=torch.bool)
    for x, y, valid in [
        (good, good[..., :6], None),
        (good[0], good[0], None),
        (good.repeat(1, 3, 1, 1), good.repeat(1, 3, 1, 1), None),
        (good, good.double(), None),
        (good.long(), good.long(), None),
        (good, good, mask.float()),
        (good, good, mask[..., :6]),
    ]:
        with pytest.raises(InputError):
            metric(x, y, valid)


def test_every_metric_has_a_direction():
    lower = {name for name, way in metrics.DIRECTION.items() if way == "lower"}
    assert metrics.fusion_metrics(IMAGE, IMAGE, IMAGE).keys() | {"EPE", "NCC", "MSE"} == metrics.DIRECTION.keys()
    assert lower == {"Q_CV", "EPE", "MSE"}
