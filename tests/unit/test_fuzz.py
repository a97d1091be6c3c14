"""Random input gives a right result or one clear InputError, and never another exception or a stray warning.

500 cases in all by default, always the same; FUSIONLIB_FUZZ_CASES=10000 draws so many new ones, as a nightly run does.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from fusionlib import deformation, metrics, presets
from fusionlib.data import open_folders, open_set, read_pair
from fusionlib.data import volumes as mri
from fusionlib.data.images import SMALLEST_SIDE, read_infrared, read_visible, recolour, resize, save_image, to_uint8
from fusionlib.deformation import Level, compose, fold_share, invert, misalign, sample_field, warp
from fusionlib.reproduce.notebooks import Notebook, checked_parameters
from fusionlib.support.command_line import parameter
from fusionlib.support.files import InputError
from fusionlib.support.weights import read_header

Result = TypeVar("Result")
CASES = int(os.environ.get("FUSIONLIB_FUZZ_CASES", 0))


def share(part: float) -> settings:
    """Settings of a test that takes this part of all cases."""
    return settings(
        max_examples=round(part * (CASES or 500)),
        derandomize=not CASES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def right_or_clear(call: Callable[[], Result], *warn: str) -> Result | None:
    """What a call gives, or None if it says in one sentence why it cannot; its warnings must speak of `warn`."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result = call()
        except InputError as error:
            sentence = str(error)
            assert sentence.endswith(".") and "\n" not in sentence and 20 < len(sentence) < 1000, sentence
            result = None
    strays = [
        each for each in told if each.category is not UserWarning or not any(w in str(each.message) for w in warn)
    ]
    assert not strays, [str(each.message) for each in strays]
    return result


# --- image files

MODES = {
    ".png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    ".tif": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"),
    ".bmp": ("1", "L", "P", "RGB"),
    ".jpg": ("L", "RGB", "CMYK"),
}
DEPTHS = {"I": np.int32, "I;16": np.uint16, "F": np.float32}


