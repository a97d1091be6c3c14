"""Files whose bytes depend on their content alone: PNG, NPZ and JSON without times, versions or a compressor's choices.

Compressors differ between builds, and some between processors. So pixels and fields are stored, not compressed.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib

import numpy as np

_BLOCK = 65535  # bytes, the longest stored block of a deflate stream


def png(image: np.ndarray) -> bytes:
    """The PNG of an image (H, W) or (H, W, 3), uint8."""
    height, width = image.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1).tobytes()
    parts = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    # Each block says whether it is the last one, its length, and the complement of that.
    heads = [
        struct.pack("<BHH", number == len(parts), len(part), len(part) ^ 0xFFFF) for number, part in enumerate(parts, 1)
    ]
    blocks = [head + part for head, part in zip(heads, parts, strict=True)]
    stream = b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if image.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    framed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def npz(**arrays: np.ndarray) -> bytes:
    """The .npz of arrays by name, as `numpy.savez` writes it but for the time."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o600 << 16  # on every system as on Unix
            archive.writestr(entry, buffer.getvalue())
    return file.getvalue()


def text(value: object) -> bytes:
    """Indented JSON with sorted keys."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
