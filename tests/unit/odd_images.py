"""Image files that need a word, or are refused, and the table of what is accepted that data/README.md shows.

`python tests/unit/odd_images.py` writes the table anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from image_files import FORMS, Form, colours, picture
from PIL import Image

README = Path(__file__).resolve().parents[2] / "data" / "README.md"
BEGIN, END = "<!-- accepted: begin -->", "<!-- accepted: end -->"


@dataclass(frozen=True)
class Odd:
    """A file that is not simply read.

    Attributes:
        what: it is, for the table.
        content: of the file.
        says: what is done, for the table.
        told: a pattern of the warning; "" if there is none.
        refused: a pattern of the sentence that refuses it; "" if it is read.
        seen: where the picture has to come back, with a correlation over 0.999; None if another test asks for it.
    """

    what: str
    content: Callable[[], bytes]
    says: str
    told: str = ""
    refused: str = ""
    seen: tuple[slice, slice] | None = (slice(None), slice(None))


def tiff(values: np.ndarray, *pages: np.ndarray, **options: object) -> bytes:
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for each in (values, *pages):
            file.write(each, **{"metadata": None, "photometric": "minisblack", **options})
    return stream.getvalue()


def by_pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def counts() -> np.ndarray:
    """The picture as a camera with 14 bits counts it."""
    return (7000 + 8 * picture().astype(np.uint16)).astype(np.uint16)


def with_dead(share: float) -> np.ndarray:
    values, draw = counts(), np.random.default_rng(0)
    at = draw.permutation(values.size)[: round(share * values.size)]
    values.flat[at] = np.where(draw.random(at.size) < 0.5, draw.integers(0, 9, at.size), 65535)
    return values


def filled(value: float, dtype: str = "f4") -> np.ndarray:
    values = (285 + picture() / 10).astype(dtype)
    values[:, :8] = value
    return values


def margin() -> np.ndarray:
    values = counts()
    values[:5], values[-3:], values[:, :6] = 0, 0, 0
    return values


RIGHT = (slice(None), slice(8, None))
GDAL = {"extratags": [(42113, "s", 0, "-9999", True)]}
ODDS = (
    Odd("several pages", lambda: tiff(picture(), picture()[::-1]), "the first page, with a warning; `--page N` chooses",
        told="has 2 pages, of which the first is used: choose another one by its number"),
    Odd("deep, a value declared as no data (GDAL)", lambda: tiff(filled(-9999), **GDAL), "set aside: black",
        told="stretched to 8 bits", seen=RIGHT),
    Odd("deep, no data declared as NaN", lambda: tiff(filled(np.nan), extratags=[(42113, "s", 0, "nan", True)]),
        "set aside: black", told="stretched to 8 bits", seen=RIGHT),
    Odd("deep, a fill value far from the rest", lambda: tiff(filled(-9999)), "set aside, with a warning",
        told="12 % of its pixels, around -9999, were set aside as no measurement", seen=RIGHT),
    Odd("deep, the highest value as a fill value", lambda: tiff(filled(3.4e38)), "set aside, with a warning",
        told=r"12 % of its pixels, around 3\.4e\+38, were set aside", seen=RIGHT),
    Odd("deep, a constant margin", lambda: tiff(margin()), "set aside, with a warning",
        told="of its pixels, around 0, were set aside", seen=(slice(5, -3), slice(6, None))),
    Odd("deep, dead and hot pixels", lambda: tiff(with_dead(0.02)), "set aside, with a warning",
        told="2 % of its pixels, around .*, were set aside", seen=None),
    Odd("deep, a few values far from all others that fill the range", lambda: tiff(spread()), "read, with a warning",
        told=r"leaves \d+ of 256 grey levels to four fifths of the picture", seen=None),
    Odd("deep, NaN or infinity", lambda: tiff(filled(np.inf)), "refused", refused="holds NaN or infinite values"),
    Odd("deep, nothing but no data", lambda: tiff(np.full((40, 40), -9999, "f4"), **GDAL), "refused",
        refused="holds no measured pixel"),
    Odd("infrared in colours", lambda: by_pillow(Image.fromarray(colours(picture())), "PNG"), "luma, with a warning",
        told="is a coloured infrared image and was converted to luma", seen=None),
    Odd("grey, and channels that no tag explains",
        lambda: tiff(np.dstack([picture(), picture()[::-1], picture()]), planarconfig="contig",
                     extrasamples=["unspecified"] * 2),
        "the first channel, with a warning", told="has 2 channels more than its kind of picture, which were left out"),
    Odd("GIF and WebP, which have 8 bits", lambda: by_pillow(Image.fromarray(picture()), "GIF"), "as it is"),
    Odd("JPEG 2000, PPM and others", lambda: by_pillow(Image.fromarray(picture()), "JPEG2000"), "refused",
        refused="is a JPEG2000 file, whose depth is not known here: convert it to PNG"),
    Odd("raw files of cameras (DNG)", lambda: tiff(counts(), extratags=[(50706, "B", 4, (1, 4, 0, 0), True)]),
        "refused", refused=r"is a camera's raw file \(DNG\): develop it"),
    Odd("mosaics of colour filters", lambda: tiff(counts(), photometric="cfa"), "refused",
        refused="is of the kind CFA, which is not read here: export it as grey or RGB"),
    Odd("complex numbers", lambda: tiff(picture().astype("c8")), "refused", refused="has samples of a form"),
    Odd("CMYK, YCbCr and Lab deeper than 8 bits",
        lambda: tiff(np.dstack([counts()] * 4), photometric="separated", planarconfig="contig"), "refused",
        refused="is CMYK of 16 bits, not of 8: export it as grey or RGB"),
    Odd("volumes in one page", lambda: tiff(np.stack([counts()] * 16), volumetric=True, tile=(16, 16, 16)),
        "refused", refused="is a volume, 16 pictures deep: export one of them"),
    Odd("under 32 pixels on a side", lambda: tiff(picture(31, 60)), "refused",
        refused="60x31 pixels: give an image of at"),
    Odd("damaged or cut off", lambda: tiff(counts())[:3000], "refused", refused="cannot be read as an image"),
)  # fmt: skip


def spread() -> np.ndarray:
    """A scene in a small part of the range, and a bright field whose values reach far, too many to be odd ones."""
    values = counts().astype(np.uint32)
    values[20:30, 20:32] = np.linspace(20_000, 400_000, 120).reshape(10, 12)
    return values


# --- the table


def table() -> str:
    """The table of accepted files, made of `FORMS` and `ODDS`."""
    bits: dict[tuple[str, str, str], list[str]] = {}
    also: dict[str, set[str]] = {}
    for form in FORMS:
        number = "" if form.number == "unsigned" else f" {form.number}"
        found = bits.setdefault((form.container, form.read, form.channels), [])
        found += [depth] if (depth := f"{form.bits}{number}") not in found else []
        for name in _also(form):
            also.setdefault(name, set()).add(form.container)
    rows: dict[tuple[str, str, str], list[str]] = {}
    for (kind, read, channels), depths in bits.items():
        rows.setdefault((kind, ", ".join(depths), read), []).append(channels)
    lines = ["| file | bits of a sample | channels | read |", "|---|---|---|---|"]
    lines += [
        f"| {kind} | {depths} | {'; '.join(several)} | {read} |" for (kind, depths, read), several in rows.items()
    ]
    lines += ["", "| also | in |", "|---|---|"]
    lines += [f"| {name} | {', '.join(sorted(kinds))} |" for name, kinds in sorted(also.items())]
    packed = sorted({form.compression.removeprefix("tiff_") for form in FORMS if form.container == "TIFF"} - {""})
    lines += [f"| compressed: {', '.join(packed)} | TIFF |"]
    lines += ["", "| not simply read | what is done |", "|---|---|"]
    return "\n".join([*lines, *(f"| {odd.what} | {odd.says} |" for odd in ODDS)])


def _also(form: Form) -> list[str]:
    names = {
        "all eight orientations": form.turned > 1,
        "white is zero": form.inverted,
        "planes one after the other": form.planar and form.container == "TIFF",
        "the first row first": form.planar and form.container == "BMP",
        "highest byte first": form.big_endian,
        "tiles": form.tiled,
        "BigTIFF": form.big,
        "a predictor of differences": form.predictor,
        form.compression: form.compression in ("lossless", "progressive"),
    }
    return [name for name, holds in names.items() if holds]


def readme(text: str) -> str:
    """The text of data/README.md with the table of today."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
