"""The one loop behind all kept measurements: parts of a table, each read where its key fits and else measured.

A part is some rows of a CSV file (`fusionlib.support.result_tables`), such as those of one method at one level. The
file grows part by part: a run that is stopped goes on from there, and what changes later is measured again alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from fusionlib import data
from fusionlib.data import PairSet
from fusionlib.support import result_tables
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.long_training import check_time, may_start, refused, show_earlier


@dataclass(frozen=True)
class Part:
    """Some rows of a table.

    Attributes:
        where: column to value, what identifies these rows in the file (as WHERE does in SQL).
        key: of everything that the rows depend on; None if they cannot be measured here, for want of weights say.
        measure: gives the rows, without the columns of `where`.
    """

    where: Mapping[str, object]
    key: Key | None
    measure: Callable[[], pd.DataFrame] | None = None

    def __str__(self) -> str:
        return ", ".join(f"{column} {value}" for column, value in self.where.items())


def key_of(pairs: PairSet, *behaviour: str, **facts: object) -> Key:
    """The key of what is measured on a set of pairs: its files and how they are read, their size, and what else counts.

    Args:
        pairs: of one set and size.
        behaviour: components of the code beside those that read the pairs, see `support.behaviour.components`.
        facts: settings, by name.

    Raises:
        InputError: pairs of folders of one's own: only the files of a set have checksums.
    """
    if not (name := pairs.title):
        raise InputError("What is kept needs pairs of a set, with checksums: score others with `evaluation.evaluate`.")
    height, width = pairs[0].ir.shape[-2:]
    input_facts = {"size": width if height == width else (height, width), name: data.checksum(name, pairs.names)}
    return Key.of([*data.components_of(name), *behaviour], **facts, **input_facts)


Work = Callable[[list[Part]], Iterator[tuple[Part, pd.DataFrame]]]


def in_turn(parts: list[Part]) -> Iterator[tuple[Part, pd.DataFrame]]:
    """Measure parts one after another, with a bar of progress.

    Raises:
        OutOfTimeError: there is no time for another one (`fusionlib.support.long_training.allowed`).
    """
    bar = tqdm(parts, mininterval=5, disable=not parts)  # no line where nothing is measured
    for done, part in enumerate(bar, 1):
        bar.set_postfix_str(str(part), refresh=False)
        start = time.monotonic()
        yield part, part.measure()
        if done < len(parts):
            check_time(f"{part} is measured, {done} of {len(parts)}", time.monotonic() - start)


def run(
    path: Path, parts: Sequence[Part], again: bool = False, minutes: float | None = None, work: Work = in_turn
) -> pd.DataFrame:
    """The rows of all parts: those in the file whose key fits, the others measured now and kept.

    Args:
        path: the CSV file; it need not be there.
        parts: one without a key gives what the file has of it, which may be nothing.
        again: measure even what the file has.
        minutes: that a part takes, if each costs a training; see `outdated`.
        work: measures those that have to be, in any order.

    Returns:
        The rows in the order of the parts, columns of `where` first, without `made_by`; numbers as the file has them,
        to six digits.

    Raises:
        InputError: as `outdated` does.
    """
    for part, rows in work(_measurable(parts) if again else outdated(path, parts, minutes)):
        result_tables.replace_part(path, part.where, part.key, rows)
    table = result_tables.read(path)
    tables = [rows for part in parts if len(rows := result_tables.rows_in(table, part.where))]
    return pd.concat(tables or [table.iloc[:0]], ignore_index=True).drop(columns=result_tables.MADE_BY, errors="ignore")


def outdated(path: Path, parts: Sequence[Part], minutes: float | None = None) -> list[Part]:
    """The parts that have to be measured: those whose rows are missing or of another key.

    If each costs a training, this is long in sum, and nobody has asked for it (`fusionlib.support.long_training`), rows
    of earlier code or data are left as they are, and a line says so.

    Raises:
        InputError: rows are missing, or of other settings, and nobody has asked for long trainings.
    """
    wanted = lacking(path, parts)
    total = (minutes or 0) * len(wanted)
    if may_start(total):
        return [part for part, _ in wanted]
    changed: dict[str, None] = {}
    for part, keys in wanted:
        differing = [name for key in keys for name in part.key.differing(key)] or ["settings"]
        if "settings" in differing:
            raise refused(f"{path.name}, {part} and what else is missing of {len(parts)} parts,", total)
        changed |= dict.fromkeys(differing)
    show_earlier(f"{path.name}, {len(wanted)} of {len(parts)} parts", changed, total)
    return []


def lacking(path: Path, parts: Sequence[Part]) -> list[tuple[Part, list[Key]]]:
    """The parts whose rows are missing or of another key, each with the keys that the file has for it."""
    table = result_tables.read(path)
    kept_keys = [(part, result_tables.keys_of(table, part.where)) for part in _measurable(parts)]
    return [(part, keys) for part, keys in kept_keys if not keys or any(map(part.key.differing, keys))]


def _measurable(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if part.key is not None]
