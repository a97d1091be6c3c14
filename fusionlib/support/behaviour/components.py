"""The components of the code behind results, each with its entry points: the functions that `source` starts from."""

from __future__ import annotations

import json
from functools import cache

from fusionlib.support.paths import SYSTEMS

LOSS = "-loss"  # suffix of the component that holds the training loss of a compared system

COMPONENTS = {
    # training and test inputs
    "images": ("fusionlib.data.open_set", "fusionlib.data.images"),
    "volumes": ("fusionlib.data.volumes.open_slices",),
    "drawn-scenes": ("fusionlib.data.drawn.synthetic.scene",),
    "drawn-brains": ("fusionlib.data.drawn.brain.brain",),
    "labels": ("fusionlib.data.labels.boxes_of", "fusionlib.data.labels.labelled"),
    "raw-frames": ("fusionlib.data.raw_pairs.RawSet",),
    "deformation": ("fusionlib.deformation.misalign_by_key", "fusionlib.deformation.compose"),
    "hardships": ("fusionlib.experiments.robustness.method_inputs", "fusionlib.experiments.robustness.TRIALS"),
    "nothing": ("fusionlib.experiments.robustness.NOTHING",),
    # weights
    "training": ("fusionlib.training.train",),
    "augmentation": (
        "fusionlib.training.augmentation.before_deformation",
        "fusionlib.training.augmentation.after_deformation",
    ),
    "warm-start": ("fusionlib.training.warm_start.warm_start", "fusionlib.training.warm_start.calibrate"),
    "detector": ("fusionlib.training.detectors.train_detector", "fusionlib.detection.Detector"),
    "anchor-detector": ("fusionlib.training.anchor_detector.AnchorDetector",),
    "retraining": ("fusionlib.methods.retraining.train",),
    # fused images
    "network": ("fusionlib.network.FusionNetwork", "fusionlib.methods.Ours"),
    "refinement": ("fusionlib.methods.field_refinement.RefinedNetwork",),
    "confidence": (
        "fusionlib.methods.field_confidence.cues",
        "fusionlib.methods.field_confidence.field_confidence",
        "fusionlib.experiments.reliability.logistic",
        "fusionlib.experiments.reliability._measure",
    ),
    "classical": ("fusionlib.methods.classical.register", "fusionlib.methods.classical.REGISTRATIONS"),
    "simple-fusion": ("fusionlib.methods.simple_fusion.RULES",),
    # scores
    "scores": (
        "fusionlib.experiments.evaluation.score",
        "fusionlib.experiments.evaluation.deform",
        "fusionlib.metrics.q_cc_bound",
    ),
    "head-scores": ("fusionlib.experiments.mri_study.score", "fusionlib.experiments.mri_study.head"),
    "label-accuracy": ("fusionlib.experiments.label_accuracy.at_blocks",),
    "error-parts": ("fusionlib.experiments.error_parts.parts",),
    "average-precision": (
        "fusionlib.experiments.detection_bench.scoring.scores",
        "fusionlib.experiments.detection_bench.differences.over_scenes",
        "fusionlib.experiments.detection_bench.differences.draws",
        "fusionlib.experiments.detection_bench.images.fused",
    ),
    "cost": (
        "fusionlib.experiments.profiling.count",
        "fusionlib.experiments.profiling.quick",
        "fusionlib.experiments.profiling.parameters",
    ),
}


def names() -> list[str]:
    """All components: those above, and of each compared system its network and its loss."""
    return [*COMPONENTS, *_systems()]


def entries(name: str) -> tuple[str, ...]:
    """The entry points of a component, as dotted names."""
    return COMPONENTS[name] if name in COMPONENTS else _systems()[name]


@cache
def _systems() -> dict[str, tuple[str, ...]]:
    entries_of = {}
    for path in sorted(SYSTEMS.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        entries_of[path.stem] = (facts["network"], facts["method"])
        if facts.get("budget"):
            entries_of[path.stem + LOSS] = (facts["loss"],)
    return entries_of
