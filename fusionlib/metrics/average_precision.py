"""Average precision of detections, computed by faster-coco-eval, and its bootstrap intervals.

COCO's rules: within a class, detections are taken from the highest score down, over all images; each claims the box of
its image that it overlaps most and that is still free, if their IoU reaches the threshold, else it is a false alarm.
AP is the mean precision at the recalls 0, 0.01, ..., 1, precision being the best at that recall or a higher one.

PAPER-GAP: Table 3 reports "mAP50->90", which is neither COCO's mean over the thresholds 0.50, 0.55, ..., 0.95 nor
explained. Read literally it leaves out 0.95. Here the AP at every threshold is kept, and both means are given;
mAP50:95 = 0.9 mAP50:90 + 0.1 AP95.

Convention: boxes (N, 5) and detections (M, 6) as in `fusionlib.support.boxes`; lists of them have one entry an image.
An image without boxes has (0, 5), and every detection on it is a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster, mask
from torch import Tensor

from fusionlib.support.boxes import CLASSES, NAMES, checked
from fusionlib.support.files import InputError

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALLS = np.linspace(0, 1, 101)
MOST = 300  # detections of one class in one image, the best ones, that count

# Means over thresholds, as slices of THRESHOLDS.
MEANS = {"mAP50": slice(1), "mAP50:90": slice(9), "mAP50:95": slice(10)}


@dataclass(frozen=True, eq=False)
class Precision:
    """Average precision of one detector on one set.

    Attributes:
        classes: names, K of them.
        ap: (K, 10) in [0, 1], of each class at each of THRESHOLDS; NaN for a class of which the set has no box.
        boxes: how many boxes of each class the set has, K numbers.
    """

    classes: tuple[str, ...]
    ap: np.ndarray
    boxes: tuple[int, ...]

    @property
    def means(self) -> dict[str, float]:
        """mAP50, mAP50:90 and mAP50:95, each over the classes that the set has."""
        return {name: float(value) for name, value in means_of(self.ap).items()}

    def table(self) -> pd.DataFrame:
        """One row per class and "all", their mean; columns `class`, `boxes`, AP50, ..., AP95 and the three means.

        The means of a class are over the thresholds alone.
        """
        rows = []
        every = ("all", sum(self.boxes), np.nanmean(self.ap, 0))
        for name, count, ap in [*zip(self.classes, self.boxes, self.ap, strict=True), every]:
            at = {f"AP{round(100 * threshold)}": value for threshold, value in zip(THRESHOLDS, ap, strict=True)}
            rows.append({"class": name, "boxes": count, **at, **means_of(ap[None])})
        return pd.DataFrame(rows)


def average_precision(
    detections: Sequence[Tensor], truth: Sequence[Tensor], classes: Sequence[str] = CLASSES
) -> Precision:
    """Compute the average precision of detections.

    Args:
        detections: (M, 6) of each image.
        truth: (N, 5) of each image.
        classes: those that count; boxes and detections of others are left out.

    Raises:
        InputError: no image, not as many lists of detections as of boxes, an unlabelled image (None), no
            box of any of the classes, an unknown class, or a detection that is not finite.

    >>> from torch import tensor
    >>> truth, detections = tensor([[0, 10.0, 10, 30, 30]]), tensor([[0, 0.9, 10.0, 10, 30, 29]])  # IoU 0.95
    >>> round(average_precision([detections], [truth], CLASSES[:1]).means["mAP50"], 3)
    1.0
    """
    detection_rows, box_rows = _rows(detections, truth, classes)
    truth_set = COCO()
    truth_set.dataset = {
        "images": [{"id": image} for image in range(len(truth))],
        "categories": [{"id": label} for label in range(len(classes))],
        "annotations": [
            {"id": place + 1, "image_id": int(image), "category_id": int(label), "bbox": box, "area": box[2] * box[3]}
            for place, (image, label, *box) in enumerate(box_rows.tolist())
        ],
    }
    truth_set.createIndex()
    result_set = truth_set.loadRes(
        [
            {"image_id": int(image), "category_id": int(label), "score": score, "bbox": box}
            for image, label, score, *box in detection_rows.tolist()
        ]
    )
    evaluation = COCOeval_faster(truth_set, result_set, "bbox")
    evaluation.params.iouThrs = np.array(THRESHOLDS)
    evaluation.params.maxDets = [MOST]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # threshold, recall, class; -1 where there is no box
    ap = np.where(precision[:, 0] < 0, np.nan, precision.mean(1)).T
    return Precision(tuple(classes), ap, tuple(int((box_rows[:, 1] == label).sum()) for label in range(len(classes))))


def intervals(
    detections: Sequence[Tensor],
    truth: Sequence[Tensor],
    classes: Sequence[str] = CLASSES,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    scenes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Bootstrap intervals of the means over images: what they would be on other images of the same kind.

    With `scenes`, that of each image, whole scenes are drawn: images of one scene are no independent evidence.

    Returns:
        A row per mean: `value` on the images as they are and `low` and `high`, between which the share `level` of the
        draws lies. They do not cover another training of the detector, and of a dozen scenes they are somewhat too
        narrow: see `statistics.share_interval`.
    """
    drawn = means_of(resampled(detections, truth, classes, draws, seed, scenes))
    value = average_precision(detections, truth, classes).means
    tails = [(1 - level) / 2, (1 + level) / 2]
    rows = [(name, value[name], *np.nanquantile(drawn[name], tails)) for name in MEANS]
    return pd.DataFrame(rows, columns=["mean", "value", "low", "high"])


