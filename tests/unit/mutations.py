"""Changes of the library's code: those that leave its behaviour as it was, and those that every probe has to notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A place in a file of the library and what is put there.

    Attributes:
        name: of the edit.
        file: below `fusionlib`.
        old, new: the text, which occurs once at least; all of its occurrences change.
        component: whose probe has to notice; "" for an edit that changes nothing.
    """

    name: str
    file: str
    old: str
    new: str
    component: str = ""


UNUSED = '\n\ndef nobody_calls_this(x: int) -> int:\n    """Not used."""\n    return 2 * x\n'

# What maintenance does every day, in the modules of the method and of its data.
NEUTRAL = (
    Edit(
        "reworded error, network",
        "network.py",
        "give odd sides, which have a middle",
        "odd sides have a middle",
    ),
    Edit("reworded error, losses", "training/recipe.py", "are together more than epochs", "add up to more than epochs"),
    Edit(
        "reworded error, training",
        "training/loop.py",
        "Give a start to a recipe that has one, and to no other",
        "A recipe that has a start needs one, and no other does",
    ),
    Edit(
        "reworded error, deformation",
        "support/random_fields.py",
        "Unknown deformation level",
        "There is no deformation level",
    ),
    Edit(
        "reworded error, data",
        "data/sets.py",
        "is not a folder: give the folder that holds",
        "is no folder: name the one of",
    ),
    Edit(
        "annotation, network",
        "network.py",
        "config: NetworkConfig | None = None",
        'config: "NetworkConfig | None" = None',
    ),
    Edit(
        "annotation, losses",
        "losses.py",
        "def sobel(image: Tensor) -> Tensor",
        "def sobel(image: torch.Tensor) -> Tensor",
    ),
    Edit(
        "annotation, training",
        "training/loop.py",
        "preparing, count = 0.0, 0",
        "preparing, count = 0.0, 0  # seconds, steps",
    ),
    Edit(
        "annotation, deformation",
        "support/random_fields.py",
        "key: object, device: torch.device | str)",
        "key, device)",
    ),
    Edit("annotation, data", "data/sets.py", "def _extent(image: Tensor) -> str", "def _extent(image) -> str"),
    Edit(
        "moved import, network",
        "network.py",
        "import torch.nn.functional as F\n",
        "from torch.nn import functional as F\n",
    ),
    Edit(
        "moved import, losses",
        "losses.py",
        "import torch.nn.functional as F\n",
        "from torch.nn import functional as F\n",
    ),
    Edit(
        "moved import, training",
        "training/loop.py",
        "from fusionlib import metrics\n",
        "import fusionlib.metrics as metrics\n",
    ),
    Edit(
        "moved import, deformation",
        "support/random_fields.py",
        "from functools import cache\n",
        "import functools\nfrom functools import cache\n",
    ),
    Edit(
        "moved import, data",
        "data/sets.py",
        "from fusionlib.data.drawn.synthetic import scene\n",
        "from fusionlib.data.drawn.synthetic import scene as scene\n",
    ),
    Edit(
        "renamed local, network",
        "network.py",
        "round(length * reduced / m)) * m for length in",
        "round(one * reduced / m)) * m for one in",
    ),
    Edit("renamed local, losses", "losses.py", "matches", "found"),
    Edit("renamed local, training", "training/loop.py", "stepped", "since"),
    Edit("renamed local, deformation", "support/random_fields.py", "turned", "rotated"),
    Edit("renamed local, data", "data/sets.py", "stored", "held"),
    *(
        Edit(f"unused function, {file}", file, "\n\ndef ", UNUSED + "\n\ndef ")
        for file in ("network.py", "losses.py", "training/loop.py", "deformation.py", "data/sets.py")
    ),
)

# Rewritten, with the same result but for rounding: the source differs, and the probe has to say that it is the same.
REWRITTEN = (
    Edit(
        "difference the other way",
        "losses.py",
        "(fused - torch.maximum(ir, vi)).abs()",
        "(torch.maximum(ir, vi) - fused).abs()",
    ),
    Edit("half as a factor", "network.py", "+ 1) / 2", "+ 1) * 0.5"),
)

