"""Training of the network: one plain loop over epochs, from a recipe to weights on disk.

A training can be killed at any moment: `Run` writes a checkpoint after each epoch, and no image depends on the state of
a random generator (`fusionlib.training.batches`), so a resumed training ends in the same weights as an uninterrupted
one. `fusionlib.training.shared_weights` trains only if the weights do not exist yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from fusionlib import metrics
from fusionlib.data import PairSet, open_set
from fusionlib.deformation import misalign_by_key
from fusionlib.detection import Detector
from fusionlib.losses import alignment_terms, fusion_terms, total_loss
from fusionlib.network import FusionNetwork, NetworkOutput
from fusionlib.support.files import InputError
from fusionlib.support.inputs import checked_device
from fusionlib.support.machine import exact_float32, peak_memory, uses_bfloat16
from fusionlib.support.weights import save_weights
from fusionlib.training.batches import Batch, batches, made_ahead
from fusionlib.training.compiled import compile_network
from fusionlib.training.recipe import Recipe, TrainingConfig
from fusionlib.training.run import Run
from fusionlib.training.schedules import one_cycle


def train(
    recipe: Recipe,
    path: Path,
    device: str | None = None,
    start: FusionNetwork | None = None,
    compiled: bool = False,
) -> tuple[FusionNetwork, Detector | None, pd.DataFrame]:
    """Train a recipe and write weights to `path`, the log beside it; goes on from the checkpoint of a killed run.

    Args:
        recipe: what to train.
        path: of the weights, `.safetensors`; log, checkpoint and detector lie beside it.
        device: as in `train_or_load`.
        start: the network that the recipe's start has made; None starts from random weights.
        compiled: let torch compile the network first, see `fusionlib.training.compiled`.

    Returns:
        Network, detector or None, and the log. It has one row per epoch: the mean of each loss term, `epe` (validation,
        pixels), its share of the identity's `epe_share`, seconds, what part of them preparing the images took, and the
        most `memory` used so far, in GiB.

    Raises:
        InputError: the recipe has a start and none is given, data or labels are missing, or the loss is NaN or
            infinite.
    """
    if (recipe.start is None) != (start is None):
        raise InputError("Give a start to a recipe that has one, and to no other; `train_or_load` does both.")
    device = checked_device(device)
    settings, key = recipe.training, recipe.key()
    pairs = open_set(recipe.dataset, "train", recipe.size, count=recipe.train_pairs)
    held_out = open_set(recipe.dataset, "val", recipe.size, count=settings.validation_pairs)

    model = Model(recipe, start).to(device, memory_format=torch.channels_last)  # on a CPU, 1.7 times as fast
    if compiled:
        compile_network(model.network)
    steps = max(1, len(pairs) // settings.batch)
    run = Run(path, key, settings.epochs)
    optimiser, schedule = optimiser_of(model, settings, steps, max(0, run.done - 1))
    run.restore(model=model, optimiser=optimiser, schedule=schedule)
    for epoch in range(run.done, settings.epochs):
        if epoch == settings.epochs - settings.fusion_epochs:
            optimiser, schedule = optimiser_of(model, settings, steps, epoch)
        row = one_epoch(model, optimiser, schedule, pairs, recipe, epoch, device, run.check)
        if (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs:
            row |= validation_error(model.network, held_out, settings.validation_level, device)
        run.add({"epoch": epoch + 1, **row}, model=model, optimiser=optimiser, schedule=schedule)

    model = model.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(True)
    if model.detector is not None:
        halved = {
            name: value.half() if value.is_floating_point() else value
            for name, value in model.detector.state_dict().items()
        }
        model.detector.load_state_dict(halved)  # the same as will be read from the file
        save_weights(detector_path(path), halved, asdict(recipe), key)
    log = run.finish(model.network.state_dict(), asdict(recipe))
    return model.network, model.detector, log


def detector_path(path: Path) -> Path:
    """File of the detector that was trained with the network at `path`."""
    return path.with_name(f"{path.stem}_detector.safetensors")


class Model(nn.Module):
    """What is trained: the network and, if the recipe has one, the detection head on its fused feature."""

    @torch.random.fork_rng(devices=[])  # the caller's random numbers go on as if nothing had been drawn
    def __init__(self, recipe: Recipe, start: FusionNetwork | None = None) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.network = FusionNetwork(recipe.network)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self.detector = recipe.detector and Detector(self.network.fused_channels, recipe.detector)

    def prepare(self, settings: TrainingConfig, fusion_alone: bool) -> None:
        """Put every part into training or evaluation mode, as this phase needs it."""
        net = self.network
        self.train()
        for part in (net.ir_cfe, net.vi_cfe, net.ir_cseb, net.vi_cseb, net.msrb):
            part.requires_grad_(not fusion_alone).train(not fusion_alone)
        if settings.frozen_statistics:
            net.eval()
            for part in (net.ir_sfe, net.vi_sfe):  # Eq. (2) has a lower bound only if the batch normalises these
                part.train()

    def terms(self, batch: Batch, registration_alone: bool, fusion_alone: bool) -> dict[str, Tensor]:
        """The terms of Eq. (12) of this phase, unweighted."""
        # Eqs. (1) and (2) compare features of the aligned infrared, which is known in training only.
        net = self.network
        if registration_alone:
            return alignment_terms(net.align(batch.moved, batch.vi), net.common_infrared(batch.ir), batch.phi_gt)
        output = net(batch.moved, batch.vi)
        terms = fusion_terms(output, net.ir_sfe(batch.ir), batch.ir, batch.vi)
        if not fusion_alone:
            terms |= alignment_terms(output.alignment, net.common_infrared(batch.ir), batch.phi_gt)
        if self.detector is not None:
            terms["l_ob"] = self._detection_loss(output, batch.boxes)
        return terms

    def _detection_loss(self, output: NetworkOutput, boxes: list[Tensor | None]) -> Tensor:
        """l_ob, Eq. (8), over the labelled pairs of the batch."""
        labelled = [i for i, target in enumerate(boxes) if target is not None]
        if not labelled:
            return output.fused.new_zeros(())
        fused = output.fused if len(labelled) == len(boxes) else output.fused[labelled]
        return self.detector.loss(self.detector(fused), [boxes[i] for i in labelled])


def optimiser_of(
    model: Model, settings: TrainingConfig, steps: int, epoch: int
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LambdaLR]:
    """Adam and its learning rate for the phase of an epoch; the last phase, fusion alone, has both of its own."""
    first = settings.epochs - settings.fusion_epochs
    optimiser = torch.optim.Adam(model.parameters(), settings.learning_rate)
    rate = _rate(settings.schedule, steps * (settings.fusion_epochs if epoch >= first else first))
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate)


def one_epoch(
    model: Model,
    optimiser: torch.optim.Adam,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    pairs: PairSet,
    recipe: Recipe,
    epoch: int,
    device: str,
    check: Callable[..., None] = lambda *_: None,
) -> dict[str, float]:
    """One pass over the pairs, in whole batches; a rest that fills none is left out.

    Gives the mean of each loss term, the seconds, the share of them spent on preparing images, and the memory in GiB.
    On a GPU, images are prepared while it learns, and the share is what was spent on waiting for them and for the GPU.

    `check` is `Run.check`, called with l_t and with the sum of the lengths of all gradients.
    """
    settings = recipe.training
    registration_alone = epoch < settings.registration_epochs
    fusion_alone = epoch >= settings.epochs - settings.fusion_epochs
    model.prepare(settings, fusion_alone)
    kind = torch.device(device).type
    half = uses_bfloat16(device, settings.mixed_precision)
    sums, lengths, names = 0.0, 0.0, []  # lengths: of the gradients, to notice one that is not finite
    start = stepped = time.perf_counter()
    preparing, count = 0.0, 0
    made = batches(pairs, recipe, epoch, device)
    for batch in made if kind == "cpu" else made_ahead(made):
        preparing += time.perf_counter() - stepped
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            terms = model.terms(batch, registration_alone, fusion_alone)
            terms["l_t"] = total_loss(terms, recipe.losses)
        # Summed on the device: to read a number back, a GPU has to wait for everything before it.
        names, sums = list(terms), sums + torch.stack([value.detach().double() for value in terms.values()])
        if kind == "cpu":  # here the gradient of a warp by NaN would end the process
            check(sums[-1].item(), epoch + 1)
        optimiser.zero_grad(set_to_none=True)
        terms["l_t"].backward()
        # Each on its own: the large gradients of an untrained head would leave the network almost no step.
        for part in model.children():
            lengths = lengths + torch.nn.utils.clip_grad_norm_(part.parameters(), settings.clip)
        optimiser.step()
        schedule.step()
        count += 1
        stepped = time.perf_counter()
    means = dict(zip(names, (sums / count).tolist(), strict=True)) if count else {}
    check(means.get("l_t", 0.0), epoch + 1)  # before the validation, and before a checkpoint holds spoilt weights
    check(float(lengths), epoch + 1, "gradient")
    seconds = stepped - start
    return {**means, "seconds": seconds, "preparing": preparing / seconds, "memory": peak_memory(device)}


@torch.no_grad()
def validation_error(net: FusionNetwork, pairs: PairSet, level: str, device: str = "cpu") -> dict[str, float]:
    """End-point error on held-out pairs, with the same deformations each time: `epe` in pixels, `epe_share` as a share
    of the identity's.
    """
    net.eval()
    errors, identity_errors = [], []
    for index, name in enumerate(pairs.names):
        ir, vi = (images.to(device) for images in pairs.stack([index]))
        moved = misalign_by_key(ir, level, [("validation", name)])
        with exact_float32():
            phi = net.align(moved.ir, vi).field
        errors.append(metrics.endpoint_error(phi, moved.phi_gt, moved.valid))
        identity_errors.append(metrics.endpoint_error(torch.zeros_like(phi), moved.phi_gt, moved.valid))
    error, identity = torch.cat(errors).mean().item(), torch.cat(identity_errors).mean().item()
    return {"epe": error, "epe_share": error / identity}


def _rate(schedule: str, steps: int) -> Callable[[int], float]:
    if schedule == "constant":
        return lambda step: 1.0
    return partial(one_cycle, rise=max(1, steps // 10), total=steps)