def resampled(
    detections: Sequence[Tensor],
    truth: Sequence[Tensor],
    classes: Sequence[str] = CLASSES,
    draws: int = 1000,
    seed: int = 0,
    scenes: Sequence[str] | None = None,
) -> np.ndarray:
    """AP (draws, K, 10) on as many images as there are, drawn with replacement; or as many `scenes`, with all of each.

    The draws depend on `seed` and the images' scenes alone: on the same images, those of two methods belong together,
    and `means_of` the one minus that of the other shows whether they differ by more than chance.
    """
    detection_rows, box_rows = _rows(detections, truth, classes)
    index_of = {scene: place for place, scene in enumerate(dict.fromkeys(scenes or range(len(truth))))}
    count = len(index_of)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    weights = weights[:, [index_of[scene] for scene in scenes or range(len(truth))]]
    ap = np.full((draws, len(classes), len(THRESHOLDS)), np.nan)
    for label in range(len(classes)):
        table = _matches(detection_rows[detection_rows[:, 1] == label], box_rows[box_rows[:, 1] == label])
        for draw, weight in enumerate(weights):
            ap[draw, label] = _accumulated(*table, weight)
    return ap


def means_of(ap: np.ndarray) -> dict[str, np.ndarray]:
    """The means of AP (..., K, 10) over the classes that are not NaN, and over thresholds."""
    with np.errstate(invalid="ignore"):
        over_classes = np.nansum(ap, -2) / (~np.isnan(ap)).sum(
            -2
        )  # NaN where no class is left, without numpy's warning
    return {name: over_classes[..., selection].mean(-1) for name, selection in MEANS.items()}


