"""Image files and tensors: reading every bit depth and colour form, resizing, colour put back, saving.

Convention:
    Images are float32 tensors (C, H, W) in [0, 1], and every value read is k/255 with k an integer: deeper files are
    brought to 8 bits (and a warning says so), resizing happens on 8 bits. Luma is that of BT.601 as Pillow's
    convert("L") rounds it. Sizes are (height, width) in code; messages say width x height, as image viewers do.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fusionlib.data.decode import ORIENTATION, decode
from fusionlib.data.stretch import to_levels
from fusionlib.support.files import InputError, atomic

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
SMALLEST_SIDE = 32

Size = int | tuple[int, int]  # a side for a square, or (height, width)


def read_infrared(path: Path | str, page: int | None = None) -> Tensor:
    """Read one infrared image of any bit depth as (1, H, W) in [0, 1].

    Colour becomes luma, with a warning if it is more than grey stored in three channels. Deeper images are stretched
    from their percentiles 0.1 and 99.9 to 0 and 255, with a warning: a scene fills little of a camera's 16 bits. What
    files are read, and how, stands in data/README.md.

    Args:
        path: of the file.
        page: of a file that has several, from 1; None takes the first, with a warning. Ignored for files with one page.

    Raises:
        InputError: The file is no readable image, is under 32 pixels on a side, holds NaN or infinite values, or has no
            such page.
    """
    image = _open(path, page)
    if image.mode == "RGB":
        red, green, blue = (np.asarray(channel) for channel in image.split())
        if (red != green).any() or (green != blue).any():
            fact = "is a coloured infrared image and was converted to luma, which a thermal palette need not follow"
            warnings.warn(f"{path} {fact}: prefer a grey export of it.", stacklevel=2)
    return to_tensor(image.convert("L"))


def read_visible(path: Path | str, page: int | None = None) -> tuple[Tensor, Tensor]:
    """Read one visible image as luma (1, H, W) and colour (3, H, W) in [0, 1]; grey gives three equal channels.

    `page`, depth and errors are as in `read_infrared`; of a deeper image all channels are stretched alike.
    """
    rgb = to_tensor(_open(path, page).convert("RGB"))
    return luma(rgb), rgb


def size_of(path: Path | str) -> tuple[int, int]:
    """Height and width of an image as it is shown, by its header; errors as in `read_infrared`."""
    try:
        with open(path, "rb") as file, Image.open(file) as picture:
            if picture.format == "TIFF" and picture.n_frames > 1:
                raise ValueError  # the first page may be a small copy of the picture
            turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return picture.size if turned else picture.size[::-1]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # `decode` knows more forms, or says why
        return decode(path).pixels.shape[:2]


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """8-bit picture or array (H, W) or (H, W, C) to float32 (C, H, W) in [0, 1]."""
    return torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).astype(np.float32) / 255)


def to_uint8(image: Tensor) -> Tensor:
    """Image in [0, 1], clamped, to the nearest of 0..255; any shape. InputError if it has NaN, which is no grey."""
    if image.isnan().any():
        raise InputError("An image contains NaN; replace those pixels, or look for where they come from.")
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def from_uint8(image: Tensor) -> Tensor:
    """Image of 0..255, of any shape, as float32 in [0, 1]; what `to_uint8` gave comes back to within rounding."""
    return image.float() / 255


def luma(rgb: Tensor) -> Tensor:
    """Luma (1, H, W) of a colour image (3, H, W), rounded to 8 bits as Pillow does it."""
    return to_tensor(_picture(rgb).convert("L"))


def recolour(fused: Tensor, rgb: Tensor) -> Tensor:
    """Give a fused image (..., 1, H, W) the colour of `rgb` (..., 3, H, W): new luma, same Cb and Cr (BT.601).

    R, G and B are the luma plus a linear form of Cb and Cr, so a new luma is one difference added to all three; the
    result is clamped to [0, 1].
    """
    red, green, blue = rgb.split(1, dim=-3)
    old = 0.299 * red + 0.587 * green + 0.114 * blue
    return (rgb + (fused - old)).clamp(0, 1)


def resize(image: Tensor, size: Size) -> Tensor:
    """Resize an image (1, H, W) or (3, H, W) by Pillow's bicubic filter, on 8 bits; InputError under 32 pixels."""
    return to_tensor(_picture(image).resize(height_width(size)[::-1], Image.Resampling.BICUBIC))


def height_width(size: Size) -> tuple[int, int]:
    """Both sides that a size stands for; InputError under 32 pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < SMALLEST_SIDE:
        least = f"{SMALLEST_SIDE} pixels or more on each side"
        raise InputError(f"The size {width}x{height} is too small: ask for {least}.")
    return height, width


def save_image(path: Path | str, image: Tensor) -> Path:
    """Write an image (1, H, W) or (3, H, W) in [0, 1], or a batch of one, as PNG: the whole file or none.

    Raises:
        InputError: The path does not end in .png, or the image has another shape, whole numbers, values far outside of
            [0, 1] or NaN.
    """
    path, shape = Path(path), tuple(image.shape)
    if len(shape) not in (3, 4) or shape[-3] not in (1, 3) or (len(shape) == 4 and shape[0] != 1):
        raise InputError(f"An image of shape {shape} cannot be written: give (1, H, W) or (3, H, W), one at a time.")
    if not image.is_floating_point() or image.min() < -0.5 or image.max() > 1.5:  # else it would be clamped to ruin
        values = f"from {image.min().item():g} to {image.max().item():g}"
        raise InputError(f"The image for {path} has {image.dtype} {values}: give floating numbers in [0, 1].")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} cannot be written: images are saved without loss, so give a name that ends in .png.")
    with atomic(path) as part:
        _picture(image.detach().cpu().reshape(image.shape[-3:])).save(part)
    return path


def _open(path: Path | str, page: int | None) -> Image.Image:
    """Image of mode L or RGB, upright; measured values brought to 8 bits."""
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():  # a pipe would be waited for
        raise InputError(f"{path} is not a file: write the image to a file first.")
    decoded = decode(path, page)
    height, width = decoded.pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        least = f"give an image of at least {SMALLEST_SIDE} pixels on each side"
        raise InputError(f"{path} is {width}x{height} pixels: {least}.")
    for note in decoded.notes:
        warnings.warn(f"{path} {note}.", stacklevel=3)
    if not decoded.measured:
        return Image.fromarray(decoded.pixels)
    try:
        levels, words = to_levels(decoded.pixels, decoded.missing, decoded.inverted)
    except InputError as error:
        raise InputError(f"{path} {error}.") from None
    kind = "is deeper than 8 bits" if decoded.pixels.dtype.itemsize > 1 else "has signed values"
    warnings.warn(f"{path} {kind}: {words}.", stacklevel=3)
    return Image.fromarray(levels)


def _picture(image: Tensor) -> Image.Image:
    """Pillow's grey or colour picture of an image (1, H, W) or (3, H, W)."""
    pixels = to_uint8(image).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
