"""ALMFnet: a light network for fusing aligned medical images, whose cells an architecture search has chosen.

P. Mu, G. Wu, J. Liu, Y. Zhang, X. Fan, R. Liu, "Learning to Search a Lightweight Generalized Network for Medical Image
Fusion", IEEE Transactions on Circuits and Systems for Video Technology, 2023, IEEE document 10360160.
Published code: RollingPlain/ALMFnet@7801a02fa39c5b98454cf9a67894e4c3e3841daa, MIT (Copyright (c) 2022 Guanyao Wu); its
weights ALMFNet.pt load strictly.

    mri --stem--> --cell--\\
                           both --3x3--> --cell--> --3x3, 3x3, tanh--> fused
    oth --stem--> --cell--/

A search weighs many operations at every edge of a cell and keeps those that fuse well and run fast. What is written
here is the cell that came out ("DAG_lat" upstream), not the search. The modalities have cells of their own.

Convention: images in [0, 1]; features (B, 16, H, W) at full resolution, a cell's output (B, 64, H, W); no convolution
has a bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlib.losses import fusion_loss
from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.methods.baselines.token_transformer import named
from fusionlib.training.batches import Batch

WIDTH = 16

# The seven operations of each cell: kind, kernel side and the state it reads. The first makes state 1; each of the
# states 2, 3 and 4 is the sum of the next two. State 0 is the cell's input.
CELLS = {
    "mri": [
        ("residual", 3, 0),
        ("cross", 5, 0),
        ("separable", 7, 1),
        ("dense", 1, 0),
        ("cross", 3, 1),
        ("spatial", 3, 0),
        ("separable", 5, 1),
    ],
    "other": [
        ("separable", 1, 0),
        ("cross", 3, 1),
        ("separable", 7, 0),
        ("cross", 3, 0),
        ("separable", 7, 1),
        ("separable", 3, 2),
        ("residual", 3, 0),
    ],
    "both": [
        ("separable", 1, 0),
        ("cross", 3, 1),
        ("separable", 1, 0),
        ("separable", 1, 2),
        ("separable", 1, 1),
        ("dense", 1, 0),
        ("separable", 7, 3),
    ],
}


class ALMFNet(nn.Module):
    """The network, 53,719 parameters; module names are those of the published weights.

    `forward` takes the MRI and the second image (CT, PET, SPECT), (B, 1, H, W) in [0, 1] each, and gives the fused
    image (B, 1, H, W) in (-1, 1), meant as grey in [0, 1] without rescaling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem1 = nn.Sequential(conv(1, WIDTH, 3), nn.BatchNorm2d(WIDTH))
        self.stem2 = nn.Sequential(conv(1, WIDTH, 3), nn.BatchNorm2d(WIDTH))
        self.cell_f1 = Cell(CELLS["mri"])
        self.cell_f2 = Cell(CELLS["other"])
        self.fusion1 = nn.Sequential(conv(8 * WIDTH, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.cell_f = Cell(CELLS["both"])
        self.fusion2 = nn.Sequential(conv(4 * WIDTH, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.ReLU(), conv(WIDTH, 1, 3))

    def forward(self, mri: Tensor, oth: Tensor) -> Tensor:
        features = [self.cell_f1(self.stem1(mri)), self.cell_f2(self.stem2(oth))]
        return torch.tanh(self.fusion2(self.cell_f(self.fusion1(torch.cat(features, 1)))))


class Cell(nn.Module):
    """A searched cell: (B, 16, H, W) to its four states side by side, (B, 64, H, W)."""

    def __init__(self, operations: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.preprocess0 = named(op=nn.Sequential(nn.ReLU(), conv(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH)))
        self._ops = nn.ModuleList(OPERATIONS[kind](side) for kind, side, _ in operations)
        self.reads = [state for _, _, state in operations]

    def forward(self, x: Tensor) -> Tensor:
        states = [self.preprocess0(x)]
        for made_by in ((0,), (1, 2), (3, 4), (5, 6)):
            states.append(sum(self._ops[i](states[self.reads[i]]) for i in made_by))
        return torch.cat(states[1:], 1)


def conv(inputs: int, outputs: int, side: int | tuple[int, int], dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps the size."""
    return nn.Conv2d(inputs, outputs, side, padding="same", dilation=dilation, groups=groups, bias=False)


def depthwise(side: int, dilation: int = 1) -> nn.Conv2d:
    """One kernel for each channel."""
    return conv(WIDTH, WIDTH, side, dilation, groups=WIDTH)


def separable(side: int) -> nn.Sequential:
    """Depthwise, then 1x1 convolution: a wide neighbourhood at the price of few weights."""
    return named(op=nn.Sequential(depthwise(side), conv(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU()))


def cross(side: int) -> nn.Sequential:
    """A k x k convolution as a row and a column, in this order (the upstream name says the opposite)."""
    return nn.Sequential(conv(WIDTH, WIDTH, (1, side)), conv(WIDTH, WIDTH, (side, 1)), nn.BatchNorm2d(WIDTH), nn.ReLU())


class Residual(nn.Module):
    """A depthwise and a dilated depthwise convolution, mixed by 1x1, added to the input."""

    def __init__(self, side: int) -> None:
        super().__init__()
        dilated = depthwise(side, dilation=2)
        self.op = nn.Sequential(
            named(conv=depthwise(side)), dilated, conv(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.PReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.op(x)


class Dense(nn.Module):
    """Three convolutions, each of which sees everything before it; a third of the last is added to the input."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (named(conv=conv(k * WIDTH, WIDTH, side)) for k in (1, 2, 3))
        self.lrelu = nn.PReLU()  # one slope for all three

    def forward(self, x: Tensor) -> Tensor:
        first = self.lrelu(self.conv1(x))
        second = self.lrelu(self.conv2(torch.cat([x, first], 1)))
        third = self.lrelu(self.conv3(torch.cat([x, first, second], 1)))
        return 0.333333 * third + x


class Spatial(nn.Module):
    """Spatial attention: a map of weights, from the maximum and mean over channels, says where to look."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.conv1 = conv(WIDTH, WIDTH, side)
        self.conv2 = named(conv=conv(WIDTH, WIDTH, side))
        self.se = named(spatial=named(conv=conv(2, 1, side)))
        self.relu = nn.PReLU()  # one slope for both places

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        second = self.conv2(self.relu(first))
        attention = self.se(torch.cat([second.amax(1, keepdim=True), second.mean(1, keepdim=True)], 1)).sigmoid()
        return self.relu(second * attention + first)


OPERATIONS = {"separable": separable, "cross": cross, "residual": Residual, "dense": Dense, "spatial": Spatial}


def training_loss(network: ALMFNet, batch: Batch) -> Tensor:
    """Eq. (9) of the reproduced paper, on the aligned pair."""
    return fusion_loss(network(batch.vi, batch.ir), batch.ir, batch.vi)


class ALMFNetMethod(FusingMethod):
    """ALMFnet for use: the visible image (T1) stands for the MRI, the infrared (T2) for the second modality.

    Nothing is padded or resized; the output is clamped, as the published test does on writing. Args as
    `FusingMethod`'s; the network is an `ALMFNet`.
    """

    name = "almfnet"

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        return self.network(vi, ir)
