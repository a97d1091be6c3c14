"""What the systems that fuse without registering have in common."""

from __future__ import annotations

from torch import Tensor

from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.methods.protocol import Fused


class FusingMethod(NetworkMethod):
    """A network that fuses an aligned pair. It registers nothing: `field` and `registered_ir` stay None.

    A system says in `merge` how its network is called and what becomes of the output.
    """

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        """As `NetworkMethod.run`, clamped to [0, 1]."""
        return Fused(self.merge(ir, vi).clamp(0, 1))

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        """The fused images before the clamp, (B, 1, H, W), from checked ones on the device of the network."""
        raise NotImplementedError
