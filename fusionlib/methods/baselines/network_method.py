"""The way from the network of a compared system to a `Method`: the same for those that register and those that fuse."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlib.methods.protocol import Fused
from fusionlib.support.inputs import check_pair


class NetworkMethod:
    """A network with its weights, as a `fusionlib.methods.protocol.Method`; `run` says how it is called.

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
        """Fuse (B, 1, H, W) images in [0, 1] of 32 pixels a side or more.

        Images are converted to the dtype of the weights, and come back in that of the infrared; the field is not
        converted back.

        Raises:
            InputError: the images cannot be fused; the message says why.
        """
        check_pair(ir, vi, smallest=32)
        dtype = next((weight.dtype for weight in self.network.parameters()), torch.float32)
        found = self.run(*(image.to(self.device, dtype) for image in (ir, vi)))
        field, registered = (
            None if each is None else each.to(ir.device) for each in (found.field, found.registered_ir)
        )
        return Fused(found.image.to(ir), field, None if registered is None else registered.to(ir))

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        """What the network makes of checked images, on its device and in its dtype."""
        raise NotImplementedError
