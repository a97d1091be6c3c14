"""What the registering systems share: bilinear sampling with zeros outside, and the way from a network to a `Method`.

The sampling differs from `fusionlib.deformation.warp` in one point: what lies outside the image is 0, not its border.
It is part of the published networks, so it has to be theirs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.protocol import Fused
from fusionlib.support.inputs import check_pair


def sample(image: Tensor, points: Tensor) -> Tensor:
    """Values at points between the pixels: bilinear, pixel centres at integers, 0 outside the image.

    Args:
        image: (B, C, H, W), both sides at least 2.
        points: (B, h, w, 2) pixels of `image`, x then y.

    Returns:
        (B, C, h, w).
    """
    height, width = image.shape[-2:]
    # Divided, not multiplied by the inverse: the last pixel has to come out at 1 exactly, since 0 lies right behind it.
    extent = torch.tensor([width - 1, height - 1], dtype=points.dtype, device=points.device)
    return F.grid_sample(image, 2 * points / extent - 1, "bilinear", "zeros", align_corners=True)


def pixel_grid(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """The place of every pixel, (1, H, W, 2), x then y."""
    x, y = (torch.arange(side, dtype=torch.float32, device=device) for side in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]


def warp_with_zeros(image: Tensor, phi: Tensor) -> Tensor:
    """`image(p + phi(p))` as `fusionlib.deformation.warp`, with 0 for what lies outside; shapes and units as there."""
    return sample(image, pixel_grid(*phi.shape[-2:], phi.device) + phi.permute(0, 2, 3, 1))


class RegisteringMethod:
    """A network that registers an infrared image to a visible one, as a `fusionlib.methods.protocol.Method`.

    A system says in `register_and_fuse` how its network is called; sizes and devices are seen to here.

    Args:
        network: with its weights; it is moved to `device` and put into evaluation mode.
        name: what tables call it, by default the system's own name.
        device: where the network runs; results come back to where the images came from.
    """

    name: str

    def __init__(self, network: nn.Module, name: str | None = None, device: torch.device | str = "cpu") -> None:
        self.name = name or self.name
        self.device = torch.device(device)
        self.network = network.to(device).eval()

    @torch.inference_mode()
    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        """Fuse (B, 1, H, W) images in [0, 1] of 32 pixels a side or more; InputError says what cannot be fused."""
        check_pair(ir, vi, smallest=32)
        fused = self.register_and_fuse(ir.to(self.device), vi.to(self.device))
        return Fused(*(result.to(ir.device) for result in (fused.image, fused.field, fused.registered_ir)))

    def register_and_fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        """All three of `Fused`, from checked images on the device of the network."""
        raise NotImplementedError
