"""Fuse image files: two of them, or two folders of them, as `python -m fusionlib fuse` does."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
from torch import Tensor

from fusionlib import methods
from fusionlib.data import Pair, read_pair, recolour, save_image
from fusionlib.data.sets import matched
from fusionlib.methods.fast import fast
from fusionlib.support.files import InputError, atomic, check_writable, printable
from fusionlib.support.inputs import checked_device, without_evidence

LOGGER = logging.getLogger(__name__)
CONVENTION = (
    "phi (2, H, W), pixels, channel 0 = x to the right, 1 = y down: registered(p) = infrared(p + phi(p)), "
    "bilinear, pixel centres at integers; confidence (H, W), the chance that phi is right to 1/256 of the image side"
)


def fuse_files(
    ir: Path | str,
    vi: Path | str,
    out: Path | str,
    method: str = "ours_robust",
    field: Path | str | None = None,
    weights: Path | str | None = None,
    device: str | None = None,
    skip_existing: bool = False,
    page: int | None = None,
) -> list[Path]:
    """Fuse an infrared and a visible file, or two folders whose files belong together by stem.

    Images may have any size from 32 pixels up and any bit depth; the fused image has the size and the colour of the
    visible one. Every file is written atomically, with a line that says so. Ours runs as
    `fusionlib.methods.fast` has it: images of more than `fast.TILE` squared pixels are fused in tiles, in bounded
    memory.

    Args:
        ir, vi: two files or two folders.
        out: the PNG to write; for folders the folder of NAME.png.
        method: one of `methods.names()`.
        field: also write the displacement field: NAME.npz; for folders the folder of them. Holds `phi`, float32
            (2, H, W) in pixels, `confidence`, float32 (H, W) in [0, 1], if the method gives one, and `convention`, a
            text.
        weights: of a network, a file or a folder laid out as results/mini/weights, where that of `ours_robust` is
            robust/ours.safetensors; by default those that come with the project.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
        skip_existing: leave out pairs whose results are there and newer than both images, whatever method made them.
        page: which one to take of a file with several, from 1; by default the first, with a warning.

    Returns:
        The files written.

    Raises:
        InputError: a file is missing, has no twin or cannot be read, or the method gives no field. Missing files and
            names that do not fit are reported before anything is written.

    Warns:
        An image is black, constant or noise, and the method registers: `ours_robust` leaves the infrared where it is,
        or nearly so, other methods find a field out of nothing. Or the method registers and its field is zero.
    """
    ir, vi, out, field = Path(ir), Path(vi), Path(out), None if field is None else Path(field)
    for path in (ir, vi):
        if not path.exists():
            raise InputError(f"{path} does not exist: check its name and folder.")
    if ir.resolve() == vi.resolve():
        raise InputError(f"{ir} is given as the infrared and as the visible image: give two.")
    if ir.is_dir() != vi.is_dir():
        raise InputError(f"{ir} and {vi} are a file and a folder: give two files or two folders.")
    if out.resolve() in (ir.resolve(), vi.resolve()):
        raise InputError(f"{out} is one of the inputs and would be overwritten: give another output.")
    if ir.is_dir():
        for folder in filter(None, (out, field)):
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder} is a file, but two folders of images need a folder: name another.")
        jobs = [
            (sources, out / f"{name}.png", field and field / f"{name}.npz") for name, sources in matched(ir, vi).items()
        ]
    else:
        for path, suffix in ((out, ".png"), (field, ".npz")):
            if path is not None and path.suffix.lower() != suffix:
                raise InputError(f"{path} cannot be written: give a name that ends in {suffix}.")
        jobs = [((ir, vi), out, field)]
    for target in (target for _, *targets in jobs for target in targets if target and target.is_dir()):
        raise InputError(f"{target} is a folder: give the name of a file, or move the folder away.")
    for path in (path for sources, *_ in jobs for path in sources if not path.exists()):
        raise InputError(f"{path} is a link to nothing: bring what it names, or remove it.")
    for target in (out, field):
        if target is not None:
            check_writable(target if ir.is_dir() else target.parent)
    methods.check_weights(method, weights)
    network = fast(methods.load(method, weights, checked_device(device)))
    written: list[Path] = []
    for count, (sources, image_path, field_path) in enumerate(jobs, 1):
        targets = [path for path in (image_path, field_path) if path]
        if skip_existing and _younger(targets, sources):
            LOGGER.info(f"{count}/{len(jobs)}  {printable(image_path)} is there")
            continue
        image, arrays = _fuse(network, read_pair(*sources, page=page), sources, wants_field=field_path is not None)
        if field_path:
            with atomic(field_path) as part, part.open("wb") as file:  # by a name, numpy would add a suffix
                np.savez_compressed(file, **arrays, convention=CONVENTION)
        save_image(image_path, image)  # last: it says that the pair is done
        LOGGER.info(f"{count}/{len(jobs)}  wrote {' and '.join(map(printable, targets))}")
        written += targets
    return written


def _fuse(
    method: methods.Method, pair: Pair, sources: tuple[Path, Path], wants_field: bool
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Fused image in the colour of the visible one; and, if wanted, the arrays phi (2, H, W) and confidence (H, W)."""
    fused = method.fuse(pair.ir[None], pair.vi[None])
    if not all(each is None or each.isfinite().all() for each in (fused.image, fused.field)):
        raise InputError(f"{method.name} makes NaN or infinity of {sources[0]}: its weights are damaged; give others.")
    registers, reasons = fused.field is not None, [without_evidence(image) for image in (pair.ir, pair.vi)]
    for path, why in zip(sources, reasons, strict=True):
        if registers and why:
            advice = "do not rely on the displacement" if fused.field.any() else "the infrared was not moved"
            warnings.warn(f"{path} is {why}: nothing in it tells how to register the pair, so {advice}.", stacklevel=3)
    if registers and not any(reasons) and not fused.field.any():
        text = "found no displacement that it could trust, so the infrared was not moved"
        warnings.warn(f"{sources[0]}: {method.name} {text}.", stacklevel=3)
    if wants_field and fused.field is None:
        raise InputError(f"{method.name} registers nothing, so there is no field: leave out --field or choose `ours`.")
    grey = bool((pair.rgb == pair.vi).all())
    image = fused.image[0] if grey else recolour(fused.image[0], pair.rgb)
    arrays = {"phi": fused.field[0]} if wants_field else {}
    if wants_field and fused.confidence is not None:
        arrays["confidence"] = fused.confidence[0, 0]
    return image, {name: tensor.float().cpu().numpy() for name, tensor in arrays.items()}


def _younger(made: list[Path], sources: tuple[Path, Path]) -> bool:
    latest = max(path.stat().st_mtime for path in sources)
    return all(path.exists() and path.stat().st_mtime > latest for path in made)
