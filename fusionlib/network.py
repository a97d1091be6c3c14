"""The network of the paper (Figs. 2 and 3): extract, register, fuse, reconstruct.

    I_i^d --IR-CFE--> F_i^d --CSEB--\\
                                     MSRB --> phi ;  F_f = [phi o F_i^d, phi o F^_i^d, F_v, F^_v] --head--> I_f
    I_v   --VI-CFE--> F_v  --CSEB--/
    (IR-SFE and VI-SFE give the specific features F^)

Convention: images (B, 1, H, W) float32 in [0, 1]; features (B, C, H, W); the field phi (B, 2, H, W) in pixels of the
input, see `fusionlib.deformation`. A leading `common_`/`specific_` names the extractor, `_ir`/`_vi` the modality.

The default registers well; `AS_IN_THE_PAPER` is the plainest reading. They differ in switches marked PAPER-GAP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.deformation import warp
from fusionlib.registration import CSEB, PyramidMSRB, Stage, UNetMSRB, feature_layer, resize_field
from fusionlib.support.files import InputError
from fusionlib.support.inputs import (
    STRUCTURE_CHANNELS,
    WithoutAutocast,
    at_least_float32,
    check_pair,
    downsample,
    local_structure,
    pad_to_multiple,
)
from fusionlib.support.settings import check, check_choice
from fusionlib.support.weights import config_of, with_weights


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and switches of the network.

    Attributes:
        channels: width C of every extractor. PAPER-GAP: the paper gives no width, only 0.97 M parameters and 60.12 G
            multiply-accumulates at 512x512 in all; the default stays below both and runs at speed on two CPU cores.
        extractor_layers: 3x3 convolutions per extractor. PAPER-GAP: not given; three, as in the CSEB and the head.
        common_input: input of the common extractors. PAPER-GAP: the paper feeds the images ("image"). On those the
            registration learns more slowly (notebook 03), since brightness has no stable relation between the
            modalities; "structure" feeds `local_structure`, which has one.
        registration_side: images with more pixels than a square of this side are downsampled to as many before they are
            registered, and the field is resized back; None registers at full size. PAPER-GAP: not given; the search
            range of a pyramid is a number of pixels, not a part of the image.
        registration_stride: the common features are averaged over squares of this side before they are registered.
            PAPER-GAP: not given; fields are smooth, so half the resolution loses little and costs a quarter.
        msrb: "unet", a plain U-Net on the concatenated features, or "pyramid", a U-Net whose decoder warps the infrared
            features by the current field and correlates them with the visible ones. PAPER-GAP: "a U-Net-like
            architecture" is all the paper says.
        msrb_widths: channels of the MSRB's levels from fine to coarse, each half the size of the one before.
        gathering_widths: of the pyramid, channels of the U-Net that decodes the cost volume of one level.
        correlation_radius: of the pyramid, largest shift in a cost volume, in pixels of its level.
        windows: of the pyramid, sides of the windows over which a cost volume is averaged, odd, in pixels of the level.
        common_in_fusion: concatenate the common features too (Eq. 7). False is the third ablation of Table 4.
    """

    channels: int = 16
    extractor_layers: int = 3
    common_input: str = "structure"
    registration_side: int | None = 256
    registration_stride: int = 2
    msrb: str = "pyramid"
    msrb_widths: tuple[int, ...] = (32, 48)
    gathering_widths: tuple[int, ...] = (48, 48, 64, 64)
    correlation_radius: int = 4
    windows: tuple[int, ...] = (1, 3, 7)
    common_in_fusion: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "common_input", "structure", "image")
        check_choice(self, "msrb", "unet", "pyramid")
        check(self, "channels", "extractor_layers", "registration_side", "registration_stride", least=1)
        check(self, "msrb_widths", "gathering_widths", "windows", "correlation_radius", least=1)
        if any(side % 2 == 0 for side in self.windows):
            raise InputError(f"windows of NetworkConfig are {self.windows}; give odd sides, which have a middle.")


AS_IN_THE_PAPER = NetworkConfig(
    channels=20,
    common_input="image",
    registration_side=None,
    registration_stride=1,
    msrb="unet",
    msrb_widths=(24, 48, 96, 128),
)


