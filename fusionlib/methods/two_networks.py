"""One network registers, another one fuses: `ours_robust`, whose registration has been trained apart from the fusion.

Convention: as in `fusionlib.network`.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from fusionlib.network import Alignment, FusionNetwork


class TwoNetworks(FusionNetwork):
    """The fusion of a network along the field that another one finds.

    Args:
        registers: gives field, stages and confidence.
        fuses: gives the features that are fused, and the head; it stays as it is, the weights are copied.
    """

    def __init__(self, registers: FusionNetwork, fuses: FusionNetwork) -> None:
        super().__init__(fuses.config)
        self.load_state_dict(fuses.state_dict())
        self.registers = registers

    @property
    def multiple(self) -> int:
        """Images are padded as both need it."""
        return max(super().multiple, self.registers.multiple)

    def _align(self, ir: Tensor, vi: Tensor) -> Alignment:
        common_ir, common_vi = self.common_features(ir, vi)
        return replace(self.registers._align(ir, vi), common_ir=common_ir, common_vi=common_vi)
