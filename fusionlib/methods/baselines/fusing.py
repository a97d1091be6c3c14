"""What the systems that fuse without registering have in common: the way from a network to a `Method`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlib.methods.protocol import Fused
from fusionlib.support.inputs import check_pair


class FusingMethod:
    """A network that fuses an aligned pair, as a `fusionlib.methods.protocol.Method`.

    A system says in `merge` how its network is called and what becomes of the output; sizes, devices and the clamp to
    [0, 1] are the same for all. None of them registers: `field` and `registered_ir` stay None.

    Args:
        network: with its weights; it is moved to `device` and put into evaluation mode.
        name: what tables call it, by default the system's own name.
        device: where the network runs; images come back to where they came from.
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
        image = self.merge(ir.to(self.device), vi.to(self.device))
        return Fused(image.clamp(0, 1).to(ir.device))

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        """The fused images before the clamp, (B, 1, H, W), from checked ones on the device of the network."""
        raise NotImplementedError
