"""Image files to samples: depth, channels, layout, orientation and polarity are taken as the file says they are.

The first bytes tell the type of a file, never its name. Pillow reads 8-bit PNG, JPEG and BMP; imagecodecs reads 16-bit
PNG and JPEG of other depths, which Pillow cuts or refuses; tifffile reads TIFF, except for the colour forms that it
does not convert. A file that none of them reads correctly is refused.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from fusionlib.support.files import InputError

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its warnings would be mixed with ours

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PILLOWS = {"PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "WEBP", "TIFF"}  # 8 bits whenever they come to Pillow here
GREY, COLOUR = ("1", "L", "LA", "La"), ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, LINEAR = 0, 1, 2, 3, 34892
OF_PILLOW = {5: "CMYK", 6: "YCbCr", 8: "CIELab"}  # of TIFF, at 8 bits
ORIENTATION, NODATA, DNG_VERSION = 274, 42113, 50706
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
MOST_BYTES = 16  # of a pixel, for images as large as Pillow's limit


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a file shows, upright.

    Attributes:
        pixels: (H, W) or (H, W, 3). uint8 are levels, 0 black and 255 white; any other type holds measured values,
            which no depth brings to levels by itself.
        missing: (H, W) bool, pixels that the file declares to be no measurement; None if it declares nothing.
        inverted: of measured values, the highest is black.
        notes: warnings for the user, each the end of a sentence that begins with the path.
    """

    pixels: np.ndarray
    missing: np.ndarray | None = None
    inverted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        return self.pixels.dtype != np.uint8


def decode(path: Path | str, page: int | None = None) -> Decoded:
    """Read an image file.

    Args:
        path: of a PNG, TIFF, BMP or JPEG file, or an 8-bit GIF or WebP.
        page: which one of a file with several, from 1; None is the first, with a note.

    Raises:
        InputError: the file is not there, is no such image or is damaged, or has a form that is not read rightly.
    """
    try:
        # Pillow warns of damaged parts, such as EXIF, that it does without, also before it refuses the file.
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            head = file.read(32)
            file.seek(0)
            if head[:4] in TIFF:
                return _tiff(file, path, page)
            if head.startswith(PNG) and head[24:25] == b"\x10":
                return _deep_png(file, path, page)
            if head.startswith(JPEG) and (deep := _deep_jpeg(file.read(), path)):
                return deep
            file.seek(0)
            return _pillow(file, path, page)
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check its name and folder.") from None
    except PermissionError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}): give a file that you may read.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(path) from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # whose text names a Python object
            reason = "its content is of no known kind" if Path(path).stat().st_size else "it is empty"
        raise InputError(f"{path} cannot be read as an image ({reason}): replace it or convert it to PNG.") from None


def _pillow(file: BinaryIO, path: Path | str, page: int | None) -> Decoded:
    """A picture of 8 bits. From a file object, since Pillow reads some turned TIFFs wrongly from a path."""
    with Image.open(file) as picture:
        if picture.format not in PILLOWS:
            raise InputError(f"{path} is a {picture.format} file, whose depth is not known here: convert it to PNG.")
        index, notes = _page_index(getattr(picture, "n_frames", 1), path, page)
        return Decoded(_frame(picture, index, path), notes=notes)


def _frame(picture: Image.Image, index: int, path: Path | str) -> np.ndarray:
    """Levels (H, W) or (H, W, 3) of one page, upright, palette expanded, alpha dropped."""
    if index:
        picture.seek(index)
    image = ImageOps.exif_transpose(picture)
    if image.mode in GREY:
        return np.asarray(image.convert("L"))
    if image.mode not in COLOUR:
        raise InputError(f"{path} has pixels of the kind {image.mode}, which are not read here: convert it to PNG.")
    # By way of RGBA, because Pillow warns about a palette whose transparency would get lost.
    image = image.convert("RGBA") if image.mode in ("P", "PA") else image
    return np.asarray(image.convert("RGB"))


def _deep_png(file: BinaryIO, path: Path | str, page: int | None) -> Decoded:
    with Image.open(file) as picture:  # which refuses what is too large
        orientation = picture.getexif().get(ORIENTATION, 1)
        size, (index, notes) = picture.size, _page_index(getattr(picture, "n_frames", 1), path, page)
    if index:
        raise InputError(f"{path} is animated and has 16 bits: of such files only page 1 is read.")
    file.seek(0)
    values = np.atleast_3d(imagecodecs.png_decode(file.read()))
    if values.shape[1::-1] != size or values.dtype != np.uint16:
        raise ValueError(f"{values.shape[1]}x{values.shape[0]} pixels of {values.dtype} came out")
    colours = values[..., : 1 if values.shape[2] < 3 else 3]
    transparent = values[..., -1] == 0 if values.shape[2] in (2, 4) else None
    return _upright(Decoded(_flat(colours), _unless_all(transparent), notes=notes), orientation)


