"""All methods by name, behind one protocol: from an infrared and a visible batch to a `Fused`.

Two names can be combined: "crossraft+datfuse" registers with CrossRAFT and fuses with DATFuse.

Convention: as in `fusionlib.methods.protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn

from fusionlib.data import systems
from fusionlib.deformation import compose, warp
from fusionlib.methods import checkpoints
from fusionlib.methods.classical import CLASSICAL
from fusionlib.methods.field_confidence import Calibration
from fusionlib.methods.field_refinement import RefinedNetwork, Refinement
from fusionlib.methods.protocol import Fused, Method
from fusionlib.methods.simple_fusion import RULES
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork, NetworkConfig
from fusionlib.support.files import InputError
from fusionlib.support.inputs import check_tensors, checked_device
from fusionlib.support.keys import Key
from fusionlib.support.machine import exact_float32
from fusionlib.support.weights import mark_of


@dataclass(frozen=True)
class Chain:
    """Two methods in sequence: the first registers, the second fuses the registered infrared.

    If the second registers too, `field` is the composition of both and `registered_ir` is warped by it.
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
            return Fused(then.image, first.field, first.registered_ir, first.confidence)
        field = compose(first.field, then.field)
        return Fused(then.image, field, warp(ir, field))


class Ours:
    """The paper's network with trained weights."""

    def __init__(self, network: FusionNetwork, name: str = "ours", device: torch.device | str = "cpu") -> None:
        self.name, self.device = name, torch.device(device)
        self.network = network.to(device).eval()

    @torch.inference_mode()
    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        """Register and fuse images (B, 1, H, W) in [0, 1] of any floating dtype; the network computes in its own.

        The images of the result have the dtype of the infrared; the field is float32, or float64 from a network in
        float64.
        """
        check_tensors(ir, vi)
        moved = ir.to(self.device)
        with exact_float32():
            output = self.network(moved, vi.to(self.device))
        maps = output.field, warp(moved, output.field), output.alignment.confidence
        return Fused(output.image.to(ir), *(each if each is None else each.to(ir.device) for each in maps))


REFINED = "ours_refined"  # see `fusionlib.methods.field_refinement`
ROBUST = "ours_robust"  # refined, too; its registration has learned with `training.augmentation`
# Thresholds and calibration of the second come from RoadScene's validation pairs, as the defaults do.
WITH_REFINEMENT = {
    REFINED: (Refinement(), Calibration()),
    ROBUST: (Refinement(chance=0.013, match=0.017, mirrored=True), Calibration(-3.165, 0.679, -1.078, -475.6)),
}
SAME_BUDGET = "ours_same_budget"  # see `fusionlib.methods.retraining.same_budget`
NETWORKS = dict.fromkeys(("ours", REFINED, ROBUST, SAME_BUDGET), NetworkConfig()) | {"as_in_the_paper": AS_IN_THE_PAPER}
# Weights that have another name than the network, and the notebook that makes them.
_WEIGHTS = {REFINED: "ours", ROBUST: "robust/ours", SAME_BUDGET: "same_budget/ours"}
_NOTEBOOK = {"ours": "03", "as_in_the_paper": "03", "robust/ours": "03b", "same_budget/ours": "04"}


def names() -> list[str]:
    """Names that `load` takes, alone or two joined by a +.

    >>> [name for name in names() if name.startswith("ours")]
    ['ours', 'ours_refined', 'ours_robust', 'ours_same_budget']
    """
    return [*NETWORKS, *systems.names(), *CLASSICAL, *RULES]


def load(name: str, weights: Path | str | None = None, device: str | None = "cpu", **options: object) -> Method:
    """A method by name.

    Args:
        name: one of `names()`, or "a+b": registers with a and fuses with b.
        weights: of a network, a file; or a folder laid out as results/mini/weights, where that of `ours_robust` is
            robust/ours.safetensors; it is taken where it is there. By default the weights that come with the project,
            of the largest preset there is, or those that a system's authors published: see
            `fusionlib.methods.checkpoints`.
        device: where networks run; None takes a GPU if there is one.
        options: of the class of a compared system, such as `steps=0` of MURF; other methods have none. Of `a+b`,
            those of b.

    Raises:
        InputError: unknown name, no weights, no such device, or options that the method does not have.

    >>> fused = load("ours").fuse(torch.rand(1, 1, 48, 64), torch.rand(1, 1, 48, 64))
    >>> fused.image.shape, fused.field.shape, fused.registered_ir.shape
    (torch.Size([1, 1, 48, 64]), torch.Size([1, 2, 48, 64]), torch.Size([1, 1, 48, 64]))
    >>> load("ecc+maximum").name
    'ecc+maximum'
    """
    first, plus, then = name.partition("+")
    if plus:
        return Chain(load(first, weights, device), load(then, weights, device, **options))
    device = checked_device(device)
    if options and name in (*NETWORKS, *CLASSICAL, *RULES):
        raise InputError(f"{name} has no options: leave out {', '.join(options)}.")
    if name in CLASSICAL:
        return CLASSICAL[name]
    if name in RULES:
        return RULES[name]
    if name in NETWORKS:
        with torch.random.fork_rng(devices=[]):  # the random weights before those of the file are not the caller's
            loaded = FusionNetwork.load(path := _own_weights(name, weights))
            if others := [other for other, config in NETWORKS.items() if config == loaded.config != NETWORKS[name]]:
                advice = "give another file, or that name"
                raise InputError(f"{path} holds weights of {others[0]}, not of {name}: {advice}.")
            return Ours(_refined(name, loaded), name, device)
    system = _system(name)
    method_class, source = systems.imported(system.method), checkpoints.find(system, weights)
    if unknown := options.keys() - signature(method_class).parameters.keys():
        raise InputError(f"{name} has no option {', '.join(sorted(unknown))}: leave it out.")
    filled = checkpoints.fill(network(name), system, source)
    if source.kind == checkpoints.IN_PART:
        options = {**system.partial, **options}
    return method_class(filled, device=device, **options)


