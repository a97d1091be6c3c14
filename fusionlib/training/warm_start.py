"""Warm start of a network that is smaller than the one whose weights it starts from.

PAPER-GAP: the third ablation of Table 4 has a head with fewer inputs than the full method. It starts from the same
weights, of which the kernels of its first layer are cut to the remaining inputs, so that it differs from the full
method in what was removed and in nothing else. The layers behind the cut get other inputs than before, so their
BatchNorms are calibrated before the training, which may keep the statistics fixed (`TrainingConfig.frozen_statistics`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from fusionlib.data import open_set
from fusionlib.network import FusionNetwork
from fusionlib.training.batches import batches
from fusionlib.training.recipe import Recipe


def warm_start(recipe: Recipe, start: Mapping[str, Tensor]) -> tuple[FusionNetwork, list[str]]:
    """The network of a recipe with the weights of its start.

    Args:
        recipe: of the network; without the common features in the fusion it may be smaller than that of the start.
        start: state_dict of the network that was trained first.

    Returns:
        The network, and the names of the tensors that were cut.
    """
    network = FusionNetwork(recipe.network)
    cut = [name for name, value in network.state_dict().items() if value.shape != start[name].shape]
    # Eq. (7): common infrared, specific infrared, common visible, specific visible.
    kept = {name: torch.cat(start[name].chunk(4, 1)[1::2], 1) for name in cut}
    network.load_state_dict({**start, **kept})
    return network, cut


@torch.no_grad()
def calibrate(network: FusionNetwork, cut: Collection[str], recipe: Recipe, count: int = 4) -> None:
    """Set the BatchNorm statistics of every part with a cut tensor to those of the features it now gets.

    Args:
        network: its other parts stay as they are.
        cut: names of the tensors that `warm_start` has cut.
        recipe: of the training pairs, which are deformed as in the first epoch.
        count: batches; the statistics are the mean over them.
    """
    parts = {getattr(network, name.partition(".")[0]) for name in cut}
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
