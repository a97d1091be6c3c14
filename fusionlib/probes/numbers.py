"""Probes of the scores: the metrics, the scores in a head, blocks, parts of errors, average precision, operations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fusionlib import metrics
from fusionlib.benches import DetectionBenchConfig
from fusionlib.data import Pair, PairSet
from fusionlib.deformation import misalign_by_key, warp
from fusionlib.experiments import detection_bench as bench
from fusionlib.experiments import error_parts as residual
from fusionlib.experiments import evaluation, mri_study, profiling
from fusionlib.experiments import label_accuracy as blocks
from fusionlib.methods.protocol import Fused
from fusionlib.probes.views import DOUBLE, SINGLE, Seen, pair, temporary_data_root


class _Known:
    """A method that moves half of the way and averages."""

    name = "known"

    def __init__(self, phi: Tensor) -> None:
        self.phi = phi

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        registered = warp(ir, 0.5 * self.phi)
        return Fused((0.6 * registered + 0.4 * vi).clamp(0, 1), 0.5 * self.phi, registered)


def scores() -> Iterator[Seen]:
    """Every number of two methods on deformed pairs, and the bound of the correlation."""
    for number, dtype in ((0, torch.float64), (3, torch.float32)):
        ir, vi = pair(number, 64, 80, dtype)
        moved = misalign_by_key(ir, "medium", [("test", 0, str(number))])
        yield f"{number} deform", evaluation.deform(ir, str(number), "heavy", seed=2).phi_gt, SINGLE
        for name, method in {"half": _Known(moved.phi_gt), "none": _Averaging()}.items():
            for what, value in evaluation.score(method, ir, vi, moved).items():
                if what != "seconds":
                    yield f"{number} {name} {what}", value, SINGLE
        yield f"{number} bound", metrics.q_cc_bound(ir, vi), SINGLE


class _Averaging:
    name = "averaging"

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        return Fused((ir + vi) / 2)


def head_scores() -> Iterator[Seen]:
    """The scores in the box around a head, of a slice that is empty beyond it."""
    t2, t1 = pair(4, 72, 72)
    rows, columns = torch.meshgrid(torch.arange(72), torch.arange(72), indexing="ij")
    head = ((rows - 34) ** 2 / 1.4 + (columns - 37) ** 2 < 22**2).double()
    t2, t1 = t2 * head, t1 * head
    moved = misalign_by_key(t2, "medium", [("test", 0, "head")])
    yield "mask", mri_study.head(t2, t1).double(), DOUBLE
    for what, value in mri_study.score(_Known(moved.phi_gt), t2, t1, moved).items():
        if what != "seconds":
            yield what, value, SINGLE


def label_accuracy() -> Iterator[Seen]:
    """The errors at matched blocks of a pair that is misaligned by a known shift."""
    vi = pair(8, 128, 128, torch.float32)[1]
    ir = warp(vi, torch.tensor([-1.6, 0.7]).view(1, 2, 1, 1).expand(1, 2, 128, 128))
    pairs = PairSet(["0"], lambda name: Pair(name, ir[0], vi[0], vi[0].expand(3, -1, -1)))
    method = _Known(evaluation.deform(ir, "0", "medium").phi_gt)
    table = blocks.at_blocks([method], pairs, "medium")
    for column in table:
        yield column, table[column].to_numpy(), 1e-3


def error_parts() -> Iterator[Seen]:
    """The parts of what a method with one fixed field leaves of three deformations."""
    ir, vi = (image[0].float() for image in pair(9, 64, 80))
    pairs = PairSet(["0"], lambda name: Pair(name, ir, vi, vi.expand(3, -1, -1)))
    table = residual.parts(_Known(evaluation.deform(ir[None], "0", "medium").phi_gt), pairs, "heavy", 3)
    yield "parts", table.to_numpy(), SINGLE


def average_precision() -> Iterator[Seen]:
    """The rows of an artificial detector with shifted, doubled, missed and false boxes."""
    rng = np.random.default_rng(3)

    def find(ir: Tensor, vi: Tensor) -> list[Tensor]:
        corners = rng.uniform(0, 40, (6, 2))
        made_up = np.concatenate([rng.integers(0, 3, (6, 1)), corners, corners + rng.uniform(5, 24, (6, 2))], 1)
        made_up = np.concatenate([made_up[:, :1], rng.uniform(0, 1, (6, 1)), made_up[:, 1:]], 1)
        truth_boxes = truth[len(means) % len(truth)]
        if len(truth_boxes):
            jitter = truth_boxes[:, 1:].numpy() + rng.normal(0, 0.4, (len(truth_boxes), 4))
            near_boxes = np.concatenate(
                [truth_boxes[:, :1].numpy(), rng.uniform(0.3, 1, (len(truth_boxes), 1)), jitter], 1
            )
            made_up = np.concatenate([made_up, near_boxes])
        means.append(ir.mean().item())
        return [torch.from_numpy(made_up).float()]

    with temporary_data_root():
        config = replace(DetectionBenchConfig(), tests=(("RoadScene", "RoadScene", ("val", "test")),), size=64, count=9)
        truth = [box for split in ("val", "test") for box in bench.labelled("RoadScene", split, 64, 9).boxes]
        means: list[float] = []
        detections = {
            title: [find(*images)[0] for part in parts for images in part.deformed(config.level)]
            for title, parts in bench.tested(config).items()
        }
        rows = bench.scores(detections, config)
        for what in rows.select_dtypes("number"):
            yield what, rows[what].to_numpy(), SINGLE
        yield "given", means, SINGLE
        half = {title: [each[: len(each) // 2] for each in found] for title, found in detections.items()}
        one, other = (bench.differences.draws([found], config) for found in (detections, half))
        yield "difference over scenes", bench.differences.over_scenes(one, other)["deviation"].to_numpy(), SINGLE
        fused = bench.fused(_Averaging(), bench.labelled("RoadScene", "val", 64, 3), "medium")
        yield "fused", fused, SINGLE


def cost() -> Iterator[Seen]:
    """Counted operations and parameters of Ours, and the result of its fast form."""
    method = profiling.fresh("ours")
    counts = profiling.count(profiling.Whole(method), *profiling.pair(64))
    yield "counts", [number or 0 for number in vars(counts).values()], DOUBLE
    yield "parameters", list(profiling.parameters(method).values()), DOUBLE
    yield "pair", torch.cat(profiling.pair(64)), SINGLE
    torch.manual_seed(0)
    fused = profiling.quick("ours").fuse(*profiling.pair(64))
    yield "fast image", fused.image, 1e-3
    yield "fast field", fused.field, 1e-3