@st.composite
def pictures(draw: st.DrawFn) -> tuple[str, bytes, tuple[int, int], bool]:
    """An image file: suffix, content, its (height, width) as shown, and whether nobody has tampered with it."""
    suffix = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[suffix]))
    side = st.integers(1, 40) | st.integers(SMALLEST_SIDE, 90)
    height, width = draw(side), draw(side)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode in DEPTHS:
        low, high = sorted((draw(st.integers(0, 65535)), draw(st.integers(0, 65535))))
        pixels = rng.integers(low, high + 1, (height, width)).astype(DEPTHS[mode])
        if mode == "F":
            pixels *= np.float32(draw(st.sampled_from([1, 1e-3, -1, 1e30])))
            if draw(st.booleans()):
                pixels.flat[rng.integers(pixels.size)] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        image = Image.fromarray(pixels)
    else:
        levels = draw(st.sampled_from([1, 2, 256]))
        image = Image.fromarray(rng.integers(0, levels, (height, width, 3)).astype(np.uint8))
        image = image.convert("RGB").convert("P") if mode in ("P", "PA") else image
        image = image.convert(mode)
        if mode == "P" and draw(st.booleans()):
            image.info["transparency"] = 0
    turned, options = draw(st.integers(1, 8)), {}
    if suffix in (".png", ".jpg"):
        exif = Image.Exif()
        exif[0x0112] = turned
        options["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, {".tif": "TIFF", ".jpg": "JPEG"}.get(suffix, suffix[1:].upper()), **options)
    shown = (width, height) if options and turned >= 5 else (height, width)
    content, tampered = draw(tampering(stream.getvalue()))
    finite = mode != "F" or bool(np.isfinite(pixels).all())
    return suffix, content, shown, not tampered and finite


@st.composite
def tampering(draw: st.DrawFn, content: bytes) -> tuple[bytes, bool]:
    """The content as it is, cut off, with some bytes changed, or something else altogether; and whether it changed."""
    kind = draw(st.sampled_from(["whole", "whole", "cut", "changed", "noise"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))], True
    if kind == "changed":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            changed[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        return bytes(changed), bytes(changed) != content
    if kind == "noise":
        return content[: draw(st.integers(0, 16))] + draw(st.binary(max_size=300)), True
    return content, False


def assert_picture(image: Tensor, channels: int) -> None:
    assert image.dtype == torch.float32 and image.shape[0] == channels and min(image.shape[1:]) >= SMALLEST_SIDE
    assert torch.equal(to_uint8(image).float() / 255, image)  # finite, in [0, 1], and every value k / 255


@share(0.35)
@given(first=pictures(), second=pictures(), size=st.none() | st.integers(1, 70))
def test_image_files(first: tuple, second: tuple, size: int | None) -> None:
    with TemporaryDirectory() as folder:
        paths = []
        for name, (suffix, content, shown, sound) in (("ir", first), ("vi", second)):
            path = Path(folder, f"{name}{suffix}")
            path.write_bytes(content)
            paths.append(path)
            ir = right_or_clear(lambda path=path: read_infrared(path), str(path))
            both = right_or_clear(lambda path=path: read_visible(path), str(path))
            assert (ir is None) == (both is None)  # one file, one answer
            if sound:
                assert (ir is not None) == (min(shown) >= SMALLEST_SIDE)
            if ir is not None:
                vi, rgb = both
                assert_picture(ir, 1), assert_picture(vi, 1), assert_picture(rgb, 3)
                assert ir.shape == vi.shape and rgb.shape[1:] == vi.shape[1:]
                assert not sound or tuple(ir.shape[1:]) == shown
                written = save_image(Path(folder, "out.png"), recolour(vi, rgb))
                assert (read_visible(written)[1] - rgb).abs().max() <= 1.01 / 255  # luma is rounded
                if smaller := right_or_clear(lambda rgb=rgb: resize(rgb, size or 31)) is not None:
                    assert (size or 31) >= SMALLEST_SIDE and smaller
        pair = right_or_clear(lambda: read_pair(*paths, size=size), *map(str, paths))
        if pair is not None:
            assert_picture(pair.ir, 1), assert_picture(pair.vi, 1), assert_picture(pair.rgb, 3)
            assert pair.ir.shape == pair.vi.shape and (size is None or pair.ir.shape == (1, size, size))
        elif all(sound for *_, sound in (first, second)):
            assert first[2] != second[2] or min(first[2]) < SMALLEST_SIDE or (size or 99) < SMALLEST_SIDE


# --- volumes and weights


@st.composite
def volumes(draw: st.DrawFn) -> tuple[str, bytes]:
    """A NIfTI file of any kind: suffix and content."""
    dtype = draw(st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]))
    shape = draw(st.lists(st.integers(1, 60), min_size=2, max_size=4).filter(lambda shape: np.prod(shape) < 2e5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    data = (rng.normal(draw(st.sampled_from([0, 100])), 30, shape)).astype(dtype)
    if dtype in (np.float32, np.float64) and draw(st.booleans()):
        data.flat[0] = draw(st.sampled_from([np.nan, np.inf]))
    axes = draw(st.permutations([0, 1, 2]))
    affine = np.eye(4)
    steps = [draw(st.sampled_from([1.0, -1.0, 1.0, 2.0, 0.0])) for _ in range(3)]
    affine[:3, :3] = np.eye(3)[axes] * steps
    image = nibabel.Nifti1Image(data, None)
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    image.header["sform_code"] = 1
    content, _ = draw(tampering(image.to_bytes()))
    suffix = draw(st.sampled_from([".nii", ".nii.gz"]))
    if suffix == ".nii.gz" and draw(st.integers(0, 3)):
        content, _ = draw(tampering(gzip.compress(content, 1, mtime=0)))
    return suffix, content


@share(0.15)
@given(first=volumes(), second=st.none() | volumes(), every=st.integers(1, 5))
def test_volumes_and_weights(first: tuple[str, bytes], second: tuple[str, bytes] | None, every: int) -> None:
    with TemporaryDirectory() as folder:
        paths = []
        for name, (suffix, content) in (("t1", first), ("t2", second or first)):
            paths.append(Path(folder, f"{name}{suffix}"))
            paths[-1].write_bytes(content)
        subject = right_or_clear(lambda: mri.read_subject(*paths, every=every), "no background of 0")
        if subject is not None:
            assert subject.t1.shape == subject.t2.shape == (len(subject.heights), mri.SIDE, mri.SIDE)
            assert subject.t1.dtype == np.uint8 and subject.t1.max() == 255
            assert all(height % every == 0 for height in subject.heights)
        weights = Path(folder, "ours.safetensors")
        weights.write_bytes(first[1])
        assert right_or_clear(lambda: read_header(weights)) is None  # no volume is a file of weights


# --- metrics


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    """Images (B, C, H, W), most of them as the metrics want them, of any layout in memory."""
    shape = [draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 1, 1, 2])), *(draw(st.integers(9, 40)) for _ in "HW")]
    kind = draw(st.sampled_from(["noise", "noise", "8 bits", "constant", "half black"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    image = torch.rand(shape, generator=generator, dtype=torch.float64)
    if kind == "8 bits":
        image = (image * 255).round() / 255
    elif kind == "constant":
        image[:] = draw(st.sampled_from([0.0, 0.5, 1.0]))
    elif kind == "half black":
        image[..., : shape[-1] // 2] = 0
    odd = draw(st.sampled_from([None] * 9 + [np.nan, np.inf, -0.5, 300.0]))
    if odd is not None:
        image[..., 0, 0] = odd
    image = image.to(draw(st.sampled_from([torch.float32] * 4 + [torch.float64] * 2 + [torch.float16, torch.int32])))
    layout = draw(st.sampled_from(["plain", "turned", "strided", "flipped", "expanded"]))
    if layout == "turned":
        image = image.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif layout == "strided":
        image = image.repeat_interleave(2, -1)[..., ::2]
    elif layout == "flipped":
        image = image.flip(-2)
    elif layout == "expanded":
        image = image[:1].expand(shape)
    return image


LIMITS = {"Q_CC": (-1, 1), "Q_AB/F": (0, 1), "Q_CV": (0, float("inf")), "Q_SSIM": (-2, 2)}


@share(0.2)
@given(data=st.data(), ir=batches())
def test_metrics(data: st.DataObject, ir: Tensor) -> None:
    same = st.integers(0, 2**31).map(lambda seed: ir[..., :: (-1) ** 0].roll(seed % 7, -1).flip(-2))
    vi, fused = data.draw(same | batches()), data.draw(same | batches())
    found = right_or_clear(lambda: metrics.fusion_metrics(ir, vi, fused))
    fits = [each.dtype in (torch.float32, torch.float64) and each.shape[1] == 1 for each in (ir, vi, fused)]
    fits += [bool(((each >= 0) & (each <= 1)).all()) for each in (ir, vi, fused)]
    fits += [(each.shape, each.dtype) == (ir.shape, ir.dtype) for each in (vi, fused)]
    assert (found is not None) == (all(fits) and min(ir.shape[-2:]) >= metrics.WINDOW)
    if found is None:
        return
    bound = metrics.q_cc_bound(ir, vi)
    assert not (found["Q_CC"] > bound + 1e-4).any()
    copies = metrics.fusion_metrics(*(each.clone(memory_format=torch.contiguous_format) for each in (ir, vi, fused)))
    first = metrics.fusion_metrics(ir[:1], vi[:1], fused[:1])
    for name, values in found.items():
        low, high = LIMITS[name]
        assert values.shape == (len(ir),) and values.dtype == ir.dtype
        assert (values.isnan() | ((values >= low - 1e-6) & (values <= high + 1e-6))).all(), (name, values)
        assert torch.allclose(values, copies[name], rtol=1e-4, atol=1e-6, equal_nan=True), name
        assert torch.allclose(values[:1], first[name], rtol=1e-4, atol=1e-6, equal_nan=True), (
            name
        )  # whatever stands beside
    constant = torch.tensor([bool((each == each.flatten()[0]).all()) for each in fused])
    assert (found["Q_CC"].isnan() >= constant).all()


@share(0.05)
@given(data=st.data(), height=st.integers(1, 20), width=st.integers(1, 20), channels=st.sampled_from([1, 2]))
def test_registration_metrics(data: st.DataObject, height: int, width: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    a, b = torch.randn(2, 2, channels, height, width, generator=generator)
    valid = torch.rand(2, 1, height, width, generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    a = torch.where(valid, a, torch.nan)  # what does not count may hold anything
    found = right_or_clear(lambda: metrics.endpoint_error(a, b, valid))
    assert (found is not None) == (channels == 2)
    if found is not None:
        assert (found.isnan() == ~valid.flatten(1).any(1)).all() and not (found < 0).any()
    likeness = right_or_clear(lambda: metrics.ncc(a, b, valid))
    assert (likeness is not None) == (channels == 1)
    if likeness is not None:
        assert (likeness.isnan() | (likeness.abs() <= 1 + 1e-6)).all()


# --- fields


@share(0.15)
@given(
    translation=st.floats(0, 0.1),
    rotation=st.floats(0, 10),
    elastic=st.floats(0, 0.015),  # stronger ones fold, or nearly so, which `invert` does not promise to undo
    scale=st.floats(0, 0.1),
    sides=st.tuples(st.integers(16, 70), st.integers(16, 70)),
    key=st.tuples(st.integers(), st.text(max_size=5)),
)
def test_fields(translation: float, rotation: float, elastic: float, scale: float, sides: tuple, key: tuple) -> None:
    level = Level("drawn", translation, rotation, elastic, scale=scale)
    psi = right_or_clear(lambda: sample_field(level, *sides, key))
    if psi is None:
        return  # it folds in every draw
    assert psi.shape == (1, 2, *sides) and psi.isfinite().all() and fold_share(psi) == 0
    assert torch.equal(psi, sample_field(level, *sides, key))
    nothing = torch.zeros_like(psi)
    image = torch.rand(1, 1, *sides, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(warp(image, nothing), image, atol=1e-6)
    assert torch.allclose(compose(nothing, psi), psi) and torch.allclose(compose(psi, nothing), psi, atol=1e-5)
    moved = misalign(image, psi)
    assert moved.ir.min() >= image.min() - 1e-6 and moved.ir.max() <= image.max() + 1e-6
    assert moved.valid.dtype == torch.bool and moved.phi_gt.isfinite().all()
    left = compose(psi, invert(psi)).norm(dim=1, keepdim=True)[moved.valid]
    assert not len(left) or left.max() < 0.01  # pixels, of a displacement that is undone
    other = torch.zeros(1, 2, sides[0] + 1, sides[1])
    assert right_or_clear(lambda: warp(image, other)) is None


# --- settings

PRINTED = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8)  # a message is one line
NAMES = st.sampled_from([*presets.PRESETS, "Mini", "RoadScene", "synthetic", "light", "../mini", ""]) | PRINTED


def paths_of(config: object, before: str = "") -> list[str]:
    """Dotted paths of all settings of a tree of dataclasses."""
    found = []
    for each in fields(config):
        value = getattr(config, each.name)
        found.append(before + each.name)
        found += paths_of(value, f"{before}{each.name}.") if is_dataclass(value) else []
    return found


PATHS = [path for path in paths_of(presets.PRESETS["mini"]) if path != "name"]
TEXTS = [path for path in PATHS if path.rpartition(".")[2] in ("dataset", "schedule", "validation_level", "level")]
TEXTS += [path for path in PATHS if path.rpartition(".")[2] in ("common_input", "msrb", "size")]
VALUES = st.none() | st.booleans() | st.integers(-3, 400) | st.floats(allow_nan=False) | st.text(max_size=4)


@share(0.1)
@given(
    name=NAMES, path=st.sampled_from(PATHS) | st.text(max_size=12), value=VALUES, seed=st.integers(0, 9), text=st.text()
)
def test_settings(name: str, path: str, value: object, seed: int, text: str) -> None:
    preset = right_or_clear(lambda: presets.load(name, seed))
    assert (preset is not None) == (name in presets.PRESETS)
    changed = right_or_clear(lambda: presets.changed(preset or presets.PRESETS["mini"], path, value))
    if path in PATHS and isinstance(value, str) and path not in TEXTS:
        assert changed is None
    if changed is not None:
        found = changed
        for part in path.split("."):
            found = getattr(found, part)
        assert found == value and path in paths_of(changed)
    right_or_clear(lambda: open_set(name, text[:3] or None, size=64, root="nowhere", count=1))
    right_or_clear(lambda: open_folders(f"nowhere/{name}", "."))
    level = right_or_clear(lambda: deformation.get_level(name))
    assert (level is not None) == (name in deformation.LEVELS)

    read = right_or_clear(lambda: parameter(text))
    assert isinstance(read, str | int | float | bool | list | tuple | dict | set | complex | bytes | None)
    notebook = Notebook(Path("03_a.ipynb"), (), {"seed": "int", "epochs": "int", "set": "str", "rate": "float"}, ())
    chosen = {path.rpartition(".")[2]: value}
    given_on = right_or_clear(lambda: checked_parameters(chosen, [notebook]))
    assert given_on is None or json.loads(json.dumps(given_on)) == given_on
    if "epochs" in chosen:
        assert (given_on is not None) == (type(value) is int)


def test_as_many_cases_run_as_are_promised() -> None:
    shares = [0.35, 0.15, 0.2, 0.05, 0.15, 0.1]
    assert sum(share(part).max_examples for part in shares) == (CASES or 500)
    assert sum(shares) == pytest.approx(1)
