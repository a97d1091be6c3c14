"""Everything that can fuse, behind one protocol: give it an infrared and a visible batch, get a `Fused`.

Any two can be put one behind the other by name: "crossraft+datfuse" registers with CrossRAFT and fuses with DATFuse.

Convention: `fuse(ir, vi)` takes (B, 1, H, W) float32 in [0, 1], the infrared possibly out of place; the visible image
is the reference onto which it is registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fusionlib.data import systems
from fusionlib.deformation import compose, warp
from fusionlib.methods import checkpoints
from fusionlib.methods.classical import REGISTRATIONS, Registration, register
from fusionlib.methods.field_refinement import SettledNetwork
from fusionlib.methods.protocol import Fused, Method
from fusionlib.methods.simple_fusion import RULES, Rule
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork, NetworkConfig
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.paths import ROOT
from fusionlib.training.weights import key_of, load_network

__all__ = ["RULES", "Chain", "Classical", "Fused", "Method", "Origin", "Ours", "Rule", "load", "names", "network"]


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
        """Register and fuse (B, 1, H, W) in [0, 1] of any floating dtype, which the network computes in its own.

        Images come back in the dtype of the infrared; the field is float32, or float64 from a network in float64.
        """
        output = self.network(ir.to(self.device), vi.to(self.device))
        field = output.field.to(ir.device)
        return Fused(output.image.to(ir), field, warp(ir, field))


NETWORKS = {"ours": NetworkConfig(), "ours_settled": NetworkConfig(), "as_in_the_paper": AS_IN_THE_PAPER}
_SETTLED = {"ours_settled": "ours"}  # whose weights each takes; see `fusionlib.methods.field_refinement`


def names() -> list[str]:
    """Names that `load` knows; it also takes two of them, joined by a +."""
    return [*NETWORKS, *systems.names(), *CLASSICAL, *RULES]


def load(name: str, weights: Path | str | None = None, device: torch.device | str = "cpu", **options: object) -> Method:
    """A method by name.

    Args:
        name: one of `names()`, or "a+b": registers with a and fuses with b.
        weights: of a network, a file; or a folder, whose NAME.safetensors is taken where it is there. By default the
            weights that come with the project, of the largest preset there is, or those that a system's authors
            published: see `fusionlib.methods.checkpoints`.
        device: where networks run.
        options: of the system's class, such as `steps=0` of MURF.

    Raises:
        InputError: unknown name, or no weights.
    """
    first, plus, then = name.partition("+")
    if plus:
        return Chain(load(first, weights, device), load(then, weights, device, **options))
    if name in CLASSICAL:
        return CLASSICAL[name]
    if name in RULES:
        return RULES[name]
    if name in NETWORKS:
        trained = load_network(_own_weights(name, weights))
        return Ours(SettledNetwork(trained) if name in _SETTLED else trained, name, device)
    system = _system(name)
    source = checkpoints.find(system, weights)
    filled = checkpoints.fill(network(name), system, source)
    if source.kind == checkpoints.IN_PART:
        options = {**system.partial, **options}
    return systems.part(system.method)(filled, device=device, **options)


def network(name: str) -> nn.Module:
    """The bare network of a method, with fresh weights; names and shapes of its state_dict are those of its authors.

    How it is called stands with its class in `fusionlib.methods.baselines`.

    Raises:
        InputError: unknown name, or a method that has no network.
    """
    if name in NETWORKS:
        bare = FusionNetwork(NETWORKS[name])
        return SettledNetwork(bare) if name in _SETTLED else bare
    if name in CLASSICAL or name in RULES:
        raise InputError(f"{name} has no network: choose one of {', '.join([*NETWORKS, *systems.names()])}.")
    return systems.part(_system(name).network)()


@dataclass(frozen=True)
class Origin:
    """What made the results of a method.

    Attributes:
        weights: "published", "retrained", ...: see `checkpoints.Source`; "trained" for ours, "" where there are none.
        key: weights and the behaviour of the code; what scores them is no part of it.
    """

    weights: str
    key: Key


def origin(name: str, weights: Path | str | None = None, **options: object) -> Origin:
    """Where the weights of a method come from, and the key of all that it is; arguments as those of `load`."""
    first, plus, then = name.partition("+")
    if plus:
        parts = [origin(first, weights), origin(then, weights, **options)]
        kinds = dict.fromkeys(kind for part in parts if (kind := part.weights))
        return Origin(" + ".join(kinds), parts[0].key | parts[1].key)
    if name in CLASSICAL or name in RULES:
        return Origin("", Key.of(["classical" if name in CLASSICAL else "simple-fusion"]))
    if name in NETWORKS:
        refined = ["refinement"] if name in _SETTLED else []
        return Origin("trained", key_of_network(_own_weights(name, weights)) | Key.of(refined))
    system = _system(name)
    source = checkpoints.find(system, weights)
    chosen = {f"{name}:options": options} if options else {}
    return Origin(source.kind, Key.of([name], **{f"{name}:weights": source.mark}, **chosen))


def key_of_network(path: Path | str) -> Key:
    """The key of Ours with the weights of a file, under whatever name it is compared."""
    return Key.of(["network"], **{"ours:weights": key_of(path).digest})


def overview() -> list[tuple[str, str, str, str, str]]:
    """A row for each method: name, what it does, its weights, upstream and commit, licence; headings first."""
    rows = [("name", "does", "weights", "upstream", "licence")]
    rows += [(name, "both", _weights_here(name), "this project", "AGPL-3.0-or-later") for name in NETWORKS]
    for system in map(systems.system, systems.names()):
        upstream = f"{system.upstream}@{system.commit[:7]}"
        rows.append((system.name, system.kind, _weights_here(system.name), upstream, system.licence))
    rows += [(name, "registers", "-", "this project", "AGPL-3.0-or-later") for name in CLASSICAL]
    return rows + [(name, "fuses", "-", "this project", "AGPL-3.0-or-later") for name in RULES]


def _weights_here(name: str) -> str:
    """Where the weights of a network come from, or the command that brings or makes them."""
    try:
        return origin(name).weights
    except InputError:
        if name in NETWORKS:
            return "reproduce 03"
        return ("data fetch " if systems.system(name).published else "retrain ") + name


def shipped_weights(name: str) -> Path:
    """Weights under results/, of the paper preset if they are there, else of mini; InputError if neither is."""
    paths = [ROOT / "results" / preset / "weights" / f"{name}.safetensors" for preset in checkpoints.PRESETS]
    for path in paths:
        if path.exists():
            return path
    command = "python -m fusionlib reproduce 03 --preset mini"
    make = f", or make them with `{command}`" if name == "ours" else ""
    raise InputError(f"There are no weights for {name!r} under results/: give a file of your own as weights{make}.")


def _own_weights(name: str, given: Path | str | None) -> Path | str:
    """The file given, or that of the folder given, or the shipped one."""
    name = weights_name(name)
    if given is None or not Path(given).is_dir():
        return given or shipped_weights(name)
    mine = Path(given) / f"{name}.safetensors"
    return mine if mine.exists() else shipped_weights(name)


def weights_name(name: str) -> str:
    """The stem of the file that holds the weights of a method."""
    return _SETTLED.get(name, name)


def _system(name: str) -> systems.System:
    if name not in systems.names():
        raise InputError(f"Unknown method {name!r}; choose one of {', '.join(names())}.")
    return systems.system(name)
