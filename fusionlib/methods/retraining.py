"""Retraining of the compared systems whose weights are not to be had, by one protocol for all.

- Pairs: the training pairs of the preset (RoadScene's 152), resized, mirrored by chance, deformed anew in each epoch by
  the same draws as Ours sees, and cropped to a square that suits the network.
- Loss: the system's own published one where it is known and fits, else Eq. (9) for the fused image and Eq. (5) for the
  field. `System.retraining` says which, and what was left out; the function stands in the system's own file.
- Weights start at random; parts with published weights stay as published.
- Adam, its rate falling along half a cosine, the gradient's norm clipped; as many steps as two CPU cores do in about
  eight minutes (`System.budget`). That is little: some of the published trainings have a thousand epochs. The rate is
  one for all, unless a system breaks down at it (`System.learning_rate`).

PAPER-GAP: the paper does not say whether its compared systems were retrained, or on what.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from torch import nn

from fusionlib import data
from fusionlib.data import PairSet, open_set, systems
from fusionlib.methods import checkpoints
from fusionlib.methods.protocol import Lesson
from fusionlib.support.behaviour.components import LOSS
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.long_training import asked, show_earlier
from fusionlib.training.batches import batches
from fusionlib.training.recipe import Recipe, TrainingConfig
from fusionlib.training.resume import checkpoint_of, load_checkpoint, save_checkpoint, write_log
from fusionlib.training.weights import key_of, save_weights

SMOKE = systems.Budget(steps=2, batch=1, crop=64)  # proves the path
REPORTS = 20  # lines of progress and checkpoints of one training


class Plan(Protocol):
    """What of a preset decides how systems are retrained: the recipe of Ours, and whether all is trained anew."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def always_train(self) -> bool: ...


