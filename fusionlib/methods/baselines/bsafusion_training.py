"""The published loss of BSAFusion: five terms for all its parts together; see `fusionlib.methods.baselines.bsafusion`.

Two small departures: the discriminator takes over the classifier's weights after each step, where the published code
does so after each epoch; and the similarities to both sources weigh the same, where it weighs the second one by how the
two did in the epoch before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from kornia.metrics import ssim
from torch import Tensor

from fusionlib.deformation import warp
from fusionlib.losses import gradient_loss, luminance_loss
from fusionlib.training.batches import Batch

if TYPE_CHECKING:
    from fusionlib.methods.baselines.bsafusion import BSAFusion


def training_loss(network: BSAFusion, batch: Batch) -> Tensor:
    """Classification + transfer + smoothness + fusion + registration, on square images with sides a multiple of 16."""
    transfer = network.transfer
    transfer.modal_dis.load_state_dict(transfer.classifier.state_dict())
    transfer.modal_dis.requires_grad_(False)

    output = network(batch.vi, batch.moved)
    moved = warp(batch.moved, output.flow)
    kinds = torch.eye(2, device=moved.device)[:, None].expand(-1, len(moved), -1)  # the true modality
    features = output.transferred
    classification = F.cross_entropy(features.logits1, kinds[1]) + F.cross_entropy(features.logits2, kinds[0])
    undecided = torch.full_like(kinds[0], 0.5)
    transferred = sum(
        F.cross_entropy(transfer.discriminate(feature), undecided) for feature in (features.feature1, features.feature2)
    )
    # Ten flows, but the published index advances by one instead of two: the first six count, four of them twice.
    steps = [1e-4 * 10**i * (roughness(output.flows[i]) + roughness(output.flows[i + 1])) for i in range(5)]
    smoothness = sum(steps) + roughness(output.flow)
    registration = _unlike(batch.ir, moved) + (batch.ir - moved).abs().mean()
    return classification + transferred + smoothness + fusion_loss(output.fused, batch.vi, moved) + registration


def fusion_loss(fused: Tensor, img1: Tensor, img2: Tensor) -> Tensor:
    """Structure of both sources, intensities and edges of the stronger one; (B, 1, S, S), img2 already moved."""
    structure = _unlike(fused, img1) + _unlike(fused, img2)
    return structure + 0.5 * luminance_loss(fused, img1, img2) + gradient_loss(fused, img1, img2)


def roughness(flow: Tensor) -> Tensor:
    """A third of the mean squared differences between neighbours of (B, 2, h, w), along both axes."""
    return (flow.diff(dim=-1).square().mean() + flow.diff(dim=-2).square().mean()) / 3


def _unlike(a: Tensor, b: Tensor) -> Tensor:
    return 1 - ssim(a, b, 11, padding="valid").mean()
