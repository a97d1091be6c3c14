"""Checks and preparation of inputs: the device, precision, pairs of images, padding, downsampling, local structure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.support.files import InputError

HALF_A_LEVEL = 0.5 / 255  # of 8 bits: as far as rounding and resampling may leave [0, 1]
LEAST_CORRELATION = 0.2  # of neighbours, under which an image is noise


def check_tensors(*images: Tensor) -> None:
    """InputError if an image is no torch tensor, before anything else is asked of it."""
    for image in images:
        if not isinstance(image, Tensor):
            name = type(image).__name__
            raise InputError(f"An image is of the type {name}: give a torch tensor (B, 1, H, W), floats in [0, 1].")


def check_pair(ir: Tensor, vi: Tensor, smallest: int) -> tuple[int, int]:
    """Height and width of two images (B, 1, H, W) that can be fused; InputError says what is wrong otherwise.

    A training on a GPU does not look at the values, since it would wait for the answer at each step; it checks the loss
    instead.
    """
    check_tensors(ir, vi)
    for name, image in (("Infrared", ir), ("Visible", vi)):
        if image.ndim != 4:
            raise InputError(f"{name} must be (B, 1, H, W), not {tuple(image.shape)}; add what is missing.")
        if image.shape[1] != 1:
            raise InputError(f"{name} has {image.shape[1]} channels; give one, of a colour image its luma.")
        if image.is_complex():
            raise InputError(f"{name} has complex numbers; give floats in [0, 1].")
        if not image.is_floating_point():
            raise InputError(f"{name} has whole numbers, {image.dtype}; give floats in [0, 1], 8 bits divided by 255.")
    if ir.shape[0] != vi.shape[0]:
        raise InputError(f"{len(ir)} infrared and {len(vi)} visible images make no pairs; give as many of both.")
    if ir.shape != vi.shape:
        raise InputError(f"Infrared {tuple(ir.shape)} and visible {tuple(vi.shape)} differ in size; resize one.")
    if min(ir.shape[-2:]) < smallest:
        raise InputError(f"Images of {ir.shape[-2]} x {ir.shape[-1]} are too small; each side needs {smallest} pixels.")
    if not len(ir):
        raise InputError("The batch holds no pair; give one or more.")
    learning = torch.is_grad_enabled() and ir.device.type != "cpu"
    if not learning and not (torch.isfinite(ir).all() and torch.isfinite(vi).all()):
        raise InputError("An image contains NaN or infinity; replace those pixels before fusing.")
    if not learning:
        for name, image in (("Infrared", ir), ("Visible", vi)):
            low, high = image.min().item(), image.max().item()
            if low < -HALF_A_LEVEL or high > 1 + HALF_A_LEVEL:
                raise InputError(f"{name} has values from {low:.3g} to {high:.3g}; scale it to [0, 1].")
    return ir.shape[-2], ir.shape[-1]


def check_channels(features: Tensor, channels: int) -> None:
    """InputError unless these are features (B, channels, H, W)."""
    if features.ndim != 4 or features.shape[1] != channels:
        raise InputError(f"The detector takes (B, {channels}, H, W), not {tuple(features.shape)}.")


def checked_device(name: str | None) -> str:
    """The device to compute on; None takes a GPU if there is one.

    Raises:
        InputError: there is no such device, or this build of PyTorch cannot use it.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "meta":  # has shapes and no values
            raise RuntimeError
        torch.zeros(1, device=device).cpu()
    except Exception:  # each kind of device has its own way to say that it is not there
        usable = " or ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise InputError(f"The device {name!r} cannot be used here: choose {usable}.") from None
    return name


def without_evidence(image: Tensor) -> str:
    """Why nothing can be registered by an image (1, H, W) in [0, 1]: "black", "constant" or "noise"; "" if it can.

    Noise means that neighbours have nothing to do with each other. In RoadScene, TNO, LLVIP and M3FD their correlation
    is 0.93 or more.
    """
    values = image[0].double()
    if values.max() - values.min() < 1.5 / 255:
        return "black" if values.max() < 1.5 / 255 else "constant"
    off = values - values.mean()
    across, down = ((a * b).mean() for a, b in ((off[:, 1:], off[:, :-1]), (off[1:], off[:-1])))
    return "noise" if max(across, down) < LEAST_CORRELATION * off.square().mean() else ""


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the lower and right border until both sides of (B, C, H, W) are multiples of `multiple`."""
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def at_least_float32(x: Tensor) -> Tensor:
    """A tensor in float32, or in its own dtype if that has more digits.

    >>> at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype, at_least_float32(torch.zeros(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def constants(*values: float, like: Tensor) -> Tensor:
    """Numbers as a tensor (N,) of the dtype of `like`, made on its device: a copy from the CPU would wait for the GPU.

    >>> constants(1, 2.5, like=torch.zeros(1))
    tensor([1.0000, 2.5000])
    """
    return torch.cat([like.new_full((1,), value) for value in values])


class WithoutAutocast(nn.Sequential):
    """Layers that compute in the dtype of their weights also where `torch.autocast` has half precision for all others.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     WithoutAutocast(nn.Linear(2, 1))(torch.ones(1, 2, dtype=torch.bfloat16)).dtype
    torch.float32
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self[0].weight.dtype))


STRUCTURE_CHANNELS = 3


def local_structure(image: Tensor) -> Tensor:
    """Edges without what differs between modalities: brightness, contrast and polarity.

    The Sobel gradient (gx, gy) of the blurred image, as strength and doubled angle, divided by the local mean strength.
    An edge that is bright-to-dark in one modality and dark-to-bright in the other gives the same values, since turning
    a gradient by 180 degrees turns its doubled angle by 360.

    Args:
        image: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 3, H, W): strength, strength x cos(2 angle), strength x sin(2 angle); strength is 0.6 to 0.9 on average.

    >>> image = torch.rand(1, 1, 32, 32)
    >>> torch.allclose(local_structure(image), local_structure(1 - image), atol=1e-2)  # polarity does not count
    True
    """
    dtype, image = image.dtype, at_least_float32(image)  # half precision rounds the square of a faint edge to 0
    sobel = constants(1, 2, 1, 0, 0, 0, -1, -2, -1, like=image).view(1, 1, 3, 3)
    smooth = F.avg_pool2d(F.pad(image, [1] * 4, mode="replicate"), 3, 1)
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 would round brightness to steps of 1/256
        gradient = F.conv2d(F.pad(smooth, [1] * 4, mode="replicate"), torch.cat([sobel.mT, sobel]))
    gx, gy = gradient.split(1, 1)
    strength = torch.sqrt(gx**2 + gy**2 + 1e-8)
    near = F.avg_pool2d(F.pad(strength, [8] * 4, mode="replicate"), (1, 17), 1)
    near = F.avg_pool2d(near, (17, 1), 1)
    cos, sin = (gx**2 - gy**2) / strength**2, 2 * gx * gy / strength**2
    return (strength / (near + 0.02) * torch.cat([torch.ones_like(cos), cos, sin], 1)).to(dtype)


def downsample(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images (B, 1, H, W) bilinearly to a smaller size, without aliasing.

    >>> downsample(torch.ones(1, 1, 8, 8), (2, 4)).shape
    torch.Size([1, 1, 2, 4])
    """
    wide = at_least_float32(image)  # CPUs have no such filter for half precision
    return F.interpolate(wide, size, mode="bilinear", antialias=True).to(image.dtype)
