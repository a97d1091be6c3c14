"""The batches of a training: aligned pairs, deformed differently in each epoch, with the true field and the boxes.

What is random depends on the seed and the epoch (order, flips, levels, crops) and on the pair's name (deformation,
augmentation), never on what came before, so a resumed training sees the same images as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fusionlib.data import PairSet, data_root, labels
from fusionlib.deformation import misalign_by_key
from fusionlib.support import boxes
from fusionlib.support.random_fields import generator
from fusionlib.training import augmentation
from fusionlib.training.augmentation import Augmentation
from fusionlib.training.recipe import Recipe, TrainingConfig

BoxesOf = Callable[[int], Tensor | None]  # from the place of a pair in its set to its boxes


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    Attributes:
        ir, vi: (B, 1, h, w) float32 in [0, 1], the aligned pair; of the two, the network is given `vi` only.
        moved: (B, 1, h, w) float32 in [0, 1], the deformed infrared.
        phi_gt: (B, 2, h, w) pixels, the true field: `warp(moved, phi_gt)` is the aligned infrared.
        boxes: for each pair (N, 5) on the aligned pair, as in `fusionlib.support.boxes`; None for an unlabelled pair.
    """

    ir: Tensor
    vi: Tensor
    moved: Tensor
    phi_gt: Tensor
    boxes: list[Tensor | None] = field(default_factory=list)


def batches(pairs: PairSet, recipe: Recipe, epoch: int, device: str = "cpu") -> Iterator[Batch]:
    """The batches of one epoch of a recipe; with boxes if it has a detector."""
    return deformed_batches(pairs, recipe.training, recipe.seed, epoch, device, _boxes_of(pairs, recipe))


def made_ahead(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made by a thread while a GPU learns from the one before.

    What is random does not depend on when it is drawn, so the batches are the same.
    """
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, made, None)
        while (batch := coming.result()) is not None:
            coming = worker.submit(next, made, None)
            yield batch


def deformed_batches(
    pairs: PairSet,
    settings: TrainingConfig,
    seed: int,
    epoch: int,
    device: str = "cpu",
    boxes_of: BoxesOf = lambda index: None,
) -> Iterator[Batch]:
    """The batches of one epoch: shuffled, flipped, augmented, deformed and cropped as the settings say.

    Each image is deformed whole and cropped afterwards, so that a crop also holds what has moved into it.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(pairs))
    count = min(settings.batch, len(pairs))
    for start in range(0, len(order) - count + 1, count):
        indices = [int(i) for i in order[start : start + count]]
        ir, vi = (images.to(device) for images in pairs.stack(indices))
        flipped = rng.random(count) < 0.5 if settings.flip else np.zeros(count, bool)
        flip_mask = torch.from_numpy(flipped).to(device).view(-1, 1, 1, 1)
        ir, vi = (torch.where(flip_mask, images.flip(-1), images) for images in (ir, vi))
        keys = [(seed, pairs.names[i], epoch) for i in indices]
        generators = [generator("augmentation", *key) for key in keys]
        photometric = settings.augmentation if epoch < settings.registration_epochs else None
        if photometric is not None:
            ir, vi = _augmented(augmentation.before_deformation, ir, vi, photometric, generators)
        # A label good to 0.02 px costs a third of an exact one.
        levels = [settings.levels[k] for k in rng.integers(len(settings.levels), size=count)]
        moved = misalign_by_key(ir, levels, keys, tolerance=0.02)
        cropped = settings.crop_epochs is None or epoch < settings.crop_epochs
        window = _window(rng, ir.shape[-2:], settings.crop if cropped else None)
        crop = (..., *(slice(place, place + side) for place, side in zip(window[:2], window[2:], strict=True)))
        window_boxes = [
            _boxes_in_window(boxes_of(i), flip, ir.shape[-1], window) for i, flip in zip(indices, flipped, strict=True)
        ]
        moved_ir, vi = moved.ir[crop], vi[crop]
        if photometric is not None:
            moved_ir, vi = _augmented(augmentation.after_deformation, moved_ir, vi, photometric, generators)
        yield Batch(ir[crop], vi, moved_ir, moved.phi_gt[crop], window_boxes)


def _augmented(
    step: Callable, ir: Tensor, vi: Tensor, settings: Augmentation, generators: list[np.random.Generator]
) -> tuple[Tensor, Tensor]:
    """A step of the augmentation for each pair of a batch, with the pair's own generator."""
    pairs = [step(*pair, settings, rng) for *pair, rng in zip(ir.cpu(), vi.cpu(), generators, strict=True)]
    return tuple(torch.stack(images).to(ir.device) for images in zip(*pairs, strict=True))


def _boxes_of(pairs: PairSet, recipe: Recipe) -> BoxesOf:
    if recipe.detector is None:
        return lambda index: None
    if pairs.title == "synthetic":
        return lambda index: pairs[index].boxes
    read = labels.boxes_of(recipe.dataset, data_root(), recipe.size)
    boxes_of_pair = {name: read(name) for name in pairs.names}
    return lambda index: boxes_of_pair[pairs.names[index]]


def _boxes_in_window(
    whole: Tensor | None, flipped: bool, width: int, window: tuple[int, int, int, int]
) -> Tensor | None:
    """Boxes of a whole image as they lie in its window, flipped before or not."""
    if whole is None:
        return None
    return boxes.crop(boxes.flip(whole, width) if flipped else whole, *window)


def _window(rng: np.random.Generator, size: torch.Size, crop: int | None) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random square; the whole image if that is no larger."""
    height, width = size
    if crop is None or crop >= min(height, width):
        return 0, 0, height, width
    top, left = (int(rng.integers(0, side - crop + 1)) for side in (height, width))
    return top, left, crop, crop
