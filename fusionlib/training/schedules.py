"""The learning rate over a training; and the trainings of the preset `mini`, for two CPU cores, and of brains."""

import math

from fusionlib.training.augmentation import Augmentation
from fusionlib.training.recipe import TrainingConfig

# An hour and a half: the registration alone, on crops instead of whole images at first, at a higher rate than the
# paper's. The few epochs of fusion at its end show that the features serve it.
REGISTRATION_FIRST = TrainingConfig(
    epochs=325, registration_epochs=305, fusion_epochs=15, learning_rate=2e-3,
    crop=128, crop_epochs=250, validate_every=10,
)  # fmt: skip
# Then everything together, Eq. (12), also on what a second camera does to an image.
ALL_TOGETHER = TrainingConfig(
    epochs=16, learning_rate=5e-4, levels=("light", "medium", "heavy", "cameras"),
    frozen_statistics=True, validate_every=2, mixed_precision=("cuda", "cpu"),
)  # fmt: skip
# For `ours_robust`, between the two: the registration once more, with photometric augmentation, then the fusion alone.
AUGMENTED = TrainingConfig(
    epochs=64, registration_epochs=52, fusion_epochs=12, learning_rate=1e-3,
    levels=("light", "medium", "heavy", "cameras"), augmentation=Augmentation(),
    crop=128, crop_epochs=12, validate_every=4,
)  # fmt: skip

# Slices are not streets: crops, then whole slices, then everything, then the fusion alone.
BRAINS = TrainingConfig(
    epochs=60, registration_epochs=50, fusion_epochs=6, crop=128, crop_epochs=44, mixed_precision=("cuda", "cpu")
)
BRAINS_FUSED = TrainingConfig(
    epochs=60, fusion_epochs=60, learning_rate=1e-2, crop=128, validate_every=60, mixed_precision=("cuda", "cpu")
)


def one_cycle(step: int, rise: int, total: int) -> float:
    """The share of the learning rate at a step: up in a line for `rise` steps, then down to 0 by half a cosine.

    >>> [round(one_cycle(step, rise=2, total=6), 2) for step in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    fall = max(1, total - rise)
    return min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * max(0, step - rise) / fall))
