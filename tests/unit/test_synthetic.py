"""The synthetic road scenes: the same for the same key, honest boxes, two images that see different things."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fusionlib.data.drawn.street import BICYCLE, CAR, PERSON, Street
from fusionlib.data.drawn.synthetic import Scene, SceneConfig, scene, tight_box
from fusionlib.support.boxes import CLASSES
from fusionlib.support.files import InputError
from fusionlib.support.random_fields import generator

pytestmark = pytest.mark.numeric

DAY, NIGHT = SceneConfig(night_probability=0), SceneConfig(night_probability=1)


@pytest.fixture(scope="module")
def days() -> list[Scene]:
    return [scene(key, config=DAY) for key in range(6)]


@pytest.fixture(scope="module")
def nights() -> list[Scene]:
    return [scene(key, config=NIGHT) for key in range(6)]


def street_of(name: str, height: int, width: int, config: SceneConfig) -> Street:
    """The street behind the scene of this name."""
    rng = generator(name, "layout")
    return Street(rng, height, width, config.night_probability, config.people, config.cyclists, config.cars)


def test_same_key_same_scene_other_key_other_scene():
    first, again, other = scene(("train", 3)), scene(("train", 3)), scene(("train", 4))
    assert first.name == again.name == "synthetic_train_3"
    for field in ("ir", "vi", "rgb", "boxes"):
        assert torch.equal(getattr(first, field), getattr(again, field))
    assert not torch.equal(first.vi, other.vi)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (32, 32), (97, 61), (40, 200), (200, 40)])
def test_images_are_8_bit_valued_and_vi_is_pillows_luma(height, width):
    s = scene("sizes", height, width)
    assert s.ir.shape == s.vi.shape == (1, height, width) and s.rgb.shape == (3, height, width)
    for image in (s.ir, s.vi, s.rgb):
        levels = torch.round(image * 255)
        assert image.dtype == torch.float32 and torch.equal(levels / 255, image)
        assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.02
    rgb8 = np.round(s.rgb.numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.fromarray(rgb8).convert("L")), np.round(s.vi[0].numpy() * 255))


@pytest.mark.parametrize("config", [DAY, NIGHT])
def test_another_resolution_shows_the_same_scene(config):
    small, large = scene(5, 96, 128, config), scene(5, 192, 256, config)
    for name, least in (("ir", 0.97), ("vi", 0.9)):
        shrunk = torch.nn.functional.avg_pool2d(getattr(large, name), 2)
        assert torch.corrcoef(torch.stack([shrunk.flatten(), getattr(small, name).flatten()]))[0, 1] > least
    assert torch.equal(small.boxes[:, 0], large.boxes[:, 0])
    torch.testing.assert_close(small.boxes[:, 1:], large.boxes[:, 1:] / 2, atol=1.0, rtol=0)


def test_boxes_lie_inside_the_image(days, nights):
    for s in days + nights:
        assert s.boxes.dtype == torch.float32 and s.boxes.shape[1] == 5 and len(s.boxes) > 0
        classes, x0, y0, x1, y1 = s.boxes.T
        assert set(classes.tolist()) <= set(range(len(CLASSES)))
        assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= 128).all() and (y1 <= 128).all()
        assert (x1 > x0).all() and (y1 > y0).all()


def test_every_class_occurs(days, nights):
    assert {int(c) for s in days + nights for c in s.boxes[:, 0]} == {PERSON, BICYCLE, CAR}


def test_boxes_are_tight_around_the_visible_part():
    config = SceneConfig(min_visible=0, min_pixels=1e-6, cars=(6, 6), people=(6, 6))
    street = street_of("synthetic_tight", 96, 128, config)
    expected = []
    owners = street.owners()
    for number, (label, _, _) in enumerate(street.objects, start=1):
        points = [(x, y) for y, row in enumerate(owners.tolist()) for x, owner in enumerate(row) if owner == number]
        if points:
            xs, ys = zip(*points, strict=True)
            expected.append([label, min(xs), min(ys), max(xs) + 1, max(ys) + 1])
    assert len(expected) > 6
    found = scene("tight", 96, 128, config).boxes.numpy()
    np.testing.assert_allclose(found, np.array(expected) / [1, *[street.scale] * 4], rtol=1e-6)


def test_hidden_and_tiny_objects_have_no_box():
    loose, strict = (SceneConfig(people=(6, 6), cars=(6, 6), min_visible=v, min_pixels=1e-6) for v in (0, 0.99))
    assert sum(len(scene(k, config=strict).boxes) for k in range(3)) < sum(
        len(scene(k, config=loose).boxes) for k in range(3)
    )
    assert len(scene(0, config=SceneConfig(min_pixels=1e6)).boxes) == 0
    assert scene(0, config=SceneConfig(min_pixels=1e6)).boxes.shape == (0, 5)


def test_tight_box_holds_a_known_mask():
    mask = np.zeros((6, 8), dtype=bool)
    mask[2:5, 3] = mask[4, 3:7] = True
    assert tight_box(mask) == (3, 2, 7, 5)


def test_numbers_of_objects_follow_the_config():
    config = SceneConfig(people=(4, 4), cyclists=(8, 8), cars=(3, 3))
    labels = [label for label, _, _ in street_of("synthetic_count", 64, 64, config).objects]
    assert [labels.count(c) for c in (PERSON, BICYCLE, CAR)] == [4 + 8, 8, 3]  # every bicycle has its rider


def test_infrared_is_no_function_of_the_visible(days, nights):
    for s in days + nights:
        below_sky = slice(int(0.5 * 128), 128)
        pair = torch.stack([s.ir[0, below_sky].flatten(), s.vi[0, below_sky].flatten()])
        assert abs(torch.corrcoef(pair)[0, 1]) < 0.6


def _contrast(image: torch.Tensor, box: torch.Tensor) -> float:
    """Brighter part of what is in the box less the mean of a frame around it."""
    x0, y0, x1, y1 = (round(v) for v in box[1:].tolist())
    inside = image[0, y0:y1, x0:x1]
    window = image[0, max(y0 - 4, 0) : y1 + 4, max(x0 - 4, 0) : x1 + 4]
    around = (window.sum() - inside.sum()) / max(window.numel() - inside.numel(), 1)
    return float(inside.quantile(0.75) - around)


def test_people_shine_in_the_infrared_by_day_and_night(days, nights):
    for group in (days, nights):
        contrasts = [_contrast(s.ir, box) for s in group for box in s.boxes if box[0] == PERSON]
        assert len(contrasts) > 8 and np.mean(np.array(contrasts) > 0.1) > 0.9


def test_night_is_dark_in_the_visible_only(days, nights):
    mean = {name: np.mean([float(s.vi.mean()) for s in group]) for name, group in (("day", days), ("night", nights))}
    assert mean["night"] < 0.5 * mean["day"] and all(s.night for s in nights) and not any(s.night for s in days)
    people = [(s, box) for s in nights for box in s.boxes if box[0] == PERSON]
    assert np.mean([_contrast(s.ir, box) for s, box in people]) > 3 * np.mean(
        [_contrast(s.vi, box) for s, box in people]
    )


@pytest.mark.parametrize(("height", "width"), [(31, 128), (128, 16), (0, 64)])
def test_a_size_too_small_is_said_so(height, width):
    with pytest.raises(InputError, match=f"{height}x{width} pixels is too small"):
        scene(0, height, width)


@pytest.mark.parametrize("broken", [{"people": (5, 2)}, {"cars": (3, 1)}, {"cyclists": (-1, 1)}])
def test_a_reversed_or_negative_range_is_said_so(broken):
    name, numbers = next(iter(broken.items()))
    with pytest.raises(InputError, match=rf"{name}=\({numbers[0]}, {numbers[1]}\) is not a range: give the fewest"):
        SceneConfig(**broken)
