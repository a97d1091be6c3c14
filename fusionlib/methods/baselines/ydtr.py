"""YDTR: two branches of shared weights, each a dynamic block and a transformer, joined by a sum into a third of them.

W. Tang, F. He, Y. Liu, "YDTR: Infrared and Visible Image Fusion via Y-shape Dynamic Transformer", IEEE Transactions on
Multimedia 25, 5413-5428, 2023, doi 10.1109/TMM.2022.3192661.
Published code: tthinking/YDTR@b1f01b4ba7b2f40e4fcaec620f29640960db7e98, no licence stated; its weights
models/model_10.pth load strictly.

    infrared --stem--> dynamic block --> transformer --\\
                                                        + --> dynamic block --> transformer --head--> fused
    visible  --stem--> dynamic block --> transformer --/

Dynamic block and transformer occur once each and run three times, in both arms of the Y and in its leg. Where the
published code and the paper differ, the code is followed, since the weights belong to it:

- "Dynamic" filters are two maps of gains, one for each place and one for each channel; no filter kernel is predicted.
- The transformer does not mix tokens, see `fusionlib.methods.baselines.token_transformer`.

Convention: images in [0, 1]; features (B, 64, H, W) at full resolution, so that any size goes through.
"""

from __future__ import annotations

from torch import Tensor, nn

from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.methods.baselines.token_transformer import TokenTransformer, named, unused_patch_embedding


class YDTR(nn.Module):
    """The network, 217,770 parameters; module names are those of the published weights.

    `forward` takes infrared and visible, (B, 1, H, W) in [0, 1] each, and gives the fused image (B, 1, H, W) in
    (-1, 1), meant as grey in [0, 1] without rescaling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convInput = named(
            conv=nn.Conv2d(1, 64, 3, padding=1, padding_mode="replicate"), bn=nn.BatchNorm2d(64), relu=nn.ReLU()
        )
        # The published weights hold two layers that the network never calls, half of its parameters.
        self.conv64 = named(conv=nn.Conv2d(64, 64, 3), bn=nn.BatchNorm2d(64))
        self.conv = named(conv=nn.Conv2d(128, 64, 3), bn=nn.BatchNorm2d(64))
        self.convolutional_out = named(conv=nn.Conv2d(64, 1, 1), tanh=nn.Tanh())
        self.DDF = DynamicBlock(64, 8)
        self.patch_embed = unused_patch_embedding()
        self.basicLayer = TokenTransformer(64, depth=2)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        ir, vi = (self.basicLayer(self.DDF(self.convInput(image))) for image in (ir, vi))
        return self.convolutional_out(self.basicLayer(self.DDF(ir + vi)))


class DynamicBlock(nn.Module):
    """Gains that depend on the features themselves: (B, C, H, W) to the same shape.

    One branch gives a gain for each position from its neighbourhood, the other a gain for each channel from its mean.
    Neither ends in an activation, so gains may be negative or above one.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.spatial_branch = named(
            body=nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.Conv2d(hidden, 1, 3, padding=1))
        )
        self.channel_branch = named(
            pool=nn.AdaptiveAvgPool2d(1),
            fc=nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)),
        )

    def forward(self, feature: Tensor) -> Tensor:
        return feature * self.spatial_branch(feature) + feature * self.channel_branch(feature)


class YDTRMethod(FusingMethod):
    """YDTR for use: nothing is padded or resized; the output is clamped, as the published test script omits to do.

    Args as `FusingMethod`'s; the network is a `YDTR`.
    """

    name = "ydtr"
