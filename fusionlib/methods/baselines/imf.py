"""IMF: turns the visible image into a pseudo infrared one, registers the infrared to that, and fuses.

D. Wang, J. Liu, L. Ma, R. Liu, X. Fan, "Improving Misaligned Multi-Modality Image Fusion With One-Stage Progressive
Dense Registration", IEEE Transactions on Circuits and Systems for Video Technology 34, 10944-10958, 2024,
doi 10.1109/TCSVT.2024.3412743.
Published code: wdhudiekou/IMF@afd74dae73545d17538fc5134923748fd1388d3d, without a licence file (its README shows an MIT
badge); the generator of pseudo infrared images comes from UMF-CMGR. All weights are on cloud drives only.

    visible, three channels --CPSTN--> pseudo infrared --\\
                                                          MPDR --> field --> registered infrared --\\
    infrared --------------------------------------------/                                          TCF --> fused
    visible, luma ---------------------------------------------------------------------------------/

Where the published code and the paper differ the code is followed. Its joint test script names a class that is not
there; the order above is that of its separate scripts, which hand results on as 8-bit files. Here nothing is rounded.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.losses import registration_loss
from fusionlib.methods.baselines.imf_cpstn import CPSTN
from fusionlib.methods.baselines.imf_fusion import CoFusionNet
from fusionlib.methods.baselines.imf_registration import MPDRNet
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.methods.protocol import Fused
from fusionlib.support.inputs import pad_to_multiple
from fusionlib.training.batches import Batch


class IMFOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        image: fused, (B, 1, H, W), meant as [0, 1] but without bounds.
        registered_ir: (B, 1, H, W) in [0, 1]; 0 where the field points outside the image.
        field: (B, 2, H, W) pixels, x first, as in `fusionlib.deformation`.
        pseudo_ir: (B, 1, H, W) in [0, 1], what the infrared was registered to.
    """

    image: Tensor
    registered_ir: Tensor
    field: Tensor
    pseudo_ir: Tensor


class IMF(nn.Module):
    """The three networks, 13,436,207 parameters; each has its own published state_dict.

    `forward` takes infrared (B, 1, H, W), luma (B, 1, H, W) and the colour image (B, 3, H, W), all in [0, 1], sides
    multiples of 16.
    """

    multiple = 16

    def __init__(self) -> None:
        super().__init__()
        self.cpstn = CPSTN()
        self.mpdr = MPDRNet()
        self.cofusion = CoFusionNet()

    def forward(self, ir: Tensor, luma: Tensor, colour: Tensor) -> IMFOutput:
        pseudo_ir = (self.cpstn(2 * colour - 1) + 1) / 2
        registered = self.mpdr(pseudo_ir, ir)
        fused = self.cofusion(registered.moved, luma)
        return IMFOutput(fused, registered.moved, registered.fields[-1].flip(1), pseudo_ir)


def training_loss(network: IMF, batch: Batch) -> Tensor:
    """All three networks at once: Eq. (5) of the reproduced paper, the published fusion loss, and the pseudo infrared.

    Published are three trainings. The registration there compares images by VGG-19, whose weights a reader would have
    to fetch. CPSTN is there one half of a CycleGAN, made for unpaired images; here the pairs are aligned, so that the
    pseudo infrared has the infrared as its target.
    """
    output = network(batch.moved, batch.vi, batch.vi.expand(-1, 3, -1, -1))
    pseudo = (output.pseudo_ir - batch.ir).abs().mean()
    return registration_loss(output.field, batch.phi_gt) + fusion_loss(output.image, batch.ir, batch.vi) + pseudo


def fusion_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """The published loss of the fusion network, on images (B, 1, H, W) in [0, 1].

    Intensities follow the mean of both sources, weighed by their saliency, edges the stronger of the two. The third
    published term, MS-SSIM, has constants for images in 0..255 and is almost 0 on these; it is left out.
    """
    weights = (5 * torch.stack([saliency(ir), saliency(vi)])).softmax(0)
    target = weights[0] * ir + weights[1] * vi
    edges = torch.maximum(_laplacian(ir).abs(), _laplacian(vi).abs())
    return 20 * (fused - target).abs().mean() + 5 * (edges - _laplacian(fused).abs()).abs().mean()


def saliency(image: Tensor) -> Tensor:
    """How far a pixel's grey level is from those of all pixels of its image, the largest being 1; (B, 1, H, W)."""
    grey = (255 * image.clamp(0, 1)).round().long()
    levels = torch.arange(256, device=image.device)
    distance = (levels[:, None] - levels).abs().to(image.dtype)
    maps = []
    for pixels in grey:
        of_level = distance @ torch.bincount(pixels.flatten(), minlength=256).to(image.dtype)
        maps.append(of_level[pixels] / of_level[pixels].max().clamp(min=1))
    return torch.stack(maps)


def _laplacian(image: Tensor) -> Tensor:
    kernel = image.new_ones(1, 1, 3, 3) / 16
    kernel[..., 1, 1] = -0.5
    return F.conv2d(F.pad(image, [1] * 4, mode="reflect"), kernel)


class IMFMethod(NetworkMethod):
    """IMF for use.

    The pseudo infrared is made of the luma as three equal channels, since methods are given no colour. Sides are padded
    to multiples of 16 by repeating the lower and right border; the published code asks for such sizes instead.
    Args as `NetworkMethod`'s; the network is an `IMF`.
    """

    name = "imf"

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        height, width = vi.shape[-2:]
        ir, vi = (pad_to_multiple(image, self.network.multiple) for image in (ir, vi))
        output = self.network(ir, vi, vi.expand(-1, 3, -1, -1))
        image, field, registered = (
            result[..., :height, :width] for result in (output.image, output.field, output.registered_ir)
        )
        return Fused(image.clamp(0, 1), field, registered.clamp(0, 1))
