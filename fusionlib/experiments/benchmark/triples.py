"""What is scored: for each case a fused image, its two sources, and where there are any, a field and its truth.

Mistakes that show in names and headers are reported, file by file, before anything is scored. Images are read as 8-bit
grey: colour becomes luma (BT.601, as Pillow rounds it), and 16 bits become 8, to the nearest level.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import textwrap
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fusionlib.data.decode import decode
from fusionlib.data.images import read_infrared, read_visible, size_of, to_uint8
from fusionlib.data.sets import images_by_stem, matched
from fusionlib.experiments.benchmark.folder import Benchmark, Part, open_benchmark
from fusionlib.support.files import InputError, printable

LOGGER = logging.getLogger(__name__)
OWN = "own"  # the name of the only part where there is no benchmark
FARTHEST = 1_000_000  # pixels along an axis; beyond, a field has diverged, and its error would overflow unnoticed
_READING = threading.Lock()  # the decoder sets Python's filters of warnings, which are one for all threads


@dataclass(frozen=True)
class Triple:
    """One case: `fused`, its sources, `field` (None if the method gives none), and the part of which it is `pair`."""

    case: str
    part: str
    pair: str
    fused: Path
    ir: Path
    vi: Path
    field: Path | None = None
    benchmark: Benchmark | None = None

    def files(self) -> list[Path]:
        """All files that its scores depend on."""
        truth = [self.benchmark.folder / "fields" / f"{self.case}.npz"] if self.benchmark and self.field else []
        return [self.fused, self.ir, self.vi, *([self.field] if self.field else []), *truth]

    def mark(self) -> str:
        """Fingerprint of the content of its files; those of a benchmark are checked against its manifest."""
        if self.benchmark:
            folder = self.benchmark.folder
            for path in self.files():
                if path.is_relative_to(folder) and path not in (self.fused, self.field):
                    self.benchmark.read(path.relative_to(folder).as_posix())
        return hashlib.sha256(json.dumps([_sha(path) for path in self.files()]).encode()).hexdigest()[:16]

    def sources(self) -> str:
        """Fingerprint of the two sources alone."""
        return hashlib.sha256((_sha(self.ir) + _sha(self.vi)).encode()).hexdigest()[:16]

    def images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Infrared, visible and fused, (H, W) uint8; InputError if one cannot be read or they differ in size."""
        with _READING:
            if self.benchmark:
                ir, vi = levels(self.ir), levels(self.vi)
            else:
                ir, vi = (to_uint8(image)[0].numpy() for image in (read_infrared(self.ir), read_visible(self.vi)[0]))
            fused = levels(self.fused)
        for path, image in ((self.ir, ir), (self.vi, vi)):
            if image.shape != fused.shape:
                raise InputError(_other_size(self.fused, fused.shape, path, image.shape))
        return ir, vi, fused

    def fields(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The method's field and the true one, (2, H, W) float32, and where it counts, (H, W); None without a field."""
        if self.field is None or self.benchmark is None:
            return None
        with np.load(io.BytesIO(self.benchmark.read(f"fields/{self.case}.npz"))) as truth:
            phi_gt, valid = truth["phi"], truth["valid"]
        return read_field(self.field, phi_gt.shape), phi_gt, valid


@dataclass(frozen=True)
class Cases:
    """All triples, and the parts they belong to by name; None is the part of one's own images."""

    triples: Sequence[Triple]
    parts: Mapping[str, Part | None] = field(default_factory=dict)


def of_benchmark(fused: Path, folder: Path, fields: Path | None) -> Cases:
    """The cases of a benchmark; a part without any fused image is left out, and a line says so.

    Raises:
        InputError: no benchmark, no fused images of it, or files that do not fit, which are listed.
    """
    benchmark, images = open_benchmark(folder), images_by_stem(fused)
    method_fields = None if fields is None else _fields_by_stem(fields)
    cases = {case for part in benchmark.parts.values() for case in part.cases}
    if not cases & images.keys():
        name = min(cases)
        raise InputError(f"No image in {fused} has the name of a case of {folder}: name fused images as {name}.png.")
    for name in sorted(images.keys() - cases)[:3]:
        LOGGER.info("%s belongs to no case of %s and is left out.", printable(images[name]), printable(folder))
    parts, triples, errors = {}, [], []
    for part in benchmark.parts.values():
        if not part.cases.keys() & images.keys():
            LOGGER.info("Part %s: no fused image of it is there; it is left out.", part.name)
            continue
        parts[part.name] = part
        for case, pair in part.cases.items():
            if case not in images:
                errors.append(f"{fused / case}.png is missing: every case of {part.name} is needed.")
            elif method_fields is not None and case not in method_fields:
                errors.append(f"{fields / case}.npz is missing: give a field for every case of {part.name}.")
            else:
                ir, vi = (benchmark.folder / kind / f"{case}.png" for kind in ("aligned", "vi"))
                method_field = method_fields[case] if method_fields is not None else None
                triples.append(Triple(case, part.name, pair, images[case], ir, vi, method_field, benchmark))
    refuse(errors + _size_errors(triples))
    return Cases(triples, parts)


def of_folders(fused: Path, ir: Path, vi: Path) -> Cases:
    """Three folders of images that belong together by stem; InputError names what has no twin or another size."""
    if ir.resolve() == vi.resolve():
        raise InputError(f"{ir} is given as the infrared and as the visible folder: give two.")
    sources, images = matched(ir, vi), images_by_stem(fused)
    errors = [f"{fused} has no image named {name}, as {sources[name][0]} is." for name in sources if name not in images]
    errors += [f"{images[name]} has no infrared image of that name in {ir}." for name in images if name not in sources]
    triples = [Triple(name, OWN, name, images[name], *sources[name]) for name in sources if name in images]
    refuse(errors + _size_errors(triples))
    return Cases(triples, {OWN: None})


def levels(path: Path) -> np.ndarray:
    """An image of 8 or 16 bits, grey or colour, as grey levels (H, W) uint8.

    Raises:
        InputError: it cannot be read, is of another depth, or has 12 or 14 bits in samples of 16, which would be black.
    """
    decoded = decode(path)
    pixels = decoded.pixels
    for note in decoded.notes:
        LOGGER.warning("%s %s", printable(path), note)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} has samples of {pixels.dtype}: save fused images with 8 or 16 bits.")
    if decoded.inverted:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if pixels.dtype == np.uint16:
        if 0 < pixels.max() < 2**14:
            fact = f"{path} has 16 bits and no level above {pixels.max()}, as if 12 or 14 bits were meant"
            raise InputError(f"{fact}: scale it to 0..65535, or save it with 8 bits.")
        pixels = ((pixels.astype(np.int64) + 128) // 257).astype(np.uint8)
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))


