"""The detection head: ultralytics' YOLOv5 on images or features of any number of channels, and its loss, Eq. (8).

    F_f (B, C, H, W) --YOLOv5--> predictions --loss--> l_ob       while training, against boxes
                                             --decode-> detections  afterwards

This is the only module that imports ultralytics, and it does so when the first detector is built, not before. Global
settings that ultralytics changes on import are restored (`import_quietly`).

Convention: boxes and detections as in `fusionlib.support.boxes`, in pixels of what the detector was given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from fusionlib.support.boxes import CLASSES, NAMES, batch_table, nms, scale
from fusionlib.support.files import InputError
from fusionlib.support.inputs import check_channels, pad_to_multiple
from fusionlib.support.keys import NEUTRAL
from fusionlib.support.quiet_import import import_quietly
from fusionlib.support.settings import check, check_choice
from fusionlib.support.weights import config_of, read_state, with_weights

MULTIPLE = 32  # the stride of the coarsest level; heights and widths are padded to a multiple of it
CANDIDATES = 1000  # per class and image that enter non-maximum suppression (NMS), the best ones


@dataclass(frozen=True)
class DetectorConfig:
    """Size of the detector, weights of its loss, and thresholds of a detection.

    Attributes:
        size: "n" or "s", ultralytics' nano and small. PAPER-GAP: the paper says YOLOv5 and no more. Its 0.97 M
            parameters leave out any detector: the nano has 2.5 M, the small 9.1 M.
        box, classes, distribution: weights of the three parts of the loss: 1 - CIoU, binary cross-entropy of the
            classes, and the focal loss of the distances to the four sides. PAPER-GAP: Eq. (8) is "the loss function
            used during the training of YOLOv5", and there are two: the first repository's with anchors and an
            objectness, and ultralytics', which gives the same backbone and neck a head without anchors. The latter is
            maintained and installable; its own weights are the defaults.
        begin_small: start training with predicted boxes of 25 pixels instead of 120, as a short training on small
            objects needs.
        start: "random" weights, or those of "coco"; for detectors on images (`training.detectors`) alone.
        names: of the classes that it finds, of `boxes.NAMES`.
        confidence: smallest score of a detection. 0.001 and the next two are the usual values for average precision; to
            draw boxes, 0.25 is usual.
        overlap: IoU threshold of the non-maximum suppression.
        most: largest number of detections in one image.
    """

    size: str = "n"
    box: float = 7.5
    classes: float = 0.5
    distribution: float = 1.5
    begin_small: bool = False
    start: str = field(default="random", metadata=NEUTRAL)
    names: tuple[str, ...] = field(default=CLASSES, metadata=NEUTRAL)
    confidence: float = 0.001
    overlap: float = 0.6
    most: int = 300

    def __post_init__(self) -> None:
        check_choice(self, "size", "n", "s")
        check_choice(self, "start", "random", "coco")
        if not self.names or set(self.names) - set(NAMES) or len(set(self.names)) < len(self.names):
            raise InputError(f"A detector cannot find {self.names}: name some of {', '.join(NAMES)}, each once.")
        check(self, "box", "classes", "distribution")
        check(self, "confidence", "overlap", most=1)
        check(self, "most", least=1)


@dataclass(frozen=True)
class Predictions:
    """Raw output of the detector at each of A positions, on three grids of stride 8, 16 and 32 pixels.

    Attributes:
        boxes: (B, 64, A), logits of 16 bins for the distance to each side, left, top, right, bottom, in cells.
        scores: (B, K, A), logits of the classes.
        grids: rows and columns of each grid, fine to coarse.
        size: height and width of the input, which the grids cover and may overhang.
    """

    boxes: Tensor = field(repr=False)
    scores: Tensor = field(repr=False)
    grids: tuple[tuple[int, int], ...]
    size: tuple[int, int]


class Detector(nn.Module):
    """Finds the objects of `config.names` in an image, or in the fused feature F_f that the image is made from.

    Initial weights are random, from torch's generator.

    Args:
        channels: of the input: 1 for an infrared image, 4C for F_f.
        config: size, loss weights and thresholds.

    >>> detector = Detector(channels=1).eval()
    >>> detector(torch.rand(2, 1, 64, 96)).grids
    ((8, 12), (4, 6), (2, 3))
    >>> [found.shape[1] for found in detector.detect(torch.rand(2, 1, 64, 96))]  # class, score, x0, y0, x1, y1
    [6, 6]
    """

    def __init__(self, channels: int, config: DetectorConfig | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.config = config = config or DetectorConfig()
        tasks, utils = import_quietly("ultralytics.nn.tasks"), import_quietly("ultralytics.utils")
        plan = utils.YAML.load(utils.ROOT / "cfg" / "models" / "v5" / "yolov5.yaml")
        plan |= {"scale": config.size, "nc": len(config.names)}
        self.net = tasks.DetectionModel(plan, ch=channels, verbose=False)
        for layer in self.net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                # Upstream's 0.03 is for tens of thousands of steps: after a hundred, the running statistics still
                # differ so much from those of a batch that nothing is detected.
                layer.momentum = 0.1
        if config.begin_small:
            _small_initial_boxes(self.net)
        self.net.args = SimpleNamespace(box=config.box, cls=config.classes, dfl=config.distribution)

    @classmethod
    def load(cls, path: Path | str) -> Detector:
        """The detector whose weights a training has written, ready to detect; errors as in `FusionNetwork.load`."""
        config = config_of(DetectorConfig, path, "detector")
        first = read_state(path).get("net.model.0.conv.weight", torch.empty(0, 1))  # (outputs, channels, k, k)
        return with_weights(cls(first.shape[1], config), path)

    def forward(self, features: Tensor) -> Predictions:
        """Predict from features (B, C, H, W) of any height and width, padded inside by repeating the border."""
        check_channels(features, self.channels)
        height, width = features.shape[-2:]
        raw = self.net(pad_to_multiple(features, MULTIPLE))
        raw = raw if self.training else raw[1]  # in eval mode there are decoded boxes before it, in the input's dtype
        grids = tuple((level.shape[-2], level.shape[-1]) for level in raw["feats"])
        return Predictions(raw["boxes"], raw["scores"], grids, (height, width))

    def loss(self, predictions: Predictions, targets: list[Tensor]) -> Tensor:
        """l_ob, Eq. (8), a scalar in float32 that does not grow with the batch.

        Each of its parts is a sum over the batch, divided by the sum of the target scores of the assigned positions, so
        that each object has the same weight. Images without boxes contribute their false positives; in a batch without
        any box, the mean over its images is returned.

        Args:
            predictions: of B images.
            targets: B times (N, 5), class, x0, y0, x1, y1 in pixels; boxes are cut at the image's border.

        Raises:
            InputError: as `boxes.batch_table`: such as None among the targets (an unlabelled image).
        """
        batch, device = len(predictions.scores), predictions.scores.device
        image, boxes = batch_table(targets, batch, predictions.size, self.config.names)
        padded = tuple(MULTIPLE * cells for cells in predictions.grids[-1])
        label, x0, y0, x1, y1 = scale(boxes.to(device), padded, (1, 1)).unbind(1)
        batch_targets = {
            "batch_idx": image.to(device),
            "cls": label,
            "bboxes": torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 1),
        }
        # Upstream uses only the sizes of these features.
        grids = [predictions.scores.new_empty(1, 1, *grid, dtype=torch.float32) for grid in predictions.grids]
        with torch.autocast(device.type, enabled=False):
            raw = {"boxes": predictions.boxes.float(), "scores": predictions.scores.float(), "feats": grids}
            parts, _ = import_quietly("ultralytics.utils.loss").v8DetectionLoss(self.net)(raw, batch_targets)
        total = parts.sum() / batch  # upstream multiplies by it
        return total if len(label) else total / batch

    @torch.no_grad()
    def detect(self, features: Tensor) -> list[Tensor]:
        """Detections (M, 6) of each of (B, C, H, W), on the CPU, highest score first: class, score, x0, y0, x1, y1."""
        before = self.training
        try:
            return decode(self.eval()(features), self.config)
        finally:
            self.train(before)


@torch.no_grad()
def _small_initial_boxes(net: nn.Module) -> None:
    """Change the initial predictions of upstream's head, which are meant for long trainings.

    - Boxes: upstream gives all bins of a side the same probability, so the finest grid predicts boxes of 120 pixels.
      The gradient of an object grows with its overlap, so one of ten pixels is not learned for hundreds of steps. Here
      small distances have a higher probability, and the grids predict about 25, 50 and 100 pixels.
    - Scores start at 0.01, about the share of positions with an object, instead of 0.0003 to 0.004.
    """
    head = net.model[-1]
    for sides, classes in zip(head.cv2, head.cv3, strict=True):
        sides[-1].bias.view(4, -1).copy_(-0.5 * torch.arange(head.reg_max))
        classes[-1].bias.fill_(math.log(0.01 / 0.99))


@torch.no_grad()
def decode(predictions: Predictions, config: DetectorConfig) -> list[Tensor]:
    """Detections (M, 6) of each image, on the CPU, highest score first, cut at the image's border.

    One position may give several classes, each with its score, as is usual for average precision.
    """
    height, width = predictions.size
    logits = predictions.boxes.float().unflatten(1, (4, -1)).softmax(2)
    bins = torch.arange(logits.shape[2], device=logits.device, dtype=logits.dtype)
    left_top, right_bottom = torch.einsum("bsna,n->bsa", logits, bins).split(2, 1)  # (B, 2, A) in cells
    centre, cell = _positions(predictions)
    corners = torch.cat([centre - left_top * cell, centre + right_bottom * cell], 1).mT.cpu()
    limit = torch.tensor([width, height, width, height])
    corners = corners.clamp(min=0).minimum(limit)
    scores = predictions.scores.float().sigmoid().cpu()
    return [select(*image, config) for image in zip(corners, scores, strict=True)]


def _positions(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """Centre (2, A), x then y, and side (1, A) of every position, in pixels."""
    device, padded_height = predictions.scores.device, predictions.grids[-1][0] * MULTIPLE
    centres, sides = [], []
    for rows, columns in predictions.grids:
        side = padded_height // rows
        y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
        centres.append((torch.stack([x, y]).flatten(1) + 0.5) * side)
        sides.append(torch.full((1, rows * columns), side, device=device))
    return torch.cat(centres, 1), torch.cat(sides, 1)


def select(corners: Tensor, scores: Tensor, config: DetectorConfig) -> Tensor:
    """Detections (M, 6) of one image, highest score first, of corners (A, 4) in pixels and scores (K, A) in [0, 1]."""
    kept = []
    for place, score in enumerate(scores):
        score, order = score.sort(descending=True, stable=True)
        order = order[:CANDIDATES][score[:CANDIDATES] > config.confidence]
        class_column = torch.full((len(order), 1), float(NAMES.index(config.names[place])))
        rows = torch.cat([class_column, scores[place, order, None], corners[order]], 1)
        rows = rows[(rows[:, 4:] > rows[:, 2:4]).all(1)]  # boxes in the padding have no area
        kept.append(rows[nms(rows, config.overlap)])
    detections = torch.cat(kept)
    return detections[detections[:, 1].argsort(descending=True, stable=True)][: config.most]
