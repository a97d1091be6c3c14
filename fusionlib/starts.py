"""What a training begins with where it cannot take the weights of its start as they are.

PAPER-GAP: the third ablation of Table 4 has another first layer in its head than the network it is held against, so
that a start they share fits in part. What fits is taken, the rest stays as drawn. What lies behind a layer that was
drawn sees features it has never seen, so its BatchNorms measure them before the training, which may hold their
statistics fixed (`TrainingConfig.frozen_statistics`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from fusionlib.batches import batches
from fusionlib.data import open_set
from fusionlib.network import FusionNetwork
from fusionlib.recipe import Recipe


def fitting(recipe: Recipe, start: Mapping[str, Tensor], anew: Collection[str] = ()) -> tuple[FusionNetwork, list[str]]:
    """The network of a recipe, filled with the tensors of its start that fit.

    Args:
        recipe: whose network; its seed draws what is not taken.
        start: state_dict of the network that was trained first.
        anew: names of tensors that are left as drawn although they may fit.

    Returns:
        The network, and the names of the tensors that stayed as drawn.
    """
    torch.manual_seed(recipe.seed)
    network = FusionNetwork(recipe.network)
    drawn = network.state_dict()
    taken = {
        name: value
        for name, value in start.items()
        if name in drawn and value.shape == drawn[name].shape and name not in anew
    }
    network.load_state_dict(drawn | taken)
    return network, sorted(drawn.keys() - taken.keys())


@torch.no_grad()
def calibrate(network: FusionNetwork, drawn: Collection[str], recipe: Recipe, count: int = 4) -> None:
    """Let the BatchNorms of every part that holds a drawn tensor measure the features they will see.

    Args:
        network: whose statistics are measured anew; its other parts stay as they are.
        drawn: names of the tensors that `fitting` has left as drawn.
        recipe: whose training pairs it sees, deformed as in the first epoch.
        count: batches; the statistics are the mean over them.
    """
    parts = {getattr(network, name.partition(".")[0]) for name in drawn}
    norms = [module for part in parts for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None  # the plain mean
    pairs = open_set(recipe.dataset, "train", recipe.size, count=recipe.train_pairs)
    for batch in islice(batches(pairs, recipe, 0), count):
        network(batch.moved, batch.vi)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
