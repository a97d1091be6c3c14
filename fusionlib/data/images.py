"""Image files and tensors: reading every bit depth and colour form, resizing, colour put back, saving.

Convention:
    Images are float32 tensors (C, H, W) in [0, 1], and every value read is k/255 with k an integer: deeper files are
    brought to 8 bits (and a warning says so), resizing happens on 8 bits. Luma is that of BT.601 as Pillow's
    convert("L") rounds it. Sizes are (height, width) in code; messages say width x height, as image viewers do.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fusionlib.support.files import InputError, atomic

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
SMALLEST_SIDE = 32

Size = int | tuple[int, int]  # a side for a square, or (height, width)
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def read_infrared(path: Path | str) -> Tensor:
    """Read one infrared image of any bit depth as (1, H, W) in [0, 1].

    Colour becomes luma, with a warning if it is more than grey stored in three channels. Deeper images are stretched
    from their percentiles 0.1 and 99.9 to 0 and 255, with a warning: a scene fills little of a camera's 16 bits.

    Raises:
        InputError: The file is no readable image, is under 32 pixels on a side, or holds NaN or infinite values.
    """
    image = _open(path)
    if image.mode == "RGB":
        red, green, blue = (np.asarray(channel) for channel in image.split())
        if (red != green).any() or (green != blue).any():
            fact = "is a coloured infrared image and was converted to luma, which a thermal palette need not follow"
            warnings.warn(f"{path} {fact}: prefer a grey export of it.", stacklevel=2)
    return to_tensor(image.convert("L"))


def read_visible(path: Path | str) -> tuple[Tensor, Tensor]:
    """Read one visible image as luma (1, H, W) and colour (3, H, W) in [0, 1]; grey gives three equal channels.

    Raises:
        InputError: As `read_infrared`.
    """
    rgb = to_tensor(_open(path).convert("RGB"))
    return luma(rgb), rgb


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """8-bit picture or array (H, W) or (H, W, C) to float32 (C, H, W) in [0, 1]."""
    return torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).astype(np.float32) / 255)


def to_uint8(image: Tensor) -> Tensor:
    """Image in [0, 1], clamped, to the nearest of 0..255; any shape. InputError if it has NaN, which is no grey."""
    if image.isnan().any():
        raise InputError("An image contains NaN; replace those pixels, or look for where they come from.")
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


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
        InputError: The path does not end in .png, or the image contains NaN.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} cannot be written: images are saved without loss, so give a name that ends in .png.")
    with atomic(path) as part:
        _picture(image.detach().cpu().reshape(image.shape[-3:])).save(part)
    return path


def _open(path: Path | str) -> Image.Image:
    """Image of mode L or RGB: upright, palette expanded, alpha dropped, deep values brought to 8 bits."""
    try:
        # Pillow warns of damaged parts, such as EXIF, that it does without, also before it refuses the file.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check its name and folder.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise InputError(f"{path} has more than {most}, by its header: give a smaller or an undamaged image.") from None
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an image ({error}): replace it or convert it to PNG.") from None
    if min(image.size) < SMALLEST_SIDE:
        size = f"{image.width}x{image.height} pixels"
        raise InputError(f"{path} is {size}: give an image of at least {SMALLEST_SIDE} pixels on each side.")
    if image.mode.startswith(("I", "F")):
        return _stretch(np.asarray(image, dtype=np.float64), path)
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("L")
    # By way of RGBA, because Pillow warns about a palette whose transparency would get lost.
    return image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")


def _stretch(values: np.ndarray, path: Path | str) -> Image.Image:
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds NaN or infinite values: replace them by numbers and save it again.")
    low, high = np.percentile(values, [0.1, 99.9])
    fact = f"its values from {low:g} to {high:g} (percentiles 0.1 and 99.9) were stretched to 8 bits"
    warnings.warn(f"{path} is deeper than 8 bits: {fact}.", stacklevel=2)
    with np.errstate(over="ignore"):  # a hot spot in a flat image is infinitely far above it, and white
        unit = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    return Image.fromarray(np.round(unit * 255).astype(np.uint8))


def _picture(image: Tensor) -> Image.Image:
    """Pillow's grey or colour picture of an image (1, H, W) or (3, H, W)."""
    pixels = to_uint8(image).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