def _deep_jpeg(content: bytes, path: Path | str) -> Decoded | None:
    """A JPEG of 12 or 16 bits or without loss; None if it is an ordinary one."""
    at, exif = 2, b""
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        length = -1 if marker == 0xFF else int.from_bytes(content[at + 2 : at + 4])  # -1: a fill byte
        if marker == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            exif = content[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = content[at + 4], *(int.from_bytes(content[at + k : at + k + 2]) for k in (5, 7))
            if bits == 8 and marker % 4 != 3:
                return None
            if height * width > Image.MAX_IMAGE_PIXELS:
                raise _too_large(path)
            values = np.atleast_3d(imagecodecs.jpeg_decode(content, bitspersample=bits))
            cut = b"\xff\xd9" not in content[at:]  # no end marker: the decoder fills up what is missing
            if cut or values.shape not in ((height, width, 1), (height, width, 3)):
                raise InputError(f"{path} is a {bits}-bit JPEG, cut off or of an unusual form: convert it to PNG.")
            return _upright(Decoded(_flat(values)), _orientation(exif))
        at += 2 + length
    return None


def _orientation(exif: bytes) -> int:
    """The orientation that the EXIF block of a JPEG names; 1, upright, if it names none or is damaged."""
    facts = Image.Exif()
    with contextlib.suppress(Exception):  # as many kinds of errors as there are ways to be damaged
        facts.load(exif)
    return facts.get(ORIENTATION, 1)


def _tiff(file: BinaryIO, path: Path | str, page: int | None) -> Decoded:
    with tifffile.TiffFile(file) as tif:
        pages = list(tif.pages)
        # Not the small copies and the masks that belong to a picture.
        pictures = [index for index, each in enumerate(pages) if not each.subfiletype & 5] or list(range(len(pages)))
        number, notes = _page_index(len(pictures), path, page)
        facts = pages[pictures[number]]
        kind, bits = _kind(facts, path), facts.bitspersample
        if kind in OF_PILLOW:
            if bits != 8 or facts.sampleformat != UNSIGNED:
                raise InputError(f"{path} is {OF_PILLOW[kind]} of {bits} bits, not of 8: export it as grey or RGB.")
            file.seek(0)
            with Image.open(file) as shown:
                return Decoded(_frame(shown, pictures[number], path), notes=notes)
        samples = facts.asarray(squeeze=False, maxworkers=1)  # planes, depth, height, width, channels
    planes, depth, height, width, inner = samples.shape
    if depth != 1:
        raise InputError(f"{path} is a volume, {depth} pictures deep: export one of them.")
    samples = np.moveaxis(samples[:, 0], 0, 2).reshape(height, width, planes * inner)
    count = 3 if kind == RGB else 1
    values, alpha = samples[..., :count], _alpha(facts, samples, count)
    others = samples.shape[2] - count - (alpha is not None)
    if others > (kind == RGB) and (samples[..., count:] != samples[..., :1]).any():
        notes += (f"has {others} channels more than its kind of picture, which were left out",)
    missing = _declared(facts, values) if kind != PALETTE else None
    if alpha is not None:
        missing = _or(missing, _unless_all(alpha == 0))
        if facts.extrasamples[0] == 1 and bits <= 16:  # colour times alpha is stored
            top = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
            share = np.where(alpha == 0, 1, alpha / top)[..., None]
            values = np.clip(np.round(values / share), 0, top).astype(values.dtype) if top > 1 else values / share
    if kind == PALETTE:
        table = facts.colormap if facts.colormap.max() < 256 else facts.colormap // 256
        return _upright(Decoded(table.T[values[..., 0]].astype(np.uint8), notes=notes), _turned(facts))
    inverted = kind == WHITE_IS_ZERO
    if facts.sampleformat in (UNSIGNED, UNDEFINED) and bits <= 8:
        levels = np.round(values * (255 / (2**bits - 1))).astype(np.uint8) if bits < 8 else values.astype(np.uint8)
        return _upright(Decoded(_flat(255 - levels if inverted else levels), notes=notes), _turned(facts))
    return _upright(Decoded(_flat(values), missing, inverted, notes), _turned(facts))


def _kind(facts: tifffile.TiffPage, path: Path | str) -> int:
    """Photometric interpretation of a page, after the page is checked."""
    if DNG_VERSION in facts.tags:
        raise InputError(f"{path} is a camera's raw file (DNG): develop it and export it as TIFF or PNG.")
    kind = int(facts.photometric) if 262 in facts.tags else RGB if facts.samplesperpixel > 2 else BLACK_IS_ZERO
    if kind == LINEAR:
        kind = RGB if facts.samplesperpixel > 2 else BLACK_IS_ZERO
    if kind not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, *OF_PILLOW):
        name = getattr(facts.photometric, "name", kind)
        raise InputError(f"{path} is of the kind {name}, which is not read here: export it as grey or RGB.")
    bits, form = facts.bitspersample, facts.sampleformat
    if not isinstance(bits, int) or form not in (UNSIGNED, SIGNED, FLOAT, UNDEFINED):
        raise InputError(f"{path} has samples of a form that is not read here: export it with whole or real numbers.")
    pixels, most = facts.imagewidth * facts.imagelength, Image.MAX_IMAGE_PIXELS
    if pixels > most or pixels * facts.samplesperpixel * max(bits // 8, 1) > MOST_BYTES * most:
        raise _too_large(path)
    if (kind == RGB and facts.samplesperpixel < 3) or (kind == PALETTE and (facts.colormap is None or bits > 16)):
        raise ValueError(f"{facts.samplesperpixel} channels do not make a picture of its kind")
    end = facts.parent.filehandle.size
    parts = list(zip(facts.dataoffsets, facts.databytecounts, strict=True))
    if not parts or any(not at or not count or at + count > end for at, count in parts):
        raise ValueError("part of its pixels is not there")
    return kind


def _page_index(count: int, path: Path | str, page: int | None) -> tuple[int, tuple[str, ...]]:
    """Index of the page to read, and a note if the file has several."""
    if count == 1 or page is None:
        many = (f"has {count} pages, of which the first is used: choose another one by its number, as page or --page",)
        return 0, many if count > 1 else ()
    if not 1 <= page <= count:
        raise InputError(f"{path} has {count} pages and no page {page}: choose one from 1 to {count}.")
    return page - 1, ()


def _alpha(facts: tifffile.TiffPage, samples: np.ndarray, count: int) -> np.ndarray | None:
    """The channel (H, W) that says how opaque pixels are, if the first one beyond the picture does."""
    says = facts.extrasamples[:1] if samples.shape[2] > count else ()
    return samples[..., count] if says and says[0] in (1, 2) else None


def _declared(facts: tifffile.TiffPage, values: np.ndarray) -> np.ndarray | None:
    """Pixels (H, W) with the value that GDAL's tag names as none."""
    if NODATA not in facts.tags:
        return None
    try:
        none = float(str(facts.tags[NODATA].value).strip(" \0"))
    except ValueError:
        return None
    return (np.isnan(values) if np.isnan(none) else values == _nearest(none, values.dtype)).any(2)


def _nearest(number: float, dtype: np.dtype) -> np.generic | float:
    """The number as this type holds it: GDAL writes digits, of which float32 keeps some."""
    with np.errstate(over="ignore"):
        return dtype.type(number) if dtype.kind == "f" else number


def _turned(facts: tifffile.TiffPage) -> int:
    return facts.tags[ORIENTATION].value if ORIENTATION in facts.tags else 1


def _upright(decoded: Decoded, turned: int) -> Decoded:
    """The picture as EXIF's and TIFF's orientation, 1 to 8, wants it shown."""

    def turn(image: np.ndarray | None) -> np.ndarray | None:
        if image is None or turned not in range(2, 9):
            return image
        image = image.swapaxes(0, 1) if turned in (5, 6, 7, 8) else image
        image = image[::-1] if turned in (3, 4, 7, 8) else image
        return np.ascontiguousarray(image[:, ::-1] if turned in (2, 3, 6, 7) else image)

    return replace(decoded, pixels=turn(decoded.pixels), missing=turn(decoded.missing))


def _flat(values: np.ndarray) -> np.ndarray:
    return values[..., 0] if values.shape[2] == 1 else values


def _unless_all(mask: np.ndarray | None) -> np.ndarray | None:
    """The mask of transparent pixels; None if all are transparent, since the mask then says nothing."""
    return None if mask is None or mask.all() else mask


def _or(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return other if one is None else one if other is None else one | other


def _too_large(path: Path | str) -> InputError:
    most = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
    return InputError(f"{path} has more than {most}, by its header: give a smaller or an undamaged image.")
