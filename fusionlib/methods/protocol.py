"""What holds for every system that fuses: what it is given, what it gives back, and what it is trained on.

Convention: infrared `ir` and visible `vi` are (B, 1, H, W) float32 in [0, 1]; the infrared may be out of place, and the
visible image is the reference onto which it is registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Fused:
    """What a method gives.

    Attributes:
        image: the fused image, (B, 1, H, W) in [0, 1].
        field: (B, 2, H, W) pixels, warps the infrared onto the visible image; None if the method does not register.
        registered_ir: the infrared so warped, (B, 1, H, W) in [0, 1], or None.
    """

    image: Tensor
    field: Tensor | None = None
    registered_ir: Tensor | None = None


class Method(Protocol):
    """A compared system."""

    name: str

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        """Fuse (B, 1, H, W) images in [0, 1]."""
        ...


@dataclass(frozen=True)
class Lesson:
    """What a compared network is trained on: pairs, and what became of them when the infrared was deformed.

    Attributes:
        ir, vi: the aligned pair, (B, 1, H, W) in [0, 1].
        moved: the infrared out of place, (B, 1, H, W) in [0, 1].
        phi_gt: (B, 2, H, W) pixels, the true field: `warp(moved, phi_gt)` is `ir` again.
    """

    ir: Tensor
    vi: Tensor
    moved: Tensor
    phi_gt: Tensor
