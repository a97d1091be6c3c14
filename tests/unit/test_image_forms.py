"""What a writer wrote from a picture comes back as that picture, in every form that PNG, TIFF, BMP and JPEG have."""

from __future__ import annotations

import json
import os
import re
import struct
import warnings
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import AS_IT_IS, DEPTHS, FORMS, Form, colours, picture, write
from odd_images import ODDS, README, Odd, counts, readme, tiff, with_dead
from PIL import Image

from fusionlib.data.images import read_infrared, read_visible, to_uint8
from fusionlib.support.files import InputError
from fusionlib.support.paths import data_root

pytestmark = pytest.mark.numeric

SUFFIX = {"TIFF": ".tif", "PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp"}
CASES = int(os.environ.get("FUSIONLIB_FUZZ_CASES", 0))
SHARED = data_root().parent / "cases" / "images"  # beside the data sets, where they are
ALIKE = 0.999  # correlation, where a form is lossy or its levels are stretched


def check(folder: Path, form: Form, grey: np.ndarray) -> None:
    """Write a picture in a form and compare what is read."""
    path = folder / f"it{SUFFIX[form.container]}"
    shown = write(path, form, grey)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, rgb = read_visible(path)
        if not form.coloured:
            assert np.array_equal(read_infrared(path)[0], rgb[0])
    seen = np.round(255 * rgb.numpy()).astype(int).transpose(1, 2, 0)
    shown = np.dstack([shown] * 3) if shown.ndim == 2 else shown
    assert seen.shape == shown.shape
    if form.read == AS_IT_IS:
        assert not told
        if form.container == "JPEG" or form.compression == "jpeg" or form.channels == "YCbCr":
            assert np.abs(seen - shown).mean() < 3
        else:
            assert np.array_equal(seen, shown)
        return
    assert told and all(
        str(each.message).endswith("(percentiles 0.1 and 99.9) were stretched to 8 bits.") for each in told
    )
    assert np.corrcoef(seen.ravel(), shown.ravel())[0, 1] > ALIKE
    assert len(np.unique(seen)) >= min(100, len(np.unique(shown)))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_the_table_is_read_rightly(tmp_path: Path, form: Form) -> None:
    check(tmp_path, form, picture())


def test_there_are_enough_forms() -> None:
    assert len(set(FORMS)) == len(FORMS) >= 60


# --- every combination


@st.composite
def forms(draw: st.DrawFn) -> Form:
    container = draw(st.sampled_from(["TIFF"] * 5 + ["PNG"] * 3 + ["JPEG", "BMP"]))
    turned = draw(st.integers(1, 8))
    kinds = ("grey", "grey and alpha", "colour", "colour and alpha")
    if container == "PNG":
        channels = draw(st.sampled_from([*kinds, "palette"]))
        bits = draw(st.sampled_from({"grey": (1, 2, 4, 8, 16), "palette": (1, 2, 4, 8)}.get(channels, (8, 16))))
        writers = [""] + ["OpenCV", "imagecodecs"] * (bits >= 8 and channels in ("grey", "colour", "colour and alpha"))
        writer = draw(st.sampled_from(writers))
        return Form("PNG", bits, channels=channels, turned=1 if writer else turned, writer=writer)
    if container == "JPEG":
        if draw(st.booleans()):
            return Form("JPEG", channels=draw(st.sampled_from(["grey", "colour", "CMYK"])), turned=turned)
        compression, bits = draw(st.sampled_from([("", 12), *(("lossless", bits) for bits in range(8, 17))]))
        return Form("JPEG", bits, compression=compression)
    if container == "BMP":
        if draw(st.booleans()):
            return Form("BMP", channels=draw(st.sampled_from(["grey", "colour", "colour and alpha", "palette"])))
        return Form("BMP", bits=draw(st.sampled_from([1, 8])))
    number, bits = draw(st.sampled_from(DEPTHS + [("unsigned", bits) for bits in (3, 5, 6, 7, 9, 11, 13, 15)]))
    whole = bits in (8, 16, 32, 64)
    channels = draw(st.sampled_from([*kinds, *(["palette"] if (number, bits) == ("unsigned", 8) else [])]))
    compression = draw(st.sampled_from(["", "lzw", "zlib", "zstd", "lzma", "packbits", "lerc"]))
    if not whole or (compression == "lerc" and (bits in (16, 64) or channels != "grey")):
        compression = ""
    predictable = compression in ("lzw", "zlib", "zstd", "lzma") and channels != "palette"
    return Form(
        "TIFF", bits, number, channels if bits > 1 else "grey",
        inverted=channels.startswith("grey") and draw(st.booleans()),
        planar=draw(st.booleans()),
        turned=turned,
        compression=compression,
        predictor=predictable and draw(st.booleans()),
        tiled=whole and draw(st.booleans()),
        # of packed bits tifffile swaps the bytes before it packs them, which nothing could read
        big_endian=whole and compression != "lerc" and draw(st.booleans()),
        big=draw(st.booleans()),
    )  # fmt: skip


