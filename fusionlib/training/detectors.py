"""Detectors for plain images, as Table 3 needs them: one of the same kind and budget for each method's fused images.

A detector starts from random weights, from those of a detector trained before (`start`), or from COCO's
(`DetectorConfig.start`); the latter keeps the published head with anchors (`fusionlib.training.anchor_detector`).
What is random (order, mirroring, windows) depends on the seed and the epoch alone, so that a training that was killed
and resumed ends in the same weights as one that was not.

Convention: images (N, C, H, W) in [0, 1]; boxes as in `fusionlib.support.boxes`, None for an unlabelled image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.detection import Detector, DetectorConfig
from fusionlib.support.boxes import checked, crop, flip, scale
from fusionlib.support.files import InputError
from fusionlib.support.inputs import checked_device
from fusionlib.support.keys import NEUTRAL, Key
from fusionlib.support.machine import uses_bfloat16
from fusionlib.support.settings import check, check_choice
from fusionlib.support.weights import key_of, read_state, settings_of
from fusionlib.training.anchor_detector import AnchorDetector
from fusionlib.training.run import Run
from fusionlib.training.schedules import one_cycle

GREY = 0.45  # value outside an image


@dataclass(frozen=True)
class DetectorTraining:
    """How a detector is trained. PAPER-GAP: the paper says of the detectors of Table 3 only that they are YOLOv5. The
    defaults are for long trainings, with mosaics of four images, as in YOLOv5; in a few hundred steps more is learned
    from whole images (`side` of the image, `zoom` near 1, `mosaic` 0).

    Attributes:
        detector: size and loss weights.
        epochs, batch, learning_rate: of AdamW; the rate rises in the first `warmup` of all steps, then falls to zero.
        weight_decay: of the kernels, not of biases and BatchNorms.
        side: of the square input windows, in pixels.
        zoom: smallest and largest scale of a window's content, uniform in its logarithm.
        mosaic: share of windows that are cut from a mosaic of four images.
        mirror: flip half of the images horizontally.
        average: the final weights are an exponential moving average over about 1 / (1 - average) steps, since the last
            weights alone depend much on the last few batches.
        clip: largest norm of the gradient.
        frozen: number of first layers that keep the weights and BatchNorm statistics they start with; 10 is the
            backbone. Few images then cannot spoil what COCO taught, and a step costs a third less.
        mixed_precision: kinds of device on which layers compute in bfloat16, as in `recipe.TrainingConfig`.
    """

    detector: DetectorConfig = field(default_factory=lambda: DetectorConfig(begin_small=True))
    epochs: int = 60
    batch: int = 8
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 5e-4
    side: int = 160
    zoom: tuple[float, float] = (0.67, 2.0)
    mosaic: float = 0.5
    mirror: bool = True
    average: float = 0.98
    clip: float = 10.0
    frozen: int = field(default=0, metadata=NEUTRAL)
    mixed_precision: tuple[str, ...] = field(default=(), metadata=NEUTRAL)

    def __post_init__(self) -> None:
        check(self, "epochs", "batch", "side", least=1)
        check(self, "learning_rate", "weight_decay", "frozen")
        check(self, "warmup", "mosaic", "average", most=1)
        check(self, "clip", most=math.inf)
        check_choice(self, "mixed_precision", "cpu", "cuda")
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise InputError(f"zoom of DetectorTraining is {self.zoom}; give two finite numbers above 0, lower first.")


# Begun from COCO, its backbone left as it is; whole images, hardly enlarged or reduced, since small windows, mosaics
# and large changes of scale pay only in long trainings.
FROM_COCO = DetectorTraining(
    detector=DetectorConfig(start="coco"),
    side=512,
    zoom=(0.8, 1.25),
    mosaic=0.0,
    frozen=10,
    mixed_precision=("cuda", "cpu"),
)


def train_detector(
    images: Tensor | Sequence[Tensor],
    boxes: Sequence[Tensor | None],
    config: DetectorTraining | None = None,
    seed: int = 0,
    path: Path | str | None = None,
    start: Detector | AnchorDetector | None = None,
    device: str | None = None,
) -> Detector | AnchorDetector:
    """Train a detector; images whose boxes are None are left out.

    Args:
        images: (N, C, H, W), or as many (C, H, W) of one size.
        boxes: (N, 5) of each image, in its pixels.
        config: settings; by default, those of a long training.
        seed: of the initial weights, the order and the windows.
        path: of the weights, `.safetensors`, with the log (`.csv`, a row per epoch) beside them. If they are there and
            the same settings, seed, images and boxes made them, they are read; a training goes on from the checkpoint
            of a killed one. None keeps nothing.
        start: a detector whose weights the training starts from, instead of random ones or COCO's.
        device: "cpu", "cuda", ...; None takes a GPU if there is one. On a GPU, sums in varying order make results vary.

    Returns:
        The detector, on the CPU and ready to detect.

    Raises:
        InputError: the numbers of images and boxes differ, no image is labelled, `start` is another kind of detector,
            or the loss is NaN or infinite.
    """
    config = config or DetectorTraining()
    device = checked_device(device)
    images, targets = _labelled(images, boxes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(images.shape[1], config.detector, published=start is None)
    if start is not None:
        alike = [(type(each), each.channels, each.config.size, each.config.names) for each in (start, net)]
        if alike[0] != alike[1]:
            raise InputError("The detector to start from has another size, channels or classes: train one like it.")
        net.load_state_dict(start.state_dict())
    path = None if path is None else Path(path)
    key = _key(config, seed, images, targets, net) if path else Key()
    if path and path.exists() and not key.differing(key_of(path)):
        net.load_state_dict(read_state(path))
        return net.eval()

    learning = _Learning(net.to(device, memory_format=torch.channels_last), config, max(1, len(images) // config.batch))
    run = Run(path, key, config.epochs, loss="l_ob")
    run.restore(**learning.parts)
    for epoch in range(run.done, config.epochs):
        losses = []
        for windows, window_boxes in batches(images, targets, config, seed, epoch):
            losses.append(learning.step(windows.to(device, memory_format=torch.channels_last), window_boxes))
        run.add({"epoch": epoch + 1, "l_ob": float(np.mean(losses))}, **learning.parts)

    net = learning.averaged.to("cpu", memory_format=torch.contiguous_format).eval()
    run.finish(net.state_dict(), {"channels": net.channels, "seed": seed, **asdict(config)})
    return net


def build(channels: int, config: DetectorConfig, published: bool = True) -> Detector | AnchorDetector:
    """The detector that the settings describe, with its initial weights; COCO's only if `published`."""
    if config.start == "coco":
        return AnchorDetector.published(channels, config) if published else AnchorDetector(channels, config)
    return Detector(channels, config)


