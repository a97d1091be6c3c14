"""Scores of fused images, fields and detections, which way is better, and what a difference can say.

Uses the method, `data` and `support`.

The names of `fusionlib.metrics.fusion` are those of this folder, too: `from fusionlib import metrics`.
"""

from fusionlib.metrics.further import further_metrics
from fusionlib.metrics.fusion import (
    DIRECTION,
    endpoint_error,
    fusion_metrics,
    mse,
    ncc,
    q_abf,
    q_cc,
    q_cc_bound,
    q_cv,
    q_ssim,
)
from fusionlib.metrics.images import IMAGE, WINDOW

__all__ = [
    "DIRECTION",
    "IMAGE",
    "WINDOW",
    "endpoint_error",
    "further_metrics",
    "fusion_metrics",
    "mse",
    "ncc",
    "q_abf",
    "q_cc",
    "q_cc_bound",
    "q_cv",
    "q_ssim",
]