def read_field(path: Path, shape: Sequence[int]) -> np.ndarray:
    """The field `phi` of a file, float32 of a shape (2, H, W); InputError says what is wrong with it."""
    advice = f"save it with numpy.savez(path, phi=phi), phi {tuple(shape)} in pixels, x then y"
    try:
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)  # a damaged file would be left open
        # Whoever writes with numpy.save into a file of that name has an array there, and no archive.
        phi = loaded if isinstance(loaded, np.ndarray) else loaded["phi"]
        if not isinstance(phi, np.ndarray):  # of a member that is no array, numpy gives the bytes
            raise ValueError("phi is no array")
    except Exception as error:  # damaged files raise whatever zlib, zipfile, tokenize and numpy come upon
        known = isinstance(error, OSError | ValueError | KeyError)  # whose words say something to a user
        reason = textwrap.shorten(str(error), 150, placeholder=" ...") if known else ""
        raise InputError(f"{path} holds no field phi ({reason or 'damaged'}): {advice}.") from None
    if phi.dtype.kind not in "fiu" or phi.shape != tuple(shape):
        raise InputError(f"{path} has a field of {phi.shape} {phi.dtype}: {advice}.")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is said below
        phi = phi.astype(np.float32)
    if np.isnan(phi).any():
        raise InputError(f"{path} has NaN in its field: replace them by numbers.")
    if (np.abs(phi) > FARTHEST).any():
        fact = f"{path} has displacements of more than {FARTHEST} pixels or infinity in its field"
        raise InputError(f"{fact}: write 0 where the method has diverged.")
    return phi


def _size_errors(triples: Sequence[Triple]) -> list[str]:
    """Sentences about files that are no images and about sizes that differ, from the headers of the files alone."""
    errors = []
    for triple in triples:
        try:
            fused, *sources = (size_of(path) for path in (triple.fused, triple.ir, triple.vi))
        except (InputError, OSError) as error:
            errors.append(str(error))
            continue
        source_sizes = zip((triple.ir, triple.vi), sources, strict=True)
        mismatches = [_other_size(triple.fused, fused, path, size) for path, size in source_sizes if size != fused]
        errors += mismatches[:1]
    return errors


def _other_size(fused: Path, size: Sequence[int], path: Path, other: Sequence[int]) -> str:
    return f"{fused} is {size[1]}x{size[0]} pixels and {path} is {other[1]}x{other[0]}: they must have one size."


def refuse(errors: Sequence[str]) -> None:
    """InputError if anything is wrong; of several things, each is said on a line of its own before."""
    if len(errors) == 1:
        raise InputError(errors[0])
    for sentence in errors:
        LOGGER.warning(printable(sentence))
    if errors:
        raise InputError(f"{len(errors)} files do not fit, as said above: correct them and run it again.")


def _fields_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the fields, CASE.npz.")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix == ".npz"}


def _sha(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give a file that is there and open to you."
        ) from None
