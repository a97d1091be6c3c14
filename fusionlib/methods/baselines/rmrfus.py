"""RMR-Fusion: fuses aligned MRI of two kinds by an autoencoder and a dense fusion network; here in 2-D.

H. Zhang, X. Zuo, H. Zhou, T. Lu, J. Ma, "A Robust Mutual-Reinforcing Framework for 3D Multi-Modal Medical Image Fusion
Based on Visual-Semantic Consistency", AAAI Conference on Artificial Intelligence 38(7), 7087-7095, 2024.
Published code: HaoZhang1018/RMR-Fusion@78faad8a6f64d7f66ace01f60e4f3c0d8f7e9e8d, MIT licence (its transformer after
MONAI, Apache-2.0); written from a description. Its weights are not available.

    T1 --encoder1--> f1;  T2 --encoder2--> f2;  f1, f2 --fusion--> F --decoder--> fused

The encoders learn, with the decoder, to give the features of the clean image for one that is blurred, noisy or damaged
("robust"). A segmentation of tumours from F is trained together with the fusion ("mutual-reinforcing", "semantic"); it
is not needed to fuse.

The published network fuses volumes of T1 and T2-FLAIR. What is written here is the same in two dimensions, for slices:
kernels and windows are squares instead of cubes, all names of weights stay.

Convention: images (B, 1, H, W), both sides even, each with its largest value at 1; features (B, 16, H, W).
"""

from __future__ import annotations

import torch
from kornia.metrics import ssim
from torch import Tensor, nn
from torch.func import functional_call

from fusionlib.losses import gradient_loss
from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.methods.baselines.rmrfus_encoder import Encoder, double_conv
from fusionlib.methods.baselines.token_transformer import named
from fusionlib.support.inputs import pad_to_multiple
from fusionlib.training.batches import Batch


class RMRFus(nn.Module):
    """The two networks in 2-D, 440,609 and 48,576 parameters; module names in each are those of the published 3-D ones.

    `forward` takes T1 and T2 and gives the fused image (B, 1, H, W) in no fixed range.
    """

    def __init__(self) -> None:
        super().__init__()
        self.autoencoder = Autoencoder()
        self.fusion = DenseFusion()

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        features = self.fusion(self.autoencoder.encoder1(t1), self.autoencoder.encoder2(t2))
        return self.autoencoder.decoder(features)


class Autoencoder(nn.Module):
    """An encoder for each modality and one decoder; trained first, then kept as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder1 = Encoder()
        self.encoder2 = Encoder()
        self.decoder = named(
            layer1=double_conv(16, 8, 8), layer2=double_conv(8, 8, 8), outc=named(conv=nn.Conv2d(8, 1, 1))
        )


class DenseFusion(nn.Module):
    """Features of both images, (B, 16, H, W) each, to fused ones: every layer sees all those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.conv2, self.conv3, self.conv4 = (conv_prelu(16 * k) for k in range(2, 7))
        self.conv5 = conv_prelu(16)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        known = torch.cat([first, second], 1)
        for conv in (self.conv0, self.conv1, self.conv2, self.conv3):
            known = torch.cat([conv(known), known], 1)
        return self.conv5(self.conv4(known))


def conv_prelu(inputs: int) -> nn.Sequential:
    """3x3 convolution to 16 channels and a PReLU with a slope for each."""
    return named(conv=nn.Sequential(nn.Conv2d(inputs, 16, 3, padding=1), nn.PReLU(16)))


def training_loss(network: RMRFus, batch: Batch) -> Tensor:
    """The published losses of both stages at once; what fuses does not change the autoencoder, as there.

    Left out are two of three degradations, blur and damage in the spectrum, and the segmentation of tumours.
    """
    autoencoder, images = network.autoencoder, [from_zero(image) for image in (batch.vi, batch.ir)]
    loss, features = batch.vi.new_zeros(()), []
    for encoder, image in zip((autoencoder.encoder1, autoencoder.encoder2), images, strict=True):
        noise = 0.1 * torch.rand(len(image), 1, 1, 1, device=image.device) * torch.randn_like(image)
        clean, noisy = encoder(image), encoder(image + noise)
        loss = loss + _distance(noisy, clean)
        for feature in (clean, noisy):
            back = autoencoder.decoder(feature)
            loss = loss + _distance(back, image) + 1 - ssim(back, image, 11, padding="valid").mean()
        features.append(clean.detach())
    decoder = {name: weight.detach() for name, weight in autoencoder.decoder.named_parameters()}
    fused, (t1, t2) = functional_call(autoencoder.decoder, decoder, network.fusion(*features)), images
    intensity = (fused - t2).abs().mean()  # of the second image alone, as published
    return loss + gradient_loss(fused, t1, t2) + 12 * intensity


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """40 times the mean square of x - y, and 20 times that of its differences between neighbours along both axes."""
    apart = x - y
    down, right = apart.diff(dim=-2), apart.diff(dim=-1)
    return 40 * apart.square().mean() + 20 * (down.square().mean() + right.square().mean())


class RMRFusMethod(FusingMethod):
    """RMR-Fusion for use: the visible image stands for T1, the infrared for T2.

    As in the published test, each image is brought to begin at 0 by (v - min) / max, and the fused image, without its
    negatives, is stretched to [0, 1]; the rounding to 8 bits and the second stretching slice by slice, of volumes, are
    left out. An odd side is padded by repeating the border, and cut back. Args as `FusingMethod`'s; the network is an
    `RMRFus`.
    """

    name = "rmrfus"

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        output = self.network(*(pad_to_multiple(from_zero(image), 2) for image in (vi, ir)))
        output = output[..., : ir.shape[-2], : ir.shape[-1]].clamp(min=0)
        output = output - output.amin((2, 3), keepdim=True)
        return output / output.amax((2, 3), keepdim=True).clamp(min=1e-8)


def from_zero(image: Tensor) -> Tensor:
    """(v - min) / max of each image (B, 1, H, W) in [0, 1]; a black one stays black."""
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    return (image - low) / high.clamp(min=1e-8)
