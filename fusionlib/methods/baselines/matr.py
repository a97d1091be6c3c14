"""MATR: fuses aligned medical images with convolutions that adapt to the image and a small transformer.

W. Tang, F. He, Y. Liu, Y. Duan, "MATR: Multimodal Medical Image Fusion via Multiscale Adaptive Transformer", IEEE
Transactions on Image Processing 31, 5134-5149, 2022, doi 10.1109/TIP.2022.3193288.
Published code: tthinking/MATR@b427644d4dab600a805cf2711d8a31232aaa2ca5, no licence stated; its weights model_10.pth
load strictly.

    x --unit--> s;  branch k: s --unit, k times--> --transformer--> --unit--> y_k;  fused = tanh(W (y_1 + y_2 + y_3))

The kernels of a unit depend on the whole image, which gives a small network a global view. In goes a functional image
(SPECT, PET, GFP) and a structural one (MRI); T1 with T2, as in the reproduced paper, is outside what it was trained
for. Where the published code and the paper differ, the code is followed, since the weights belong to it:

- The transformer does not mix tokens, see `fusionlib.methods.baselines.token_transformer`.
- "Multiscale" is one unit with one set of weights, applied up to three times before and once after the transformer;
  everything stays at full resolution.
- Upstream takes square images only. Convolutions written as such are equal there and take every size.

Convention: images in [0, 1]; features (B, 16, H, W) at full resolution, so that any size goes through.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.methods.baselines.token_transformer import TokenTransformer, named, unused_patch_embedding


class MATR(nn.Module):
    """The network, 13,422 parameters; module names are those of the published weights.

    `forward` takes the functional and the structural image, (B, 1, H, W) in [0, 1] each, and gives the fused image
    (B, 1, H, W) in (-1, 1), meant as grey in [0, 1] without rescaling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convInput = adaptive_unit(2, 16)
        self.conv = adaptive_unit(16, 16)
        self.convolutional_out = named(conv1=nn.Conv2d(16, 1, 1, bias=False), tanh=nn.Tanh())
        self.patch_embed = unused_patch_embedding()
        self.basicLayer = TokenTransformer(16, depth=3)

    def forward(self, functional: Tensor, structural: Tensor) -> Tensor:
        feature, branches = self.convInput(torch.cat([functional, structural], 1)), []
        for _ in range(3):
            # Each branch has one unit more than the one before. Upstream recomputes the shared units for each branch:
            # the same values, but its BatchNorms are updated nine times in a training step, not six.
            feature = self.conv(feature)
            branches.append(self.conv(self.basicLayer(feature)))
        return self.convolutional_out(sum(branches))


def adaptive_unit(inputs: int, outputs: int) -> nn.Sequential:
    """Adaptive convolution, BatchNorm, ReLU: (B, inputs, H, W) to (B, outputs, H, W)."""
    return named(conv1=AdaptiveConv2d(inputs, outputs), bn1=nn.BatchNorm2d(outputs), relu=nn.ReLU())


class AdaptiveConv2d(nn.Conv2d):
    """3x3 convolution whose kernel the image itself modulates (a context-gated convolution, Lin et al., ECCV 2020).

    Each input channel, averaged over a 3x3 grid that covers the image, is encoded in five numbers, its context. A gate
    for each input channel is decoded from them (`gd`), and, after a mixing of the channels (`ci`), one for each output
    channel (`gd2`). Learned kernel times sigmoid of their sum is the kernel for this one image.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        self.ce = nn.Linear(9, 5, bias=False)
        self.ce_bn = nn.BatchNorm1d(inputs)
        self.gd = nn.Linear(5, 9, bias=False)
        self.ci_bn2 = nn.BatchNorm1d(inputs)
        self.ci = nn.Linear(inputs, outputs, bias=False)
        self.ci_bn = nn.BatchNorm1d(outputs)
        self.gd2 = nn.Linear(5, 9, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        context = self.ce(F.adaptive_avg_pool2d(x, 3).flatten(2))  # (B, inputs, 5)
        of_input = self.gd(self.ce_bn(context).relu())  # (B, inputs, 9)
        mixed = self.ci(self.ci_bn2(context).relu().mT).mT  # (B, outputs, 5)
        of_output = self.gd2(self.ci_bn(mixed).relu())  # (B, outputs, 9)
        gate = (of_output[:, :, None] + of_input[:, None]).sigmoid().unflatten(-1, (3, 3))
        kernels = (self.weight * gate).flatten(0, 1)  # (B outputs, inputs, 3, 3)
        together = x.reshape(1, -1, *x.shape[-2:])  # one group of channels an image, each with its own kernels
        return F.conv2d(together, kernels, padding=1, groups=len(x)).view(len(x), -1, *x.shape[-2:])


class MATRMethod(FusingMethod):
    """MATR for use: the infrared (T2) stands for the functional image, the visible one (T1) for the structural.

    Nothing is padded or resized; the output is clamped, as the published test script omits to do. Args as
    `FusingMethod`'s; the network is a `MATR`.
    """

    name = "matr"
