"""The MRI study, Table 7: T2 slices moved out of place, laid on T1 and fused, and scored where there is a head.

The T1 slice plays the visible image, the reference; the T2 slice plays the infrared one and is deformed. Beyond the
brain both are zero: a registration can show nothing there, and a fusion that keeps black black is right for nothing. So

    Q_CC, ...         the four metrics in the upright box around the head
    Q_CC@slice, ...   the same over the whole slice, its background included
    EPE, EPE_p95, EPE_share, NCC, MSE     inside the head alone
    EPE@slice         over the whole slice
    folds, seconds    as in `fusionlib.evaluation`

PAPER-GAP: the paper scores slices of BraTS2020 and says neither which, nor how far T2 was moved, nor whether the
background counts, nor what its detection loss is where there are no objects: here there is none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from torch import Tensor

from fusionlib import deformation, evaluation, kept, metrics
from fusionlib.comparison import METRICS, Measured
from fusionlib.data import PairSet, open_set
from fusionlib.deformation import Misaligned
from fusionlib.files import code_fingerprint, fingerprint
from fusionlib.methods import Fused, Method
from fusionlib.presets import Preset

MARGIN = 4  # pixels around the head that belong to its box: an edge needs both of its sides


def head(t2: Tensor, t1: Tensor) -> Tensor:
    """Where there is a head: (1, 1, H, W) bool, true in each row between the first and the last signal of either slice.

    Dark ventricles lie between signal, so they count, whatever their brightness.
    """
    there = ((t1 > 0) | (t2 > 0)).int()
    from_left, from_right = there.cummax(-1).values, there.flip(-1).cummax(-1).values.flip(-1)
    return (from_left & from_right).bool()


def box(mask: Tensor, margin: int = MARGIN) -> tuple[slice, slice]:
    """Rows and columns of the upright box around a mask (1, 1, H, W), widened by a margin where the image allows it."""
    _, _, rows, columns = mask.nonzero(as_tuple=True)
    return tuple(slice(max(0, int(each.min()) - margin), int(each.max()) + 1 + margin) for each in (rows, columns))


def score(method: Method, t2: Tensor, t1: Tensor, moved: Misaligned) -> dict[str, float]:
    """Every number of one method on one slice; `t2` is the aligned slice, `moved` what the method is given.

    Args:
        method: what registers and fuses.
        t2, t1: (1, 1, H, W) in [0, 1]; not both of them empty.
        moved: the deformed T2.
    """
    start = time.perf_counter()
    fused = method.fuse(moved.ir, t1)
    seconds = time.perf_counter() - start
    seen = (..., *box(head(t2, t1)))
    whole = evaluation.score(SimpleNamespace(fuse=lambda *_: fused), t2, t1, moved)
    values = {
        name: value.item() for name, value in metrics.fusion_metrics(t2[seen], t1[seen], fused.image[seen]).items()
    }
    values |= {f"{name}@slice": whole[name] for name in (*values, "EPE")}
    return values | inside(fused, t2, t1, moved) | {"seconds": seconds}


def inside(fused: Fused, t2: Tensor, t1: Tensor, moved: Misaligned) -> dict[str, float]:
    """The numbers of `evaluation.registration` inside the head, with EPE_share instead of EPE_identity."""
    found = evaluation.registration(fused, t2, replace(moved, valid=moved.valid & head(t2, t1)))
    return found | {"EPE_share": found["EPE"] / found.pop("EPE_identity")}


def subject(pair: str) -> str:
    """Whose slice it is: names are SUBJECT_zNNN."""
    return pair.rpartition("_z")[0] or pair


def registrations(compared: Mapping[Method, str], preset: Preset, path: Path) -> pd.DataFrame:
    """What each method leaves of the deformation inside the head, on the test slices of a preset, at all levels.

    Args:
        compared: methods, each with a fingerprint of what it is (its weights, its code).
        preset: sets, size and levels; all three levels of its bench are measured.
        path: CSV file in which the rows are kept, part by part; a run that is stopped goes on from there.

    Returns:
        A row for each method, level and slice: the numbers of `evaluation.registration`, EPE_share, and the subject.
    """
    code = code_fingerprint(deformation, evaluation, metrics, "mri_study")
    parts = []
    for name in preset.test_sets:
        pairs = open_set(name, "test", preset.test_size, count=preset.bench.count)
        for method, mark in compared.items():
            for level in preset.bench.levels:
                where = {"dataset": name, "level": level, "method": method.name}
                made_by = fingerprint(code, mark, pairs.names, preset.test_size, asdict(deformation.get_level(level)))
                parts.append(kept.part(path, where, made_by, lambda: _registered(method, pairs, level)))  # noqa: B023
    return pd.concat(parts, ignore_index=True)


def _registered(method: Method, pairs: PairSet, level: str) -> pd.DataFrame:
    found = []
    for index, name in enumerate(pairs.names):
        t2, t1 = pairs.stack([index])
        moved = evaluation.deform(t2, name, level)
        values = inside(method.fuse(moved.ir, t1), t2, t1, moved)
        found.append({"pair": name, "subject": subject(name), **values})
    return pd.DataFrame(found)


def by_subject(measured: Measured, level: str, columns: Sequence[str] = METRICS) -> pd.DataFrame:
    """Means over subjects, each the mean over its slices, and the 95 % bootstrap interval over subjects.

    Slices of one head are alike, so the number of heads says how much is known, not the number of slices. With three
    heads such an interval ends at the lowest and the highest of them, and is no more than that.

    Returns:
        Rows (part, method), a column "subjects", and for each metric its mean and, as METRIC_low and METRIC_high, the
        ends. A row that could not be measured has no numbers.
    """
    here = measured.table[measured.table["level"] == level]
    means = (
        here.assign(subject=here["pair"].map(subject)).groupby(["method", "subject"], sort=False)[list(columns)].mean()
    )
    found = []
    for row in measured.rows:
        each = means.loc[row.method] if row.method in means.index.get_level_values("method") else means.iloc[:0]
        line: dict[str, object] = {"part": row.part, "method": row.method, "subjects": len(each)}
        for column in columns:
            values = each[column].dropna()
            ends = evaluation.interval(values) if len(values) else (float("nan"), float("nan"))
            line |= {column: values.mean(), f"{column}_low": ends[0], f"{column}_high": ends[1]}
        found.append(line)
    return pd.DataFrame(found).set_index(["part", "method"])
