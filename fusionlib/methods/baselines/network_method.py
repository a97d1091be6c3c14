"""From the network of a compared system to a `Method`, and the retraining loss that most fusing systems share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlib.losses import fusion_loss
from fusionlib.methods.protocol import Fused
from fusionlib.support.inputs import check_pair
from fusionlib.support.machine import exact_float32
from fusionlib.training.batches import Batch


class NetworkMethod:
    """A network with its weights, as a `fusionlib.methods.protocol.Method`; a system says in `run` how it is called.

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
        with exact_float32():
            fused = self.run(*(image.to(self.device, dtype) for image in (ir, vi)))
        field, registered = (
            None if tensor is None else tensor.to(ir.device) for tensor in (fused.field, fused.registered_ir)
        )
        return Fused(fused.image.to(ir), field, None if registered is None else registered.to(ir))

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        """What the network makes of checked images, on its device and in its dtype; a registering system gives all
        three parts of `Fused`.
        """
        raise NotImplementedError


class FusingMethod(NetworkMethod):
    """A network that fuses an aligned pair and registers nothing: `field` and `registered_ir` stay None.

    By default the network takes the infrared and the visible image as they are; a system that needs more overrides
    `merge`. The output is clamped to [0, 1].
    """

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        """As `NetworkMethod.run`."""
        return Fused(self.merge(ir, vi).clamp(0, 1))

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        """The fused images before the clamp, (B, 1, H, W), from checked ones on the device of the network."""
        return self.network(ir, vi)


def training_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Eq. (9) of the reproduced paper on the aligned pair; the network takes infrared and visible."""
    return fusion_loss(network(batch.ir, batch.vi), batch.ir, batch.vi)