def network(name: str) -> nn.Module:
    """The network of a method with random weights; names and shapes of its state_dict are those of its authors.

    The arguments of its `forward` are described in `fusionlib.methods.baselines`.

    Raises:
        InputError: unknown name, or a method that has no network.

    >>> sum(weight.numel() for weight in network("datfuse").parameters())
    10760
    """
    if name in NETWORKS:
        return _refined(name, FusionNetwork(NETWORKS[name]))
    if name in CLASSICAL or name in RULES:
        raise InputError(f"{name} has no network: choose one of {', '.join([*NETWORKS, *systems.names()])}.")
    return systems.imported(_system(name).network)()


@dataclass(frozen=True)
class Origin:
    """What made the results of a method.

    Attributes:
        weights: "published", "retrained", ...: see `checkpoints.Source`; "trained" for ours, "" where there are none.
        key: of the weights and the behaviour of the code, without the code that scores the results.
    """

    weights: str
    key: Key


def origin(name: str, weights: Path | str | None = None, **options: object) -> Origin:
    """Where the weights of a method come from, and the key of weights and code; arguments as those of `load`.

    >>> origin("maximum").weights
    ''
    """
    first, plus, then = name.partition("+")
    if plus:
        parts = [origin(first, weights), origin(then, weights, **options)]
        kinds = dict.fromkeys(kind for part in parts if (kind := part.weights))
        return Origin(" + ".join(kinds), parts[0].key | parts[1].key)
    if name in CLASSICAL or name in RULES:
        return Origin("", Key.of(["classical" if name in CLASSICAL else "simple-fusion"]))
    if name in NETWORKS:
        return Origin("trained", key_of_network(_own_weights(name, weights)) | key_of_refinement(name))
    system = _system(name)
    source = checkpoints.find(system, weights)
    chosen = {f"{name}:options": options} if options else {}
    return Origin(source.kind, Key.of([name], **{f"{name}:weights": source.mark}, **chosen))


def key_of_network(path: Path | str) -> Key:
    """The key of Ours with the weights of a file, under whatever name it is compared."""
    return Key.of(["network"], **{"ours:weights": mark_of(path)})


def key_of_refinement(name: str) -> Key:
    """The key of the refinement of a method, its settings included where they are not the defaults; empty without one.

    >>> "steps" in key_of_refinement("ours_robust").parts, "steps" in key_of_refinement("ours_refined").parts
    (True, False)
    """
    if name not in WITH_REFINEMENT:
        return Key()
    steps = {} if WITH_REFINEMENT[name] == (Refinement(), Calibration()) else {"steps": WITH_REFINEMENT[name]}
    return Key.of(["refinement"], **steps)


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
            return f"reproduce {_NOTEBOOK[weights_name(name)]} --train"
        return ("data fetch " if systems.system(name).published else "retrain ") + name


def shipped_weights(name: str) -> Path:
    """`checkpoints.in_results`; InputError if there are none."""
    if path := checkpoints.in_results(name):
        return path
    command = f"python -m fusionlib reproduce {_NOTEBOOK.get(name)} --preset mini --train"
    make = f", or make them with `{command}`" if name in _NOTEBOOK else ""
    raise InputError(f"There are no weights for {name!r} under results/: give a file of your own as weights{make}.")


def _refined(name: str, network: FusionNetwork) -> FusionNetwork:
    return RefinedNetwork(network, *WITH_REFINEMENT[name]) if name in WITH_REFINEMENT else network


def _own_weights(name: str, given: Path | str | None) -> Path | str:
    """The file given, or that of the folder given, or the shipped one."""
    name = weights_name(name)
    if given is None or not Path(given).is_dir():
        return given or shipped_weights(name)
    mine = Path(given) / f"{name}.safetensors"
    return mine if mine.exists() else shipped_weights(name)


def check_weights(name: str, weights: Path | str | None) -> None:
    """InputError if the weights asked for are not there, or nothing could use them: no others take their place."""
    if weights is None:
        return
    networks = [each for each in name.split("+") if each not in (*CLASSICAL, *RULES)]
    if not networks:
        raise InputError(f"{name} has no network and takes no weights: leave them out or choose `ours`.")
    if not Path(weights).exists():
        raise InputError(f"There are no weights at {weights}: give a file that is there, or none at all.")
    if Path(weights).is_dir():
        for each in networks:
            if not (file := Path(weights) / f"{weights_name(each)}.safetensors").is_file():
                raise InputError(f"{file} is not there: give a folder that has it, or the file itself.")


def weights_name(name: str) -> str:
    """The stem of the file that holds the weights of a method."""
    return _WEIGHTS.get(name, name)


def _system(name: str) -> systems.System:
    if not name:
        raise InputError("A method has no name: write one before a + and one after it, as in ecc+maximum, or no +.")
    if name not in systems.names():
        raise InputError(f"Unknown method {name!r}; choose one of {', '.join(names())}.")
    return systems.system(name)
