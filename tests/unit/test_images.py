"""Image files: every depth and colour form gives the documented tensors, every unusable one a clear sentence."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from pictures import noise, write
from PIL import Image
from torch import Tensor

from fusionlib.data.decode import decode
from fusionlib.data.images import (
    luma,
    read_infrared,
    read_visible,
    recolour,
    resize,
    save_image,
    size_of,
    to_tensor,
    to_uint8,
)
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric


def test_an_8_bit_infrared_image_is_read_as_it_is(tmp_path: Path) -> None:
    pixels = noise(40, 48)
    ir = read_infrared(write(tmp_path / "a.png", pixels))
    assert ir.dtype == torch.float32
    assert np.array_equal(ir.numpy(), (pixels / np.float32(255))[None])


def test_grey_in_three_channels_is_no_colour(tmp_path: Path) -> None:
    pixels = noise(40, 48)
    ir = read_infrared(write(tmp_path / "a.png", np.stack([pixels] * 3, axis=2)))
    assert np.array_equal(ir.numpy(), (pixels / np.float32(255))[None])


def test_a_coloured_infrared_image_becomes_luma_with_a_warning(tmp_path: Path) -> None:
    pixels = noise(40, 48, 3)
    path = write(tmp_path / "iron.png", pixels)
    with pytest.warns(UserWarning, match=r"iron\.png is a coloured infrared image and was converted to luma"):
        ir = read_infrared(path)
    exact = pixels @ [0.299, 0.587, 0.114]
    assert np.abs(255 * ir.numpy()[0] - exact).max() <= 0.51


@pytest.mark.parametrize(("suffix", "dtype"), [("png", np.uint16), ("tif", np.int32), ("tif", np.float32)])
def test_a_deep_image_is_stretched_to_8_bits_with_a_warning(tmp_path: Path, suffix: str, dtype: type) -> None:
    counts = np.linspace(7000, 9000, 100 * 100).reshape(100, 100).astype(dtype)
    counts[0, 0], counts[-1, -1] = 0, 65535  # two broken pixels, which must not decide the range
    path = write(tmp_path / f"thermal.{suffix}", counts)
    with pytest.warns(UserWarning, match="deeper than 8 bits: its values from 700.* to 899.* were stretched"):
        levels = 255 * read_infrared(path).double()
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert levels[0, 0, 0] == 0 and levels[0, -1, -1] == 255
    ramp = torch.linspace(0, 255, 100 * 100, dtype=torch.float64).reshape(1, 100, 100)
    assert (levels - ramp).abs()[0, 1:-1].max() < 1.5


def test_a_flat_deep_image_is_black_and_finite(tmp_path: Path) -> None:
    path = write(tmp_path / "flat.tif", np.full((40, 40), 3000, np.uint16))
    with pytest.warns(UserWarning, match="stretched"):
        assert read_infrared(path).eq(0).all()


def test_colour_and_luma_of_the_visible_image_are_pillow_s(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", noise(40, 48, 3))
    vi, rgb = read_visible(path)
    assert vi.shape == (1, 40, 48) and rgb.shape == (3, 40, 48)
    assert np.array_equal(to_uint8(vi)[0], np.asarray(Image.open(path).convert("L")))
    assert np.array_equal(to_uint8(rgb).permute(1, 2, 0), np.asarray(Image.open(path)))


def test_grey_visible_gives_three_equal_channels(tmp_path: Path) -> None:
    vi, rgb = read_visible(write(tmp_path / "a.png", noise(40, 48)))
    assert torch.equal(rgb, vi.expand(3, -1, -1))


def test_alpha_is_dropped_and_a_palette_expanded(tmp_path: Path) -> None:
    colour = noise(40, 48, 3)
    _, rgb = read_visible(write(tmp_path / "alpha.png", np.dstack([colour, noise(40, 48)])))
    assert np.array_equal(to_uint8(rgb).permute(1, 2, 0), colour)
    grey = noise(40, 48)
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    assert np.array_equal(to_uint8(read_infrared(tmp_path / "palette.png"))[0], grey)
    ir = read_infrared(write(tmp_path / "la.png", np.dstack([grey] * 3 + [grey]), mode="LA"))
    assert np.array_equal(to_uint8(ir)[0], grey)


def test_an_image_turned_by_its_camera_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(noise(40, 48)).save(tmp_path / "phone.png", exif=exif)
    assert read_infrared(tmp_path / "phone.png").shape == (1, 48, 40)


def test_a_photograph_with_damaged_exif_is_read_as_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    Image.fromarray(noise(40, 48)).save(path, exif=b"Exif\0\0XXgarbage")
    assert read_infrared(path).shape == (1, 40, 48)


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("read", [read_infrared, read_visible])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, read) -> None:
    path = write(tmp_path / f"half.{suffix}", noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(InputError, match=r"half\.\w+ cannot be read as an image .*: replace it or convert it"):
        read(path)


def test_files_that_are_no_image_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "empty.png"):
        with pytest.raises(InputError, match=f"{name} cannot be read as an image"):
            read_visible(tmp_path / name)
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        read_infrared(tmp_path / "gone.png")


def test_a_tiny_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"48x31 pixels: give an image of at least 32"):
        read_infrared(write(tmp_path / "tiny.png", noise(31, 48)))
    assert read_infrared(write(tmp_path / "small.png", noise(32, 32))).shape == (1, 32, 32)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_refused(tmp_path: Path, value: float) -> None:
    pixels = noise(40, 48, dtype=np.float32)
    pixels[5, 5] = value
    with pytest.raises(InputError, match=r"holds NaN or infinite values: replace them"):
        read_infrared(write(tmp_path / "broken.tif", pixels))


# --- tensors, colour and writing -------------------------------------------------------------------------------------


def test_tensors_are_made_of_bytes_and_luma_is_pillow_s() -> None:
    pixels = noise(40, 48, 3)
    rgb = to_tensor(pixels)
    assert rgb.dtype == torch.float32 and np.array_equal(rgb.numpy(), pixels.transpose(2, 0, 1) / np.float32(255))
    assert torch.equal(to_tensor(pixels[..., 0]), rgb[:1])
    assert np.array_equal(to_uint8(luma(rgb))[0], np.asarray(Image.fromarray(pixels).convert("L")))
    assert torch.equal(luma(rgb[:1].expand(3, -1, -1)), rgb[:1])


def test_resizing_is_pillow_s_bicubic_on_8_bits() -> None:
    pixels = noise(40, 48, 3)
    expected = Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(to_uint8(resize(to_tensor(pixels), (64, 96))).permute(1, 2, 0), np.asarray(expected))
    assert resize(to_tensor(pixels[..., 0]), 33).shape == (1, 33, 33)
    with pytest.raises(InputError, match=r"8x64 is too small: ask for 32 pixels or more"):
        resize(to_tensor(pixels), (64, 8))


def test_recolour_changes_the_luma_and_keeps_the_chroma() -> None:
    generator = torch.Generator().manual_seed(0)
    rgb = 0.3 + 0.4 * torch.rand(2, 3, 40, 48, generator=generator)
    fused = 0.4 + 0.2 * torch.rand(2, 1, 40, 48, generator=generator)
    to_ycbcr = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    result = recolour(fused, rgb)
    inside = ((result > 0) & (result < 1)).all(dim=1)
    assert inside.float().mean() > 0.9
    before, after = (torch.einsum("ij,bjhw->bihw", to_ycbcr, image) for image in (rgb, result))
    assert torch.allclose(after[:, 0][inside], fused[:, 0][inside], atol=1e-5)
    for chroma in (1, 2):
        assert torch.allclose(after[:, chroma][inside], before[:, chroma][inside], atol=1e-5)
    assert recolour(torch.ones(1, 40, 48), rgb[0]).max() == 1


def test_an_image_survives_writing_and_reading(tmp_path: Path) -> None:
    rgb = torch.from_numpy(noise(3, 40, 48)).float() / 255
    _, again = read_visible(save_image(tmp_path / "new" / "rgb.png", rgb[None]))
    assert torch.equal(again, rgb)
    assert torch.equal(read_infrared(save_image(tmp_path / "grey.png", rgb[:1])), rgb[:1])
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["grey.png", "rgb.png"]
    with pytest.raises(InputError, match=r"name that ends in \.png"):
        save_image(tmp_path / "lossy.jpg", rgb)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (torch.full((1, 40, 48), 200, dtype=torch.uint8), "torch.uint8 from 200 to 200: give floating numbers"),
        (torch.full((1, 40, 48), 255.0), "from 255 to 255: give floating numbers in"),
        (torch.zeros(2, 40, 48), r"shape \(2, 40, 48\) cannot be written"),
        (torch.zeros(2, 1, 40, 48), "one at a time"),
        (torch.zeros(40, 48), "cannot be written"),
    ],
    ids=["bytes", "0 to 255", "two channels", "two images", "no channel"],
)
def test_what_is_no_image_is_not_written(tmp_path: Path, image: Tensor, why: str) -> None:
    with pytest.raises(InputError, match=why):
        save_image(tmp_path / "new.png", image)
    assert not list(tmp_path.iterdir())


def test_to_uint8_rounds_and_clamps() -> None:
    levels = torch.tensor([-1.0, 0.49 / 255, 0.51 / 255, 254.4 / 255, 2.0])
    assert to_uint8(levels).tolist() == [0, 0, 1, 254, 255]
    every = torch.arange(256)
    assert torch.equal(to_uint8(every.float() / 255).long(), every)


def test_nan_is_no_grey_and_nothing_is_written(tmp_path: Path) -> None:
    image = torch.full((1, 40, 40), 0.5)
    image[0, 3, 3] = torch.nan
    with pytest.raises(InputError, match="An image contains NaN; replace those pixels"):
        save_image(tmp_path / "black.png", image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [1.5, 3])  # Pillow warns of the one and refuses the other
def test_an_image_that_claims_to_be_huge_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    path = write(tmp_path / "huge.png", noise(60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(3600 / share))
    with pytest.raises(InputError, match=r"huge.png has more than 0 million pixels, by its header: give a smaller"):
        read_infrared(path)


def test_a_damaged_part_that_the_image_does_without_is_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    path.write_bytes(b"II*\x00\x08\x00\x00\x00")  # Pillow finds no image, and warns of its EXIF on the way
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_infrared(path)


def test_one_huge_value_in_a_flat_image_overflows_nothing(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64), dtype=np.float32)
    pixels[1, 0] = 3e38
    with pytest.warns(UserWarning, match="deeper than 8 bits") as told:
        image = read_infrared(write(tmp_path / "deep.tif", pixels))
    assert len(told) == 1 and image.isfinite().all() and image[0, 1, 0] == 1


def test_the_size_is_that_of_the_page_that_is_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(noise(32, 40), subfiletype=1)  # a reduced copy comes first
        file.write(noise(64, 80))
    assert read_infrared(tmp_path / "a.tif").shape[1:] == size_of(tmp_path / "a.tif") == (64, 80)


@pytest.mark.parametrize(("content", "says"), [(b"", "it is empty"), (b"<html>", "its content is of no known kind")])
def test_a_file_that_is_no_image_is_told_without_a_python_object(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.png cannot be read as an image \({says}\): replace it"):
        read_infrared(tmp_path / "a.png")


def test_a_deep_jpeg_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    ramp = np.arange(64 * 64, dtype="u2").reshape(64, 64)
    path, content = tmp_path / "it.jpg", bytes(imagecodecs.jpeg8_encode(ramp, bitspersample=12))
    path.write_bytes(content + b"and what a camera writes behind the picture")
    whole = decode(path).pixels
    assert whole.shape == (64, 64) and whole.max() > 4000
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is a 12-bit JPEG, cut off or of an unusual form"):
        decode(path)
