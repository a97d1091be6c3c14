"""The losses of the paper, Eqs. (1), (2), (5) and (9)-(12), each one function beside its equation.

Convention: images (B, 1, H, W) in [0, 1]; features (B, C, H, W); fields (B, 2, H, W) in pixels. Norms are divided as
the paper prints them (1/HWC, 1/2HW, 1/HW), which makes every term a mean over its elements and over the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.network import Alignment, NetworkOutput
from fusionlib.registration import Stage, resize_field
from fusionlib.support.inputs import constants
from fusionlib.support.settings import check


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of Eq. (12), and of two terms that are not in the paper.

    Attributes:
        gamma: weight of the gradient loss in Eq. (9).
        lambda_reg: lambda_1 of the registration loss.
        lambda_fusion: lambda_2 of the fusion loss.
        lambda_detection: lambda_3 of the detection loss, Eq. (8); a training without a detector has no such term.
        common: weight of l_c, 1 in the paper; 0 is the first ablation of Table 4.
        specific: weight of l_s, 1 in the paper; 0 is the second.
        coarse: weight of Eq. (5) on each coarser estimate of the field, inside lambda_reg. PAPER-GAP: the paper
            supervises the final field only; supervision of each level is usual for a coarse-to-fine registration.
        matching: weight of `matching_loss`, inside lambda_reg. PAPER-GAP: not in the paper, whose l_c makes the common
            features of one position equal, but does not make them differ from those of other positions.
    """

    gamma: float = 2.0
    lambda_reg: float = 10.0
    lambda_fusion: float = 5.0
    lambda_detection: float = 5.0
    common: float = 1.0
    specific: float = 1.0
    coarse: float = 0.5
    matching: float = 1.0

    def __post_init__(self) -> None:
        check(self, *(each.name for each in fields(self)))


def consistency_loss(common_ir: Tensor, common_vi: Tensor) -> Tensor:
    """l_c, Eq. (1): the common features of the aligned pair should be equal.

    PAPER-GAP: features that shrink to nothing satisfy it too; `network.extractor` keeps them from shrinking.

    >>> consistency_loss(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)).item()
    1.0
    """
    return (common_ir - common_vi).abs().mean()


def complementarity_loss(specific_ir: Tensor, specific_vi: Tensor) -> Tensor:
    """l_s, Eq. (2): the specific features of the aligned pair should differ; it is negative.

    PAPER-GAP: minus a norm has no lower bound; as features have a mean square of at most 1 (`network.extractor`), it
    stays above -2.
    """
    return -(specific_ir - specific_vi).abs().mean()


def registration_loss(phi: Tensor, phi_gt: Tensor) -> Tensor:
    """l_reg, Eq. (5): mean absolute error of both components of the field.

    PAPER-GAP: the paper gives no unit. Here it is the pixel of the training image: in normalised units the term would
    weigh a hundredth, and with lambda_1 = 10 the registration would not learn.

    Args:
        phi, phi_gt: the estimated and the true field, (B, 2, H, W) pixels.

    >>> registration_loss(torch.full((1, 2, 4, 4), 3.0), torch.zeros(1, 2, 4, 4)).item()
    3.0
    """
    return (phi - phi_gt).abs().mean()


def matching_loss(stage: Stage, phi_gt: Tensor) -> Tensor:
    """Cross-entropy of the cost volume of a stage: of all shifts around `start`, the true one should score highest.

    Args:
        stage: with scores (B, W, K, h, w) of K = (2 radius + 1)^2 shifts, averaged over W windows; the loss is the mean
            over the windows.
        phi_gt: the true field, (B, 2, H, W) pixels; a position whose true shift is beyond the radius counts
            less, and from one pixel beyond it adds 0 to the mean.

    >>> zero = torch.zeros(1, 2, 4, 4)
    >>> f"{matching_loss(Stage(zero, zero, scores=torch.zeros(1, 1, 9, 4, 4)), zero):.3f}"  # log 9
    '2.197'
    """
    radius = math.isqrt(stage.scores.shape[2]) // 2
    # A true shift between pixels is shared by its four neighbours, as in bilinear interpolation.
    residual = resize_field(phi_gt, stage.start.shape[-2:]) - stage.start.detach()
    steps = torch.arange(-radius, radius + 1, device=residual.device).view(1, -1, 1, 1)
    in_x, in_y = ((1 - (part - steps).abs()).clamp(min=0) for part in residual.split(1, dim=1))
    target = (in_y.unsqueeze(2) * in_x.unsqueeze(1)).flatten(1, 2)
    return -(target.unsqueeze(1) * stage.scores.log_softmax(2)).sum(2).mean()


