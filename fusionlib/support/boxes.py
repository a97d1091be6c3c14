"""Boxes around objects: one form for every set, and how they follow an image that is resized, cropped or mirrored.

Convention:
    - Boxes are a float32 tensor (N, 5): class, x0, y0, x1, y1. The class is an index into `NAMES`; none is (0, 5).
    - Corners are edges: pixel i reaches from i to i + 1, the whole image is (0, 0, W, H), and a box of one pixel is one
      wide. So boxes scale with the image without an offset, as COCO, FLIR and M3FD have them. A point of a field or of
      a homography counts from the centre of pixel 0 instead: there the edge x lies at x - 0.5.
    - Detections (M, 6) are the same with a score between class and corners: class, score, x0, y0, x1, y1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from fusionlib.support.files import InputError

CLASSES = ("person", "bicycle", "car")  # that a detector finds by default
NAMES = (*CLASSES, "bus", "lamp", "motorcycle", "truck")  # all that boxes can be of; bicycle aside, those of M3FD
MIN_VISIBLE = 0.3  # share of its area that must lie inside, or a box that a border cuts is dropped


def of_rows(rows: Iterable[tuple[int, float, float, float, float]] = ()) -> Tensor:
    """Boxes (N, 5) of rows of class and corners; of none, (0, 5)."""
    return torch.tensor([list(row) for row in rows], dtype=torch.float32).reshape(-1, 5)


def checked(boxes: Tensor) -> Tensor:
    """The boxes, if they are (N, 5), finite, of known classes and with their corners in order; else InputError.

    A box without area is accepted (`crop` drops it), and so is one that reaches out of the image.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 5 or not boxes.is_floating_point():
        raise InputError(f"Boxes are {tuple(boxes.shape)} {boxes.dtype}: give floats (N, 5), class and four corners.")
    if not boxes.isfinite().all():
        raise InputError("A box has NaN or infinity: remove it or give its corners in pixels.")
    label = boxes[:, 0]
    unknown = (label < 0) | (label >= len(NAMES)) | (label != label.round())
    if unknown.any():
        known = ", ".join(f"{i} {name}" for i, name in enumerate(NAMES))
        raise InputError(f"There is no class {label[unknown][0].item():g}: use {known}.")
    if (boxes[:, 3:] < boxes[:, 1:3]).any():
        raise InputError("A box ends before it begins: give corners as x0, y0, x1, y1, not as a width and a height.")
    return boxes


def of_classes(boxes: Tensor, classes: Sequence[str]) -> Tensor:
    """Those of the boxes (N, 5) whose class is one of these names."""
    return boxes[torch.isin(boxes[:, 0], boxes.new_tensor([NAMES.index(name) for name in classes]))]


