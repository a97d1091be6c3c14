"""SuperFusion: a dense matcher registers the infrared from coarse to fine, then an attention network fuses the pair.

L. Tang, Y. Deng, Y. Ma, J. Huang, J. Ma, "SuperFusion: A Versatile Image Registration and Fusion Network with Semantic
Awareness", IEEE/CAA Journal of Automatica Sinica 9(12), 2121-2137, 2022, doi 10.1109/JAS.2022.106082.
Published code: Linfeng-Tang/SuperFusion@b0fbb86e26825a677c0e6d59b45e62bd7fbda98a, MIT licence; its weights,
checkpoint/MSRS.pth and checkpoint/RoadScene.pth (entries DM and FN), could not be had here (`System.untried`). MSRS's
are used where they are: those of RoadScene may have seen the pairs that are tested on.

    infrared, visible --DenseMatcher--> field;    warped infrared, luma of the visible --FusionNet--> fused luma

The published code is followed where it differs from the paper: the semantic loss, which gives the paper its name, has
weight 0; the map of the fusion network has no sigmoid, and the weights of its four directions are computed in vain (see
`fusionlib.methods.baselines.superfusion_fusion`); registration is symmetric in training only.

Convention of the published fields, which its warp and its training share: normalised displacements, added to a grid
whose -1 and 1 are the centres of the outermost pixels, and then sampled as if -1 and 1 were the edges of the image. A
displacement of 0 thus reads up to half a pixel too far outwards. `pixel_field` gives the fields of the project for it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from kornia.filters import spatial_gradient
from torch import Tensor, nn

from fusionlib.losses import registration_loss
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.methods.baselines.superfusion_fusion import FusionNet
from fusionlib.methods.baselines.superfusion_matcher import DenseMatcher, edge_warp
from fusionlib.methods.protocol import Fused
from fusionlib.training.batches import Batch


class SuperFusionOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        luma: fused, (B, 1, H, W) in [0, 1].
        displacement: (B, 2, H, W), see the convention above.
        registered_ir: (B, 3, H, W) in [0, 1]; 0 where the displacement points outside the image.
    """

    luma: Tensor
    displacement: Tensor
    registered_ir: Tensor


class SuperFusion(nn.Module):
    """The two networks, 1,962,429 parameters; `DM` and `FN` are also the entries of a published checkpoint.

    `forward` takes infrared and visible, (B, 3, H, W) each in [0, 1], red first, 9 pixels a side or more; it is the
    published mode "Reg&Fusion" up to the fused luma, which then gets Cb and Cr of the visible image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.DM = DenseMatcher()
        self.FN = FusionNet()

    def forward(self, ir: Tensor, vi: Tensor) -> SuperFusionOutput:
        displacement = self.DM(ir, vi)
        registered = edge_warp(ir, displacement)
        red, green, blue = vi.split(1, 1)
        luma = (0.299 * red + 0.587 * green + 0.114 * blue).clamp(0, 1)
        return SuperFusionOutput(self.FN(registered[:, :1], luma), displacement, registered)


def training_loss(network: SuperFusion, batch: Batch) -> Tensor:
    """Eq. (5) of the reproduced paper on the displacement and its two coarser estimates, and the published fusion loss.

    The published registration loss has 13 terms over both directions of two pairs; its ground truth is the field of the
    direction that is not used at test.
    """
    features = network.DM.features(batch.moved.expand(-1, 3, -1, -1), batch.vi.expand(-1, 3, -1, -1))
    levels = network.DM.levels(*features, batch.vi.shape[-2:])
    registration = sum(registration_loss(pixel_field(level), batch.phi_gt) for level in levels) / len(levels)
    return registration + fusion_loss(network.FN(batch.ir, batch.vi), batch.ir, batch.vi)


def fusion_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """The published loss of the second stage, (B, 1, H, W) images: edges and intensities half way between both sources.

    The semantic term, which gives the paper its name, has weight 0 in the published code.
    """
    edges, images = (
        sum((operator(fused) - operator(source)).abs().mean() for source in (ir, vi)) / 2
        for operator in (_bending, lambda image: image)
    )
    return 10 * (edges + images / 2)


def _bending(image: Tensor) -> Tensor:
    """Sum of the absolute second derivatives xx, xy and yy, by Sobel's operators: (B, 1, H, W)."""
    return spatial_gradient(image, order=2).abs().sum(2)


class SuperFusionMethod(NetworkMethod):
    """SuperFusion for use: nothing is padded or resized, grey images go in as three equal channels.

    `field` is exactly what the system warps by, the half pixel of its grid included. `registered_ir` is its own warp,
    which is what it fuses: 0 outside the image, where `fusionlib.deformation.warp` repeats the border.

    Args as `NetworkMethod`'s; the network is a `SuperFusion`.
    """

    name = "superfusion"

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        output = self.network(ir.expand(-1, 3, -1, -1), vi.expand(-1, 3, -1, -1))
        return Fused(output.luma.clamp(0, 1), pixel_field(output.displacement), output.registered_ir[:, :1])


def pixel_field(displacement: Tensor) -> Tensor:
    """What `edge_warp` does with a displacement (B, 2, H, W), as a field in pixels of `fusionlib.deformation`."""
    height, width = displacement.shape[-2:]
    stretch = (torch.linspace(-0.5, 0.5, side, device=displacement.device) for side in (width, height))
    size = torch.tensor([width, height], device=displacement.device).view(1, 2, 1, 1)
    return torch.stack(torch.meshgrid(*stretch, indexing="xy")) + displacement * size / 2
