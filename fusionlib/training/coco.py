"""The weights of YOLOv5n that Ultralytics trained on COCO: a pickle, read without running any code of it.

The published file is a pickle of whole modules. It is read by torch's restricted unpickler, to which the module classes
that occur in the file are made known as `_Shell`, a class without code; any other class is refused and nothing of the
file is executed. Its tensors are then kept as safetensors beside it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from fusionlib.data.download import registry
from fusionlib.detection import DetectorConfig
from fusionlib.support.files import InputError, sha256
from fusionlib.support.keys import Key
from fusionlib.support.paths import weight_file
from fusionlib.support.weights import key_of, read_state, save_weights

LOGGER = logging.getLogger(__name__)
NAME, FILE = "yolov5n", "yolov5n.pt"
# Which of COCO's 80 classes each of `boxes.NAMES` is. PAPER-GAP: M3FD's "Lamp", a street lamp, is none of them, and the
# paper does not say how its detectors begin; here lamps begin as COCO's traffic lights, the nearest thing on a post.
ROWS = {"person": 0, "bicycle": 1, "car": 2, "motorcycle": 3, "bus": 5, "truck": 7, "lamp": 9}

# The classes of the pickle, all of them modules.
MODULES = (
    *(f"models.yolo.{name}" for name in ("Model", "Detect")),
    *(f"models.common.{name}" for name in ("Conv", "C3", "Bottleneck", "SPPF", "Concat")),
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.activation.SiLU",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
    *(f"torch.nn.modules.container.{name}" for name in ("Sequential", "ModuleList")),
)


class _Shell:
    """Stands for every module of the pickle: it holds the attributes and does nothing."""


def is_available() -> bool:
    """Whether the published file is on this machine; `python -m fusionlib data fetch yolov5n` brings it."""
    return weight_file(NAME, FILE) is not None


def tensors() -> dict[str, Tensor]:
    """The published weights, name to tensor in float32, as "model.0.conv.weight" and "model.24.anchors".

    Raises:
        InputError: the file is not here, is not the published one, or holds anything but modules and tensors.
    """
    path = weight_file(NAME, FILE)
    if path is None:
        raise InputError("The COCO weights of YOLOv5n are not here: run `python -m fusionlib data fetch yolov5n`.")
    digest = sha256(path)
    if digest != registry(NAME).files[FILE]["sha256"]:
        raise InputError(
            f"{path} is not the published file: remove it and run `python -m fusionlib data fetch {NAME}`."
        )
    kept, key = path.with_suffix(".safetensors"), Key.of(file=digest)
    with contextlib.suppress(InputError):  # not written yet, or not ours
        if not key.differing(key_of(kept)):
            return read_state(kept)
    state = read_pickle(path)
    with contextlib.suppress(InputError):  # the folder may be read-only; then the pickle is read each time
        save_weights(kept, state, {}, key)
    return state


def read_pickle(path: Path | str) -> dict[str, Tensor]:
    """Parameters and buffers, in float32, of the model in a checkpoint of YOLOv5; no code of the file runs.

    Raises:
        InputError: not such a checkpoint, or one that asks for anything but the classes in `MODULES`.
    """
    try:
        with torch.serialization.safe_globals([(_Shell, name) for name in MODULES]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the protocol of pickles that are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float().contiguous() for name, value in _walk(content["model"])}
    except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = type(error).__name__
        raise InputError(f"{path} is refused: not a checkpoint of YOLOv5 with modules alone ({reason}).") from None


def _walk(module: _Shell, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    held = vars(module)
    for name, value in (*held["_parameters"].items(), *held["_buffers"].items()):
        if isinstance(value, Tensor):
            yield prefix + name, value.detach()
    for name, child in held["_modules"].items():
        yield from _walk(child, f"{prefix}{name}.")


def config_here(config: DetectorConfig) -> DetectorConfig:
    """The settings, with a random start where COCO's weights are asked for and not here; a line says so."""
    if config.start == "random" or is_available():
        return config
    LOGGER.info(
        f"YOLOv5n's COCO weights are not here: detectors start from random ones (`data fetch {NAME}` gets them)"
    )
    return replace(config, start="random")
