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


def compile_network(network: FusionNetwork, backend: str = "inductor") -> None:
    """Let torch compile a network at its first call; names and values of the weights stay as they are.

    Where the compiler fails, for want of a C++ compiler say, a logged line says so, and the network runs uncompiled.
    `FusionNetwork.align` stays as it is: the few validation pairs would not be worth the minutes.

    Args:
        network: its `forward` is replaced by a compiled one.
        backend: one of `torch.compiler.list_backends(None)`.
    """
    import torch._functorch.config as gradients  # these two here, since they take a second
    from torch._dynamo import lookup_backend

    compiler = lookup_backend(backend)

    def compile_or_keep(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        try:
            with gradients.patch(force_non_lazy_backward_lowering=True):  # its errors, too, are to appear here
                return compiler(graph, inputs)
        except Exception as error:  # of any kind: the compiler calls programs and libraries of the machine
            reason = str(error).strip().partition("\n")[0]
            LOGGER.warning(f"torch.compile failed, so the network runs uncompiled: {reason}")
            return graph.forward

    network.forward = torch.compile(network.forward, backend=compile_or_keep)
