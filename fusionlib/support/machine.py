"""What the code runs on: machine, packages, revision of the checkout, memory in use."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fusionlib.support.paths import ROOT

# The packages that numbers depend on, by the names of their distributions, as in constraints.txt.
PACKAGES = ("torch", "numpy", "scipy", "pandas", "pillow", "kornia", "opencv-python", "simpleitk", "imagecodecs")
PACKAGES += ("tifffile", "nibabel", "ultralytics", "faster-coco-eval", "fvcore")


def machine() -> dict[str, object]:
    """Python, platform, processor and whether it has instructions for bfloat16, GPU, and the versions of `PACKAGES`, of
    those that are installed by that name.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _processor(),
        "bfloat16": computes_in_bfloat16(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # another build of OpenCV goes by another name
            yield name, version(name)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Let torch compute with this number of CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return [name.strip() for name in named[:count]] if named[0] else [str(index) for index in range(count)]


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def git_revision() -> str:
    """Commit of the checkout, with "+" if files outside `results` differ from it; "unknown" outside git."""
    git = ["git", "-C", str(ROOT)]
    try:
        command = [*git, "rev-parse", "--short=12", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        differs = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ".", ":(exclude)results"]).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if differs else "")


def computes_in_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; without them it would be emulated, slowly."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def uses_bfloat16(device: torch.device | str, kinds: Collection[str]) -> bool:
    """Whether layers compute in bfloat16 on a device, if they may on these kinds of device; see `TrainingConfig`."""
    kind = torch.device(device).type
    if kind == "cuda" and kind in kinds:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind in kinds and (kind != "cpu" or computes_in_bfloat16())


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside the block, a GPU computes convolutions of float32 in float32; by default, it rounds to ten bits (TF32)."""
    before = torch.backends.cudnn.allow_tf32  # `cudnn.flags` would also reset the user's `deterministic`
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def peak_memory(device: str) -> float:
    """The most memory in use so far, GiB: of a GPU if `device` is one, else of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
