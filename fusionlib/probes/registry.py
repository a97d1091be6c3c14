"""The probe of each component."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from fusionlib.probes import inputs, methods, numbers, systems, training
from fusionlib.probes.views import Seen, view
from fusionlib.support.behaviour.components import LOSS

PROBES: dict[str, Callable[[], Iterator[Seen]]] = {
    "images": inputs.images,
    "volumes": inputs.volumes,
    "drawn-scenes": inputs.drawn_scenes,
    "drawn-brains": inputs.drawn_brains,
    "labels": inputs.labels,
    "raw-frames": inputs.raw_frames,
    "deformation": inputs.deformation,
    "hardships": inputs.hardships,
    "nothing": inputs.nothing,
    "training": training.training,
    "augmentation": training.augmentation,
    "warm-start": training.warm_start,
    "detector": training.detector,
    "anchor-detector": training.anchor_detector,
    "retraining": training.retraining,
    "network": methods.network,
    "refinement": methods.refinement,
    "confidence": methods.confidence,
    "classical": methods.classical,
    "simple-fusion": methods.simple_fusion,
    "scores": numbers.scores,
    "head-scores": numbers.head_scores,
    "label-accuracy": numbers.label_accuracy,
    "error-parts": numbers.error_parts,
    "average-precision": numbers.average_precision,
    "cost": numbers.cost,
}


def see(component: str) -> dict[str, list[float]]:
    """The numbers of the probe of a component, by name: see `views.view`."""
    torch.manual_seed(0)
    probe = PROBES.get(component)
    if probe is None:
        system_probe = systems.loss if component.endswith(LOSS) else systems.network
        values = system_probe(component.removesuffix(LOSS))
    else:
        values = probe()
    return {name: view(value, tolerance) for name, value, tolerance in values}
