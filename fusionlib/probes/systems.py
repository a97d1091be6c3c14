"""Probes of the compared systems: the result of each on a pair, and the loss of its retraining."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import nn

from fusionlib.data import systems
from fusionlib.deformation import fold_share, misalign_by_key
from fusionlib.probes.views import Seen, pair
from fusionlib.training.batches import Batch

DEEP = 1e-5  # float64 over many layers, with grids of pixels in float32 here and there


def network(name: str) -> Iterator[Seen]:
    """Image and field of a system with random weights, and the first output of each part of its network."""
    system = systems.system(name)
    net = _drawn(system)
    outputs: dict[str, torch.Tensor] = {}

    def keep(part: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            for place, tensor in enumerate(_tensors(output)):
                outputs.setdefault(f"{part} {place}", tensor)

        return hook

    for part, module in net.named_children():
        module.register_forward_hook(keep(part))
    fused = systems.imported(system.method)(net, **system.untuned).fuse(*pair(1, 64, 64))
    folds = fused.field is not None and bool(fold_share(fused.field) > 0)
    allowed = 0.2 if folds else DEEP  # a field that folds has no inverse: the result of the search is arbitrary
    yield "image", fused.image, allowed
    if fused.field is not None and not folds:
        yield "field", fused.field, DEEP
        yield "registered", fused.registered_ir, DEEP
    for part, output in outputs.items():
        yield f"output of {part}", output, DEEP


def _tensors(output: object) -> Iterator[torch.Tensor]:
    """The floating-point tensors in the output of a module: itself, or those of a tuple or a dataclass."""
    if torch.is_tensor(output) and output.is_floating_point():
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)
    elif is_dataclass(output):
        for part in fields(output):
            yield from _tensors(getattr(output, part.name))


def loss(name: str) -> Iterator[Seen]:
    """The loss of a system on a deformed pair, and the gradient that reaches each part of its network."""
    system = systems.system(name)
    net = _drawn(system).train()
    side = min(system.budget.crop, 64)
    ir, vi = pair(2, side, side)
    moved = misalign_by_key(ir, "medium", [(0, "a", 0)])
    torch.manual_seed(1)
    value = systems.imported(system.loss)(net, Batch(ir, vi, moved.ir, moved.phi_gt.double()))
    value.backward()
    yield "loss", value, DEEP
    for part, module in net.named_children():
        slopes = [weight.grad.norm() for weight in module.parameters() if weight.grad is not None]
        yield f"gradient of {part}", torch.stack(slopes).norm() if slopes else 0.0, 1e-4


def _drawn(system: systems.System) -> nn.Module:
    torch.manual_seed(0)
    net = systems.imported(system.network)().double()
    for module in net.modules():  # initial BatchNorms would be the identity
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net
