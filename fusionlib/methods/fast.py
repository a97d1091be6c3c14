"""The network of the paper for inference: the same result in a fraction of the time, at any size.

What saves time, and why the result is the same except for rounding:

    folding       At inference a BatchNorm is a scale and a shift for each channel; the convolution before it absorbs
                  them.
    channels last Convolutions read the channels of a pixel from one place, and no layer reorders them for the next.
    strips        A 3x3 layer reaches one pixel. So a strip of rows, with a margin as large as the reach of all layers,
                  gives the same numbers as the whole image, and intermediate features stay in the cache.
    tiles         For the same reason a large image is fused tile by tile: the field is found once, on the downsampled
                  pair (`NetworkConfig.registration_side`), and each tile reads the infrared where its field points.

Convention: as in `fusionlib.network`. A `Box` is a part of the padded image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fusionlib.deformation import warp
from fusionlib.methods.fast_layers import channels_last, folded, sample, structure
from fusionlib.methods.protocol import Fused, Method
from fusionlib.methods.registry import Chain, Ours
from fusionlib.network import Alignment, FusionNetwork, NetworkOutput
from fusionlib.registration import Stage
from fusionlib.support.files import InputError
from fusionlib.support.inputs import check_pair, check_tensors, downsample
from fusionlib.support.machine import exact_float32

TILE = 1024  # pixels: images of more pixels than a square of this side are fused in tiles of at most this side
STRIP = 128  # rows of a strip on a CPU: few enough for its cache, and enough to keep the overlap small
STRUCTURE_REACH = 10  # pixels: reach of `local_structure`, 1 of the blur, 1 of Sobel, 8 of the mean over 17
HEAD_REACH = 3  # pixels: reach of the three convolutions of the head


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right` of an image, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, reach: int, size: tuple[int, int]) -> Box:
        """The box with a margin of `reach` pixels, cut at the border of an image of (height, width)."""
        top, left = max(0, self.top - reach), max(0, self.left - reach)
        return Box(top, min(size[0], self.bottom + reach), left, min(size[1], self.right + reach))

    def within(self, outer: Box) -> tuple:
        """The index of this box in a (B, C, h, w) that holds `outer`."""
        rows = slice(self.top - outer.top, self.bottom - outer.top)
        return ..., rows, slice(self.left - outer.left, self.right - outer.left)

    def cut(self, rows: int, columns: int | None = None) -> Iterator[Box]:
        """Pieces of at most `rows` and `columns`, row by row."""
        columns = columns or self.right - self.left
        for top in range(self.top, self.bottom, rows):
            for left in range(self.left, self.right, columns):
                yield Box(top, min(top + rows, self.bottom), left, min(left + columns, self.right))


class FastNetwork(nn.Module):
    """A copy of a `FusionNetwork` for inference, whose image is the same to 1e-5; see the top of this module.

    It computes in float32, or in float64 if the network does; inputs of another floating dtype are converted.

    Args:
        network: the trained network, which is not changed.
    """

    smallest = FusionNetwork.smallest

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.config = network.config
        self.network = folded(network)

    @torch.no_grad()
    def forward(self, ir: Tensor, vi: Tensor) -> NetworkOutput:
        """Register and fuse as a whole; arguments, output and errors are those of `FusionNetwork`."""
        height, width = check_pair(ir, vi, self.smallest)
        ir, vi = self.network.prepared(ir), self.network.prepared(vi)
        whole, channels = Box(0, ir.shape[-2], 0, ir.shape[-1]), self.config.channels
        moving, fixed = self._features("ir", ir, whole), self._features("vi", vi, whole)
        common = moving[:, :channels], fixed[:, :channels]
        stages = self._stages(ir, vi, common)
        aligned = Alignment.of(stages, *common, ir.shape[-2:])
        fused = _empty(ir, self.network.fused_channels, whole)
        image = self._reconstruct(vi, whole, aligned.field, moving, whole, fixed, fused)
        return NetworkOutput(image, aligned, fixed[:, channels:], fused).cropped(height, width)

    @torch.no_grad()
    def fuse(self, ir: Tensor, vi: Tensor, tile: int = TILE) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image, field and confidence of `forward`, without the features; a large image is fused tile by tile.

        Args:
            ir, vi: (B, 1, H, W) in [0, 1], as in `forward`.
            tile: side of the tiles in pixels; images of up to tile x tile pixels are not divided.

        Returns:
            I_f, (B, 1, H, W) in [0, 1], phi, (B, 2, H, W) pixels, and its confidence, (B, 1, H, W) in [0, 1] or None.

        Raises:
            InputError: as `forward`; or tiles under 32 pixels.
        """
        if tile < self.smallest:
            raise InputError(f"Tiles of {tile} pixels are too small; take {self.smallest} or more.")
        height, width = check_pair(ir, vi, self.smallest)
        if height * width <= min(tile, self.config.registration_side or tile) ** 2:
            whole = self.forward(ir, vi)  # registration and fusion share its features
            return whole.image, whole.field, whole.alignment.confidence
        ir, vi = self.network.prepared(ir), self.network.prepared(vi)
        size, whole = ir.shape[-2:], Box(0, ir.shape[-2], 0, ir.shape[-1])
        aligned = Alignment.of(self._stages(ir, vi), ir[:, :0], vi[:, :0], size)  # no features at full size
        phi, image = aligned.field, torch.empty_like(ir)
        for box in [whole] if size[0] * size[1] <= tile**2 else whole.cut(tile, tile):
            x, y = _targets(phi, box.grown(HEAD_REACH, size))
            source = Box(int(y.amin()), int(y.amax()) + 2, int(x.amin()), int(x.amax()) + 2).grown(0, size)
            moving = self._features("ir", ir, source, self._fused_kinds)
            image[box.within(whole)] = self._reconstruct(vi, box, phi, moving, source)
        aligned = aligned.cropped(height, width)
        return image[..., :height, :width], aligned.field, aligned.confidence

    def _stages(self, ir: Tensor, vi: Tensor, common: tuple[Tensor, Tensor] | None = None) -> list[Stage]:
        """The registration of padded images, downsampled if large; `common` are features at full size."""
        size = self.network.registration_size(*ir.shape[-2:])
        if size != tuple(ir.shape[-2:]):
            ir, vi = downsample(ir, size), downsample(vi, size)
            common = None
        whole = Box(0, size[0], 0, size[1])
        if common is None:
            common = (self._features("ir", ir, whole, ("cfe",)), self._features("vi", vi, whole, ("cfe",)))
        return self.network.register(*common)

    @property
    def _fused_kinds(self) -> tuple[str, ...]:
        """Extractors of each modality whose features are fused."""
        return ("cfe", "sfe") if self.config.common_in_fusion else ("sfe",)

    def _features(
        self,
        modality: str,
        image: Tensor,
        box: Box,
        kinds: tuple[str, ...] = ("cfe", "sfe"),
        features: Tensor | None = None,
    ) -> Tensor:
        """Common and specific features of a box of an image, (B, 2C, h, w), written to `features` where it is given."""
        size, channels, reach = image.shape[-2:], self.config.channels, self.config.extractor_layers
        whole, around = Box(0, size[0], 0, size[1]), box.grown(reach, size)
        inputs = {"sfe": image[around.within(whole)]}
        inputs["cfe"] = inputs["sfe"]
        if self.config.common_input == "structure" and "cfe" in kinds:
            wide = around.grown(STRUCTURE_REACH, size)
            inputs["cfe"] = structure(image[wide.within(whole)])[around.within(wide)]
        features = _empty(image, channels * len(kinds), box) if features is None else features
        for strip in box.cut(_rows(image, box)):
            seen = strip.grown(reach, size)
            for kind, room in zip(kinds, features.split(channels, 1), strict=True):
                extractor = self.network.get_submodule(f"{modality}_{kind}")
                found = extractor(channels_last(inputs[kind][seen.within(around)]))
                room[strip.within(box)] = found[strip.within(seen)]
        return features

    def _reconstruct(
        self,
        vi: Tensor,
        box: Box,
        phi: Tensor,
        moving: Tensor,
        source: Box,
        fixed: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """The fused image of a box, (B, 1, h, w).

        `moving` are infrared features of the box `source`; `fixed`, those of the whole visible image, are extracted
        strip by strip if they are not given. Where F_f is to be kept, `keep` takes it.
        """
        size, half = vi.shape[-2:], self.network.fused_channels // 2
        image = _empty(vi, 1, box)
        for strip in box.cut(max(1, _rows(vi, box) - 2 * HEAD_REACH)):
            seen = strip.grown(HEAD_REACH, size)
            x, y = _targets(phi, seen)
            fused = _empty(vi, 2 * half, seen)  # Eq. (7)
            fused[:, :half] = sample(moving[:, -half:], x - source.left, y - source.top)
            if fixed is None:
                self._features("vi", vi, seen, self._fused_kinds, fused[:, half:])
            else:
                fused[:, half:] = fixed[:, -half:][seen.within(Box(0, size[0], 0, size[1]))]
            found = self.network.head(fused)
            image[strip.within(box)] = (found[strip.within(seen)].to(image.dtype) + 1) / 2
            if keep is not None:
                keep[strip.within(box)] = fused[strip.within(seen)]
        return image


class FastOurs:
    """Ours with a `FastNetwork`: a method like `methods.Ours`, for images of any size."""

    def __init__(self, network: FusionNetwork, name: str = "ours", device: torch.device | str = "cpu") -> None:
        self.name = name
        self.device = torch.device(device)
        self.network = FastNetwork(network).to(self.device).eval()

    @torch.inference_mode()
    def fuse(self, ir: Tensor, vi: Tensor, tile: int = TILE) -> Fused:
        """As `FastNetwork.fuse`, and the infrared warped by the field; dtypes as those of `methods.Ours.fuse`."""
        check_tensors(ir, vi)
        with exact_float32():
            image, field, confidence = self.network.fuse(ir.to(self.device), vi.to(self.device), tile)
        field, confidence = field.to(ir.device), confidence if confidence is None else confidence.to(ir.device)
        small = ir.shape[-2] * ir.shape[-1] <= tile**2
        return Fused(image.to(ir), field, warp(ir, field) if small else warp_in_strips(ir, field, tile), confidence)


def fast(method: Method) -> Method:
    """The same method with the fast network in place of the paper's; other methods are returned as they are."""
    if isinstance(method, Chain):
        return Chain(fast(method.registers), fast(method.fuses))
    if isinstance(method, Ours):
        return FastOurs(method.network, method.name, method.device)
    return method


def warp_in_strips(image: Tensor, phi: Tensor, rows: int = TILE) -> Tensor:
    """`deformation.warp` of (B, C, H, W) by (B, 2, H, W), strip by strip, which takes far less memory."""
    whole = Box(0, image.shape[-2], 0, image.shape[-1])
    found, wide = torch.empty_like(image), image.double()
    for strip in whole.cut(rows):
        x, y = _targets(phi, strip, torch.float64)
        found[strip.within(whole)] = sample(wide, x, y).to(image.dtype)
    return found


def _targets(phi: Tensor, box: Box, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Where a box of a field (B, 2, H, W) points: x and y (B, h, w) inside the image, rounded as in `warp`."""
    height, width = phi.shape[-2:]
    dtype = dtype or phi.dtype
    part = phi[(..., slice(box.top, box.bottom), slice(box.left, box.right))].to(dtype)
    found = []
    for axis, start, stop, side in ((0, box.left, box.right, width), (1, box.top, box.bottom, height)):
        steps = torch.arange(start, stop, device=phi.device, dtype=dtype)
        last = max(side - 1, 1)
        scale = 2 / torch.tensor(last, dtype=dtype, device=phi.device)
        place = (part[:, axis] + (steps if axis == 0 else steps[:, None])) * scale - 1
        found.append(((place + 1) * (last / 2)).clamp_(0, side - 1))
    return found[0], found[1]


def _empty(like: Tensor, channels: int, box: Box) -> Tensor:
    """Uninitialised features of a box, channels last."""
    size = like.shape[0], channels, box.bottom - box.top, box.right - box.left
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _rows(image: Tensor, box: Box) -> int:
    """Rows of a strip; a GPU gets all at once."""
    return STRIP if image.device.type == "cpu" else box.bottom - box.top