@dataclass(frozen=True)
class Alignment:
    """What the registration finds.

    Attributes:
        field: phi, (B, 2, H, W) pixels; warps the deformed infrared onto the visible image.
        stages: the steps of the MSRB, from coarse to fine; the field of the last one, resized, is phi.
        common_ir, common_vi: F_i^d and F_v, (B, C, H, W).
        confidence: (B, 1, H, W) in [0, 1], confidence of phi; None for an unrefined field.
    """

    field: Tensor
    stages: list[Stage] = field(repr=False)
    common_ir: Tensor = field(repr=False)
    common_vi: Tensor = field(repr=False)
    confidence: Tensor | None = field(repr=False, default=None)

    @classmethod
    def of(cls, stages: list[Stage], common_ir: Tensor, common_vi: Tensor, size: tuple[int, int]) -> Alignment:
        """Field and confidence of the last stage, resized to images of (H, W)."""
        sure = stages[-1].confidence
        sure = sure if sure is None else F.interpolate(sure, size, mode="bilinear", align_corners=False)
        return cls(resize_field(stages[-1].field, size), stages, common_ir, common_vi, confidence=sure)

    def cropped(self, height: int, width: int) -> Alignment:
        """Without what padding has added; the stages stay."""
        whole = (self.field, self.common_ir, self.common_vi, self.confidence)
        phi, ir, vi, confidence = (each if each is None else each[..., :height, :width] for each in whole)
        return Alignment(phi, self.stages, ir, vi, confidence)


@dataclass(frozen=True)
class NetworkOutput:
    """What one forward pass gives; names as in the paper's Section 3.

    Attributes:
        image: I_f, (B, 1, H, W) in [0, 1].
        alignment: the registration, with phi.
        specific_vi: F^_v, (B, C, H, W).
        fused: F_f of Eq. (7), (B, 4C, H, W), without common features (B, 2C, H, W), the input of both heads.
    """

    image: Tensor
    alignment: Alignment = field(repr=False)
    specific_vi: Tensor = field(repr=False)
    fused: Tensor = field(repr=False)

    @property
    def field(self) -> Tensor:
        """phi, (B, 2, H, W) pixels."""
        return self.alignment.field

    def cropped(self, height: int, width: int) -> NetworkOutput:
        """Without what padding has added."""
        part, aligned = (..., slice(height), slice(width)), self.alignment.cropped(height, width)
        return NetworkOutput(self.image[part], aligned, self.specific_vi[part], self.fused[part])


