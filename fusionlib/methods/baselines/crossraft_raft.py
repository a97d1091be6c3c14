"""The parts of RAFT that CrossRAFT takes over: encoders, the lookup of correlations, and the recurrent update.

Z. Teed, J. Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020, 402-419,
doi 10.1007/978-3-030-58536-5_24; here in the form and with the module names of zslzx/CrossModalFlow, see
`fusionlib.methods.baselines.crossraft`.

Convention: features (B, C, h, w) at 1/8 of the size of the images; flow (B, 2, h, w) in pixels of that size, x then y.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.sampling import pixel_grid, sample

LEVELS, RADIUS = 4, 4  # of the lookup: four levels, a window of 9 x 9 at each


class Encoder(nn.Module):
    """Residual network from an image to 256 features at 1/8 of its size: (B, 3, H, W) to (B, 256, H/8, W/8)."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 64, 7, 2, padding=3), norm(64)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1, norm), ResidualBlock(64, 64, 1, norm))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2, norm), ResidualBlock(96, 96, 1, norm))
        self.layer3 = nn.Sequential(ResidualBlock(96, 128, 2, norm), ResidualBlock(128, 128, 1, norm))
        self.conv2 = nn.Conv2d(128, 256, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm1(self.conv1(image)).relu()
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norms beside the input, which a 1x1 convolution brings to the smaller size."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1), norm(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1), norm(outputs)
        if stride > 1:
            # One module under two names, as in the published weights. Where these differ, downsample.1, loaded after
            # norm3, holds.
            self.norm3 = norm(outputs)
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), self.norm3)
        else:
            self.downsample = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return (self.downsample(x) + y).relu()


class CorrelationPyramid:
    """All-pairs cost volume of two feature maps (B, 256, h, w), at four resolutions of the second.

    Calling it with a flow (B, 2, h, w) samples bilinearly, at each level, the 9 x 9 costs around the position that the
    flow points at: (B, 4 x 81, h, w). The coarse levels give a large search range.
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        batch, channels, height, width = first.shape
        costs = first.flatten(2).mT @ second.flatten(2) / channels**0.5
        self.levels = [costs.view(batch * height * width, 1, height, width)]
        for _ in range(LEVELS - 1):
            self.levels.append(F.avg_pool2d(self.levels[-1], 2))
        steps = torch.arange(-RADIUS, RADIUS + 1.0, device=first.device)
        # The weights expect the window transposed: its first index moves x.
        self.window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)[None]
        self.places = pixel_grid(height, width, first.device)

    def __call__(self, flow: Tensor) -> Tensor:
        batch, _, height, width = flow.shape
        centres = (self.places + flow.permute(0, 2, 3, 1)).reshape(-1, 1, 1, 2)
        costs = [sample(level, centres / 2**i + self.window) for i, level in enumerate(self.levels)]
        return torch.cat([cost.view(batch, height, width, -1) for cost in costs], -1).permute(0, 3, 1, 2)


class UpdateBlock(nn.Module):
    """One step: state and context (B, 128, h, w), costs and flow to the new state and the change of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = SeparableGRU()
        self.flow_head = FlowHead()
        self.mask = nn.Sequential(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 576, 1))

    def forward(self, state: Tensor, context: Tensor, costs: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        state = self.gru(state, torch.cat([context, self.encoder(costs, flow)], 1))
        return state, self.flow_head(state)


class MotionEncoder(nn.Module):
    """Features of the sampled costs and of the flow, and the flow itself: (B, 128, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, 128 - 2, 3, padding=1)

    def forward(self, costs: Tensor, flow: Tensor) -> Tensor:
        costs = self.convc2(self.convc1(costs).relu()).relu()
        moved = self.convf2(self.convf1(flow).relu()).relu()
        return torch.cat([self.conv(torch.cat([costs, moved], 1)).relu(), flow], 1)


class SeparableGRU(nn.Module):
    """A convolutional gated recurrent unit, first along rows and then along columns: a large reach with few weights."""

    def __init__(self) -> None:
        super().__init__()
        for i, kernel in ((1, (1, 5)), (2, (5, 1))):
            for gate in "zrq":
                self.add_module(f"conv{gate}{i}", nn.Conv2d(128 + 256, 128, kernel, padding="same"))

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        for i in (1, 2):
            update, reset, propose = (getattr(self, f"conv{gate}{i}") for gate in "zrq")
            both = torch.cat([state, x], 1)
            z, r = update(both).sigmoid(), reset(both).sigmoid()
            state = (1 - z) * state + z * propose(torch.cat([r * state, x], 1)).tanh()
        return state


class FlowHead(nn.Module):
    """The change of the flow, (B, 2, h, w), from the state (B, 128, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(128, 256, 3, padding=1), nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        return self.conv2(self.conv1(state).relu())
