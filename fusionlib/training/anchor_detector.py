"""YOLOv5 with anchors, as its first repository has it: begun from COCO, or used as published without any training.

    images (B, C, H, W) --backbone, neck--> features at strides 8, 16, 32 --1 x 1 convolutions--> Predictions

At each position stand three boxes, each around an anchor of a size of its own. Of sigmoid outputs t in [0, 1]:

    centre = (2 t_xy - 0.5 + cell) stride        size = (2 t_wh)^2 anchor        score of a class = t_object t_class

PAPER-GAP: Eq. (8) is "the loss function used during the training of YOLOv5", and there are two YOLOv5. The head on the
fused feature (`fusionlib.detection`) is the maintained one, without anchors. The detectors of Table 3 keep the head of
the published weights, so that nothing that COCO taught is thrown away: so few pictures could not teach it again.

Source: ultralytics/yolov5 v7.0, and the constants of its "hyp.scratch-low".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.detection import MULTIPLE, Detector, DetectorConfig, select
from fusionlib.support.boxes import batch_table, scale
from fusionlib.support.files import InputError
from fusionlib.support.inputs import check_channels, pad_to_multiple
from fusionlib.support.weights import config_of, read_state, with_weights
from fusionlib.training import coco

STRIDES = (8, 16, 32)
FIRST, HEAD = "net.model.0.conv.weight", "net.model.24."
BOX, OBJECT, CLASS = 0.05, 1.0, 0.5  # weights of the three parts of the loss
BALANCE = (4.0, 1.0, 0.4)  # weights of "is there an object" on the three grids: the fine one has the most positions
FITS = 4.0  # an anchor may be responsible for a box up to so many times as wide or high as itself, or as small
ENLARGED = 1.25  # for detection without training: objects of COCO are larger than those of our sets


@dataclass(frozen=True)
class Anchored:
    """Raw output on three grids, each (B, 3 anchors, 5 + K, rows, columns): logits of x, y, w, h, object, classes."""

    grids: list[Tensor] = field(repr=False)
    size: tuple[int, int]


class AnchorDetector(nn.Module):
    """YOLOv5n with anchors; used like `detection.Detector`. Its initial weights are random, see `published`.

    >>> AnchorDetector(1).eval().detect(torch.rand(2, 1, 64, 96))[0].shape[1]  # class, score, x0, y0, x1, y1
    6
    """

    def __init__(self, channels: int, config: DetectorConfig | None = None) -> None:
        super().__init__()
        body = Detector(channels, config)
        self.channels, self.config, self.net = channels, body.config, body.net
        self.net.model[-1] = _Head(self.net.model[-1], len(self.config.names))

    @classmethod
    def published(cls, channels: int = 1, config: DetectorConfig | None = None) -> AnchorDetector:
        """The detector with the weights of COCO, its head reduced to the classes that it is to find (`coco.ROWS`).

        The first layer has three input channels in COCO, and C here. Each gets the sum over the three, divided by C: an
        input whose channels all are one grey picture gives what COCO's layer gives for it as red, green and blue.

        Raises:
            InputError: a detector of another size than "n", or as in `coco.tensors`.
        """
        detector = cls(channels, config)
        if detector.config.size != "n":
            raise InputError(f"COCO's weights are of YOLOv5n, not of size {detector.config.size!r}: use 'n'.")
        state = {f"net.{name}": value for name, value in coco.tensors().items()}
        state[FIRST] = (state[FIRST].sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1)
        for grid in range(len(STRIDES)):
            for kind in ("weight", "bias"):
                whole = state[f"{HEAD}m.{grid}.{kind}"].unflatten(0, (3, -1))
                rows = [*range(5), *(5 + coco.ROWS[name] for name in detector.config.names)]  # x, y, w, h, object
                state[f"{HEAD}m.{grid}.{kind}"] = whole[:, rows].flatten(0, 1)
        detector.load_state_dict(state)
        return detector

    @classmethod
    def load(cls, path: Path | str) -> AnchorDetector:
        """The detector whose weights a training has written, ready to detect; errors as in `FusionNetwork.load`."""
        config = config_of(DetectorConfig, path, "detector")
        channels = read_state(path).get(FIRST, torch.empty(0, 1)).shape[1]
        return with_weights(cls(channels, config), path)

    def forward(self, images: Tensor) -> Anchored:
        """Predict from images (B, C, H, W) of any height and width, padded inside by repeating the border."""
        check_channels(images, self.channels)
        return Anchored(self.net(pad_to_multiple(images, MULTIPLE)), tuple(images.shape[-2:]))

    def loss(self, predictions: Anchored, targets: list[Tensor]) -> Tensor:
        """The loss of YOLOv5, a scalar in float32 that does not grow with the batch.

        Boxes: 1 - CIoU of those that are responsible. Objects: binary cross-entropy (BCE), whose target is the CIoU at
        responsible positions and 0 elsewhere. Classes: BCE at responsible positions.

        Args:
            predictions: of B images.
            targets: B times (N, 5), class, x0, y0, x1, y1 in pixels; boxes are cut at the image's border.

        Raises:
            InputError: as `Detector.loss` does.
        """
        grids = [grid.float() for grid in predictions.grids]
        image, boxes = batch_table(targets, len(grids[0]), predictions.size, self.config.names)
        device, anchors = grids[0].device, self.net.model[-1].anchors
        image, boxes = image.to(device), boxes.to(device)
        parts = grids[0].new_zeros(3)
        for grid, sizes, stride, balance in zip(grids, anchors, STRIDES, BALANCE, strict=True):
            box_part, object_part, class_part = self._parts(grid, sizes, image, boxes, stride)
            parts = parts + torch.stack([box_part, balance * object_part, class_part])
        rows, columns = grids[0].shape[-2:]
        area = rows * columns * STRIDES[0] ** 2 / 640**2
        return (parts * parts.new_tensor([BOX, OBJECT * area, CLASS * len(self.config.names) / 80])).sum()

    @staticmethod
    def _parts(grid: Tensor, sizes: Tensor, image: Tensor, boxes: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """The three parts of the loss on one grid; `sizes` (3, 2) of its anchors in cells."""
        rows, columns = grid.shape[-2:]
        low, high = boxes[:, 1:3] / stride, boxes[:, 3:] / stride
        anchor, box, cell = responsible((low + high) / 2, high - low, sizes, (rows, columns))
        truth = grid.new_zeros(grid[:, :, 4].shape)
        if not len(box):
            return grid.new_zeros(()), F.binary_cross_entropy_with_logits(grid[:, :, 4], truth), grid.new_zeros(())
        column, row = cell.unbind(1)
        predicted = grid[image[box], anchor, :, row, column]
        centre = 2 * predicted[:, :2].sigmoid() - 0.5 + cell
        half = (2 * predicted[:, 2:4].sigmoid()) ** 2 * sizes[anchor] / 2
        overlap = ciou(centre - half, centre + half, low[box], high[box])
        place = ((image[box] * 3 + anchor) * rows + row) * columns + column
        truth.view(-1).scatter_reduce_(0, place, overlap.detach().clamp(min=0), "amax")  # of two boxes, the better
        kind = F.one_hot(boxes[box, 0].long(), grid.shape[2] - 5).float()
        return (
            (1 - overlap).mean(),
            F.binary_cross_entropy_with_logits(grid[:, :, 4], truth),
            F.binary_cross_entropy_with_logits(predicted[:, 5:], kind),
        )

    @torch.no_grad()
    def detect(self, images: Tensor, enlarged: float = 1.0) -> list[Tensor]:
        """Detections (M, 6) of each of (B, C, H, W), on the CPU, as `Detector.detect` gives them.

        Args:
            images: in [0, 1].
            enlarged: factor by which they are enlarged before; `ENLARGED` for published weights as they are.
        """
        before, size = self.training, tuple(images.shape[-2:])
        if enlarged != 1:
            images = F.interpolate(images, scale_factor=enlarged, mode="bilinear", align_corners=False)
        try:
            corners, scores = self.eval()._decoded(self(images))
        finally:
            self.train(before)
        height, width = images.shape[-2:]
        limit = torch.tensor([width, height, width, height])
        detections = []
        for image_corners, score in zip(corners.clamp(min=0).minimum(limit), scores, strict=True):
            selected = select(image_corners, score, self.config)
            detections.append(torch.cat([selected[:, :1], scale(selected[:, 1:], (height, width), size)], 1))
        return detections

    def _decoded(self, predictions: Anchored) -> tuple[Tensor, Tensor]:
        """Corners (B, A, 4) in pixels and scores (B, K, A) of all positions, on the CPU."""
        corners, scores = [], []
        for grid, sizes, stride in zip(predictions.grids, self.net.model[-1].anchors, STRIDES, strict=True):
            out, (rows, columns) = grid.float().sigmoid().cpu(), grid.shape[-2:]
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            centre = (2 * out[:, :, :2] - 0.5 + torch.stack([x, y])) * stride
            half = (2 * out[:, :, 2:4]) ** 2 * sizes.cpu()[None, :, :, None, None] * stride / 2
            corners.append(torch.cat([centre - half, centre + half], 2).transpose(1, 2).flatten(2))
            scores.append((out[:, :, 4:5] * out[:, :, 5:]).transpose(1, 2).flatten(2))
        return torch.cat(corners, 2).mT, torch.cat(scores, 2)


class _Head(nn.Module):
    """The last layer: for each grid a 1 x 1 convolution; names as in the published file."""

    def __init__(self, replaced: nn.Module, classes: int) -> None:
        super().__init__()
        self.f, self.i, self.type = replaced.f, replaced.i, replaced.type  # ultralytics reads here what comes in
        outputs = 3 * (5 + classes)
        self.m = nn.ModuleList(nn.Conv2d(sides[0].conv.in_channels, outputs, 1) for sides in replaced.cv2)
        self.register_buffer("anchors", torch.ones(len(STRIDES), 3, 2))  # width and height in cells

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [layer(feature).unflatten(1, (3, -1)) for layer, feature in zip(self.m, features, strict=True)]


def responsible(centre: Tensor, size: Tensor, anchors: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Which anchors, in which cells of a grid, are to predict which boxes.

    An anchor whose width and height differ from the box's by less than the factor `FITS` is responsible in the cell of
    the box's centre, and in the nearest cell beside and the nearest above or below it.

    Args:
        centre, size: of T boxes, (T, 2), x before y, in cells.
        anchors: sizes (3, 2) in cells.
        shape: rows and columns of the grid.

    Returns:
        Of each responsibility the anchor (R,), the box (R,) and the cell (R, 2), column and row.
    """
    ratio = size.clamp(min=1e-6) / anchors[:, None]
    anchor, box = (torch.maximum(ratio, 1 / ratio).amax(2) < FITS).nonzero(as_tuple=True)
    own = centre[box].floor()
    shifts = centre.new_tensor([[0, 0], [-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
    cells = (centre[box] + shifts[:, None]).floor()  # (5, R, 2): half a cell away lies the nearer neighbour, or itself
    inside = ((cells >= 0) & (cells < cells.new_tensor([shape[1], shape[0]]))).all(2)
    inside[1:] &= (cells[1:] != own).any(2)
    shift, match = inside.nonzero(as_tuple=True)
    return anchor[match], box[match], cells[shift, match].long()


def ciou(low: Tensor, high: Tensor, true_low: Tensor, true_high: Tensor) -> Tensor:
    """Complete IoU (R,) of boxes by their corners (R, 2): IoU, less the distance of the centres and the difference of
    the shapes (Zheng et al., Distance-IoU loss, AAAI 2020).
    """
    both = (torch.minimum(high, true_high) - torch.maximum(low, true_low)).clamp(min=0).prod(1)
    size, true_size = high - low, true_high - true_low
    iou = both / (size.prod(1) + true_size.prod(1) - both + 1e-7)
    hull = (torch.maximum(high, true_high) - torch.minimum(low, true_low)).square().sum(1) + 1e-7
    apart = ((low + high - true_low - true_high) / 2).square().sum(1) / hull
    angles = [torch.atan(each[:, 0] / (each[:, 1] + 1e-7)) for each in (size, true_size)]
    shape = (2 / torch.pi * (angles[0] - angles[1])) ** 2
    with torch.no_grad():
        weight = shape / (1 - iou + shape + 1e-7)
    return iou - apart - weight * shape