@settings(
    max_examples=max(200, CASES // 5), derandomize=not CASES, database=None, deadline=None, print_blob=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(form=forms(), seed=st.integers(0, 99), height=st.integers(32, 80), width=st.integers(32, 80))
def test_what_was_written_comes_back(form: Form, seed: int, height: int, width: int) -> None:
    with TemporaryDirectory() as folder:
        check(Path(folder), form, picture(height, width, seed))


# --- what is not simply read


@pytest.mark.parametrize("odd", ODDS, ids=lambda odd: odd.what)
def test_odd_files_are_told_or_refused(tmp_path: Path, odd: Odd) -> None:
    path = tmp_path / "odd.tif"
    path.write_bytes(odd.content())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if odd.refused:
            for read in (read_infrared, read_visible):
                with pytest.raises(InputError, match=rf"odd\.tif .*{odd.refused}") as failure:
                    read(path)
                assert str(failure.value).endswith(".") and "\n" not in str(failure.value)
            return
        seen = read_infrared(path)[0].numpy()
    assert [bool(re.search(odd.told, str(each.message))) for each in told] == [True] * bool(odd.told)
    if odd.seen is not None:
        assert np.corrcoef(seen[odd.seen].ravel(), picture()[odd.seen].ravel())[0, 1] > ALIKE
        assert len(np.unique(seen[odd.seen])) >= 100


@pytest.mark.parametrize("share", [0.002, 0.02, 0.08])
def test_dead_and_hot_pixels_cost_the_others_nothing(tmp_path: Path, share: float) -> None:
    (path := tmp_path / "dead.tif").write_bytes(tiff(values := with_dead(share)))
    sound = values == counts()
    assert (~sound).mean() == pytest.approx(share, rel=0.05)
    with pytest.warns(UserWarning, match="were set aside as no measurement"):
        seen = read_infrared(path)[0].numpy()
    assert np.corrcoef(seen[sound], picture()[sound])[0, 1] > ALIKE and len(np.unique(seen[sound])) > 200


def test_a_page_can_be_chosen(tmp_path: Path) -> None:
    (path := tmp_path / "many.tif").write_bytes(tiff(picture(), picture()[::-1], counts()))
    assert np.array_equal(to_uint8(read_infrared(path, page=2)[0]), picture()[::-1])
    assert np.array_equal(to_uint8(read_visible(path, page=1)[0][0]), picture())
    with pytest.warns(UserWarning, match="stretched"):
        assert read_infrared(path, page=3).shape == (1, 48, 64)
    for page in (0, 4, -1):
        with pytest.raises(InputError, match=rf"has 3 pages and no page {page}: choose one from 1 to 3"):
            read_infrared(path, page)
    (single := tmp_path / "single.tif").write_bytes(tiff(picture()))
    assert np.array_equal(to_uint8(read_infrared(single, page=2)[0]), picture())  # it has nothing to choose from


@pytest.mark.parametrize("fills", [(-9999,), (-9999, 3000), (-3.4e38, -32768)])
def test_fill_values_cost_the_others_nothing(tmp_path: Path, fills: tuple[float, ...]) -> None:
    """Also where a tool has blurred them into their neighbours."""
    values = 285 + picture() / 10
    for index, fill in enumerate(fills):
        values[10 + 12 * index : 20 + 12 * index, 12:40] = fill
    smooth = np.pad(values, 1, "edge")
    blurred = sum(smooth[i : i + 48, j : j + 64] for i in range(3) for j in range(3)) / 9
    sound = np.abs(blurred - 297) < 30
    for stored in (values, np.where(np.isin(values, fills), values, blurred)):
        (path := tmp_path / "fill.tif").write_bytes(tiff(stored.astype("f4")))
        with pytest.warns(UserWarning, match="were set aside as no measurement"):
            seen = read_infrared(path)[0].numpy()
        assert np.corrcoef(seen[sound], picture()[sound])[0, 1] > 0.99 and len(np.unique(seen[sound])) > 150


@pytest.mark.parametrize("deep", [False, True])
def test_bits_may_run_from_the_lowest(tmp_path: Path, deep: bool) -> None:
    content = tiff(counts() if deep else picture(), extratags=[(267, "H", 1, 2, True)], rowsperstrip=48)
    other, fill_order = (struct.pack("<HHI", tag, 3, 1) for tag in (267, 266))  # which the writer does not write itself
    content = content.replace(other, fill_order)
    with tifffile.TiffFile(BytesIO(content)) as file:
        start, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    turned = np.packbits(np.unpackbits(np.frombuffer(content, "u1", length, start)), bitorder="little").tobytes()
    (path := tmp_path / "order.tif").write_bytes(content[:start] + turned + content[start + length :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = read_infrared(path)[0].numpy()
    assert np.corrcoef(seen.ravel(), picture().ravel())[0, 1] > ALIKE


def test_colour_times_alpha_is_divided_again(tmp_path: Path) -> None:
    alpha = np.clip(picture(), 60, 255)
    stored = np.round(colours(picture()) * (alpha[..., None] / 255)).astype(np.uint8)
    content = tiff(np.dstack([stored, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    (path := tmp_path / "associated.tif").write_bytes(content)
    seen = to_uint8(read_visible(path)[1]).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(seen - colours(picture())).max() <= 3


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_cmyk_of_every_layout_is_read(tmp_path: Path, planar: str) -> None:
    inks = np.dstack([255 - colours(picture()), np.zeros_like(picture())])
    inks = inks if planar == "contig" else np.ascontiguousarray(np.moveaxis(inks, 2, 0))
    (path := tmp_path / "cmyk.tif").write_bytes(tiff(inks, photometric="separated", planarconfig=planar))
    assert np.array_equal(to_uint8(read_visible(path)[1]).permute(1, 2, 0), colours(picture()))


def test_a_bitmap_of_16_bits_a_pixel_is_read(tmp_path: Path) -> None:
    red, green, blue = (colours(picture())[::-1, :, each].astype(np.uint16) for each in range(3))
    rows = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3).astype("<u2").tobytes()
    facts = struct.pack("<IiiHHIIiiII", 40, 64, 48, 1, 16, 3, len(rows), 2835, 2835, 0, 0)
    head = b"BM" + struct.pack("<IHHI", 66 + len(rows), 0, 0, 66)
    (path := tmp_path / "16.bmp").write_bytes(head + facts + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + rows)
    seen = to_uint8(read_visible(path)[1]).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(seen - colours(picture())).max() <= 7  # of 5 bits


def test_two_values_and_one_stay_what_they_are(tmp_path: Path) -> None:
    for name, values in (("two", np.where(picture() > 128, 60_000, 0)), ("one", np.full((48, 64), 7000))):
        (path := tmp_path / f"{name}.tif").write_bytes(tiff(values.astype(np.uint16)))
        with pytest.warns(UserWarning, match=r"stretched to 8 bits(\.|, which leaves 1 of 256 grey levels)"):
            seen = to_uint8(read_infrared(path))[0].numpy()
        assert np.array_equal(seen, np.where(values > 7000, 255, 0))


def test_small_copies_and_masks_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "copies.tif") as file:
        file.write(picture(32, 32), metadata=None, subfiletype=1)
        file.write(picture(), metadata=None)
    assert np.array_equal(to_uint8(read_infrared(tmp_path / "copies.tif")[0]), picture())


def test_the_readme_has_the_table_of_these_cases() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == readme(text), "run `python tests/unit/odd_images.py`"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared cases are not here")
def test_the_shared_cases_are_read_rightly() -> None:
    truth = np.asarray(Image.open(SHARED / "truth.png"))
    for name, facts in json.loads((SHARED / "cases.json").read_text(encoding="utf-8")).items():
        read = (lambda path: read_visible(path)[0]) if facts.get("reader") == "visible" else read_infrared
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seen = read(SHARED / name)[0].numpy()[:, facts.get("ignore_columns", 0) :]
        assert np.corrcoef(seen.ravel(), truth[:, facts.get("ignore_columns", 0) :].ravel())[0, 1] > ALIKE, name
        assert len(np.unique(seen)) >= 100, name
