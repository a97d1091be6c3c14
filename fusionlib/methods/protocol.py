"""What every system that fuses takes and returns.

Convention: infrared `ir` and visible `vi` are (B, 1, H, W) float32 in [0, 1]; the infrared may be misaligned, and the
visible image is the reference onto which it is registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Fused:
    """The result of a method.

    Attributes:
        image: the fused image, (B, 1, H, W) in [0, 1].
        field: (B, 2, H, W) pixels, warps the infrared onto the visible image; None if the method does not register.
        registered_ir: the infrared warped by it, (B, 1, H, W) in [0, 1], or None.
        confidence: (B, 1, H, W) in [0, 1], the chance that the field is right to 1/256 of the image side there; or None
            if the method does not tell.
    """

    image: Tensor
    field: Tensor | None = None
    registered_ir: Tensor | None = None
    confidence: Tensor | None = None


class Method(Protocol):
    """Anything with a name that fuses; `fusionlib.methods.load` gives one.

    >>> import torch
    >>> from fusionlib import methods
    >>> ir, vi = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    >>> fused = methods.load("average").fuse(ir, vi)
    >>> fused.image.mean().item(), fused.field
    (0.5, None)
    """

    name: str

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        """Fuse (B, 1, H, W) images in [0, 1]."""
        ...