CHANGED = (
    Edit("slope 0.2 -> 0.21", "registration.py", "nn.LeakyReLU(0.2)", "nn.LeakyReLU(0.21)", "network"),
    Edit("slope, in training", "registration.py", "nn.LeakyReLU(0.2)", "nn.LeakyReLU(0.21)", "training"),
    Edit(
        "another padding",
        "registration.py",
        "stride, padding=1, bias=False",
        'stride, padding=1, padding_mode="reflect", bias=False',
        "network",
    ),
    Edit("border of a warp", "deformation.py", '"bilinear", "border"', '"bilinear", "zeros"', "deformation"),
    Edit(
        "field negated instead of inverted",
        "deformation.py",
        "phi_gt = invert(psi, tolerance)",
        "phi_gt = -psi",
        "deformation",
    ),
    Edit(
        "fields added instead of composed",
        "deformation.py",
        "return then + warp(first, then)",
        "return then + first",
        "deformation",
    ),
    Edit("rotation the other way", "support/random_fields.py", "sin * x + cos * y", "cos * y - sin * x", "deformation"),
    Edit("a draw more", "deformation.py", "range(8)", "range(1, 9)", "deformation"),
    Edit(
        "cameras, seen in training alone",
        "support/random_fields.py",
        "scale=0.08, perspective=0.02",
        "scale=0.08, perspective=0.021",
        "training",
    ),
    Edit(
        "order of concatenated features",
        "network.py",
        "[common_ir, specific_ir, aligned.common_vi, specific_vi]",
        "[specific_ir, common_ir, aligned.common_vi, specific_vi]",
        "network",
    ),
    Edit(
        "order, in training",
        "network.py",
        "[common_ir, specific_ir, aligned.common_vi, specific_vi]",
        "[specific_ir, common_ir, aligned.common_vi, specific_vi]",
        "training",
    ),
    Edit("weight of near structure", "support/inputs.py", "near + 0.02", "near + 0.021", "network"),
    Edit(
        "registration size",
        "network.py",
        "side / torch.sym_sqrt(height * width)",
        "side / torch.sym_sqrt(height * width + 2000)",
        "network",
    ),
    Edit("a dropped term", "losses.py", '"l_s": weights.specific', '"l_s": 0 * weights.specific', "training"),
    Edit(
        "sign of a term",
        "losses.py",
        "return -(specific_ir - specific_vi).abs().mean()",
        "return (specific_ir - specific_vi).abs().mean()",
        "training",
    ),
    Edit(
        "weaker edges of two",
        "losses.py",
        "torch.maximum(sobel(ir), sobel(vi))",
        "torch.minimum(sobel(ir), sobel(vi))",
        "training",
    ),
    Edit(
        "squared field error",
        "losses.py",
        "return (phi - phi_gt).abs().mean()",
        "return (phi - phi_gt).square().mean()",
        "training",
    ),
    Edit(
        "clip of half",
        "training/loop.py",
        "part.parameters(), settings.clip)",
        "part.parameters(), settings.clip / 2)",
        "training",
    ),
    Edit(
        "clip left out",
        "training/loop.py",
        "torch.nn.utils.clip_grad_norm_(part.parameters(), settings.clip)",
        "pass",
        "training",
    ),
    Edit("rise of the rate", "training/loop.py", "steps // 10", "steps // 9 + 1", "training"),
    Edit("statistics not at rest", "training/loop.py", "if settings.frozen_statistics:", "if False:", "training"),
    Edit(
        "fusion phase trains all",
        "training/loop.py",
        "part.requires_grad_(not fusion_alone)",
        "part.requires_grad_(True)",
        "training",
    ),
    Edit(
        "mirror of the visible alone",
        "training/batches.py",
        "for images in (ir, vi))\n        # A label",
        "for images in (ir.flip(-1), vi))\n        # A label",
        "training",
    ),
    Edit("crop elsewhere", "training/batches.py", "side - crop + 1", "side - crop", "training"),
    Edit(
        "boxes not cropped",
        "training/batches.py",
        "boxes.flip(found, width) if flipped else found",
        "found",
        "training",
    ),
    Edit("resize filter", "data/images.py", "Image.Resampling.BICUBIC", "Image.Resampling.LANCZOS", "images"),
    Edit(
        "luma by another standard",
        "data/images.py",
        'return to_tensor(_picture(rgb).convert("L"))',
        "return (rgb * torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)).sum(0, keepdim=True)",
        "images",
    ),
    Edit("percentile of a stretch", "data/stretch.py", "(0.1, 99.9)", "(0.2, 99.9)", "images"),
    Edit(
        "white of a volume",
        "data/volumes.py",
        "np.percentile(volume[volume > 0], BRIGHTEST)",
        "volume.max()",
        "volumes",
    ),
    Edit("light at night", "data/drawn/synthetic.py", "0.5", "0.51", "drawn-scenes"),
    Edit("box at the border", "support/boxes.py", "u / w + 0.5", "u / w", "labels"),
    Edit("window of SSIM", "metrics/images.py", "WINDOW = 11", "WINDOW = 9", "scores"),
    Edit("constant of SSIM", "metrics/fusion.py", "(0.03 * 255) ** 2", "(0.02 * 255) ** 2", "scores"),
    Edit("place of a raw frame", "data/raw_pairs.py", "-0.5 - shift", "-0.4 - shift", "raw-frames"),
    Edit("side of a block", "experiments/label_accuracy.py", "SIDE = 41", "SIDE = 31", "label-accuracy"),
    Edit("mean of the others", "experiments/error_parts.py", ".clamp(min=1)", ".clamp(min=2)", "error-parts"),
    Edit("margin of a head", "experiments/mri_study.py", "MARGIN = 4", "MARGIN = 5", "head-scores"),
    Edit(
        "thresholds of AP",
        "metrics/average_precision.py",
        "0.5 + 0.05 * step",
        "0.5 + 0.04 * step",
        "average-precision",
    ),
    Edit("mean over thresholds", "metrics/average_precision.py", "slice(9)", "slice(8)", "average-precision"),
    Edit("lamps in the picture", "experiments/robustness.py", "LAMP = 0.04", "LAMP = 0.05", "hardships"),
    Edit(
        "noise of the refinement",
        "methods/field_refinement.py",
        "noise: float = 0.0035",
        "noise: float = 0.005",
        "refinement",
    ),
    Edit(
        "evidence squared", "methods/field_refinement.py", "above.clamp(0, 1)", "above.clamp(0, 1) ** 2", "refinement"
    ),
    Edit("confidence without the match", "methods/field_confidence.py", "[around.log(),", "[0 * around,", "confidence"),
    Edit("farther is right", "methods/field_confidence.py", "WITHIN = 1 / 256", "WITHIN = 1 / 128", "confidence"),
    Edit("another constant", "experiments/robustness.py", "full_like(ir, 0.5)", "full_like(ir, 0.4)", "nothing"),
    Edit(
        "tolerance of ECC",
        "methods/classical.py",
        "motion[:2, 2].reshape(2, 1, 1)",
        "1.1 * motion[:2, 2].reshape(2, 1, 1)",
        "classical",
    ),
    Edit(
        "middle of two pyramids",
        "methods/simple_fusion.py",
        "image = (rest_ir + rest_vi) / 2",
        "image = rest_ir",
        "simple-fusion",
    ),
    Edit(
        "seed of a retraining",
        "methods/retraining.py",
        "torch.manual_seed(seed)",
        "torch.manual_seed(seed + 1)",
        "retraining",
    ),
    Edit(
        "share of mosaics",
        "training/detectors.py",
        "rng.random() < config.mosaic",
        "rng.random() >= config.mosaic",
        "detector",
    ),
    Edit("which anchors fit a box", "training/anchor_detector.py", "FITS = 4.0", "FITS = 3.0", "anchor-detector"),
    Edit(
        "the nearest neighbours of a cell",
        "training/anchor_detector.py",
        "[[0, 0], [-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]]",
        "[[0, 0], [-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.4]]",
        "anchor-detector",
    ),
    Edit(
        "the first layer of COCO",
        "training/anchor_detector.py",
        "state[FIRST].sum(1, keepdim=True) / channels",
        "state[FIRST].mean(1, keepdim=True)",
        "anchor-detector",
    ),
    Edit("where lamps begin", "training/coco.py", '"lamp": 9', '"lamp": 11', "anchor-detector"),
    Edit("half of the kept features", "training/warm_start.py", "[1::2]", "[::2]", "warm-start"),
    Edit(
        "activation of a system",
        "methods/baselines/tardal.py",
        "nn.BatchNorm2d(outputs), nn.ReLU())",
        "nn.BatchNorm2d(outputs), nn.LeakyReLU(0.01))",
        "tardal",
    ),
)
