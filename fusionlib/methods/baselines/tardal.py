"""TarDAL: a densely connected generator, trained against one critic for targets and one for texture.

J. Liu, X. Fan, Z. Huang, G. Wu, R. Liu, W. Zhong, Z. Luo, "Target-aware Dual Adversarial Learning and a Multi-scenario
Multi-Modality Benchmark to Fuse Infrared and Visible for Object Detection", CVPR 2022, 5802-5811,
doi 10.48550/arXiv.2203.16220.
Published code: JinyuanLiu-CV/TarDAL, with the same generator in two states: the camera-ready
@7afdeb7ec6b94b67fb2a4f37db8fb5b3a07657b6, which holds the weights and no licence file, and the newest
@6a9edd744b44fc03344fe8fb0fd930f5df47b00b, GPL-3.0 and without weights. Only what fuses is here: the two critics serve
training, and the detector that may follow is not part of the fusion.

The published weights come as weights/tardal.pt (for people to look at), tardal+.pt (for a detector) and tardal++.pt
(for both). tardal.pt is run with BatchNorm on the statistics of the image itself, the other two on the running ones:
the command lines of the published code say so, and its published result comes out in no other way. A third to a half
of what tardal+ and tardal++ give lies below 0 and becomes black: to compare fused images, use tardal.pt.

Convention: images in [0, 1]; features (B, C, H, W) at full resolution, so that any size goes through.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from fusionlib.methods.baselines.network_method import FusingMethod


class TarDALGenerator(nn.Module):
    """The generator, 296,577 parameters; module names are those of the published weights.

    Every dense layer reads what all layers before it found and adds 32 features of its own, so that shallow texture
    reaches the reconstruction unchanged; three layers then narrow the 128 features down to the image.

    `forward` takes infrared and visible, (B, 1, H, W) in [0, 1] each, and gives the fused image (B, 1, H, W) in
    (-1, 1), meant as grey in [0, 1] without rescaling.
    """

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        total = width * (depth + 1)
        self.encoder = _layer(2, width)
        self.dense = nn.ModuleList(_layer(width * (i + 1), width) for i in range(depth))
        self.fuse = nn.Sequential(
            nn.Sequential(_conv(total, total), nn.ReLU()),
            _layer(total, 2 * width),
            _layer(2 * width, width),
            nn.Sequential(_conv(width, 1), nn.Tanh()),
        )

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        features = self.encoder(torch.cat([ir, vi], 1))
        for layer in self.dense:
            features = torch.cat([features, layer(features)], 1)
        return self.fuse(features)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU())


class TarDALMethod(FusingMethod):
    """TarDAL for use: nothing is padded or resized, one image at a time, the output clamped as in the published code.

    Args:
        network: a `TarDALGenerator`.
        name, device: as `FusingMethod`'s.
        own_statistics: BatchNorm takes mean and variance from the image itself, as tardal.pt needs it; False takes
            those that training gathered, as the other two files and training by the newest code need it.
    """

    name = "tardal"

    def __init__(
        self,
        network: TarDALGenerator,
        name: str | None = None,
        device: torch.device | str = "cpu",
        own_statistics: bool = True,
    ) -> None:
        super().__init__(with_own_statistics(network) if own_statistics else network, name, device)

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        # Not in one batch, whose images would share their statistics.
        return torch.cat([self.network(*pair) for pair in zip(ir.split(1), vi.split(1), strict=True)])


def with_own_statistics(network: nn.Module) -> nn.Module:
    """A copy that normalises by mean and variance of what it is given, in evaluation mode too."""
    network = deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # In evaluation mode, BatchNorm without running statistics computes them from its input.
            module.running_mean = module.running_var = None
    return network
