"""DATFuse: a small convolutional network with a transformer between two passes of one dual-attention block.

W. Tang, F. He, Y. Liu, Y. Duan, T. Si, "DATFuse: Infrared and Visible Image Fusion via Dual Attention Transformer",
IEEE Transactions on Circuits and Systems for Video Technology 33(7), 3159-3172, 2023, doi 10.1109/TCSVT.2023.3234340.
Published code: tthinking/DATFuse@0cd93f15fb5552c7aef79b7be56726c863d6c5ba, no licence stated; its weights model_10.pth
load strictly.

    x --stem--> A --detail, gates, + A, ReLU--> E --transformer--> T --detail, gates, + itself--> D --head--> fused

The gates tell which channels and which places matter ("dual attention"); the transformer in between is meant to add the
long range. Where the published code and the paper differ, the code is followed, since the weights belong to it:

- Both dual-attention blocks, and both convolutions inside each, share one set of weights.
- The transformer does not mix tokens, see `fusionlib.methods.baselines.token_transformer`; only the channel gate sees
  further than a few pixels.
- The second block adds its own detail features once more, where the first adds its input.

Convention: images in [0, 1]; features (B, 16, H, W) at full resolution, so that any size goes through.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.methods.baselines.token_transformer import TokenTransformer, named, unused_patch_embedding


class DATFuse(nn.Module):
    """The network, 10,760 parameters; module names are those of the published weights.

    `forward` takes infrared and visible, (B, 1, H, W) in [0, 1] each, and gives the fused image (B, 1, H, W) in
    (-1, 1), meant as grey in [0, 1] without rescaling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutional = named(conv=_replicating(2, 16, 5), bn=nn.BatchNorm2d(16), relu=nn.ReLU())
        self.convolutional_out = named(conv=nn.Conv2d(16, 1, 1), tanh=nn.Tanh())
        self.fem = named(conv=_replicating(16, 16, 3), bn=nn.BatchNorm2d(16))
        self.cam = channel_gate(16, 4)
        self.sam = spatial_gate(16, 4)
        self.patch_embed = unused_patch_embedding()
        self.basicLayer = TokenTransformer(16, depth=2)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        shallow = self.convolutional(torch.cat([ir, vi], 1))
        feature = torch.relu(self._gated(self._detail(shallow)) + shallow)
        detail = self._detail(self.basicLayer(feature))
        return self.convolutional_out(self._gated(detail) + detail)

    def _detail(self, feature: Tensor) -> Tensor:
        """The feature extraction block: convolution and BatchNorm, twice with the same weights."""
        return self.fem(torch.relu(self.fem(feature)))

    def _gated(self, detail: Tensor) -> Tensor:
        """Dual attention: the features weighed by channel, plus the features weighed by place."""
        return detail * self.cam(detail) + detail * self.sam(detail)


def channel_gate(channels: int, hidden: int) -> nn.Sequential:
    """A weight in (0, 1) for every channel, from its mean over the image: (B, C, H, W) to (B, C, 1, 1)."""
    excite = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid())
    return named(pool=nn.AdaptiveAvgPool2d(1), fc=excite)


def spatial_gate(channels: int, hidden: int) -> nn.Sequential:
    """A weight in (0, 1) for every pixel, from its surroundings of 5 x 5: (B, C, H, W) to (B, 1, H, W)."""
    return named(
        body=nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 3, padding=1),
            nn.BatchNorm2d(1),
            nn.Sigmoid(),
        )
    )


def _replicating(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, padding_mode="replicate")


class DATFuseMethod(FusingMethod):
    """DATFuse for use: nothing is padded or resized; the output is clamped, as the published test script omits to do.

    Args as `FusingMethod`'s; the network is a `DATFuse`.
    """

    name = "datfuse"
