"""Image files for the tests of reading them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise(*shape: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    """Pixels drawn from 0..high-1, the same at every call."""
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def write(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    """Save pixels as an image file, in another mode if wished; its folder is made."""
    image = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    (image.convert(mode) if mode else image).save(path)
    return path