def luminance_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """l_b, Eq. (11): as bright as the brighter of the two aligned sources, (B, 1, H, W) in [0, 1] each.

    >>> ir, vi = torch.full((1, 1, 4, 4), 0.25), torch.full((1, 1, 4, 4), 0.75)
    >>> luminance_loss((ir + vi) / 2, ir, vi).item()
    0.25
    """
    return (fused - torch.maximum(ir, vi)).abs().mean()


def gradient_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """l_g, Eq. (10): edges as strong as the stronger of the two aligned sources, (B, 1, H, W) in [0, 1] each.

    PAPER-GAP: "the Sobel operator" is read as |gx| + |gy| with the usual kernels, zero padding and no scaling, the form
    used by the authors' lab (MulFS-CAP).

    >>> image = torch.rand(1, 1, 8, 8)
    >>> gradient_loss(image, image, torch.zeros(1, 1, 8, 8)).item()
    0.0
    """
    return (sobel(fused) - torch.maximum(sobel(ir), sobel(vi))).abs().mean()


def fusion_loss(fused: Tensor, ir: Tensor, vi: Tensor, gamma: float = 2.0) -> Tensor:
    """l_f, Eq. (9): l_b + gamma l_g, of images (B, 1, H, W) in [0, 1]."""
    return luminance_loss(fused, ir, vi) + gamma * gradient_loss(fused, ir, vi)


def sobel(image: Tensor) -> Tensor:
    """|gx| + |gy| of (B, 1, H, W), the same shape, zeros outside.

    >>> sobel(torch.tensor([[[[0.0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]]]))[0, 0, 1].tolist()
    [0.0, 4.0, 4.0, 4.0]
    """
    kernel = constants(-1, 0, 1, -2, 0, 2, -1, 0, 1, like=image).view(1, 1, 3, 3)
    with torch.autocast(image.device.type, enabled=False):
        return F.conv2d(image, torch.cat([kernel, kernel.mT]), padding=1).abs().sum(1, keepdim=True)


def alignment_terms(aligned: Alignment, common_ir: Tensor, phi_gt: Tensor) -> dict[str, Tensor]:
    """The terms about the registration, unweighted: `l_c`, `l_reg`, `l_coarse` (Eq. 5 on coarser stages), `l_match`.

    Args:
        aligned: what the network made of the deformed infrared and the visible image.
        common_ir: F_i, common features of the *aligned* infrared (B, C, H, W), which is known in training only.
        phi_gt: the true field, (B, 2, H, W) pixels.
    """
    zero = phi_gt.new_zeros(())
    coarse = [registration_loss(resize_field(stage.field, phi_gt.shape[-2:]), phi_gt) for stage in aligned.stages[:-1]]
    matches = [matching_loss(stage, phi_gt) for stage in aligned.stages if stage.scores is not None]
    return {
        "l_c": consistency_loss(common_ir, aligned.common_vi),
        "l_reg": registration_loss(aligned.field, phi_gt),
        "l_coarse": sum(coarse, start=zero),
        "l_match": sum(matches, start=zero),
    }


def fusion_terms(output: NetworkOutput, specific_ir: Tensor, ir: Tensor, vi: Tensor) -> dict[str, Tensor]:
    """The terms about the fused image, unweighted: `l_s`, `l_b`, `l_g`.

    Args:
        output: what the network made of the deformed infrared and the visible image.
        specific_ir: F^_i, specific features of the *aligned* infrared (B, C, H, W), which is known in training only.
        ir, vi: the aligned infrared and the visible image, (B, 1, H, W).
    """
    return {
        "l_s": complementarity_loss(specific_ir, output.specific_vi),
        "l_b": luminance_loss(output.image, ir, vi),
        "l_g": gradient_loss(output.image, ir, vi),
    }


def total_loss(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """l_t, Eq. (12), of the terms given: a training of the registration alone has no fusion terms, one without a
    detector no `l_ob`.

    >>> total_loss({"l_reg": torch.tensor(0.5), "l_b": torch.tensor(0.1)}, LossWeights()).item()  # 10 x 0.5 + 5 x 0.1
    5.5
    """
    balance = {
        "l_c": weights.common,
        "l_s": weights.specific,
        "l_reg": weights.lambda_reg,
        "l_coarse": weights.lambda_reg * weights.coarse,
        "l_match": weights.lambda_reg * weights.matching,
        "l_b": weights.lambda_fusion,
        "l_g": weights.lambda_fusion * weights.gamma,
        "l_ob": weights.lambda_detection,
    }
    return sum(balance[name] * term for name, term in terms.items())
