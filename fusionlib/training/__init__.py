"""What makes weights of Ours: recipe, batches, loop, warm start and detectors. Uses `metrics`, `data`, the method and
`support`.

To train, or to read what was trained before: `from fusionlib import training; training.train_or_load(recipe, folder)`.
"""

from fusionlib.training.loop import Model, detector_path, one_epoch, optimiser_of, train, validation_error
from fusionlib.training.shared_weights import START, Trained, copy_start, train_or_load

__all__ = [
    "START",
    "Model",
    "Trained",
    "copy_start",
    "detector_path",
    "one_epoch",
    "optimiser_of",
    "train",
    "train_or_load",
    "validation_error",
]
