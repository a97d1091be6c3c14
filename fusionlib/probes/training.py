"""Probes of the trainings: a few steps each, in float64 where rounding could look like a change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fusionlib.data import systems
from fusionlib.detection import DetectorConfig
from fusionlib.losses import LossWeights
from fusionlib.methods import retraining as other_trainings
from fusionlib.network import AS_IN_THE_PAPER, NetworkConfig
from fusionlib.probes.methods import random_network
from fusionlib.probes.views import DOUBLE, LOOSE, SINGLE, Pairs, Seen, pair, temporary_data_root
from fusionlib.support.weights import read_state
from fusionlib.training import anchor_detector as anchors
from fusionlib.training import augmentation as augmenting
from fusionlib.training import batches as making_batches
from fusionlib.training import detectors, loop
from fusionlib.training import warm_start as starts
from fusionlib.training.recipe import Recipe, TrainingConfig

ALL_LEVELS = ("light", "medium", "heavy", "cameras")
PHASES = TrainingConfig(
    epochs=3,
    batch=4,
    registration_epochs=1,
    fusion_epochs=1,
    crop=48,
    crop_epochs=1,
    levels=ALL_LEVELS,
    validate_every=2,
    mixed_precision=(),
)
RECIPES = {
    "ours": Recipe(size=64, training=PHASES),
    "plain": Recipe(
        size=64,
        network=AS_IN_THE_PAPER,
        losses=LossWeights(coarse=0.0, matching=0.0),
        training=replace(PHASES, registration_epochs=0, fusion_epochs=0, schedule="constant", crop=None, epochs=1),
    ),
    "statistics at rest": Recipe(
        size=64, seed=3, training=replace(PHASES, frozen_statistics=True, flip=False, registration_epochs=0, epochs=2)
    ),
}
DETECTOR = DetectorConfig(begin_small=True)


def training() -> Iterator[Seen]:
    """Every phase in float64, single batches, and a complete training with a detector."""
    for name, recipe in RECIPES.items():
        yield from _in_double(name, recipe)
    with temporary_data_root():
        recipe = replace(RECIPES["ours"], dataset="RoadScene", train_pairs=6, detector=DETECTOR)
        pairs = loop.open_set("RoadScene", "train", 64, count=6)
        for epoch in (0, 1):
            for number, batch in enumerate(making_batches.batches(pairs, recipe, epoch)):
                yield f"batch {epoch} {number} images", torch.cat([batch.ir, batch.vi, batch.moved]), SINGLE
                yield f"batch {epoch} {number} truth", batch.phi_gt, SINGLE
                labelled = [one for one in batch.boxes if one is not None]
                yield f"batch {epoch} {number} boxes", torch.cat(labelled) if labelled else 0, SINGLE
        with TemporaryDirectory() as folder:
            net, head, log = loop.train(recipe, Path(folder, "whole.safetensors"), "cpu")
        yield from _of_log("whole", log)
        yield "whole image", _fused(net), 3e-2
        yield "whole detector", torch.stack([weight.float().norm() for weight in head.parameters()]), 2e-2


def _in_double(name: str, recipe: Recipe) -> Iterator[Seen]:
    """One step of every epoch, each from initial weights: Adam's first step amplifies rounding errors."""
    pairs, settings = Pairs(4), recipe.training
    for epoch in range(settings.epochs):
        model = loop.Model(recipe).double()
        before = [weight.detach().clone() for weight in model.parameters()]
        optimiser, schedule = loop.optimiser_of(model, settings, 2, epoch)
        row = loop.one_epoch(model, optimiser, schedule, pairs, recipe, epoch, "cpu")
        _, long = loop.optimiser_of(model, settings, 40, epoch)
        yield f"{name} {epoch} rate", [long.lr_lambdas[0](step) for step in range(0, 120, 3)], DOUBLE
        for term, value in row.items():
            if term.startswith("l_"):
                yield f"{name} {epoch} {term}", value, 1e-5
        for part, module in model.network.named_children():
            slopes = [weight.grad.norm() for weight in module.parameters() if weight.grad is not None]
            yield f"{name} {epoch} gradient of {part}", torch.stack(slopes).norm() if slopes else 0.0, 1e-3
        moved = torch.cat([(new - old).flatten() for new, old in zip(model.parameters(), before, strict=True)])
        yield f"{name} {epoch} step", moved.detach().norm(), 1e-2
    error = loop.validation_error(model.network.float(), Pairs(3, torch.float32), "medium")
    yield f"{name} validation", list(error.values()), 1e-2


def _of_log(name: str, log: pd.DataFrame) -> Iterator[Seen]:
    for column in log.select_dtypes("number"):
        if column.startswith("l_") or column in ("epoch", "epe", "epe_share"):
            yield f"{name} {column}", log[column].to_numpy(), 2e-2


