"""Brain volumes as slices: T1 and T2 of one subject, read from NIfTI files and cut across, for the study of Table 7.

Convention:
    A slice is axial, (240, 240) pixels of 1 mm, shown as radiologists do: anterior up, the patient's left on the right.
    Its height z counts from the feet up, in the volume turned to canonical orientation (RAS+). Values are bytes: 0 is
    outside the brain and 255 the 99.5th percentile of the volume's brain voxels.
"""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from torch import Tensor

from fusionlib.data.images import Size, resize, to_tensor
from fusionlib.support.files import InputError

SIDE = 240  # pixels of a slice, which are those of BraTS
ENOUGH = 2000  # pixels of brain that a slice has to exceed in both volumes
MOST_NEGATIVE = 0.2  # of all values but 0: half of a z-scored brain, and 0.007 at most of the heads of the sets
FULL = 0.98  # share of voxels above 0 from which a warning is given; a brain fills a fifth
BRIGHTEST = 99.5  # percentile that becomes white: the few voxels above it are vessels and artefacts
# Subjects kept in memory at most, so that batches in random order read no volume twice. What is kept is not the volume
# but bytes of the slices used: 3 MB for each of the 369 cases of BraTS2020.
HELD = 400

_OF_NIBABEL = (ImageFileError, HeaderDataError, OrientationError, WrapStructError)
_UNREADABLE = (*_OF_NIBABEL, OSError, EOFError, TypeError, ValueError, zlib.error)


@dataclass(frozen=True)
class Layout:
    """Where a set keeps its volumes.

    `folders` are patterns of a subject's folder below the data root; of several the first that exists is used. `t1`
    and `t2` are the files in it, {} standing for the name of the folder; each ends in .nii.gz or .nii. Of the slices
    with enough brain every `every`-th height is used.
    """

    folders: tuple[str, ...]
    t1: str
    t2: str
    every: int = 1


# PAPER-GAP: the paper names BraTS2020, but neither its slices nor a split. Neighbouring slices look nearly the same, so
# every fifth is taken of its many cases; `split_of` parts the cases.
SETS = {
    "open_ms": Layout(("open_ms/patient*",), "T1", "T2"),
    "brats_format": Layout(("brats_format/TCGA-*",), "{}_t1", "{}_t2"),
    "BraTS2020": Layout(
        ("BraTS2020/MICCAI_BraTS2020_TrainingData/BraTS20_Training_*", "BraTS2020/BraTS20_Training_*"),
        "{}_t1",
        "{}_t2",
        every=5,
    ),
}
SPLITS = ("train", "val", "test")  # into which `split_of` parts BraTS2020; the other sets have committed lists


@dataclass(frozen=True, eq=False)
class Subject:
    """The slices of one subject that are used: `t1` and `t2` (N, 240, 240) uint8, `heights` the z of each, rising."""

    t1: np.ndarray
    t2: np.ndarray
    heights: tuple[int, ...]


def split_of(case: str) -> str:
    """Split of a case of BraTS2020, by the last digit of its number: 0 is test, 5 is val, any other is train."""
    return {"0": "test", "5": "val"}.get(case[-1], "train")


