"""Image files of every form, written on the spot, for the tests of reading them and for the table in data/README.md."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields
from io import BytesIO
from itertools import product
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image

AS_IT_IS, STRETCHED = "as it is", "stretched, with a warning"
STORED = {  # how a picture is stored so that this orientation shows it upright
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: np.rot90,
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """(H, W) uint8 from 0 to 255, without any symmetry, and with nearly every level."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    values = x + 0.7 * y + 0.3 * np.sin(9 * x + phase[0]) * np.cos(6 * y + phase[1]) + ((x - 0.3) ** 2 + y**2 < 0.04)
    return np.round(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)


def colours(grey: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of three different channels."""
    return np.dstack([grey, 255 - grey, grey // 2 + 30])


@dataclass(frozen=True)
class Form:
    """How a file stores a picture."""

    container: str = "TIFF"
    bits: int = 8
    number: str = "unsigned"
    channels: str = "grey"  # grey, grey and alpha, colour, colour and alpha, palette, CMYK, YCbCr
    inverted: bool = False
    planar: bool = False
    turned: int = 1
    compression: str = ""
    predictor: bool = False
    tiled: bool = False
    big_endian: bool = False
    big: bool = False
    writer: str = ""

    def __str__(self) -> str:
        changed = (f"{each.name}={getattr(self, each.name)}" for each in fields(self)[4:])
        usual = {f"{each.name}={each.default}" for each in fields(self)}
        return " ".join(
            [self.container, str(self.bits), self.number, self.channels, *(c for c in changed if c not in usual)]
        )

    @property
    def read(self) -> str:
        return STRETCHED if self.bits > 8 or self.number != "unsigned" else AS_IT_IS

    @property
    def coloured(self) -> bool:
        return self.channels.startswith(("colour", "CMYK", "YCbCr"))

    def stored(self, shown: np.ndarray) -> np.ndarray:
        """Values of this depth and number type for levels 0 to 255."""
        levels = 255 - shown if self.inverted and self.number == "unsigned" else shown
        sign = -1.0 if self.inverted else 1.0
        if self.number == "float":
            return (sign * (levels / (64 if self.bits == 16 else 10) + 285 * (self.bits > 16))).astype(
                f"f{self.bits // 8}"
            )
        if self.number == "signed":
            gain = {8: 1, 16: 25, 32: 300_000, 64: 10**12}[self.bits]
            return (sign * gain * (levels.astype(np.int64) - 128) - self.inverted).astype(f"i{self.bits // 8}")
        if self.bits <= 8:
            return np.round(levels / 255 * (2**self.bits - 1)).astype(np.uint8)
        gain = (2**self.bits - 1) // 300
        return (gain * (20 + levels.astype(np.uint64))).astype(f"u{max(2, 1 << (self.bits - 1).bit_length() >> 3)}")


def write(path: Path, form: Form, grey: np.ndarray) -> np.ndarray:
    """Write `grey`, or the colours made of it, in a form; returns what has to be shown, uint8 (H, W) or (H, W, 3)."""
    shown = colours(grey) if form.coloured else grey
    if form.bits < 8:
        shown = np.round(np.round(shown / 255 * (2**form.bits - 1)) * (255 / (2**form.bits - 1))).astype(np.uint8)
    kept = STORED[form.turned](form.stored(shown))
    if "alpha" in form.channels:
        top = np.iinfo(kept.dtype).max if kept.dtype.kind != "f" else 1
        kept = np.dstack([kept, np.full(kept.shape[:2], top, kept.dtype)])
    path.write_bytes({"TIFF": _tiff, "PNG": _png, "JPEG": _jpeg, "BMP": _bmp}[form.container](form, kept))
    return shown


def _tiff(form: Form, kept: np.ndarray) -> bytes:
    options: dict = {"photometric": "miniswhite" if form.inverted else "minisblack"}
    if form.channels in ("CMYK", "YCbCr") or form.writer:
        kept = kept.astype(bool) if form.bits == 1 else np.ascontiguousarray(kept)
        stream, image = BytesIO(), Image.fromarray(kept)
        image = image.convert(form.channels) if form.channels in ("CMYK", "YCbCr") else image
        image.save(stream, "TIFF", compression=form.compression or None, tiffinfo={274: form.turned})
        return stream.getvalue()
    if form.channels == "palette":
        mix = np.random.default_rng(0).permutation(2**form.bits)
        ramp = np.zeros(2**form.bits, np.uint16)
        ramp[mix] = np.linspace(0, 255, 2**form.bits).round() * 257
        kept, options = mix[kept].astype(np.uint8), {"photometric": "palette", "colormap": np.stack([ramp] * 3)}
    if form.coloured:
        options = {"photometric": "rgb", "planarconfig": "separate" if form.planar else "contig"}
    if "alpha" in form.channels:
        options |= {"extrasamples": ["unassalpha"], "planarconfig": "separate" if form.planar else "contig"}
    if form.planar and kept.ndim == 3:
        kept = np.moveaxis(kept, 2, 0)
    if form.bits == 1 and form.channels != "palette":
        kept = kept.astype(bool)
    elif form.bits not in (8, 16, 32, 64):
        options["bitspersample"] = form.bits
    options |= {"compression": form.compression} if form.compression else {}
    options |= {"compressionargs": {"level": 100}} if form.compression == "jpeg" else {}
    options |= {"predictor": True} if form.predictor else {}
    options |= {"tile": (16, 32)} if form.tiled else {"rowsperstrip": 7}
    turned = [(274, "H", 1, form.turned, True)] if form.turned > 1 else []
    stream = BytesIO()
    tifffile.imwrite(
        stream, np.ascontiguousarray(kept), byteorder=">" if form.big_endian else "<", bigtiff=form.big, metadata=None,
        extratags=turned, **options,
    )  # fmt: skip
    return stream.getvalue()


def _png(form: Form, kept: np.ndarray) -> bytes:
    if form.writer:
        return _by(form.writer, kept)
    kind = {"grey": 0, "colour": 2, "palette": 3, "grey and alpha": 4, "colour and alpha": 6}[form.channels]
    parts = [b"IHDR" + struct.pack(">IIBBBBB", kept.shape[1], kept.shape[0], form.bits, kind, 0, 0, 0)]
    if kind == 3:
        mix = np.random.default_rng(0).permutation(2**form.bits)
        ramp = np.zeros(2**form.bits, np.uint8)
        ramp[mix] = np.linspace(0, 255, 2**form.bits).round()
        kept, parts = mix[kept].astype(np.uint8), [*parts, b"PLTE" + np.repeat(ramp, 3).tobytes()]
    if form.turned > 1:
        parts.append(b"eXIf" + b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 274, 3, 1, form.turned, 0, 0))
    rows = [_packed(row.ravel(), form.bits) for row in kept]
    parts += [b"IDAT" + zlib.compress(b"".join(b"\0" + row for row in rows)), b"IEND"]
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _packed(row: np.ndarray, bits: int) -> bytes:
    """A row of samples, highest bit first."""
    if bits >= 8:
        return row.astype(f">u{bits // 8}").tobytes()
    return np.packbits(np.unpackbits(row[:, None].astype(np.uint8), axis=1)[:, 8 - bits :]).tobytes()


def _by(writer: str, kept: np.ndarray) -> bytes:
    if writer == "OpenCV":
        turned = kept if kept.ndim == 2 else cv2.cvtColor(
            kept, cv2.COLOR_RGB2BGR if kept.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        )  # fmt: skip
        return cv2.imencode(".png", turned)[1].tobytes()
    if writer == "imagecodecs":
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(kept)))
    stream = BytesIO()
    Image.fromarray(kept).save(stream, "PNG")
    return stream.getvalue()


def _jpeg(form: Form, kept: np.ndarray) -> bytes:
    kept = np.ascontiguousarray(kept)
    if form.compression == "lossless":
        return bytes(imagecodecs.ljpeg_encode(kept, bitspersample=form.bits))
    if form.bits > 8:
        options = {"subsampling": "444"} if kept.ndim == 3 else {}
        return bytes(imagecodecs.jpeg8_encode(kept, level=100, bitspersample=form.bits, **options))
    stream, image = BytesIO(), Image.fromarray(kept)
    exif = Image.Exif()
    exif[274] = form.turned
    image = image.convert("CMYK") if form.channels == "CMYK" else image
    image.save(stream, "JPEG", quality=100, subsampling=0, exif=exif, progressive=form.compression == "progressive")
    return stream.getvalue()


def _bmp(form: Form, kept: np.ndarray) -> bytes:
    if form.inverted:  # by its palette: 0 is white
        ramp = np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 4).reshape(256, 4)
        return _bitmap(kept.shape, 8, 0, ramp.tobytes(), kept, "u1")
    if form.planar:  # the first row is the uppermost one, which is the exception
        return _bitmap((-kept.shape[0], kept.shape[1]), 24, 0, b"", kept[::-1, :, ::-1], "u1")
    stream, image = BytesIO(), Image.fromarray(np.ascontiguousarray(kept))
    image = image.convert("P") if form.channels == "palette" else image
    image = Image.fromarray(kept.astype(bool)) if form.bits == 1 else image
    image.save(stream, "BMP")
    return stream.getvalue()


def _bitmap(shape: tuple, bits: int, kind: int, table: bytes, pixels: np.ndarray, dtype: str) -> bytes:
    """A BMP whose rows fill whole words, lowest row first."""
    rows = b"".join(row.astype(dtype).tobytes() for row in pixels[::-1])
    assert len(rows) % 4 == 0
    facts = struct.pack("<IiiHHIIiiII", 40, shape[1], shape[0], 1, bits, kind, len(rows), 2835, 2835, 0, 0)
    start = 14 + 40 + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + facts + table + rows


# --- the table

DEPTHS = [("unsigned", bits) for bits in (1, 2, 4, 8, 10, 12, 14, 16, 32)]
DEPTHS += [("signed", bits) for bits in (8, 16, 32)] + [("float", bits) for bits in (16, 32, 64)]
FORMS = (
    # every depth in both polarities, then each of the rest at 8 and 16 bits
    *(Form(bits=b, number=n, inverted=i, big_endian=i and b % 8 == 0) for (n, b), i in product(DEPTHS, (False, True))),
    *(Form(bits=b, turned=t, big_endian=t % 2 == 0) for b, t in product((8, 16), range(2, 9))),
    *(
        Form(bits=b, channels=c, planar=p)
        for b, c, p in product((8, 16), ("grey and alpha", "colour", "colour and alpha"), (False, True))
    ),
    *(Form(bits=32, number="float", channels="colour", planar=p) for p in (False, True)),
    *(
        Form(bits=b, compression=c, predictor=c in ("lzw", "zlib"), tiled=c == "zstd", big=c == "lzma")
        for b, c in product((8, 16), ("lzw", "zlib", "zstd", "lzma", "packbits"))
    ),
    *(Form(bits=b, compression="zlib", predictor=True, number="float", tiled=True) for b in (16, 32)),
    Form(compression="jpeg", channels="colour", tiled=False), Form(bits=8, channels="palette"),
    Form(channels="CMYK"), Form(channels="YCbCr"),
    Form(channels="CMYK", compression="tiff_lzw"), Form(bits=1, compression="group4", writer="Pillow"),
    *(Form("PNG", bits=b) for b in (1, 2, 4, 8, 16)),
    *(Form("PNG", bits=b, channels=c) for b, c in product((8, 16), ("grey and alpha", "colour", "colour and alpha"))),
    *(Form("PNG", bits=b, channels="palette") for b in (1, 2, 4, 8)),
    *(Form("PNG", bits=b, turned=t) for b, t in product((8, 16), range(2, 9))),
    *(Form("PNG", bits=16, channels=c, writer=w) for c, w in product(("grey", "colour"), ("OpenCV", "imagecodecs"))),
    *(Form("JPEG", channels=c) for c in ("grey", "colour", "CMYK")), Form("JPEG", compression="progressive"),
    *(Form("JPEG", turned=t) for t in range(2, 9)), Form("JPEG", bits=12), Form("JPEG", bits=12, channels="colour"),
    *(Form("JPEG", bits=b, compression="lossless") for b in (8, 12, 16)),
    Form("BMP", bits=1), Form("BMP"), Form("BMP", inverted=True), Form("BMP", channels="colour"),
    Form("BMP", channels="colour and alpha"), Form("BMP", channels="palette"),
    Form("BMP", channels="colour", planar=True),
)  # fmt: skip