def read(path: Path | str) -> Detector | AnchorDetector:
    """The detector whose weights `train_detector` has written, ready to detect; errors as in `Detector.load`."""
    return (AnchorDetector if settings_of(path, "detector")["start"] == "coco" else Detector).load(path)


class _Learning:
    """A detector in training: its weights, their running mean, and the optimiser."""

    def __init__(self, net: Detector | AnchorDetector, config: DetectorTraining, steps: int) -> None:
        for layer in net.net.model[: config.frozen]:
            layer.requires_grad_(False)
        self.net, self.averaged = net.train(), deepcopy(net)
        self.config = config
        learned = [weight for weight in net.parameters() if weight.requires_grad]
        groups = [
            {"params": [weight for weight in learned if weight.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [weight for weight in learned if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, config.learning_rate)
        self.total = steps * config.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.parts = {name: getattr(self, name) for name in ("net", "averaged", "optimiser", "schedule")}

    def _rate(self, step: int) -> float:
        return one_cycle(step, max(1, round(self.config.warmup * self.total)), self.total)

    def step(self, images: Tensor, targets: list[Tensor]) -> float:
        """One step of the optimiser; returns the loss of the batch."""
        for layer in self.net.net.model[: self.config.frozen]:
            layer.eval()
        half = uses_bfloat16(images.device, self.config.mixed_precision)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            predicted = self.net(images)
        loss = self.net.loss(predicted, targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        self.optimiser.step()
        self.schedule.step()
        # Early on, the mean is over the last half of the steps, so that the initial weights are no part of it.
        share = max(1 - self.config.average, 2 / (self.schedule.last_epoch + 1))
        for mean, now in zip(self.averaged.state_dict().values(), self.net.state_dict().values(), strict=True):
            mean.lerp_(now, min(1.0, share)) if mean.is_floating_point() else mean.copy_(now)
        return loss.item()


def batches(
    images: Tensor, boxes: Sequence[Tensor], config: DetectorTraining, seed: int, epoch: int
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The batches of one epoch: windows (B, C, side, side) and the boxes in each."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(images))
    count = min(config.batch, len(images))
    for begin in range(0, len(order) - count + 1, count):
        views = [_view(images, boxes, int(index), config, rng) for index in order[begin : begin + count]]
        yield torch.stack([view for view, _ in views]), [window_boxes for _, window_boxes in views]


def _view(
    images: Tensor, boxes: Sequence[Tensor], index: int, config: DetectorTraining, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A window (C, side, side) of one image, or of four in a square, and the boxes in it."""
    height, width = images.shape[-2:]
    indices = [index, *rng.integers(len(images), size=3)] if rng.random() < config.mosaic else [index]
    tiles, all_boxes = [], []
    for place, image_index in enumerate(indices):
        mirrored = config.mirror and rng.random() < 0.5
        tile_boxes = flip(boxes[image_index], width) if mirrored else boxes[image_index]
        across, down = place % 2 * width, place // 2 * height
        tiles.append(images[image_index].flip(-1) if mirrored else images[image_index])
        all_boxes.append(tile_boxes + tile_boxes.new_tensor([0, across, down, across, down]))
    canvas = tiles[0] if len(tiles) == 1 else torch.cat([torch.cat(tiles[:2], -1), torch.cat(tiles[2:], -1)], -2)

    height, width = canvas.shape[-2:]
    reach = config.side / math.exp(rng.uniform(*np.log(config.zoom)))
    top, left = (rng.uniform(min(0, length - reach), max(0, length - reach)) for length in (height, width))
    sampled = torch.tensor(
        [[reach / width, 0, (2 * left + reach) / width - 1], [0, reach / height, (2 * top + reach) / height - 1]]
    )
    grid = F.affine_grid(sampled[None], [1, 1, config.side, config.side], align_corners=False)
    view = F.grid_sample(canvas[None] - GREY, grid, align_corners=False)[0] + GREY
    return view, scale(crop(torch.cat(all_boxes), top, left, reach, reach), (reach, reach), (config.side, config.side))


def _labelled(images: Tensor | Sequence[Tensor], boxes: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
    """The images (N, C, H, W) and boxes of those whose boxes are not None."""
    if len(images) != len(boxes):
        raise InputError(f"There are {len(images)} images and boxes for {len(boxes)}: give boxes, or None, for each.")
    kept = [index for index, target in enumerate(boxes) if target is not None]
    if not kept:
        raise InputError("None of the images is labelled: give boxes for some of them.")
    labelled = [images[index] for index in kept]
    if len({image.shape for image in labelled}) > 1 or labelled[0].ndim != 3:
        raise InputError("The images of a detector are (C, H, W) of one size: resize them, and their boxes with them.")
    return torch.stack(labelled).cpu().float(), [checked(boxes[index]).cpu() for index in kept]


def _key(config: DetectorTraining, seed: int, images: Tensor, boxes: list[Tensor], net: torch.nn.Module) -> Key:
    """Key of everything that the weights depend on."""
    behaviour = ["detector", "anchor-detector"] if isinstance(net, AnchorDetector) else ["detector"]
    digest = hashlib.sha256()
    for tensor in (images, *boxes, *net.state_dict().values()):
        digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return Key.of(behaviour, settings=config, seed=seed, images=digest.hexdigest()[:8])
