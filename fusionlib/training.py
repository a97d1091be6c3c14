"""Training: one plain loop that can be killed at any moment and goes on where it was.

What is random (order, flips, crops, deformations) is drawn from the seed, the epoch and the pair's name, never from the
state of a generator, so a resumed run sees the same images as an uninterrupted one and ends in the same weights.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fusionlib import data, deformation, losses, metrics, network, registration
from fusionlib.data import PairSet, open_set
from fusionlib.deformation import misalign_by_key
from fusionlib.files import InputError, atomic, code_fingerprint, fingerprint
from fusionlib.losses import LossWeights, alignment_terms, fusion_terms, total_loss
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.weights import load_network, read_header, save_network


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained.

    Attributes:
        epochs, batch, learning_rate: as in the paper; Adam.
        registration_epochs: of the epochs, so many first ones train the registration alone. PAPER-GAP: not mentioned;
            fusing what does not match yet teaches little and costs half of the time.
        fusion_epochs: of the epochs, so many last ones train the fusion alone (specific extractors and head), on the
            registration as it is, with the rate begun anew. PAPER-GAP: not mentioned; it costs little and the few joint
            epochs of a short training leave the head unfinished.
        schedule: "constant" as the paper implies, or "one-cycle": up for the first tenth, then down to nothing.
        crop, crop_epochs: side of the random square cut from each training image, and of the epochs, so many first
            ones see crops; None for whole images, None for all epochs. PAPER-GAP: not mentioned; crops keep the
            displacements and cost less, whole images show what a shift and a rotation look like from afar.
        flip: mirror half of the pairs. PAPER-GAP: not mentioned.
        clip: largest norm of the gradient. PAPER-GAP: not mentioned; l_reg in pixels leads the first steps.
        levels: each image is deformed anew in each epoch, at one of these levels. PAPER-GAP: not given, see
            `deformation`; a network that has seen large displacements only is at a loss with small ones.
        validate_every, validation_level: epochs between two measurements of the end-point error on the validation
            split, and the level they are made at.
        mixed_precision: bfloat16 where the device is a GPU.
    """

    epochs: int = 150
    batch: int = 8
    learning_rate: float = 1e-3
    registration_epochs: int = 0
    fusion_epochs: int = 0
    schedule: str = "one-cycle"
    crop: int | None = None
    crop_epochs: int | None = None
    flip: bool = True
    clip: float = 5.0
    levels: tuple[str, ...] = ("light", "medium", "heavy")
    validate_every: int = 5
    validation_level: str = "medium"
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if self.registration_epochs + self.fusion_epochs > self.epochs:
            alone = f"registration_epochs {self.registration_epochs} and fusion_epochs {self.fusion_epochs}"
            raise InputError(f"{alone} are together more than epochs {self.epochs}; lower one of them.")


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a set of weights; equal recipes on equal code and data make equal weights.

    Attributes:
        dataset, size: the set trained on (its train split) and the side its images are resized to, in pixels.
        train_pairs: use only the first so many; None for all.
        seed: of the initial weights, the order and the deformations.
    """

    dataset: str = "RoadScene"
    size: int = 512
    train_pairs: int | None = None
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def fingerprint(self) -> str:
        """Changes with any setting, with the list of training pairs and with the code that makes the weights."""
        names = data.splits(self.dataset).get("train", [])
        return fingerprint(
            asdict(self), names, code_fingerprint(network, registration, losses, deformation, sys.modules[__name__])
        )


@dataclass(frozen=True)
class Trained:
    """Weights and where they come from: `reused` says that they were there already; `log` has one row an epoch."""

    network: FusionNetwork
    log: pd.DataFrame
    path: Path
    reused: bool


def trained(
    recipe: Recipe, folder: Path, name: str = "ours", retrain: bool = False, device: str | None = None
) -> Trained:
    """The network of a recipe: from `folder`/`name`.safetensors if these weights were made by it, else trained now.

    Args:
        recipe: what to train.
        folder: where weights, log (`name`.csv) and, until it ends, the checkpoint are kept.
        retrain: train also if the weights are there.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
    """
    path = Path(folder) / f"{name}.safetensors"
    log_path = path.with_suffix(".csv")
    if not retrain and log_path.exists() and path.exists() and read_header(path)["fingerprint"] == recipe.fingerprint():
        return Trained(load_network(path), pd.read_csv(log_path), path, reused=True)
    net, log = train(recipe, path, device)
    return Trained(net, log, path, reused=False)


def train(recipe: Recipe, path: Path, device: str | None = None) -> tuple[FusionNetwork, pd.DataFrame]:
    """Train a recipe and write weights to `path`, the log beside it; a checkpoint left by a killed run is taken up.

    The log has one row an epoch: the mean of each loss term, `epe` (validation, pixels), its share of the identity's
    `epe_share`, seconds, what part of them preparing the images took, and the most `memory` used so far, in GiB.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    settings, mark = recipe.training, recipe.fingerprint()
    pairs = open_set(recipe.dataset, "train", recipe.size, count=recipe.train_pairs)
    held_out = open_set(recipe.dataset, "val", recipe.size)

    torch.manual_seed(recipe.seed)
    net = FusionNetwork(recipe.network).to(device, memory_format=torch.channels_last)  # on a CPU, 1.7 times as fast
    steps = max(1, len(pairs) // settings.batch)
    rows: list[dict[str, float]] = []

    checkpoint = path.with_suffix(".checkpoint")
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["fingerprint"] == mark:
            rows = state["rows"]
            optimiser, schedule = _optimiser(net, settings, steps, epoch=len(rows) - 1)
            net.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            print(f"{path.stem}: going on after epoch {len(rows)} of {settings.epochs}", flush=True)
        else:
            print(f"{path.stem}: {checkpoint.name} is of another recipe or code; starting anew", flush=True)

    for epoch in range(len(rows), settings.epochs):
        if epoch in (0, settings.epochs - settings.fusion_epochs):
            optimiser, schedule = _optimiser(net, settings, steps, epoch)
        row = _one_epoch(net, optimiser, schedule, pairs, recipe, epoch, device)
        if (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs:
            row |= validation_error(net, held_out, settings.validation_level, device)
        rows.append({"epoch": epoch + 1, **row})
        state = {"network": net.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        with atomic(checkpoint) as part:
            torch.save({**state, "rows": rows, "fingerprint": mark}, part)
        report_progress(path.stem, rows, settings.epochs)

    net = net.to("cpu", memory_format=torch.contiguous_format).eval()
    save_network(path, net, asdict(recipe), mark)
    log = pd.DataFrame(rows)
    with atomic(path.with_suffix(".csv")) as part:
        log.to_csv(part, index=False, float_format="%.6g")
    checkpoint.unlink()
    return net, log


def _optimiser(
    net: FusionNetwork, settings: TrainingConfig, steps: int, epoch: int
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LambdaLR]:
    """Adam and its rate for the phase an epoch lies in: the fusion alone begins both anew."""
    first = settings.epochs - settings.fusion_epochs
    optimiser = torch.optim.Adam(net.parameters(), settings.learning_rate)
    rate = _rate(settings.schedule, steps * (settings.fusion_epochs if epoch >= first else first))
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate)


def _one_epoch(net, optimiser, schedule, pairs: PairSet, recipe: Recipe, epoch: int, device: str) -> dict[str, float]:
    settings = recipe.training
    fusion_alone = epoch >= settings.epochs - settings.fusion_epochs
    net.train()
    for part in (net.ir_cfe, net.vi_cfe, net.ir_cseb, net.vi_cseb, net.msrb):
        part.requires_grad_(not fusion_alone).train(not fusion_alone)
    sums: dict[str, float] = {}
    start = stepped = time.perf_counter()
    preparing, count = 0.0, 0
    for ir, vi, moved, phi_gt in batches(pairs, recipe, epoch, device):
        preparing += time.perf_counter() - stepped
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda") and settings.mixed_precision):
            # Only training sees the aligned infrared `ir`: its features are what Eqs. (1) and (2) compare.
            if epoch < settings.registration_epochs:
                terms = alignment_terms(net.align(moved, vi), net.common_infrared(ir), phi_gt)
            else:
                output = net(moved, vi)
                terms = fusion_terms(output, net.ir_sfe(ir), ir, vi)
                if not fusion_alone:
                    terms |= alignment_terms(output.alignment, net.common_infrared(ir), phi_gt)
            terms["l_t"] = total_loss(terms, recipe.losses)
        optimiser.zero_grad(set_to_none=True)
        terms["l_t"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
        optimiser.step()
        schedule.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        count += 1
        stepped = time.perf_counter()
    means = {name: value / count for name, value in sums.items()}
    seconds = stepped - start
    return {**means, "seconds": seconds, "preparing": preparing / seconds, "memory": _peak_memory(device)}


def _peak_memory(device: str) -> float:
    """The most memory in use so far, GiB: of the GPU if there is one, else of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def batches(
    pairs: PairSet, recipe: Recipe, epoch: int, device: str = "cpu"
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The batches of one epoch: aligned infrared, visible, deformed infrared (B, 1, h, w) and the true field in pixels.

    Each image is deformed whole and cropped afterwards, so that a crop sees what has moved into it.
    """
    settings = recipe.training
    rng = np.random.default_rng([recipe.seed, epoch])
    order = rng.permutation(len(pairs))
    size = min(settings.batch, len(pairs))
    for start in range(0, len(order) - size + 1, size):
        chosen = [int(i) for i in order[start : start + size]]
        ir, vi = (images.to(device) for images in pairs.stack(chosen))
        if settings.flip:
            turn = torch.from_numpy(rng.random(size) < 0.5).to(device).view(-1, 1, 1, 1)
            ir, vi = (torch.where(turn, images.flip(-1), images) for images in (ir, vi))
        # A label good to 0.02 px costs a third of an exact one.
        keys = [(recipe.seed, pairs.names[i], epoch) for i in chosen]
        levels = [settings.levels[k] for k in rng.integers(len(settings.levels), size=size)]
        moved = misalign_by_key(ir, levels, keys, tolerance=0.02)
        cropped = settings.crop_epochs is None or epoch < settings.crop_epochs
        window = _window(rng, ir.shape[-2:], settings.crop if cropped else None)
        yield ir[window], vi[window], moved.ir[window], moved.phi_gt[window]


@torch.no_grad()
def validation_error(net: FusionNetwork, pairs: PairSet, level: str, device: str = "cpu") -> dict[str, float]:
    """End-point error on held-out pairs, always deformed alike: `epe` in pixels, `epe_share` of the identity's."""
    net.eval()
    found, nothing = [], []
    for index, name in enumerate(pairs.names):
        ir, vi = (images.to(device) for images in pairs.stack([index]))
        moved = misalign_by_key(ir, level, [("validation", name)])
        phi = net.align(moved.ir, vi).field
        found.append(metrics.endpoint_error(phi, moved.phi_gt, moved.valid))
        nothing.append(metrics.endpoint_error(torch.zeros_like(phi), moved.phi_gt, moved.valid))
    error, identity = torch.cat(found).mean().item(), torch.cat(nothing).mean().item()
    return {"epe": error, "epe_share": error / identity}


def report_progress(name: str, rows: list[dict[str, float]], epochs: int) -> None:
    """One line an epoch, on the first and last and about twenty times between, with the time left."""
    done = len(rows)
    if done not in (1, epochs) and done % max(1, epochs // 20):
        return
    left = (epochs - done) * sum(row["seconds"] for row in rows) / done
    error = next((f", validation EPE {row['epe']:.2f} px" for row in reversed(rows) if "epe" in row), "")
    print(f"{name}: epoch {done}/{epochs}, l_t {rows[-1]['l_t']:.3f}{error}, {left / 60:.0f} min left", flush=True)


def _rate(schedule: str, steps: int) -> Callable[[int], float]:
    if schedule == "constant":
        return lambda step: 1.0
    if schedule != "one-cycle":
        raise InputError(f"Unknown schedule {schedule!r}; choose 'constant' or 'one-cycle'.")
    rise = max(1, steps // 10)
    fall = max(1, steps - rise)
    return lambda step: min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * max(0, step - rise) / fall))


def _window(rng: np.random.Generator, size: torch.Size, crop: int | None) -> tuple:
    height, width = size
    if crop is None or crop >= min(height, width):
        return (...,)
    top, left = (int(rng.integers(0, side - crop + 1)) for side in (height, width))
    return (..., slice(top, top + crop), slice(left, left + crop))
