"""Retraining of the compared systems whose weights are not available, by one protocol for all.

- Pairs: the training pairs of Ours (RoadScene's 152) with the same random flips and deformations in each epoch, cropped
  to a square that suits the network.
- Loss: the system's own published one where it is known and fits, else Eq. (9) for the fused image and Eq. (5) for the
  field. `System.retraining` says which, and what was left out.
- Weights start at random; parts with published weights stay as published.
- Adam with cosine annealing and a clipped norm of the gradient, for as many steps as `System.budget` says: about an
  hour on one CPU core for the systems of Tables 1 and 2 that register, a quarter of an hour on two for the others. That
  is little: some of the published trainings have a thousand epochs. The learning rate is the same for all, unless a
  system diverges at it (`System.learning_rate`).

PAPER-GAP: the paper does not say whether its compared systems were retrained, or on what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from fusionlib import data
from fusionlib.data import PairSet, open_set, systems
from fusionlib.methods import checkpoints
from fusionlib.methods.registry import SAME_BUDGET, weights_name
from fusionlib.support.behaviour.components import LOSS
from fusionlib.support.files import InputError, locked, remove_partial_files
from fusionlib.support.inputs import checked_device
from fusionlib.support.keys import Key
from fusionlib.support.long_training import is_allowed, show_earlier
from fusionlib.support.weights import key_of
from fusionlib.training import shared_weights
from fusionlib.training.batches import Batch, deformed_batches
from fusionlib.training.recipe import Recipe, TrainingConfig
from fusionlib.training.run import REPORTS, Run
from fusionlib.training.shared_weights import LOCK

SMOKE = systems.Budget(steps=2, batch=1, crop=64)  # runs every step of the protocol once


@dataclass(frozen=True)
class Retraining:
    """Everything that makes the weights of a compared system.

    Attributes:
        system: its name.
        dataset, size, train_pairs, levels, seed: the pairs and what happens to them, as in `fusionlib.training.recipe`.
        budget: steps, batch and crop.
        anew: train the parts with published weights too, so that nothing has to be downloaded.
        learning_rate: at the start.
        clip: largest norm of the gradient.
    """

    system: str
    dataset: str
    size: int
    train_pairs: int | None
    levels: tuple[str, ...]
    seed: int
    budget: systems.Budget
    anew: bool = False
    learning_rate: float = 5e-4
    clip: float = 5.0

    def key(self) -> Key:
        """What the weights rest on: settings, training pairs, and the behaviour of the code."""
        names = data.splits(self.dataset).get("train", [])[: self.train_pairs]
        parts = [*data.components_of(self.dataset), "retraining", self.system, self.system + LOSS]
        return Key.of(parts, settings=self, **{self.dataset: data.checksum(self.dataset, names)})


def recipe(name: str, ours: Recipe, smoke: bool = False) -> Retraining:
    """How a system is retrained: on the pairs and deformations of Ours, with a budget of its own.

    Args:
        name: of the system.
        ours: the recipe of Ours.
        smoke: two steps that show that everything runs, for systems with published weights too.

    Raises:
        InputError: no such system, or one whose weights are published.
    """
    system = systems.system(name)
    if "" in system.published and not smoke:
        command = f"python -m fusionlib data fetch {name}"
        raise InputError(f"The weights of {system.title} are published and need no retraining: run `{command}`.")
    return Retraining(
        system=name,
        dataset=ours.dataset,
        size=ours.size,
        train_pairs=ours.train_pairs,
        levels=ours.training.levels,
        seed=ours.seed,
        budget=SMOKE if smoke else system.budget,
        anew=smoke,
        learning_rate=system.learning_rate or Retraining.learning_rate,
    )


SHARE = 0.34  # of the epochs of Ours in `mini`: an hour on one CPU core


def same_budget(ours: Recipe) -> Recipe:
    """Ours in the hour on one CPU core that four systems get: the same recipe in `SHARE` of its epochs.

    Counted in epochs, since minutes differ from machine to machine. In the tables it is `registry.SAME_BUDGET`.
    """
    return ours.shortened(SHARE)


def prepare(names: Iterable[str], ours: Recipe, folder: Path, retrain: bool = False, smoke: bool = False) -> None:
    """Train the systems of a comparison whose published weights are not here, if allowed; all systems with `smoke`.

    `retrain` allows it, and so does `long_training.is_allowed` for missing weights and for those of earlier code or
    data. Otherwise weights of earlier code or data are used unchanged, and a logged line says so.

    Args:
        names: of compared systems; `registry.SAME_BUDGET` stands for `same_budget`, which `smoke` leaves out.
        ours: the recipe of Ours, on whose pairs they are trained.
        folder: where the weights go.
        retrain: train even if the weights are there.
        smoke: as in `recipe`; the weights are always trained.
    """
    for name in names:
        if name == SAME_BUDGET:
            if not smoke and (retrain or is_allowed()):
                place = Path(folder, weights_name(name))
                shared_weights.train_or_load(same_budget(ours), place.parent, place.name, retrain)
            continue
        system = systems.system(name)
        if smoke or not ("" in system.published or checkpoints.is_here(system)):
            path, settings = Path(folder) / f"{name}.safetensors", recipe(name, ours, smoke)
            if smoke or retrain or is_allowed():
                train_or_load(settings, folder, smoke or retrain)
            elif path.exists() and (changed := settings.key().differing(key_of(path))):
                show_earlier(name, changed)


def train_or_load(settings: Retraining, folder: Path, retrain: bool = False, device: str | None = None) -> Path:
    """The weights of a system, `folder`/NAME.safetensors: kept if these settings made them, else trained now.

    Of several processes that use one folder, one trains while the others wait.

    Args:
        settings: what to train.
        folder: where weights, log (NAME.csv) and, until the end, the checkpoint are kept.
        retrain: train even if the weights are there.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
    """
    path = Path(folder) / f"{settings.system}.safetensors"
    with locked(Path(folder) / LOCK):
        if retrain or not path.exists() or settings.key().differing(key_of(path)):
            train(settings, path, device)
            remove_partial_files(path)
    return path


@torch.random.fork_rng(devices=[])  # the caller's random numbers go on as if nothing had been drawn
def train(settings: Retraining, path: Path, device: str | None = None) -> pd.DataFrame:
    """Train a system and write its weights to `path`, the log beside it; goes on from the checkpoint of a killed run.

    Parts that stay as published are not written. The log has a row for each of about 20 spans of the training: the last
    step, the mean loss over the span, and its seconds.

    Raises:
        InputError: data or published weights are missing, or the loss is NaN or infinite.
    """
    device = checked_device(device)
    system, steps = systems.system(settings.system), settings.budget.steps
    pairs = open_set(settings.dataset, "train", settings.size, count=settings.train_pairs)
    fixed = () if settings.anew else tuple(system.published)
    network = _initial(system, settings.seed, fixed).to(device)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    run, losses, loss_of = Run(path, settings.key(), steps, "step", "loss"), [], systems.imported(system.loss)
    run.restore(**parts)
    stream = islice(batches(pairs, settings, device, run.done), steps - run.done)
    for step, batch in enumerate(stream, run.done + 1):
        torch.manual_seed(step)  # the same dropout and noise in a resumed training
        loss = loss_of(network, batch)
        run.check(loss.item(), step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % max(1, steps // REPORTS) == 0 or step == steps:
            run.add({"step": step, "loss": sum(losses) / len(losses)}, **parts)
            losses = []

    new = {name: value for name, value in network.state_dict().items() if name.partition(".")[0] not in fixed}
    # Copies: a module with two names has its tensors twice, and a file of safetensors takes none that share memory.
    weights = {name: value.cpu().clone() for name, value in new.items()}
    return run.finish(weights, asdict(settings) | {"published": fixed})


def _initial(system: systems.System, seed: int, fixed: tuple[str, ...]) -> nn.Module:
    """The network with random weights in training mode; `fixed` parts have their published weights and are frozen."""
    torch.manual_seed(seed)
    network = systems.imported(system.network)()
    if fixed:
        checkpoints.fill(network, system, checkpoints.published(system, fixed))
    network.train()
    for part in fixed:
        network.get_submodule(part).requires_grad_(False).eval()
    return network


def batches(pairs: PairSet, settings: Retraining, device: str = "cpu", done: int = 0) -> Iterator[Batch]:
    """The batches of the steps after `done`, epoch by epoch, without an end: see `fusionlib.training.batches`.

    A batch depends on the settings and the number of its step alone.
    """
    training = TrainingConfig(batch=settings.budget.batch, crop=settings.budget.crop, levels=settings.levels)
    an_epoch = max(1, len(pairs) // settings.budget.batch)
    for epoch in count(done // an_epoch):
        yield from islice(deformed_batches(pairs, training, settings.seed, epoch, device), done % an_epoch, None)
        done = 0
