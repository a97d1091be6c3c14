"""The MRI study, Table 7: T2 slices moved out of place, laid on T1 and fused, and scored where there is a head.

The T1 slice plays the visible image, the reference; the T2 slice plays the infrared one and is deformed. Beyond the
brain both are zero: there a registration shows nothing, and a fusion scores well just by leaving black pixels black. So

    Q_CC, ...         the four metrics in the upright box around the head
    Q_CC@slice, ...   the same over the whole slice, its background included
    EPE, EPE_p95, EPE_share, NCC, MSE     inside the head alone
    EPE@slice         over the whole slice
    folds, seconds    as in `fusionlib.experiments.evaluation`

PAPER-GAP: the paper scores slices of BraTS2020 and says neither which, nor how far T2 was moved, nor whether the
background counts, nor what its detection loss is where there are no objects: here there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from torch import Tensor

from fusionlib import metrics
from fusionlib.data.volumes import subject_of
from fusionlib.deformation import Misaligned
from fusionlib.experiments import evaluation
from fusionlib.experiments.comparison import METRICS, Measured
from fusionlib.methods import Method
from fusionlib.metrics.statistics import LEAST_SCENES, interval

MARGIN = 4  # pixels around the head that belong to its box: an edge needs both of its sides


def head(t2: Tensor, t1: Tensor) -> Tensor:
    """Where there is a head: (1, 1, H, W) bool, true in each row between the first and the last signal of either slice.

    Dark ventricles lie between signal, so they count, whatever their brightness.
    """
    signal = ((t1 > 0) | (t2 > 0)).int()
    from_left, from_right = signal.cummax(-1).values, signal.flip(-1).cummax(-1).values.flip(-1)
    return (from_left & from_right).bool()


def box(mask: Tensor, margin: int = MARGIN) -> tuple[slice, slice]:
    """Rows and columns of the upright box around a mask (1, 1, H, W), widened by a margin where the image allows it."""
    _, _, rows, columns = mask.nonzero(as_tuple=True)
    return tuple(
        slice(max(0, int(indices.min()) - margin), int(indices.max()) + 1 + margin) for indices in (rows, columns)
    )


def score(method: Method, t2: Tensor, t1: Tensor, moved: Misaligned) -> dict[str, float]:
    """Every number of one method on one slice; `t2` is the aligned slice, `moved` what the method is given.

    Args:
        method: what registers and fuses.
        t2, t1: (1, 1, H, W) in [0, 1]; not both of them empty.
        moved: the deformed T2.
    """
    fused, seconds = evaluation.timed(method, moved.ir, t1)
    head_mask = head(t2, t1)
    window = (..., *box(head_mask))
    inside = evaluation.registration(fused, t2, replace(moved, valid=moved.valid & head_mask))
    whole = evaluation.scores_of(fused, t2, t1, moved)
    values = {
        name: value.item()
        for name, value in metrics.fusion_metrics(t2[window], t1[window], fused.image[window]).items()
    }
    values |= {f"{name}@slice": whole[name] for name in (*values, "EPE")}
    return values | evaluation.with_share(inside) | {"seconds": seconds}


def by_subject(measured: Measured, level: str, columns: Sequence[str] = METRICS) -> pd.DataFrame:
    """Means over subjects, each the mean over its slices, and the 95 % bootstrap interval over subjects; of fewer than
    `statistics.LEAST_SCENES` subjects, the lowest and the highest.

    Slices of one head are alike, so the number of heads says how much is known, not the number of slices.

    Returns:
        Rows (heading, method), a column "subjects", and for each metric its mean and, as METRIC_low and METRIC_high,
        the ends. A row that could not be measured has no numbers.
    """
    at_level = measured.table[measured.table["level"] == level]
    means = (
        at_level.assign(subject=at_level["pair"].map(subject_of))
        .groupby(["method", "subject"], sort=False)[list(columns)]
        .mean()
    )
    lines = []
    for row in measured.rows:
        subject_means = (
            means.loc[row.method] if row.method in means.index.get_level_values("method") else means.iloc[:0]
        )
        line: dict[str, object] = {"heading": row.heading, "method": row.method, "subjects": len(subject_means)}
        for column in columns:
            values = subject_means[column].dropna()
            low, high = interval(values) if len(values) >= LEAST_SCENES else (values.min(), values.max())
            line |= {column: values.mean(), f"{column}_low": low, f"{column}_high": high}
        lines.append(line)
    return pd.DataFrame(lines).set_index(["heading", "method"])
