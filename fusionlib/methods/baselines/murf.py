"""MURF: registration by common information, global and then local, and a fusion that profits from both.

H. Xu, J. Yuan, J. Ma, "MURF: Mutually Reinforcing Multi-Modal Image Registration and Fusion", IEEE Transactions on
Pattern Analysis and Machine Intelligence 45(10), 12148-12166, 2023, doi 10.1109/TPAMI.2023.3283682.
Published code: hanna-xu/MURF@79b270af4ec8a77a7ed880ec6890a5cf9fe3f268, folder RGB-IR, TensorFlow 1.14, no licence
file. The checkpoints of SIEM and F2M come with it (`fusionlib.methods.baselines.murf_checkpoint` reads them); that of
MCRM could not be had here (`System.untried`).

    visible, infrared --MCRM (affine; trained, and tuned to each pair, by SIEM)--> visible --F2M (field)--> fused

It is the *visible* image that moves here, onto the infrared; `MURFMethod` brings the result back to where this project
wants it. The published code is followed where it surprises: of three affine steps only the first keeps its shift, those
of the others are lost where matrices are multiplied; BatchNorm uses the statistics of the batch at hand in tests too;
images are read by something between bilinear and nearest neighbour.

Convention: `rgb` (B, 3, H, W) and `ir` (B, 1, H, W) in [0, 1]; positions normalised, see `murf_coarse`.
"""

from __future__ import annotations

import warnings
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.deformation import compose, invert, warp
from fusionlib.methods.baselines.murf_coarse import MCRM, Coarse, affine_field, coarse_loss, extent
from fusionlib.methods.baselines.murf_descriptor import SIEM
from fusionlib.methods.baselines.murf_fine import F2M, Fine
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.methods.protocol import Fused
from fusionlib.registration import resize_field
from fusionlib.training.batches import Batch

COARSE_SIDE = 512  # MCRM sees squares of this side
MULTIPLE = 8  # of the square that F2M sees


class MURF(nn.Module):
    """The three networks, 3,537,327 parameters; each has its own published checkpoint.

    `forward` takes colour (B, 3, H, W), which moves, and infrared (B, 1, H, W), sides multiples of 8, and gives what
    MCRM and F2M find one after the other. The published scripts resize in between, as `MURFMethod` does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.siem = SIEM()  # for the loss of MCRM only
        self.mcrm = MCRM()
        self.f2m = F2M()

    def forward(self, rgb: Tensor, ir: Tensor) -> tuple[Coarse, Fine]:
        coarse = self.mcrm(rgb, ir)
        return coarse, self.f2m(coarse.warped, ir)


def training_loss(network: MURF, batch: Batch) -> Tensor:
    """The published loss of MCRM, which alone has no published weights, on the descriptors of SIEM as it is."""
    rgb = batch.vi.expand(-1, 3, -1, -1)
    with torch.no_grad():
        descriptors = network.siem(rgb, batch.moved)
    return coarse_loss(network.mcrm(rgb, batch.moved), descriptors)


class MURFMethod(NetworkMethod):
    """MURF for use, like the published test scripts, one pair at a time.

    Every part gets the images as squares: MCRM of 512 pixels, F2M of the longer side (rounded up to a multiple of 8).
    The fused image is brought back and divided by its maximum. Images stay in floating point where the scripts save 8
    bits in between. Grey images go in as three equal channels; no colour comes out, and the fused luma is the result.

    The system moves the visible image onto the infrared. The field by which it does so is inverted, so that `field`
    lays the infrared on the visible image, as everywhere in this project; where its fine part is not smooth, the
    inverse is approximate. `image` comes to lie on the infrared; it is warped by `field` too, unless `onto_visible` is
    False. `registered_ir` lies on the visible image in both cases.

    Args:
        network, name, device: as `NetworkMethod`'s; the network is a `MURF`.
        coarse: register by MCRM first. False leaves the fine registration alone, which could reach a tenth of the side,
            but by the published weights finds a pixel at most.
        steps: of tuning MCRM to each pair before it is used, with the descriptors of SIEM: 20 as published, which take
            most of the time; 0 uses it as it is.
        onto_visible: whether `image` lies on the visible image; else on the infrared that was given.
    """

    name = "murf"

    def __init__(
        self,
        network: MURF,
        name: str | None = None,
        device: torch.device | str = "cpu",
        coarse: bool = True,
        steps: int = 20,
        onto_visible: bool = True,
    ) -> None:
        super().__init__(network, name, device)
        self.coarse = coarse
        self.steps = steps
        self.onto_visible = onto_visible

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        pairs = [self._fuse(*pair) for pair in zip(ir.split(1), vi.split(1), strict=True)]
        image, moved = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an inverse that is approximate, which is nothing the user could mend
            field = invert(moved)
        return Fused(warp(image, field) if self.onto_visible else image, field, warp(ir, field))

    def _fuse(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
        """Fused image, and the field that the visible one was moved by, both on the infrared."""
        size = vi.shape[-2:]
        rgb, moved = vi.expand(-1, 3, -1, -1), torch.zeros(1, 2, *size, device=vi.device)
        if self.coarse:
            coarse = self._register(_square(rgb, COARSE_SIDE), _square(ir, COARSE_SIDE))
            rgb, moved = coarse.warped, resize_field(affine_field(coarse.warped, coarse.matrix), size)
        side = max(size) + -max(size) % MULTIPLE
        fine = self.network.f2m(_square(rgb, side), _square(ir, side))
        moved = compose(moved, resize_field(fine.offset * extent(fine.offset) / 2, size))
        image = F.interpolate(fine.luma, size, mode="bilinear", antialias=True)
        return (image / image.max()).clamp(0, 1), moved

    def _register(self, rgb: Tensor, ir: Tensor) -> Coarse:
        """Find the affine registration with MCRM, tuned to this pair if there are steps to do so."""
        if self.steps == 0:
            return self.network.mcrm(rgb, ir)
        # Tensors of inference mode, which the caller is in, cannot be differentiated; their copies outside of it can.
        with torch.inference_mode(False), torch.enable_grad():
            rgb, ir, mcrm = rgb.clone(), ir.clone(), deepcopy(self.network.mcrm).requires_grad_()
            with torch.no_grad():
                descriptors = self.network.siem(rgb, ir)
            adam = torch.optim.Adam(mcrm.parameters(), lr=1e-4, betas=(0.5, 0.99))
            for _ in range(self.steps):
                adam.zero_grad()
                coarse_loss(mcrm(rgb, ir), descriptors).backward()
                adam.step()
        return mcrm(rgb, ir)


def _square(image: Tensor, side: int) -> Tensor:
    """Bring (B, C, H, W) to a square by Pillow's bilinear filter."""
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True)
