"""What results rest on, part by part, and the functions that make each part: the entry points that `source` follows."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

SYSTEMS = Path(__file__).resolve().parents[2] / "data" / "registry" / "methods"
LOSS = "-loss"  # ends the name of the component that a compared system is trained by

COMPONENTS = {
    # what training and test inputs are made of
    "images": ("fusionlib.data.open_set", "fusionlib.images"),
    "volumes": ("fusionlib.mri.open_slices",),
    "drawn-scenes": ("fusionlib.synthetic.scene",),
    "drawn-brains": ("fusionlib.brain.brain",),
    "labels": ("fusionlib.labels.boxes_of", "fusionlib.labels.labelled"),
    "deformation": ("fusionlib.deformation.misalign_by_key", "fusionlib.deformation.compose"),
    "hardships": ("fusionlib.stress.given", "fusionlib.stress.TRIALS"),
    # what makes weights
    "training": ("fusionlib.training.train",),
    "warm-start": ("fusionlib.starts.fitting", "fusionlib.starts.calibrate"),
    "detector": ("fusionlib.detectors.train_detector", "fusionlib.detection.Detector"),
    "retraining": ("fusionlib.retraining.train",),
    # what makes fused images
    "network": ("fusionlib.network.FusionNetwork", "fusionlib.methods.Ours"),
    "refinement": ("fusionlib.settling.SettledNetwork",),
    "classical": ("fusionlib.classical.register", "fusionlib.classical.REGISTRATIONS"),
    "simple-fusion": ("fusionlib.rules.RULES",),
    # what makes numbers
    "scores": ("fusionlib.evaluation.score", "fusionlib.evaluation.deform", "fusionlib.metrics.q_cc_bound"),
    "head-scores": ("fusionlib.mri_study.score", "fusionlib.mri_study.head"),
    "average-precision": ("fusionlib.detection_bench.scores", "fusionlib.detection_bench.fused"),
    "cost": ("fusionlib.profiling.count", "fusionlib.profiling.quick", "fusionlib.profiling.parameters"),
    "quick-metrics": ("fusionlib.metrics_many.fusion_metrics", "fusionlib.metrics_plain.fusion_metrics"),
}


def names() -> list[str]:
    """All components: those above, and of each compared system its network and its loss."""
    return [*COMPONENTS, *_systems()]


def entries(name: str) -> tuple[str, ...]:
    """The entry points of a component, as dotted names."""
    return COMPONENTS[name] if name in COMPONENTS else _systems()[name]


@cache
def _systems() -> dict[str, tuple[str, ...]]:
    found = {}
    for path in sorted(SYSTEMS.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        found[path.stem] = (facts["network"], facts["method"])
        if facts.get("budget"):
            found[path.stem + LOSS] = (facts["loss"],)
    return found
