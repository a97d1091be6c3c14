"""CrossRAFT: optical flow between images of two modalities, by an adapter in front of a network made for one.

S. Zhou, W. Tan, B. Yan, "Promoting Single-Modal Optical Flow Network for Diverse Cross-Modal Flow Estimation",
AAAI Conference on Artificial Intelligence 36(3), 3562-3570, 2022, doi 10.1609/aaai.v36i3.20268.
Published code: zslzx/CrossModalFlow@900e2fbd3567a0e9e3dbcbd178fd296b689ffa9a, MIT licence. It gives its weights on a
cloud drive only. The network that it puts its adapter into is RAFT, see `fusionlib.methods.baselines.crossraft_raft`.

    visible  --feature encoder--> F_1 --\\
                     adapter K applied   all pairs <F_1(p), F_2(q)> --lookup--\\
    infrared --feature encoder--> F_2 --/                                      GRU, 12 times --> flow --> 8x larger
    visible  --context encoder--> state of the GRU and its context input -------/

RAFT compares each position of one image with all of the other, and refines its flow step by step. Across modalities the
features do not agree. The adapter therefore compares both whole images by co-attention and predicts a matrix K that
mixes the feature channels so that the two become comparable. As in the published code, one K is applied to the features
of both images (a branch for a second one is disabled there).

Convention: the first image is the reference (visible), the second is moved (infrared); (B, 3, H, W) in [0, 1], grey as
three equal channels. Flow (B, 2, H, W) in pixels, x then y: first(p) corresponds to second(p + flow(p)), which is a
field as in `fusionlib.deformation`. Inside the network, flow is at 1/8 of the size and in pixels of that size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.crossraft_raft import CorrelationPyramid, Encoder, UpdateBlock
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.methods.baselines.sampling import warp_with_zeros
from fusionlib.methods.protocol import Fused
from fusionlib.training.batches import Batch


class CrossRAFT(nn.Module):
    """The network, 39,763,392 parameters; module names are those of the published weights.

    `forward` gives the flow from `first` to `second`. Sides are padded by repeating the border, half of it on either
    side, to multiples of 8 and to at least 128: the coarsest level of the lookup, 1/64, must be 2 wide. The published
    code stops below 128; the padding to it is ours.

    Args:
        iterations: steps of the GRU; the published system takes 12.
    """

    def __init__(self, iterations: int = 12) -> None:
        super().__init__()
        self.iterations = iterations
        self.fnet = Encoder(nn.InstanceNorm2d)
        self.cnet = Encoder(nn.BatchNorm2d)
        self.adapter = CrossModalAdapter()
        self.update_block = UpdateBlock()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] each, to the flow (B, 2, H, W) in pixels."""
        *_, (state, flow) = self._refined(first, second)
        return self._enlarged(state, flow, first.shape)

    def predictions(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """The flow after every iteration, for training; the last one is what `forward` gives."""
        return [self._enlarged(state, flow, first.shape) for state, flow in self._refined(first, second)]

    def _refined(self, first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        first, second = (padded(2 * image - 1) for image in (first, second))
        mixing = self.adapter(first, second)
        lookup = CorrelationPyramid(*(mixed(self.fnet(image), mixing) for image in (first, second)))
        state, context = self.cnet(first).chunk(2, 1)
        state, context = state.tanh(), context.relu()
        flow = torch.zeros_like(state[:, :2])
        for _ in range(self.iterations):
            flow = flow.detach()  # as in RAFT: each step learns to improve on what it is given
            state, change = self.update_block(state, context, lookup(flow), flow)
            flow = flow + change
            yield state, flow

    def _enlarged(self, state: Tensor, flow: Tensor, shape: torch.Size) -> Tensor:
        """Convex upsampling by 8: every fine pixel is a learned weighted mean of the nine coarse ones around it."""
        batch, _, height, width = flow.shape
        weights = (0.25 * self.update_block.mask(state)).view(batch, 1, 9, 8, 8, height, width).softmax(2)
        around = F.unfold(8 * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
        fine = (weights * around).sum(2)  # (B, 2, row in the cell, column in the cell, h, w)
        fine = fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, 8 * height, 8 * width)
        top, left = ((fine.shape[i] - shape[i]) // 2 for i in (-2, -1))
        return fine[..., top : top + shape[-2], left : left + shape[-1]]


def padded(image: Tensor) -> Tensor:
    """Repeat the border until both sides are multiples of 8 and at least 128; the odd pixel goes last."""
    missing = [max(side + -side % 8, 128) - side for side in reversed(image.shape[-2:])]
    return F.pad(image, [part for pad in missing for part in (pad // 2, pad - pad // 2)], mode="replicate")


def mixed(feature: Tensor, mixing: Tensor) -> Tensor:
    """The channels of (B, 256, h, w) mixed by the matrix of each image, (B, 256, 256)."""
    return (mixing @ feature.flatten(2)).view_as(feature)


class CrossModalAdapter(nn.Module):
    """Predicts from both images, (B, 3, H, W) in [-1, 1], the matrix that makes their features comparable.

    Each image becomes 192 features at 1/16 of its size, averaged to 16 x 16 positions, so that the last linear layer
    has 512 inputs at every image size. Co-attention joins to each position of the first image the mean of the second
    one's features, weighted by their similarity.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 192)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, padding=1, bias=False), nn.InstanceNorm2d(b), nn.LeakyReLU(0.1))
            for a, b in pairwise(widths)
        ]
        self.feat_net = nn.Sequential(*blocks, nn.Conv2d(192, 192, 3, padding=1))
        self.adapter_net = nn.Sequential(
            nn.Sequential(nn.Conv2d(384, 64, 3, 2, padding=1), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Conv2d(64, 32, 3, 2, padding=1), nn.LeakyReLU(0.1)),
            nn.Flatten(),
            nn.Linear(512, 256 * 256),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The mixing matrix, (B, 256, 256): output channels by input channels."""
        first, second = (F.adaptive_avg_pool2d(self.feat_net(image), 16).flatten(2) for image in (first, second))
        attention = (first.mT @ second).softmax(2)  # (B, places of the first, places of the second)
        matched = second @ attention.mT
        return self.adapter_net(torch.cat([first, matched], 1).unflatten(2, (16, 16))).view(-1, 256, 256)


def align(image: Tensor, flow: Tensor) -> Tensor:
    """The moved image, `image(p + flow(p))`, with 0 wherever that lies outside it, also in part: (B, C, H, W)."""
    covered = warp_with_zeros(torch.ones_like(image[:, :1]), flow) > 0.999
    return warp_with_zeros(image, flow) * covered


def training_loss(network: CrossRAFT, batch: Batch) -> Tensor:
    """The published loss: a robust distance of each iteration's flow to the true one, with a growing weight.

    The published training is a distillation: its target is the last flow of RAFT on clean frames; here it is the true
    field.
    """
    predictions = network.predictions(batch.vi.expand(-1, 3, -1, -1), batch.moved.expand(-1, 3, -1, -1))
    loss = batch.vi.new_zeros(())
    for later_steps, flow in enumerate(reversed(predictions)):
        distance = (flow - batch.phi_gt).abs().sum(1)
        loss = loss + 0.8**later_steps * ((distance + 0.01) ** 0.4).mean()
    return loss


class CrossRAFTMethod(NetworkMethod):
    """CrossRAFT for use. It registers and does not fuse: the fused image is the average of both.

    `registered_ir` is the published alignment: as `deformation.warp(ir, field)`, but 0 where the field points outside.
    Args as `NetworkMethod`'s; the network is a `CrossRAFT`.
    """

    name = "crossraft"

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        flow = self.network(vi.expand(-1, 3, -1, -1), ir.expand(-1, 3, -1, -1))
        registered = align(ir, flow).clamp(0, 1)
        return Fused((registered + vi) / 2, flow, registered)
