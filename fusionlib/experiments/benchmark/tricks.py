"""Pictures that nobody would call a fusion method, to see what the metrics give for them. None registers anything.

Convention: infrared and visible luma are (H, W) uint8, and so is what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fusionlib.experiments.benchmark import bytes_of
from fusionlib.experiments.benchmark.folder import open_benchmark
from fusionlib.experiments.benchmark.triples import levels
from fusionlib.support.files import write_bytes

Fusion = Callable[[np.ndarray, np.ndarray], np.ndarray]


def average(ir: np.ndarray, vi: np.ndarray) -> np.ndarray:
    """The mean of the two as they are: everything twice, and halved in contrast."""
    return ((ir.astype(int) + vi + 1) // 2).astype(np.uint8)


def maximum(ir: np.ndarray, vi: np.ndarray) -> np.ndarray:
    """The brighter of the two."""
    return np.maximum(ir, vi)


def sharpened(image: np.ndarray, amount: float = 2.0) -> np.ndarray:
    """An image plus so many times its details, the difference to its blur (sigma 1.5 pixels)."""
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
    return np.clip(np.rint(image + amount * (image - blurred)), 0, 255).astype(np.uint8)


def noisy(ir: np.ndarray, vi: np.ndarray) -> np.ndarray:
    """The average with noise of 12 levels, equal at every call."""
    noise = np.random.default_rng(0).normal(0, 12, vi.shape)
    return np.clip(np.rint(average(ir, vi) + noise), 0, 255).astype(np.uint8)


TRICKS: dict[str, Fusion] = {
    "average": average,
    "maximum": maximum,
    "visible, sharpened": lambda ir, vi: sharpened(vi),
    "average, sharpened": lambda ir, vi: sharpened(average(ir, vi)),
    "average with noise": noisy,
}


def fuse_all(benchmark: Path | str, fuse: Fusion, out: Path | str) -> Path:
    """Fuse every case of a benchmark by a function of (infrared, visible) and write `out`/CASE.png; return `out`."""
    opened_benchmark, out = open_benchmark(benchmark), Path(out)
    for case in (case for part in opened_benchmark.parts.values() for case in part.cases):
        ir, vi = (levels(opened_benchmark.folder / kind / f"{case}.png") for kind in ("ir", "vi"))
        write_bytes(out / f"{case}.png", bytes_of.png(fuse(ir, vi)))
    return out
