"""What a method costs, Table 6: multiply-accumulates in three counts, parameters, memory and time.

A forward pass has no one number of operations. Each count leaves something out:

    thop        what the paper's table was made with: kernel size times output, for layers that have weights, and two to
                four operations an element for norms. It does not see products of activations (attention, correlation),
                warps, resizing, nor a convolution that is a function call.
    fvcore      follows the traced graph, function calls included, and leaves out what no output needs.
    executed    torch's FlopCounterMode, halved: convolutions and matrix products as they are executed, nothing else.

PAPER-GAP: the paper says FLOPs; two of its rows are, within 0.1 and 5 %, what thop prints: multiply-accumulates.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fusionlib import methods
from fusionlib.data import systems
from fusionlib.methods import Method
from fusionlib.methods.fast import fast as hastened
from fusionlib.support import machine
from fusionlib.support.files import InputError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d, nn.LayerNorm)
PATIENT = 3  # timed calls of a method that is slower than the patience


@dataclass(frozen=True)
class Counts:
    """Multiply-accumulates of one call; `fvcore` is None where the call cannot be traced."""

    thop: int
    fvcore: int | None
    executed: int


def count(module: nn.Module, *inputs: Tensor) -> Counts:
    """Count one call of `module` with `inputs`, in evaluation mode and without gradients."""
    module.eval()
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter, _thop(module) as counted:
            module(*inputs)
        return Counts(sum(counted), _fvcore(module, inputs), counter.get_total_flops() // 2)


@contextmanager
def _thop(module: nn.Module) -> Iterator[list[int]]:
    """Collects what classic thop counts of each call of a layer.

    A convolution costs the elements of its output times the weights behind one of them, without the bias; a norm two
    operations an element, and two more if it learns scale and shift.
    """
    counted: list[int] = []

    def convolution(layer: nn.Module, _: tuple, output: Tensor) -> None:
        counted.append(output.numel() * (layer.weight.numel() // layer.out_channels))

    def linear(layer: nn.Linear, _: tuple, output: Tensor) -> None:
        counted.append(output.numel() * layer.in_features)

    def norm(layer: nn.Module, _: tuple, output: Tensor) -> None:
        learns = getattr(layer, "affine", False) or getattr(layer, "elementwise_affine", False)
        counted.append(output.numel() * (4 if learns else 2))

    kinds = ((CONVOLUTIONS, convolution), (nn.Linear, linear), (NORMS, norm))
    hooks = [
        layer.register_forward_hook(hook)
        for layer in module.modules()
        for kind, hook in kinds
        if isinstance(layer, kind)
    ]
    try:
        yield counted
    finally:
        for hook in hooks:
            hook.remove()


def _fvcore(module: nn.Module, inputs: Sequence[Tensor]) -> int | None:
    from fvcore.nn import FlopCountAnalysis  # slow to import

    class Traceable(nn.Module):
        """Tracing knows tuples of tensors, not dataclasses."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
            return tuple(_tensors(self.module(*given)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the checks of the input become constants
        try:
            analysis = FlopCountAnalysis(Traceable(), tuple(inputs))
            return int(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())
        except (RuntimeError, TypeError, NotImplementedError):
            return None


def _tensors(output: object) -> Iterator[Tensor]:
    """Every tensor in an output, however nested."""
    if isinstance(output, Tensor):
        yield output
    elif is_dataclass(output):
        output = [getattr(output, each.name) for each in fields(output)]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        yield from itertools.chain.from_iterable(map(_tensors, output))


class Whole(nn.Module):
    """A method as one module, so that all that `fuse` does is counted, of a chain both networks."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.parts = nn.ModuleList(networks(method))

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        fused = self.method.fuse(ir, vi)
        return fused.image if fused.field is None else torch.cat([fused.image, fused.field], 1)


def networks(method: Method) -> list[nn.Module]:
    """The networks of a method; of a chain, those of both its parts."""
    if isinstance(method, methods.Chain):
        return networks(method.registers) + networks(method.fuses)
    return [part for part in vars(method).values() if isinstance(part, nn.Module)]


def fresh(name: str) -> Method:
    """A method with random weights: what it costs does not depend on them, and nothing has to be fetched or trained.

    One that would train itself on each pair comes without that (`systems.System.untuned`): it is no part of a pass.
    """
    first, plus, then = name.partition("+")
    if plus:
        return methods.Chain(fresh(first), fresh(then))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in methods.NETWORKS:
            return methods.Ours(methods.network(name), name)
        if name in systems.names():
            system = systems.system(name)
            return systems.imported(system.method)(methods.network(name).eval(), **system.untuned)
    return methods.load(name)


def quick(name: str) -> Method:
    """`fresh`, with the fast network where the method is Ours: what is timed, since it gives the same result."""
    return hastened(fresh(name))


def parameters(method: Method) -> dict[str, int]:
    """Parameters of each part of a method's networks, in their order."""
    counts: dict[str, int] = {}
    for network in networks(method):
        for name, part in network.named_children():
            if number := sum(weights.numel() for weights in part.parameters()):
                counts[name] = counts.get(name, 0) + number
    return counts


def pair(height: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    """An infrared and a visible image of smooth noise, (1, 1, height, width) in [0, 1], the same for everybody.

    Without a width they are square.
    """
    size = height, width or height
    drawn = torch.rand(2, 1, *(side // 8 + 2 for side in size), generator=torch.Generator().manual_seed(0))
    ir, vi = nn.functional.interpolate(drawn, size, mode="bilinear", align_corners=True).split(1)
    return ir, vi


@dataclass(frozen=True)
class Timed:
    """Seconds of one call: median, quartiles `low` and `high`, of so many `runs`."""

    median: float
    low: float
    high: float
    runs: int


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    runs: int = 7,
    patience: float = 20.0,
) -> dict[str, Timed]:
    """Time calls in turns, A B C A B C ..., so that a busy moment of the machine affects all of them.

    Args:
        calls: name to what is timed; each is called once before, to warm up.
        runs: how often each is timed.
        patience: seconds; what takes longer is timed `PATIENT` times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, runs):
        for name, call in calls.items():
            if turn >= PATIENT and statistics.median(seconds[name]) > patience:
                continue
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: _timed(measured) for name, measured in seconds.items()}


def _timed(seconds: Sequence[float]) -> Timed:
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Timed(median, low, high, len(seconds))


def peak_memory(cases: Sequence[tuple[str, int | tuple[int, int]]], fast: bool = True) -> list[float]:
    """GiB by which a process of its own grows at most while a method fuses a pair, on the CPU.

    Args:
        cases: method, and the side of a square pair or its (height, width).
        fast: let Ours run as `fusionlib.methods.fast` has it.

    Raises:
        InputError: a process ended with an error, as for want of memory.
    """
    call = f"_growths({[(name, _sides(size)) for name, size in cases]!r}, {fast!r})"
    command = [sys.executable, "-c", f"from fusionlib.experiments.profiling import _growths; {call}"]
    result = subprocess.run(command, capture_output=True, text=True)
    growths = [float(line) for line in result.stdout.split()]
    if result.returncode or len(growths) < len(cases):
        name, size = cases[min(len(growths), len(cases) - 1)]
        size_text = " x ".join(map(str, dict.fromkeys(_sides(size))))
        raise InputError(
            f"{name} did not get through {size_text} pixels; choose a smaller side. {result.stderr.strip()[-200:]}"
        )
    return growths


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _growths(cases: Sequence[tuple[str, tuple[int, int]]], fast: bool) -> None:
    """Print the growth of each case, measured in a child of this process, which has imported all, computed nothing."""
    for name, size in cases:
        child = os.fork()
        if not child:
            method = quick(name) if fast else fresh(name)
            method.fuse(*pair(64))  # what is set up once is not the image's
            before = machine.peak_memory("cpu")
            method.fuse(*pair(*size))
            print(machine.peak_memory("cpu") - before, flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)
