"""Probes of training and test inputs: files, volumes, drawn scenes, boxes, deformations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import torch
from PIL import Image

from fusionlib import data
from fusionlib.data import PairSet
from fusionlib.data import labels as box_files
from fusionlib.data.drawn import brain, synthetic
from fusionlib.data.raw_pairs import RawSet
from fusionlib.data.volumes import subject_of
from fusionlib.deformation import (
    LEVELS,
    Level,
    compose,
    fold_share,
    invert,
    jacobian_determinant,
    misalign_by_key,
    sample_field,
    warp,
)
from fusionlib.experiments import robustness
from fusionlib.probes.views import DOUBLE, SINGLE, Seen, pair, scene, temporary_data_root
from fusionlib.support import boxes

# One of 65,536 pixels may be rounded to the next of 256 grey levels; another filter differs by more.
BYTES = 3e-4


def images() -> Iterator[Seen]:
    """Grey, colour, palette, deep and compressed files, read as they are and at three sizes."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        infrared, visible = Path(folder, "ir"), Path(folder, "vi")
        infrared.mkdir(), visible.mkdir()
        for number, suffix in enumerate((".png", ".jpg", ".bmp", ".tif")):
            ir, vi = scene(number, 80, 100)
            colour = Image.fromarray(np.stack([vi, 255 - vi, ir], -1).astype(np.uint8))
            deep = Image.fromarray((ir * 37 + 1000).astype(np.uint16)) if suffix in (".png", ".tif") else None
            (deep or Image.fromarray(ir.astype(np.uint8))).save(infrared / f"{number}.png")
            colour.save(visible / f"{number}{suffix}", quality=90)
        colour.quantize(64).save(visible / "4.png")
        colour.convert("L").transpose(Image.Transpose.ROTATE_90).rotate(90, expand=True).save(infrared / "4.png")
        for size in (None, 64, (48, 96)):
            for one in data.open_folders(infrared, visible, size):
                for part in ("ir", "vi", "rgb"):
                    yield f"{one.name} {part} {size}", getattr(one, part), BYTES
    with temporary_data_root() as root:
        one = data.open_set("RoadScene", "train", 96, root)[3]
        yield "set", torch.cat([one.ir, one.vi, one.rgb]), BYTES
        yield "first of 3", data.open_set("RoadScene", "val", 64, root, count=3).stack([0, 2])[1], BYTES


def volumes() -> Iterator[Seen]:
    """Slices of two heads in the layout of open_ms, in another orientation and with negative values."""
    with TemporaryDirectory() as folder:
        z, y, x = np.mgrid[:182, :218, :182] / 200
        for number, subject in enumerate(sorted(set(map(subject_of, data.splits("open_ms")["test"])))):
            place = Path(folder, "open_ms", subject)
            place.mkdir(parents=True)
            inside = ((x - 0.45) ** 2 + (y - 0.52) ** 2 + (z - 0.45) ** 2) < 0.13 + 0.01 * number
            for name, values in {"T1": 400 * x + 200 * np.sin(20 * y), "T2": 700 - 300 * x * z}.items():
                volume = np.where(inside, values, 0).transpose(2, 1, 0)[:: -1 if number else 1]
                affine = np.diag([-1.0 if number else 1.0, 1, 1, 1])
                nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), place / f"{name}.nii")
        for size in (None, 64):
            pairs = data.open_set("open_ms", "test", size, folder, count=2)
            for name, images in zip(("ir", "vi"), pairs.stack([0, 1]), strict=True):
                yield f"{name} {size}", images, BYTES


def drawn_scenes() -> Iterator[Seen]:
    """Three scenes, by day and by night, at two sizes."""
    for key, sides in ((("train", 0, 0), (64, 64)), (("train", 0, 3), (64, 96)), (("test", 0, 1), (128, 128))):
        drawn = synthetic.scene(key, *sides)
        for part in ("ir", "vi", "rgb"):
            yield f"{drawn.name} {part}", getattr(drawn, part), BYTES
        yield f"{drawn.name} boxes", drawn.boxes, SINGLE
        yield f"{drawn.name} night", drawn.night, SINGLE


def drawn_brains() -> Iterator[Seen]:
    """Two brains at two sizes."""
    for key, side in ((("train", 0, 0), 64), (("test", 0, 2), 96)):
        drawn = brain.brain(key, side, side)
        for part in ("t1", "t2", "shares"):
            yield f"{drawn.name} {part}", getattr(drawn, part), BYTES


