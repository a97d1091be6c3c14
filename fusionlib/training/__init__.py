"""What makes weights of Ours: recipe, batches, loop, warm start, detectors, and weights on disk. Uses `metrics`,
`data`, the method and `support`.

The names of `fusionlib.training.loop` are those of this folder, too: `from fusionlib import training`.
"""

from fusionlib.training.loop import (
    START,
    Model,
    Trained,
    detector_path,
    one_epoch,
    optimiser_of,
    report_progress,
    train,
    trained,
    validation_error,
)

__all__ = [
    "START",
    "Model",
    "Trained",
    "detector_path",
    "one_epoch",
    "optimiser_of",
    "report_progress",
    "train",
    "trained",
    "validation_error",
]
