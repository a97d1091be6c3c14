"""Everything that can fuse, behind one protocol: give it an infrared and a visible batch, get a `Fused`.

Any two can be put one behind the other by name: "ecc+maximum" registers with ECC and fuses by the maximum.

Convention: `fuse(ir, vi)` takes (B, 1, H, W) float32 in [0, 1], the infrared possibly out of place; the visible image
is the reference onto which it is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fusionlib.classical import REGISTRATIONS, Registration, register
from fusionlib.data import ROOT
from fusionlib.deformation import compose, warp
from fusionlib.files import InputError
from fusionlib.network import FusionNetwork, check_pair
from fusionlib.weights import load_network


@dataclass(frozen=True)
class Fused:
    """What a method gives.

    Attributes:
        image: the fused image, (B, 1, H, W) in [0, 1].
        field: (B, 2, H, W) pixels, warps the infrared onto the visible image; None if the method does not register.
        registered_ir: the infrared so warped, (B, 1, H, W) in [0, 1], or None.
    """

    image: Tensor
    field: Tensor | None = None
    registered_ir: Tensor | None = None


class Method(Protocol):
    """A compared system."""

    name: str

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        """Fuse (B, 1, H, W) images in [0, 1]."""
        ...


@dataclass(frozen=True)
class Rule:
    """A pixel-wise rule, which does not register: the floor that every method has to rise above."""

    name: str
    rule: Callable[[Tensor, Tensor], Tensor]

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        check_pair(ir, vi, smallest=1)
        return Fused(self.rule(ir, vi))


RULES = {
    rule.name: rule
    for rule in (
        Rule("infrared", lambda ir, vi: ir),
        Rule("visible", lambda ir, vi: vi),
        Rule("average", lambda ir, vi: (ir + vi) / 2),
        Rule("maximum", torch.maximum),
    )
}


@dataclass(frozen=True)
class Classical:
    """A classical registration; what it registers is averaged with the visible image."""

    name: str
    by: Registration

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        field = register(ir, vi, self.by).field
        registered = warp(ir, field)
        return Fused(RULES["average"].rule(registered, vi), field, registered)


CLASSICAL = {name: Classical(name, by) for name, by in REGISTRATIONS.items()}


@dataclass(frozen=True)
class Chain:
    """Two methods, one behind the other: the first registers, the second fuses what the first registered.

    If the second registers too, on top of the first, `field` and `registered_ir` are those of both together.
    """

    registers: Method
    fuses: Method

    @property
    def name(self) -> str:
        return f"{self.registers.name}+{self.fuses.name}"

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        first = self.registers.fuse(ir, vi)
        if first.field is None:
            raise InputError(f"{self.registers.name} registers nothing: put one before the + that does, such as ecc.")
        then = self.fuses.fuse(first.registered_ir, vi)
        if then.field is None:
            return Fused(then.image, first.field, first.registered_ir)
        field = compose(first.field, then.field)
        return Fused(then.image, field, warp(ir, field))


class Ours:
    """The paper's network with trained weights."""

    def __init__(self, network: FusionNetwork, name: str = "ours", device: torch.device | str = "cpu") -> None:
        self.name = name
        self.device = torch.device(device)
        self.network = network.to(device).eval()

    @torch.inference_mode()
    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        output = self.network(ir.to(self.device), vi.to(self.device))
        field = output.field.to(ir.device)
        return Fused(output.image.to(ir.device), field, warp(ir, field))


NETWORKS = ("ours", "as_in_the_paper")


def names() -> list[str]:
    """Names that `load` knows; it also takes two of them, joined by a +."""
    return [*NETWORKS, *CLASSICAL, *RULES]


def load(name: str, weights: Path | str | None = None, device: torch.device | str = "cpu") -> Method:
    """A method by name.

    Args:
        name: one of `names()`, or "a+b": registers with a and fuses with b.
        weights: of a network; by default the weights that come with the project, of the largest preset there is.
        device: where networks run.

    Raises:
        InputError: unknown name, or no weights.
    """
    first, plus, then = name.partition("+")
    if plus:
        return Chain(load(first, weights, device), load(then, weights, device))
    if name in CLASSICAL:
        return CLASSICAL[name]
    if name in RULES:
        return RULES[name]
    if name not in NETWORKS:
        raise InputError(f"Unknown method {name!r}; choose one of {', '.join(names())}.")
    return Ours(load_network(weights or shipped_weights(name)), name, device)


def shipped_weights(name: str) -> Path:
    """Weights under results/, of the paper preset if they are there, else of mini; InputError if neither is."""
    paths = [ROOT / "results" / preset / "weights" / f"{name}.safetensors" for preset in ("paper", "mini")]
    for path in paths:
        if path.exists():
            return path
    command = "python -m fusionlib reproduce 03 --preset mini"
    make = f", or make them with `{command}`" if name == "ours" else ""
    raise InputError(f"There are no weights for {name!r} under results/: give a file of your own as weights{make}.")