def open_slices(
    title: str,
    split: str,
    listed: list[str] | None,
    root: Path,
    advice: str,
    size: Size | None = None,
    count: int | None = None,
) -> tuple[list[str], Callable[[str], tuple[Tensor, Tensor]]]:
    """Find the slices of a split; of a split without a list, the volumes are read to see which have enough brain.

    Args:
        title: One of `SETS`.
        split: Its name; "all" is every subject there is.
        listed: Names of its slices, such as patient07_z087; None takes all that have enough brain, of a set without
            lists those of the subjects that `split_of` puts into the split.
        root: Data root.
        advice: How the set is had, for the message that says it is not there.
        size: As in `fusionlib.data.images.resize`; None for 240x240.
        count: Only the first `count` slices; of subjects beyond them nothing is read.

    Returns:
        The names of the slices, and what reads one by its name: T1 and T2, each (1, H, W) in [0, 1].

    Raises:
        InputError: The set or a subject of the split is not there, or as `read_subject`.
    """
    layout, folders = SETS[title], _folders(SETS[title], root)
    if not folders:
        raise InputError(f"{title} is not in {root}: {advice}, or set FUSIONLIB_DATA to the folder that has it.")
    if listed is not None:
        subjects = list(dict.fromkeys(_parsed(name)[0] for name in listed))
    else:
        subjects = [subject for subject in folders if split in ("all", split_of(subject))]
    absent = [subject for subject in subjects if subject not in folders]
    if absent or not subjects:
        missing = ", ".join(absent) if absent else "every subject"
        raise InputError(f"{missing} of {title} {split} is not in {root}: {advice}.")
    files = {subject: _files(folders[subject], layout) for subject in subjects}

    @lru_cache(maxsize=HELD)
    def read(subject: str) -> Subject:
        return read_subject(*files[subject], every=layout.every)

    def names() -> Iterator[str]:
        for subject in subjects:
            yield from (f"{subject}_z{z:03d}" for z in read(subject).heights)

    def load(name: str) -> tuple[Tensor, Tensor]:
        subject, z = _parsed(name)
        slices = read(subject)
        if z not in slices.heights:
            raise InputError(f"{files[subject][0]} has too little brain at z={z} to be {name}: fetch the volume again.")
        t1, t2 = (to_tensor(volume[slices.heights.index(z)]) for volume in (slices.t1, slices.t2))
        return (t1, t2) if size is None else (resize(t1, size), resize(t2, size))

    return list(islice(names() if listed is None else listed, count)), load


def subject_of(name: str) -> str:
    """Whose slice a pair is, by its name, SUBJECT_zNNN; the name itself where it names no slice.

    >>> subject_of("patient07_z087"), subject_of("FLIR_00006")
    ('patient07', 'FLIR_00006')
    """
    return re.sub(r"_z\d+$", "", name)