def labels() -> Iterator[Seen]:
    """Boxes of RoadScene's frames by their homographies, of M3FD from its list and files, and what has labels."""
    with temporary_data_root() as root:
        names = data.splits("RoadScene")["train"][:6]
        read = box_files.boxes_of("RoadScene", root, 64)
        for name in names:
            pair_boxes = read(name)
            yield name, boxes.of_rows() if pair_boxes is None else pair_boxes, SINGLE
        yield "labelled", [names.index(name) for name in box_files.labelled("RoadScene", names, empty=True)], SINGLE
        yield "M3FD, listed", box_files.boxes_of("M3FD", root, 256)("00004"), SINGLE
        folder = root / "M3FD" / "Annotation"
        folder.mkdir(parents=True)
        (folder / "00000.xml").write_text(
            "<annotation><size><width>1024</width><height>768</height><depth>3</depth></size>"
            "<object><name>People</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>320</ymax></bndbox>"
            "</object><object><name>Car</name><bndbox><xmin>400</xmin><ymin>300</ymin><xmax>900</xmax><ymax>700</ymax>"
            "</bndbox></object><object><name>Lamp</name><bndbox><xmin>600</xmin><ymin>0</ymin><xmax>640</xmax>"
            "<ymax>90</ymax></bndbox></object></annotation>"
        )
        yield "M3FD", box_files.boxes_of("M3FD", root, 256)("00000"), SINGLE
        yield "M3FD, lamps", box_files.boxes_of("M3FD_full", root, 256, ["lamp", "bus"])("00000"), SINGLE


def raw_frames() -> Iterator[Seen]:
    """A raw frame on the canvas of its crop and on a square, with the true field and where it is valid."""
    frame, crop = (image[0].float() for image in (pair(7, 96, 120)[0], pair(7, 70, 90)[0]))
    facts = {"0": {"H": [[0.9, 0.02, -5.0], [-0.03, 0.85, -2.0], [1e-5, -2e-5, 1.0]], "h": 70, "w": 90, "cluster": 1}}
    for size in (None, 48):
        aligned = PairSet(["0"], lambda name: data.Pair(name, crop, crop, crop))
        raw = RawSet(aligned, lambda name: frame, facts, size)[0]
        yield f"{size} infrared", raw.ir, BYTES
        yield f"{size} truth", raw.phi_gt, SINGLE
        yield f"{size} valid", raw.misaligned.valid.double(), 1e-2


def deformation() -> Iterator[Seen]:
    """Every level, the warp, the inverse and their composition, on a picture that is no square."""
    ir = pair(1, 48, 64)[0]
    for level in LEVELS:
        moved = misalign_by_key(ir, level, [(0, "a", 3)], 1e-4)
        yield f"{level} image", moved.ir, SINGLE
        yield f"{level} truth", moved.phi_gt, SINGLE
        yield f"{level} valid", moved.valid.double(), 1e-2
        yield f"{level} coarser", misalign_by_key(ir, level, [(0, "b", 1)], 0.02).phi_gt, SINGLE
    steep = Level("steep", translation=0, rotation=0, elastic=0.03)  # the first draw of this key folds, the next not
    fields = [sample_field("heavy", 48, 64, "b"), sample_field(steep, 48, 64, (0, "c", 3))]
    yield "fields", torch.cat(fields), SINGLE
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in (48, 64)), indexing="ij")
    phi = torch.stack([3 * torch.sin(y / 9) + 2, 2 * torch.cos(x / 11) - 60 * (x > 62)])[None]
    yield "warp", warp(ir, phi), DOUBLE
    yield "warp in float32", warp(ir, phi, exact=False), SINGLE
    yield "compose", compose(phi, 0.5 * phi.flip(1)), DOUBLE
    yield "inverse", invert(phi[..., :60].clamp(-5, 5), 1e-4), SINGLE
    yield "area", jacobian_determinant(phi), DOUBLE
    yield "folds", fold_share(3 * phi), SINGLE


def hardships() -> Iterator[Seen]:
    """The inputs of a method at two amounts of every hardship."""
    pairs = PairSet(
        ["0"], lambda name: data.Pair(name, *(image[0].float() for image in pair(0)), pair(0)[1][0].float())
    )
    for name, trial in robustness.TRIALS.items():
        yield f"{name} amounts", trial.amounts, DOUBLE
        for amount in trial.amounts[1:4:2]:
            moved, vi = robustness.method_inputs(trial, amount, pairs, 0)
            yield f"{name} {amount:g} infrared", moved.ir, SINGLE
            yield f"{name} {amount:g} truth", moved.phi_gt, SINGLE
            yield f"{name} {amount:g} visible", vi, BYTES


def nothing() -> Iterator[Seen]:
    """Infrared images that show nothing."""
    for name, spoil in robustness.NOTHING.items():
        yield name, spoil(pair(0)[0], "0"), DOUBLE