def area(boxes: Tensor) -> Tensor:
    """Pixels that each box covers, (N,); of boxes or detections, whose last four columns are the corners."""
    return (boxes[:, -2:] - boxes[:, -4:-2]).clamp(min=0).prod(1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each of (N, 5 or 6) with each of (M, 5 or 6), (N, M); 0 where both have no area."""
    low = torch.maximum(a[:, None, -4:-2], b[None, :, -4:-2])
    high = torch.minimum(a[:, None, -2:], b[None, :, -2:])
    both = (high - low).clamp(min=0).prod(2)
    return both / (area(a)[:, None] + area(b)[None] - both).clamp(min=1e-9)


def scale(boxes: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    """Boxes after their image went from `old` to `new` size, each (H, W); each axis has its own factor."""
    y, x = new[0] / old[0], new[1] / old[1]
    return boxes * boxes.new_tensor([1, x, y, x, y])


def crop(
    boxes: Tensor, top: float, left: float, height: float, width: float, min_visible: float = MIN_VISIBLE
) -> Tensor:
    """Boxes in the window [top, top + height) x [left, left + width) of their image, cut at its borders.

    A box is dropped if less than `min_visible` of its area lies in the window: the rest of a car at the border is no
    car to be found. A box outside or without area is always dropped. With the whole image as the window
    this cuts boxes at its border.

    Returns:
        (M, 5), M <= N, in pixels of the window.
    """
    moved = boxes - boxes.new_tensor([0, left, top, left, top])
    limit = boxes.new_tensor([width, height, width, height])
    cut = torch.cat([moved[:, :1], moved[:, 1:].clamp(min=0).minimum(limit)], 1)
    left_over, whole = area(cut), area(boxes)
    return cut[(left_over > 0) & (left_over >= min_visible * whole)]


def flip(boxes: Tensor, width: int) -> Tensor:
    """Boxes after their image, `width` pixels wide, was mirrored left to right (`image.flip(-1)`)."""
    label, x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([label, width - x1, y0, width - x0, y1], 1)


def project(boxes: Tensor, homography: np.ndarray) -> Tensor:
    """Boxes after their image was warped by a homography: the upright box around the four corners of each.

    Args:
        boxes: (N, 5) on the image that the homography starts from.
        homography: (3, 3), acts on (x, y, 1) of pixel centres, as those of `data/homographies.json`.

    Returns:
        (N, 5), not cut at any border.
    """
    x0, y0, x1, y1 = boxes[:, 1:].double().numpy().T - 0.5  # edges, counted from the centre of the first pixel
    corners = np.stack([[x0, x1, x1, x0], [y0, y0, y1, y1], np.ones((4, len(boxes)))])
    u, v, w = np.einsum("ij,jkn->ikn", np.asarray(homography, dtype=np.float64), corners)
    u, v = u / w + 0.5, v / w + 0.5
    around = np.stack([u.min(0), v.min(0), u.max(0), v.max(0)], 1)
    return torch.cat([boxes[:, :1], torch.from_numpy(around).to(boxes.dtype)], 1)


def batch_table(
    targets: Sequence[Tensor | None], images: int, size: tuple[int, int], classes: Sequence[str] = CLASSES
) -> tuple[Tensor, Tensor]:
    """The boxes of a batch of images in one table: the image (T,) of each, and the boxes (T, 5), cut at the border.

    Args:
        targets: (N, 5) of each image.
        images: how many there should be.
        size: (H, W) of the images.
        classes: names of the classes that a detector finds; in the table, the class is the place among these.

    Raises:
        InputError: another number of targets, None among them (an unlabelled image), an invalid box, or one of another
            class.
    """
    if len(targets) != images:
        raise InputError(f"There are boxes for {len(targets)} images and predictions for {images}: give one each.")
    if any(target is None for target in targets):
        raise InputError("Nobody has looked for boxes in one of the images (None): leave it out of this loss.")
    visible = [crop(checked(target).float(), 0, 0, *size, min_visible=0) for target in targets]
    counts, table = torch.tensor([len(rows) for rows in visible]), torch.cat(visible)
    places = table.new_tensor([classes.index(name) if name in classes else -1 for name in NAMES])[table[:, 0].long()]
    if (places < 0).any():
        name = NAMES[int(table[places < 0][0, 0])]
        raise InputError(f"There is a box of a {name}, and the detector finds {', '.join(classes)}: leave it out.")
    return torch.arange(images).repeat_interleave(counts), torch.cat([places[:, None], table[:, 1:]], 1)


def nms(rows: Tensor, overlap: float) -> Tensor:
    """Non-maximum suppression: indices of the detections that no better one overlaps by an IoU above `overlap`.

    Ultralytics' own calls an operator of torchvision, which not every build has, and stops at a time limit, which makes
    the result depend on the load of the machine.

    Args:
        rows: (N, 6) of one class, highest score first: class, score, x0, y0, x1, y1.
        overlap: IoU threshold.

    >>> rows = torch.tensor([[0, 0.9, 0, 0, 10, 10], [0, 0.8, 0, 0, 10, 9], [0, 0.7, 20, 0, 30, 10]])
    >>> nms(rows, overlap=0.6).tolist()
    [0, 2]
    """
    overlapping = (iou(rows, rows) > overlap).numpy()
    kept = torch.ones(len(rows), dtype=torch.bool)
    flags = kept.numpy()  # the same memory
    for place in range(len(rows)):
        if flags[place]:
            flags[place + 1 :] &= ~overlapping[place, place + 1 :]
    return kept.nonzero().flatten()
