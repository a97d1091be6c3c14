"""The network compiled by torch for the machine at hand: an option of trainings that take hours on a GPU.

Compiling takes minutes and changes results by rounding alone, so it is not part of a recipe or a key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, fx

from fusionlib.network import FusionNetwork

LOGGER = logging.getLogger(__name__)
METHODS = ("forward", "align", "common_infrared")  # what a training calls


def compile_network(network: FusionNetwork, backend: str = "inductor") -> None:
    """Let torch compile a network at its first call; names and values of the weights stay as they are.

    Where the compiler fails, for want of a C++ compiler say, a logged line says so, and the network runs uncompiled.

    Args:
        network: its methods are replaced by compiled ones.
        backend: one of `torch.compiler.list_backends(None)`.
    """
    from torch._dynamo import lookup_backend  # here, since it takes a second

    compiler = lookup_backend(backend)

    def compile_or_keep(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        try:
            return compiler(graph, inputs)
        except Exception as error:  # of any kind: the compiler calls programs and libraries of the machine
            reason = str(error).strip().partition("\n")[0]
            LOGGER.warning(f"torch.compile failed, so the network runs uncompiled: {reason}")
            return graph.forward

    for name in METHODS:
        setattr(network, name, torch.compile(getattr(network, name), backend=compile_or_keep))
