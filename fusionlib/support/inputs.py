"""What a method takes in: a device that is there, and pairs of images that fit each other and show something."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.support.files import InputError

LEAST_CORRELATION = 0.2  # of neighbours, under which an image is noise


def check_pair(ir: Tensor, vi: Tensor, smallest: int) -> tuple[int, int]:
    """Height and width of two images (B, 1, H, W) that can be fused; InputError says what is wrong otherwise."""
    for name, image in (("Infrared", ir), ("Visible", vi)):
        if image.ndim != 4:
            raise InputError(f"{name} must be (B, 1, H, W), not {tuple(image.shape)}; add what is missing.")
        if image.shape[1] != 1:
            raise InputError(f"{name} has {image.shape[1]} channels; give one, of a colour image its luma.")
        if not image.is_floating_point():
            raise InputError(f"{name} has whole numbers, {image.dtype}; give floats in [0, 1], 8 bits divided by 255.")
    if ir.shape[0] != vi.shape[0]:
        raise InputError(f"{len(ir)} infrared and {len(vi)} visible images make no pairs; give as many of both.")
    if ir.shape != vi.shape:
        raise InputError(f"Infrared {tuple(ir.shape)} and visible {tuple(vi.shape)} differ in size; resize one.")
    if min(ir.shape[-2:]) < smallest:
        raise InputError(f"Images of {ir.shape[-2]} x {ir.shape[-1]} are too small; each side needs {smallest} pixels.")
    if not (torch.isfinite(ir).all() and torch.isfinite(vi).all()):
        raise InputError("An image contains NaN or infinity; replace those pixels before fusing.")
    return ir.shape[-2], ir.shape[-1]


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
    """What an image (1, H, W) in [0, 1] is that nothing can be registered by: "black", "constant" or "noise"; else "".

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
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