def read_subject(t1_path: Path | str, t2_path: Path | str, every: int = 1) -> Subject:
    """Read T1 and T2 of one subject, skull-stripped and on one grid, and keep the slices with enough brain.

    Negative values, of which resampling leaves a few at edges, become 0. Each volume has a scale of its own, from all
    its brain voxels, so that slices keep their brightness relative to each other. Slices smaller than 240x240 are
    padded with zeros on both sides alike, larger ones lose as much of their empty margin.

    Args:
        t1_path, t2_path: NIfTI files, .nii or .nii.gz, of any orientation, with 1 mm between the pixels of a slice.
        every: Use only heights that this number divides.

    Raises:
        InputError: A file is unreadable, has not three dimensions, holds NaN or infinite values or is sampled at
            another distance than 1 mm, or so many values are below 0 that it was normalised before; the two differ in
            shape or place; no slice has enough brain, or one has brain beyond 240x240 mm.

    Warns:
        A volume is nowhere 0, so that its skull and the air around it were hardly removed.
    """
    (t1, t1_affine), (t2, t2_affine) = _read(Path(t1_path)), _read(Path(t2_path))
    if t1.shape != t2.shape:
        shapes = f"{t1_path} has {_times(t1.shape)} voxels and {t2_path} has {_times(t2.shape)}"
        raise InputError(f"{shapes}: give volumes that were registered and resampled to one grid.")
    if not np.allclose(t1_affine, t2_affine, atol=0.5):
        fact = f"{t1_path} and {t2_path} do not lie in the same place, by their headers"
        raise InputError(f"{fact}: give volumes that were registered and resampled to one grid.")
    pixels = [np.count_nonzero(volume, axis=(0, 1)) for volume in (t1, t2)]
    heights = [int(z) for z in np.flatnonzero(np.minimum(*pixels) > ENOUGH) if z % every == 0]
    if not heights:
        fact = f"No axial slice of {t1_path} and {t2_path} has more than {ENOUGH} pixels of brain in both"
        raise InputError(f"{fact}: give skull-stripped volumes of a whole head, with positive values in the brain.")
    subject = Subject(_slices(t1, heights, t1_path), _slices(t2, heights, t2_path), tuple(heights))
    for path, volume in ((t1_path, t1), (t2_path, t2)):
        if np.count_nonzero(volume) > FULL * volume.size:
            fact = f"{path} has no background of 0, so what is around the brain counts as brain"
            warnings.warn(f"{fact}: give a skull-stripped volume.", stacklevel=2)
    return subject


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Volume (X, Y, Z) float32 in canonical orientation, not negative, and its affine (4, 4) in mm."""
    try:
        # At once, not by nibabel.load, which stops before the checksum at the end of a .gz and so reads damaged ones.
        content = path.read_bytes()
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
        if len(image.shape) != 3:
            fact = f"{path} has {len(image.shape)} dimensions ({_times(image.shape)})"
            raise InputError(f"{fact}: give a volume of three, one image of one modality.")
        image = nibabel.as_closest_canonical(image)
        # Not float64, the default of nibabel, and not kept by the image beside what is returned.
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, refused below
            volume = image.get_fdata(caching="unchanged", dtype=np.float32)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check its name and folder.") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as a NIfTI volume ({reason}): fetch or convert it again.") from None
    if not np.isfinite(volume).all():
        raise InputError(f"{path} holds NaN or infinite values: replace them by 0 and save it again.")
    spacing = image.header.get_zooms()[:2]
    if not all(abs(step - 1) <= 0.02 for step in spacing):  # nor may a damaged header say NaN
        fact = f"{path} has pixels of {spacing[0]:.3g}x{spacing[1]:.3g} mm in its axial slices"
        raise InputError(f"{fact}: resample it to 1 mm, so that all heads share one scale.")
    below, above = np.count_nonzero(volume < 0), np.count_nonzero(volume > 0)
    if below > MOST_NEGATIVE * (below + above):
        fact = f"{path} has {100 * below / (below + above):.0f} % of its values below 0, as after a z-score"
        raise InputError(f"{fact}: give the intensities as they were measured, since all below 0 would be black.")
    return np.maximum(volume, 0), image.affine


def _slices(volume: np.ndarray, heights: list[int], path: Path | str) -> np.ndarray:
    """Slices (N, 240, 240) uint8 of a volume (X, Y, Z) whose axes point right, anterior and up."""
    white = np.percentile(volume[volume > 0], BRIGHTEST)
    levels = np.round(np.minimum(volume[..., heights] / white, 1) * 255).astype(np.uint8)
    # Rows begin at the front. Columns begin at the patient's right: we look from the feet, the patient's face up.
    brain = levels[::-1, ::-1].transpose(2, 1, 0)
    framed = np.zeros((len(heights), SIDE, SIDE), dtype=np.uint8)
    source, target = zip(*(_centred(length) for length in brain.shape[1:]), strict=True)
    framed[:, *target] = brain[:, *source]
    if np.count_nonzero(framed) < np.count_nonzero(brain):
        raise InputError(f"{path} has brain beyond the middle {SIDE}x{SIDE} mm: centre or crop it and save it again.")
    return framed


def _centred(length: int) -> tuple[slice, slice]:
    """Which part of an axis of this length is shown, and where on an axis of 240."""
    kept, before, after = min(length, SIDE), max(length - SIDE, 0) // 2, max(SIDE - length, 0) // 2
    return slice(before, before + kept), slice(after, after + kept)


def _folders(layout: Layout, root: Path) -> dict[str, Path]:
    candidates = (
        {path.name: path for path in sorted(root.glob(pattern)) if path.is_dir()} for pattern in layout.folders
    )
    return next(filter(None, candidates), {})


def _files(folder: Path, layout: Layout) -> tuple[Path, Path]:
    t1, t2 = (_file(folder, name.format(folder.name)) for name in (layout.t1, layout.t2))
    return t1, t2


def _file(folder: Path, stem: str) -> Path:
    for path in (folder / f"{stem}.nii.gz", folder / f"{stem}.nii"):
        if path.is_file():
            return path
    raise InputError(f"{folder} has neither {stem}.nii.gz nor {stem}.nii: put that volume there.")


def _parsed(name: str) -> tuple[str, int]:
    """Subject and height behind the name of a slice."""
    return subject_of(name), int(name.rpartition("_z")[2])


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