class FusionNetwork(nn.Module):
    """Registers a deformed infrared image to a visible one and fuses both, in one pass.

    Images may have any height and width of 32 pixels or more: they are padded inside to a multiple of `multiple`, and
    the outputs are cropped to their size. They may have any floating dtype: they are converted to that of the weights,
    and image and field have it too, but at least float32.

    >>> output = FusionNetwork().eval()(torch.rand(1, 1, 37, 50), torch.rand(1, 1, 37, 50))
    >>> output.image.shape, output.field.shape
    (torch.Size([1, 1, 37, 50]), torch.Size([1, 2, 37, 50]))
    """

    smallest = 32

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        common = STRUCTURE_CHANNELS if config.common_input == "structure" else 1
        self.ir_cfe = extractor(common, config.channels, config.extractor_layers)
        self.vi_cfe = extractor(common, config.channels, config.extractor_layers)
        self.ir_sfe = extractor(1, config.channels, config.extractor_layers)
        self.vi_sfe = extractor(1, config.channels, config.extractor_layers)
        self.ir_cseb = CSEB(config.channels)
        self.vi_cseb = CSEB(config.channels)
        if config.msrb == "pyramid":
            pyramid = (config.gathering_widths, config.correlation_radius, config.windows)
            self.msrb = PyramidMSRB(config.channels, config.msrb_widths, *pyramid)
        else:
            self.msrb = UNetMSRB(config.channels, config.msrb_widths)
        self.head = reconstruction_head(self.fused_channels, config.channels)

    @classmethod
    def load(cls, path: Path | str) -> FusionNetwork:
        """The network whose weights a training has written, with its configuration from the file, ready to fuse.

        Raises:
            InputError: the file is missing, corrupt, or holds the weights of another network.

        >>> from fusionlib.support.paths import ROOT
        >>> network = FusionNetwork.load(ROOT / "results" / "mini" / "weights" / "ours.safetensors")
        >>> network(torch.rand(1, 1, 48, 70), torch.rand(1, 1, 48, 70)).field.shape
        torch.Size([1, 2, 48, 70])
        """
        return with_weights(cls(config_of(NetworkConfig, path, "network")), path)

    @property
    def fused_channels(self) -> int:
        """Channels of F_f, Eq. (7)."""
        return self.config.channels * (4 if self.config.common_in_fusion else 2)

    @property
    def multiple(self) -> int:
        """Heights and widths are padded to a multiple of this, so that every level halves them evenly."""
        return self.config.registration_stride * 2 ** len(self.config.msrb_widths)

    def forward(self, ir: Tensor, vi: Tensor) -> NetworkOutput:
        """Register and fuse.

        Args:
            ir: deformed infrared I_i^d, (B, 1, H, W), any floating dtype, in [0, 1].
            vi: visible I_v, likewise.

        Returns:
            Fused image I_f (B, 1, H, W) in [0, 1], field (B, 2, H, W) in pixels, and the features behind them.

        Raises:
            InputError: sizes differ, a side is under 32 pixels, or more than one channel: see `check_pair`.
        """
        height, width = check_pair(ir, vi, self.smallest)
        return self.padded_forward(self.prepared(ir), self.prepared(vi)).cropped(height, width)

    def padded_forward(self, ir: Tensor, vi: Tensor) -> NetworkOutput:
        """`forward` for what `prepared` gives; what padding has added stays."""
        aligned = self._align(ir, vi)
        specific_ir, specific_vi = self.ir_sfe(ir), self.vi_sfe(vi)
        both_ir = torch.cat([aligned.common_ir, specific_ir], 1)
        common_ir, specific_ir = warp(both_ir, aligned.field, exact=False).chunk(2, 1)  # Eq. (6)

        if self.config.common_in_fusion:
            fused = torch.cat([common_ir, specific_ir, aligned.common_vi, specific_vi], 1)  # Eq. (7)
        else:
            fused = torch.cat([specific_ir, specific_vi], 1)
        # PAPER-GAP: Tanh ends in [-1, 1] and images in [0, 1]; the paper does not say how one becomes the other.
        image = (at_least_float32(self.head(fused)) + 1) / 2
        return NetworkOutput(image, aligned, specific_vi, fused)

    def align(self, ir: Tensor, vi: Tensor) -> Alignment:
        """Register without fusing; arguments and errors as in `forward`."""
        height, width = check_pair(ir, vi, self.smallest)
        return self._align(self.prepared(ir), self.prepared(vi)).cropped(height, width)

    def prepared(self, image: Tensor) -> Tensor:
        """An image in the dtype of the weights, padded to a multiple."""
        return pad_to_multiple(image.to(next(self.parameters()).dtype), self.multiple)

    def _align(self, ir: Tensor, vi: Tensor) -> Alignment:
        common_ir, common_vi = self.common_features(ir, vi)
        if (size := self.registration_size(*ir.shape[-2:])) == ir.shape[-2:]:
            stages = self.register(common_ir, common_vi)
        else:
            stages = self.register(*self.common_features(downsample(ir, size), downsample(vi, size)))
        return Alignment.of(stages, common_ir, common_vi, ir.shape[-2:])

    def registration_size(self, height: int, width: int) -> tuple[int, int]:
        """Where padded images are registered: multiples of `multiple`, numbers or symbols of `methods.export`."""
        height, width = torch.sym_int(height), torch.sym_int(width)
        side, m = self.config.registration_side, self.multiple
        reduced = 1.0 if side is None else torch.sym_min(1.0, side / torch.sym_sqrt(height * width))
        return tuple(torch.sym_max(1, round(length * reduced / m)) * m for length in (height, width))

    def common_features(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
        """F_i and F_v of Eq. (1), (B, C, H, W) each, by IR-CFE and VI-CFE."""
        return self.ir_cfe(self._common_input(ir)), self.vi_cfe(self._common_input(vi))

    def common_infrared(self, ir: Tensor) -> Tensor:
        """F_i alone, (B, C, H, W)."""
        return self.ir_cfe(self._common_input(ir))

    def _common_input(self, image: Tensor) -> Tensor:
        return local_structure(image) if self.config.common_input == "structure" else image

    def register(self, common_ir: Tensor, common_vi: Tensor) -> list[Stage]:
        """The registration network of Fig. 3, CSEB and MSRB: the stages from coarse to fine."""
        if (stride := self.config.registration_stride) > 1:
            common_ir, common_vi = F.avg_pool2d(common_ir, stride), F.avg_pool2d(common_vi, stride)
        return self.msrb(self.ir_cseb(common_ir), self.vi_cseb(common_vi))


def extractor(inputs: int, channels: int, layers: int) -> nn.Sequential:
    """A common or specific feature extractor (CFE, SFE): (B, inputs, H, W) to (B, channels, H, W).

    PAPER-GAP: Eq. (1) alone is satisfied by features that shrink to nothing, and Eq. (2), minus an L1 norm, has no
    lower bound. The last BatchNorm therefore learns no scale: before its LeakyReLU every feature has unit variance over
    the batch. So its mean square is at most 1, it cannot vanish under Eq. (1), and Eq. (2) cannot fall below about -2.
    The equations themselves stay as printed.
    """
    widths = [inputs] + [channels] * layers
    return nn.Sequential(
        *[feature_layer(a, b, learn_scale=i < layers - 1) for i, (a, b) in enumerate(pairwise(widths))]
    )


def reconstruction_head(inputs: int, channels: int) -> nn.Sequential:
    """Three feature extraction layers, the last ending in Tanh instead of LeakyReLU: (B, inputs, H, W) to [-1, 1]."""
    last = WithoutAutocast(nn.Conv2d(channels, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.Tanh())
    return nn.Sequential(feature_layer(inputs, channels), feature_layer(channels, channels), last)