def _rows(
    detections: Sequence[Tensor], truth: Sequence[Tensor], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Detections [image, class, score, x, y, width, height] and boxes, the same without score; float64.

    The class is its place in `classes`. Of each image and class, only the best MOST detections are kept, best first.
    """
    if not len(truth):
        raise InputError("There is no image to score detections on: give a set with at least one.")
    if len(detections) != len(truth):
        fact = f"There are detections for {len(detections)} images and boxes for {len(truth)}"
        raise InputError(f"{fact}: give one of each for every image.")
    if any(image_truth is None for image_truth in truth):
        raise InputError("Nobody has looked for boxes in one of the images (None): leave it out of the score.")
    unknown = set(classes) - set(NAMES)
    if unknown or not classes:
        raise InputError(f"Classes {tuple(classes)} cannot be scored: give some of {', '.join(NAMES)}.")
    order = {NAMES.index(name): place for place, name in enumerate(classes)}

    detection_rows, box_rows = [np.empty((0, 7))], [np.empty((0, 6))]
    for image, (image_detections, image_boxes) in enumerate(zip(detections, truth, strict=True)):
        checked(image_boxes)
        if image_detections.ndim != 2 or image_detections.shape[1] != 6:
            raise InputError(
                f"Detections are {tuple(image_detections.shape)}: give (M, 6), class, score and four corners."
            )
        if not image_detections.isfinite().all():
            raise InputError("A detection has NaN or infinity: leave it out, or look for where it comes from.")
        for label, place in order.items():
            rows = _flat(image_detections, label, image, place)
            detection_rows.append(rows[np.argsort(-rows[:, 2], kind="stable")][:MOST])
            box_rows.append(_flat(image_boxes, label, image, place))
    detection_rows, box_rows = np.concatenate(detection_rows), np.concatenate(box_rows)
    if not len(box_rows):
        raise InputError(f"No image has a box of {', '.join(classes)}: score on images that show some.")
    return detection_rows, box_rows


def _flat(rows: Tensor, label: int, image: int, place: int) -> np.ndarray:
    """The rows of one class, as [image, place of the class, score if there is one, x, y, width, height]."""
    table = rows.detach().cpu().double().numpy()
    table = table[table[:, 0] == label]
    head = np.broadcast_to([image, place], (len(table), 2))
    return np.concatenate([head, table[:, 1:-2], table[:, -2:] - table[:, -4:-2]], 1)


def _matches(detections: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which detections of one class claim a box, by the rule of faster-coco-eval.

    Returns:
        Of the detections from the highest score down, the image of each (D,) and whether it claims a box at each
        threshold (10, D); and the image of each box.
    """
    hits = np.zeros((len(THRESHOLDS), len(detections)), bool)
    for image in np.unique(boxes[:, 0]):
        indices = np.flatnonzero(detections[:, 0] == image)
        image_boxes = boxes[boxes[:, 0] == image, -4:]
        if not len(indices):
            continue
        overlaps = mask.iou(detections[indices, -4:], image_boxes, [0] * len(image_boxes))
        free = np.ones((len(THRESHOLDS), len(image_boxes)), bool)
        for place, overlap in zip(indices, overlaps, strict=True):
            if overlap.max() < THRESHOLDS[0]:
                continue
            reached = free & (overlap >= np.array(THRESHOLDS)[:, None])
            best = len(image_boxes) - 1 - np.where(reached, overlap, -1)[:, ::-1].argmax(1)  # of equals, the last one
            hits[:, place] = reached.any(1)
            free[hits[:, place], best[hits[:, place]]] = False
    order = np.argsort(-detections[:, 2], kind="stable")
    return detections[order, 0].astype(int), hits[:, order], boxes[:, 0].astype(int)


def _accumulated(image: np.ndarray, hits: np.ndarray, boxes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """AP (10,) of one class where image i counts `weight[i]` times; the rest as `_matches` returns it."""
    total = weight[boxes].sum()
    if not total:
        return np.full(len(THRESHOLDS), np.nan)
    # Precision is best where something has just been hit, so only these places matter.
    places = np.flatnonzero(hits.any(0) & (weight[image] > 0))
    claimed = weight[image].cumsum()[places]
    right = (hits[:, places] * weight[image[places]]).cumsum(1)
    precision = np.maximum.accumulate((right / claimed)[:, ::-1], 1)[:, ::-1]
    precision = np.pad(precision, ((0, 0), (0, 1)))  # 0 at a recall that is not reached
    recall = right / total
    positions = [line.searchsorted(RECALLS, side="left") for line in recall]
    return np.take_along_axis(precision, np.array(positions), 1).mean(1)
