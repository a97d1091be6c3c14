"""CPSTN: makes a pseudo infrared image of a visible one, so that registration compares images of one modality.

D. Wang, J. Liu, X. Fan, R. Liu, "Unsupervised Misaligned Infrared and Visible Image Fusion via Cross-Modality Image
Generation and Registration", IJCAI 2022, 3508-3515, doi 10.24963/ijcai.2022/487.
Published code: wdhudiekou/UMF-CMGR@17a7af5edb12dcc888a2a3260198d85a104ca706, MIT licence; no weights but on a cloud
drive. UMF-CMGR and IMF use it. It is the generator of a CycleGAN (J.-Y. Zhu et al., ICCV 2017).
"""

from __future__ import annotations

from torch import Tensor, nn


class CPSTN(nn.Module):
    """The generator, 11,371,905 parameters; module names are those of the published code.

    Down to a quarter of the size, nine residual blocks that change the look but hardly the place of things, and up
    again. Every norm is over one channel of one image (InstanceNorm), which takes an image's own contrast away.

    `forward` takes a colour image (B, 3, H, W) in [-1, 1], sides multiples of 4, and gives the pseudo infrared
    (B, 1, H, W) in (-1, 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *_normed(nn.ReflectionPad2d(3), nn.Conv2d(3, 64, 7)),
            *_normed(nn.Conv2d(64, 128, 3, 2, padding=1)),
            *_normed(nn.Conv2d(128, 256, 3, 2, padding=1)),
            *[GeneratorBlock(256) for _ in range(9)],
            *_normed(nn.ConvTranspose2d(256, 128, 3, 2, padding=1, output_padding=1)),
            *_normed(nn.ConvTranspose2d(128, 64, 3, 2, padding=1, output_padding=1)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(64, 1, 7),
            nn.Tanh(),
        )

    def forward(self, colour: Tensor) -> Tensor:
        return self.model(colour)


class GeneratorBlock(nn.Module):
    """What two 3x3 convolutions add to the features (B, C, h, w), nothing being cut off after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = ((nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)) for _ in range(2))
        self.conv_block = nn.Sequential(*_normed(*first), *second, nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def _normed(*layers: nn.Module) -> list[nn.Module]:
    return [*layers, nn.InstanceNorm2d(layers[-1].out_channels), nn.ReLU()]