@dataclass(frozen=True)
class Retraining:
    """Everything that makes the weights of a compared system.

    Attributes:
        system: its name.
        dataset, size, train_pairs, levels, seed: the pairs and what happens to them, as in `fusionlib.training.recipe`.
        budget: steps, batch and crop.
        anew: train the parts with published weights too; a preset that always trains does, needing no download then.
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


def recipe(name: str, preset: Plan) -> Retraining:
    """How a system is retrained in a preset: on the pairs and deformations of Ours, with a budget of its own.

    The learning rate is the one of all systems, unless that is too high for this one.

    Raises:
        InputError: no such system, or one whose weights are published.
    """
    system, ours = systems.system(name), preset.recipe
    if "" in system.published and not preset.always_train:
        command = f"python -m fusionlib data fetch {name}"
        raise InputError(f"The weights of {system.title} are published and need no retraining: run `{command}`.")
    return Retraining(
        system=name,
        dataset=ours.dataset,
        size=ours.size,
        train_pairs=ours.train_pairs,
        levels=ours.training.levels,
        seed=ours.seed,
        budget=SMOKE if preset.always_train else system.budget,
        anew=preset.always_train,
        learning_rate=system.learning_rate or Retraining.learning_rate,
    )


def prepare(names: Iterable[str], preset: Plan, folder: Path, retrain: bool = False) -> None:
    """Train what a comparison needs trained: everything in a preset that always trains, else what has been asked for.

    Weights of earlier code or data are left as they are, under a line that says so, unless long trainings have been
    asked for (`long_training.asked`): then they are trained again, and those that are missing, too.

    Args:
        names: of compared systems.
        preset: what they are trained on.
        folder: where the weights go.
        retrain: train those without published weights again, whatever is there.
    """
    for name in names:
        if preset.always_train or (retrain and "" not in systems.system(name).published):
            retrained(recipe(name, preset), folder, retrain=True)
        elif "" not in systems.system(name).published:
            path, settings = Path(folder) / f"{name}.safetensors", recipe(name, preset)
            if asked():
                retrained(settings, folder)
            elif path.exists() and (changed := settings.key().differing(key_of(path))):
                show_earlier(name, changed)


def retrained(settings: Retraining, folder: Path, retrain: bool = False, device: str | None = None) -> Path:
    """The weights of a system, `folder`/NAME.safetensors: those that are there if these settings made them, else new.

    Args:
        settings: what to train.
        folder: where weights, log (NAME.csv) and, until it ends, the checkpoint are kept.
        retrain: train also if the weights are there.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
    """
    path = Path(folder) / f"{settings.system}.safetensors"
    if retrain or not path.exists() or settings.key().differing(key_of(path)):
        train(settings, path, device)
    return path


def train(settings: Retraining, path: Path, device: str | None = None) -> pd.DataFrame:
    """Train a system and write its weights to `path`, the log beside it; a checkpoint of a killed run is taken up.

    Parts that stay as published are not written. The log has a row for each of about 20 spans of the training: the last
    step, the mean loss over the span, and its seconds.

    Raises:
        InputError: data or published weights are not there, or the loss is no number any more.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    system, steps, key = systems.system(settings.system), settings.budget.steps, settings.key()
    pairs = open_set(settings.dataset, "train", settings.size, count=settings.train_pairs)
    fixed = () if settings.anew else tuple(system.published)
    network = _begun(system, settings.seed, fixed).to(device)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    learning = {"network": network, "optimiser": optimiser, "schedule": schedule}
    rows: list[dict[str, float]] = []

    if state := load_checkpoint(path, key, device):
        rows = state["rows"]
        for name, each in learning.items():
            each.load_state_dict(state[name])
        print(f"{path.stem}: going on after step {rows[-1]['step']} of {steps}", flush=True)

    done = rows[-1]["step"] if rows else 0
    losses, start = [], time.perf_counter()
    for step, lesson in enumerate(islice(lessons(pairs, settings, device, done), steps - done), done + 1):
        losses.append(_step(network, optimiser, systems.part(system.loss), lesson, settings, step))
        schedule.step()
        if step % max(1, steps // REPORTS) == 0 or step == steps:
            rows.append({"step": step, "loss": sum(losses) / len(losses), "seconds": time.perf_counter() - start})
            losses, start = [], time.perf_counter()
            states = {name: each.state_dict() for name, each in learning.items()}
            save_checkpoint(path, key, states | {"rows": rows})
            _report(path.stem, rows, steps)

    new = {name: value for name, value in network.state_dict().items() if name.partition(".")[0] not in fixed}
    # Copies: a module with two names has its tensors twice, and a file of safetensors takes none that share memory.
    weights = {name: value.cpu().clone() for name, value in new.items()}
    save_weights(path, weights, asdict(settings) | {"published": fixed}, key)
    log = write_log(path, rows)
    checkpoint_of(path).unlink()
    return log


def _begun(system: systems.System, seed: int, fixed: tuple[str, ...]) -> nn.Module:
    """The network with fresh weights, ready to learn; `fixed` parts have their published ones and rest."""
    torch.manual_seed(seed)
    network = systems.part(system.network)()
    if fixed:
        checkpoints.fill(network, system, checkpoints.published(system, fixed))
    network.train()
    for part in fixed:
        network.get_submodule(part).requires_grad_(False).eval()
    return network


def lessons(pairs: PairSet, settings: Retraining, device: str = "cpu", done: int = 0) -> Iterator[Lesson]:
    """What the steps after `done` see, without an end: the batches of `fusionlib.training.batches`, epoch by epoch."""
    training = TrainingConfig(batch=settings.budget.batch, crop=settings.budget.crop, levels=settings.levels)
    seen = Recipe(settings.dataset, settings.size, settings.train_pairs, settings.seed, training=training)
    an_epoch = max(1, len(pairs) // settings.budget.batch)
    for epoch in count(done // an_epoch):
        for batch in islice(batches(pairs, seen, epoch, device), done % an_epoch, None):
            yield Lesson(batch.ir, batch.vi, batch.moved, batch.phi_gt)
        done = 0


def _step(network: nn.Module, optimiser, loss_of, lesson: Lesson, settings: Retraining, step: int) -> float:
    torch.manual_seed(step)  # dropout and noise are the same after a kill
    loss = loss_of(network, lesson)
    if not torch.isfinite(loss):
        raise InputError(f"The loss of {settings.system} is {loss.item()} at step {step}: lower its learning rate.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
    optimiser.step()
    return loss.item()


def _report(name: str, rows: list[dict[str, float]], steps: int) -> None:
    """One line with the time left."""
    last = rows[-1]
    left = (steps - last["step"]) * sum(row["seconds"] for row in rows) / last["step"]
    print(f"{name}: step {last['step']}/{steps}, loss {last['loss']:.3f}, {left / 60:.0f} min left", flush=True)
