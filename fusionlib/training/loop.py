"""Training: one plain loop that can be killed at any moment and goes on where it was.

No image depends on the state of a random generator (`fusionlib.training.batches`), so a resumed run ends in the same
weights as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
from fusionlib.support.long_training import may_start, refused, show_earlier
from fusionlib.support.machine import computes_in_bfloat16, peak_memory
from fusionlib.training.batches import Batch, batches
from fusionlib.training.recipe import Recipe, TrainingConfig
from fusionlib.training.resume import checkpoint_of, load_checkpoint, save_checkpoint, write_log
from fusionlib.training.weights import key_of, load_detector, load_network, save_weights

START = "registration"  # the name under which weights that others start from are kept


@dataclass(frozen=True)
class Trained:
    """Weights and where they come from.

    Attributes:
        network: ready to fuse.
        detector: the head that learned along, on the fused feature; None if the recipe has none.
        log: one row an epoch, see `train`; of a recipe with a start, its own epochs only.
        path: of the network's weights.
        reused: they were there already.
    """

    network: FusionNetwork
    detector: Detector | None
    log: pd.DataFrame
    path: Path
    reused: bool


def trained(
    recipe: Recipe,
    folder: Path,
    name: str = "ours",
    retrain: bool = False,
    device: str | None = None,
    allowed: bool = False,
) -> Trained:
    """The network of a recipe: from `folder`/`name`.safetensors if these weights were made by it, else trained now.

    A training of more than a minute has to be asked for, by `retrain` or as `long_training.asked` says. Unasked,
    weights of the same settings and of earlier code or data are taken as they are, and a line says so.

    Args:
        recipe: what to train; its start is looked for, and if need be trained, under the name `START`.
        folder: where weights, log (`name`.csv) and, until it ends, the checkpoint are kept. A detector lies beside
            them as `name`_detector.safetensors.
        retrain: train also if the weights are there; not the start, which several recipes share.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
        allowed: a long training may start, of the weights or of their start, where what is there does not fit.

    Raises:
        InputError: there are no weights of these settings, and nobody has asked for a training that is long.
    """
    path = Path(folder) / f"{name}.safetensors"
    head = detector_path(path)
    there = all(each.exists() for each in (path, path.with_suffix(".csv"), *([head] if recipe.detector else [])))
    start_now = retrain or allowed or may_start(recipe.minutes())
    if there and not retrain:
        changed, log = recipe.key().differing(key_of(path)), pd.read_csv(path.with_suffix(".csv"))
        if changed and not start_now and "settings" not in changed:
            show_earlier(name, changed, log["seconds"].sum() / 60)
        if not changed or (not start_now and "settings" not in changed):
            detector = load_detector(head) if recipe.detector else None
            return Trained(load_network(path), detector, log, path, reused=True)
    if not start_now:
        raise refused(f"The weights {path}", recipe.minutes())
    start = None
    if recipe.start is not None:
        start = trained(recipe.start, folder, START, device=device, allowed=retrain or allowed).network
    net, detector, log = train(recipe, path, device, start)
    return Trained(net, detector, log, path, reused=False)


def detector_path(path: Path) -> Path:
    """Where the detector that learned along with the network at `path` is kept."""
    return path.with_name(f"{path.stem}_detector.safetensors")


def train(
    recipe: Recipe, path: Path, device: str | None = None, start: FusionNetwork | None = None
) -> tuple[FusionNetwork, Detector | None, pd.DataFrame]:
    """Train a recipe and write weights to `path`, the log beside it; a checkpoint left by a killed run is taken up.

    Args:
        recipe: what to train.
        path: of the weights, `.safetensors`; log, checkpoint and detector lie beside it.
        device: as in `trained`.
        start: the network that the recipe's start has made; None begins with random weights.

    Returns:
        Network, detector or None, and the log. It has one row an epoch: the mean of each loss term, `epe` (validation,
        pixels), its share of the identity's `epe_share`, seconds, what part of them preparing the images took, and the
        most `memory` used so far, in GiB.

    Raises:
        InputError: the recipe has a start and none is given, the data or labels it needs are not there, or the loss is
            no number any more.
    """
    if (recipe.start is None) != (start is None):
        raise InputError("This recipe needs the weights of its start, and only such a recipe does: use `trained`.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    settings, key = recipe.training, recipe.key()
    pairs = open_set(recipe.dataset, "train", recipe.size, count=recipe.train_pairs)
    held_out = open_set(recipe.dataset, "val", recipe.size)

    model = Model(recipe, start).to(device, memory_format=torch.channels_last)  # on a CPU, 1.7 times as fast
    steps = max(1, len(pairs) // settings.batch)
    rows: list[dict[str, float]] = []

    if state := load_checkpoint(path, key, device):
        rows = state["rows"]
        optimiser, schedule = optimiser_of(model, settings, steps, epoch=len(rows) - 1)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        print(f"{path.stem}: going on after epoch {len(rows)} of {settings.epochs}", flush=True)

    for epoch in range(len(rows), settings.epochs):
        if epoch in (0, settings.epochs - settings.fusion_epochs):
            optimiser, schedule = optimiser_of(model, settings, steps, epoch)
        row = one_epoch(model, optimiser, schedule, pairs, recipe, epoch, device)
        if (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs:
            row |= validation_error(model.network, held_out, settings.validation_level, device)
        rows.append({"epoch": epoch + 1, **row})
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        save_checkpoint(path, key, state | {"rows": rows})
        report_progress(path.stem, rows, settings.epochs)

    model = model.to("cpu", memory_format=torch.contiguous_format).eval()
    log = write_log(path, rows)
    if model.detector is not None:
        halved = {
            name: value.half() if value.is_floating_point() else value
            for name, value in model.detector.state_dict().items()
        }
        model.detector.load_state_dict(halved)  # as it will be read again
        save_weights(detector_path(path), halved, asdict(recipe), key)
    save_weights(path, model.network.state_dict(), asdict(recipe), key)
    checkpoint_of(path).unlink()
    return model.network, model.detector, log


class Model(nn.Module):
    """What learns: the network and, where the recipe has one, the detection head on its fused feature."""

    def __init__(self, recipe: Recipe, start: FusionNetwork | None = None) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.network = FusionNetwork(recipe.network)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self.detector = recipe.detector and Detector(self.network.fused_channels, recipe.detector)

    def prepare(self, settings: TrainingConfig, fusion_alone: bool) -> None:
        """Put every part into the mode in which it learns, or rests, in this phase."""
        net = self.network
        self.train()
        for part in (net.ir_cfe, net.vi_cfe, net.ir_cseb, net.vi_cseb, net.msrb):
            part.requires_grad_(not fusion_alone).train(not fusion_alone)
        if settings.frozen_statistics:
            net.eval()
            for part in (net.ir_sfe, net.vi_sfe):  # what bounds Eq. (2) is that these are normalised by the batch
                part.train()

    def terms(self, batch: Batch, registration_alone: bool, fusion_alone: bool) -> dict[str, Tensor]:
        """The terms of Eq. (12) that count in this phase, unweighted."""
        # Only training sees the aligned infrared: its features are what Eqs. (1) and (2) compare.
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
        """l_ob, Eq. (8), over the pairs of the batch that somebody has labelled."""
        known = [i for i, found in enumerate(boxes) if found is not None]
        if not known:
            return output.fused.new_zeros(())
        return self.detector.loss(self.detector(output.fused[known]), [boxes[i] for i in known])


def optimiser_of(
    model: Model, settings: TrainingConfig, steps: int, epoch: int
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LambdaLR]:
    """Adam and its rate for the phase an epoch lies in: the fusion alone begins both anew."""
    first = settings.epochs - settings.fusion_epochs
    optimiser = torch.optim.Adam(model.parameters(), settings.learning_rate)
    rate = _rate(settings.schedule, steps * (settings.fusion_epochs if epoch >= first else first))
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate)


def one_epoch(model: Model, optimiser, schedule, pairs: PairSet, recipe: Recipe, epoch: int, device: str) -> dict:
    settings = recipe.training
    registration_alone = epoch < settings.registration_epochs
    fusion_alone = epoch >= settings.epochs - settings.fusion_epochs
    model.prepare(settings, fusion_alone)
    kind = torch.device(device).type
    half = kind in settings.mixed_precision and (kind != "cpu" or computes_in_bfloat16())
    sums: dict[str, float] = {}
    start = stepped = time.perf_counter()
    preparing, count = 0.0, 0
    for batch in batches(pairs, recipe, epoch, device):
        preparing += time.perf_counter() - stepped
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            terms = model.terms(batch, registration_alone, fusion_alone)
            terms["l_t"] = total_loss(terms, recipe.losses)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        if not math.isfinite(sums["l_t"]):  # told now: on a CPU, the gradient of a warp by NaN ends the process
            raise InputError(f"The loss is {terms['l_t'].item()} in epoch {epoch + 1}: lower the learning rate.")
        optimiser.zero_grad(set_to_none=True)
        terms["l_t"].backward()
        # Apart: a head that is new would else leave the network no step of its own.
        for part in model.children():
            torch.nn.utils.clip_grad_norm_(part.parameters(), settings.clip)
        optimiser.step()
        schedule.step()
        count += 1
        stepped = time.perf_counter()
    means = {name: value / count for name, value in sums.items()}
    seconds = stepped - start
    return {**means, "seconds": seconds, "preparing": preparing / seconds, "memory": peak_memory(device)}


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
