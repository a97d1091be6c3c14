"""The compared systems and how they were trained here: facts, loss curves, and whether the loss was still falling."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fusionlib.data import systems
from fusionlib.notebook.answers import signed
from fusionlib.notebook.sentences import listed
from fusionlib.report.our_numbers import minutes_of
from fusionlib.training.shared_weights import read_log


def facts(names: Iterable[str], weights: Path) -> pd.DataFrame:
    """Compared systems as a table, by title: what each does and moves, whose its weights are, and how it was trained.

    Args:
        names: of compared systems.
        weights: folder of the weights and logs of what was trained here.
    """
    lines = {}
    for system in map(systems.system, names):
        log = weights / f"{system.name}.csv"
        not_here = "published, but not available here" if system.untried else "none published"
        lines[system.title] = {
            "does": system.kind,
            "moves": system.moves or "–",
            "weights": "published" if "" in system.published else not_here,
            "licence": system.licence,
            "upstream": f"{system.upstream}@{system.commit[:7]}",
            "trained here, minutes": round(minutes_of(log)) or "–",
            "loss, last third - middle third": _signed(trend(read_log(log, "step", "loss"))) if log.exists() else "–",
            "retraining": system.retraining,
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def trend(log: pd.DataFrame) -> tuple[float, float, float] | None:
    """How the loss changed at the end: its mean in the last third minus that in the middle third; below 0, it fell.

    Args:
        log: of a retraining: the last step of each span and the mean loss over it. A shorter span at the end is left
            out.

    Returns:
        The difference and the ends of its 95 % interval over spans (Welch's t); None of fewer than two spans in a
        third.

    >>> log = pd.DataFrame({"step": range(1, 10), "loss": [9.0, 9.0, 9.0, 5.0, 5.2, 4.8, 3.0, 3.2, 2.8]})
    >>> "{:.1f} ({:.1f} to {:.1f})".format(*trend(log))
    '-2.0 (-2.5 to -1.5)'
    """
    steps = log["step"].diff().fillna(log["step"])
    loss = log["loss"][steps == steps.iloc[0]]
    third = len(loss) // 3
    if third < 2:
        return None
    from scipy import stats  # slow to import

    middle, last = loss.iloc[-2 * third : -third], loss.iloc[-third:]
    low, high = stats.ttest_ind(last, middle, equal_var=False).confidence_interval()
    return last.mean() - middle.mean(), low, high


def still_learning(names: Iterable[str], weights: Path) -> str:
    """Of which compared systems the loss still fell at the end of their training here, by `trend`, in a sentence."""
    titles: dict[str, list[str]] = {"fell": [], "rose": [], "open": [], "short": []}
    for system in map(systems.system, names):
        log = weights / f"{system.name}.csv"
        if log.exists():
            change = trend(read_log(log, "step", "loss"))
            how = "short" if change is None else "fell" if change[2] < 0 else "rose" if change[1] > 0 else "open"
            titles[how].append(system.title)
    fell, rose, unknown, short = map(listed, titles.values())
    texts = [
        f"The loss of {fell} was still falling, so a longer training may give better rows." if fell else "",
        f"The loss of {rose} rose at the end." if rose else "",
        f"Of {unknown}, no change of the loss can be told from its jumps." if unknown else "",
        f"The log of {short} is too short to tell." if short else "",
    ]
    return " ".join(filter(None, texts)) or "Nothing was trained here."


def curves(names: Iterable[str], weights: Path) -> pd.DataFrame:
    """Loss by title of the system, a column each for those trained here, and a column `share of the steps`."""
    logs = {systems.system(name).title: weights / f"{name}.csv" for name in names}
    tables = []
    for title, path in logs.items():
        if path.exists():
            log = read_log(path, "step", "loss")
            tables.append(pd.DataFrame({"share of the steps": log["step"] / log["step"].iloc[-1], title: log["loss"]}))
    return pd.concat(tables) if tables else pd.DataFrame(columns=["share of the steps"])


def _signed(change: tuple[float, float, float] | None) -> str:
    return "{} ({} to {})".format(*map(signed, change)) if change else "–"