def _fused(net: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return net.eval()(*pair(1, 64, 64, torch.float32)).image


def augmentation() -> Iterator[Seen]:
    """Every step of it, on several pairs."""
    for number in range(8):
        ir, vi = (image[0] for image in pair(number, 64, 64, torch.float32))
        rng = np.random.default_rng(number)
        for step in (augmenting.before_deformation, augmenting.after_deformation):
            ir, vi = step(ir, vi, augmenting.Augmentation(), rng)
            yield f"{number} {step.__name__}", torch.cat([ir, vi]), LOOSE


def warm_start() -> Iterator[Seen]:
    """The initial weights of the third ablation, and its calibrated statistics."""
    whole = random_network(NetworkConfig()).float().state_dict()
    recipe = replace(
        RECIPES["ours"], dataset="RoadScene", train_pairs=6, network=replace(NetworkConfig(), common_in_fusion=False)
    )
    with temporary_data_root():
        net, cut = starts.warm_start(recipe, whole)
        starts.calibrate(net, cut, recipe, count=2)
    yield "cut", len(cut), DOUBLE
    yield "image", _fused(net), SINGLE
    for name, value in net.head.state_dict().items():
        yield name, value, SINGLE


def detector() -> Iterator[Seen]:
    """A detector of two epochs with windows and mosaics, its log, and its detections at a low threshold."""
    images = torch.cat([pair(number, 64, 64, torch.float32)[1] for number in range(4)])
    boxes = [torch.tensor([[number % 3, 8.0, 10 + number, 40, 50]]) for number in range(3)] + [None]
    config = detectors.DetectorTraining(epochs=2, batch=2, side=64, mosaic=0.5)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        path = Path(folder, "detector.safetensors")
        net = detectors.train_detector(images, boxes, config, 1, path, device="cpu")
        log = pd.read_csv(path.with_suffix(".csv"))
    yield "losses", log["l_ob"].to_numpy(), 1e-2
    for epoch in range(2):
        windows = list(detectors.batches(images[:3], boxes[:3], config, 1, epoch))
        yield f"windows {epoch}", torch.cat([view for view, _ in windows]), SINGLE
        yield f"boxes {epoch}", torch.cat([box for _, window_boxes in windows for box in window_boxes]), SINGLE
    yield "weights", torch.stack([weight.float().norm() for weight in net.parameters()]), LOOSE
    fresh = detectors.Detector(1, replace(DETECTOR, begin_small=False)).eval()
    window_boxes = fresh.detect(images[:2])
    yield "found", [len(each) for each in window_boxes], 0.2
    yield "scores", torch.cat(window_boxes)[:, 1] if sum(map(len, window_boxes)) else 0, 0.2


def anchor_detector() -> Iterator[Seen]:
    """Of made-up outputs the loss, its gradient and the decoded boxes; and what published weights become."""
    detector = anchors.AnchorDetector(1).eval()
    detector.net.model[-1].anchors.copy_(1 + 8 * _waves(3, 3, 2).abs())
    grids = [(4 * _waves(2, 3, 8, 64 // stride, 96 // stride)).requires_grad_() for stride in anchors.STRIDES]
    made = anchors.Anchored(grids, (60, 90))
    boxes = [torch.tensor([[0, 8.0, 10, 40, 50], [2, 60, 20, 89, 44]]), torch.tensor([[1, 3.0, 2, 11, 20]])]
    loss = detector.loss(made, boxes)
    yield "loss", loss.item(), SINGLE
    for number, gradient in enumerate(torch.autograd.grad(loss, grids)):
        yield f"gradient {number}", gradient, 1e-4
    with torch.no_grad():
        corners, scores = detector._decoded(made)
    yield "corners", corners, SINGLE
    yield "scores", scores, SINGLE

    centre, size = 1 + 2 * (1 + _waves(40, 2)), 2 + _waves(40, 2)
    cells = anchors.responsible(centre, size, 2 + _waves(3, 2), (5, 5))
    yield "cells", torch.cat([part.flatten() for part in cells]), SINGLE

    state = anchors.AnchorDetector(3).state_dict()
    published = {name.removeprefix("net."): _waves(*value.shape) for name, value in state.items()}
    for name, value in published.items():
        if ".24.m." in name:
            published[name] = _waves(255, *value.shape[1:])
    with mock.patch.object(anchors.coco, "tensors", lambda: published):
        changed = anchors.AnchorDetector.published(2)
        other = anchors.AnchorDetector.published(1, replace(DETECTOR, names=("truck", "lamp"), start="coco"))
    yield "first", changed.net.model[0].conv.weight, SINGLE
    yield "head", torch.cat([layer.weight.flatten() for layer in changed.net.model[-1].m]), SINGLE
    yield "other classes", torch.cat([layer.bias for layer in other.net.model[-1].m]), SINGLE
    images = torch.cat([pair(number, 64, 64, torch.float32)[1] for number in range(2)])
    detections = torch.cat(detector.detect(images, enlarged=anchors.ENLARGED))
    yield "found", [len(detections), float(detections[:, 1].max()) if len(detections) else 0.0], 0.2


def _waves(*shape: int) -> Tensor:
    """Numbers in [-1, 1] that are the same on every machine."""
    count = torch.tensor(shape).prod().item()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.7 + 0.3).float().reshape(shape)


def retraining() -> Iterator[Seen]:
    """The common protocol: a few steps of one system of every kind, as `retrain` runs them."""
    with temporary_data_root():
        for name, crop in (("datfuse", 48), ("corrmlp", 64)):
            settings = other_trainings.Retraining(
                name, "RoadScene", 64, 6, ALL_LEVELS, 2, systems.Budget(steps=3, batch=2, crop=crop), anew=True
            )
            with TemporaryDirectory() as folder:
                path = Path(folder, "weights.safetensors")
                log = other_trainings.train(settings, path, "cpu")
                state = read_state(path)
            yield f"{name} losses", log["loss"].to_numpy(), LOOSE
            norms = [value.float().norm() for value in state.values() if value.is_floating_point()]
            yield f"{name} weights", torch.stack(norms), LOOSE
            batch = next(other_trainings.batches(loop.open_set("RoadScene", "train", 64, count=6), settings, done=1))
            yield f"{name} lesson", torch.cat([batch.ir, batch.vi, batch.moved]), SINGLE
