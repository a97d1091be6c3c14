"""Score what any method has made: every metric of every image, means with intervals, and comparisons pair by pair.

Values are those of `fusionlib.metrics` in float64 on 8-bit grey levels, against the ALIGNED infrared and the visible
image; EPE, EPE_share and folds where there are fields, inside the valid area. Images are scored side by side in
threads, each in memory only while it is scored. Each result is kept at once in a journal beside the entry, so a run
that was killed goes on where it stopped; a result counts only for the very files that gave it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from fusionlib import metrics
from fusionlib.deformation import fold_share
from fusionlib.experiments.benchmark import entries
from fusionlib.experiments.benchmark.folder import BOXES, MANIFEST
from fusionlib.experiments.benchmark.triples import Cases, Triple, of_benchmark, of_folders, refuse
from fusionlib.support.files import InputError, check_writable, write_text
from fusionlib.support.machine import computing_threads, cores

LOGGER = logging.getLogger(__name__)
SCORES = 2  # version of the numbers; a journal of another version is not used
DIGITS = 8


def score(
    fused: Path | str,
    out: Path | str,
    benchmark: Path | str | None = None,
    ir: Path | str | None = None,
    vi: Path | str | None = None,
    fields: Path | str | None = None,
    name: str | None = None,
    against: Sequence[Path | str] = (),
    threads: int | None = None,
    add: bool = False,
) -> dict:
    """Score a folder of fused images and write the entry.

    Args:
        fused: folder of images named as the cases, or as the files of `ir` and `vi`.
        out: the .json to write; beside it lies a hidden journal while the run lasts.
        benchmark: folder that `make` wrote; or else
        ir, vi: folders of the two sources, infrared and visible.
        fields: folder of CASE.npz with the method's fields; of a benchmark only.
        name: of the method in tables; by default that of the entry's file.
        against: entries to compare with, beside Ours and no registration; each of another name, and of the same images.
        threads: images at a time; by default one for each core.
        add: keep the other parts of the entry that is there, such as those of another size.

    Returns:
        The entry, see `entries`.

    Raises:
        InputError: folders, files or fields that do not fit, each named, or an entry that cannot be compared; no entry
            is written then.
    """
    fused, out = Path(fused), Path(out)
    if out.suffix != ".json":
        raise InputError(f"{out} cannot be written: give a name that ends in .json.")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give the name of a file.")
    if out.name in (MANIFEST, BOXES) and (out.parent / MANIFEST).is_file():
        raise InputError(f"{out} is a file of a benchmark, which would be lost: give another name.")
    check_writable(out.parent)
    if benchmark is not None and (ir is not None or vi is not None):
        raise InputError("The sources come with the benchmark: leave out --ir and --vi, or --benchmark.")
    if benchmark is None and (ir is None or vi is None):
        raise InputError("Say what the images were fused from: give --benchmark, or both --ir and --vi.")
    if benchmark is None and fields is not None:
        raise InputError("There is no true field without a benchmark: leave out --fields, or give --benchmark.")
    name = out.stem if name is None else name
    if not name.strip():
        raise InputError("The name of the method is empty: give one with --name.")
    others = [entries.read(path) for path in against]  # before any work
    earlier = entries.read(out) if add and out.exists() else {"name": name, "parts": []}
    if earlier["name"] != name:
        raise InputError(f"{out} is the entry of {earlier['name']}: give that name, or another file.")
    if benchmark is not None:
        cases = of_benchmark(fused, Path(benchmark), None if fields is None else Path(fields))
    else:
        cases = of_folders(fused, Path(ir), Path(vi))
    kept = [part for part in earlier["parts"] if part["part"] not in cases.parts]
    _check_comparable(name, dict(zip(map(str, against), others, strict=True)), cases, kept)
    journal = out.with_name(f".{out.stem}.scores.part")
    values = _score_all(cases.triples, journal, threads or cores())
    parts = _parts(cases, values)
    in_order = sorted([*kept, *parts], key=lambda part: part["part"]) if kept else parts
    entry = entries.make_entry(name, in_order, [*entries.references(), *others])
    entries.write(out, entry)
    journal.unlink(missing_ok=True)
    return entry


def _check_comparable(name: str, others: Mapping[str, Mapping], cases: Cases, kept: Sequence[Mapping]) -> None:
    """InputError for an entry, given by its path, with which no comparison could be made or told from another."""
    taken = {name: "the entry to write"}
    for path, other in others.items():
        if other["name"] in taken:
            fact = f"{path} and {taken[other['name']]} have the same name, {other['name']}, and cannot be compared"
            raise InputError(f"{fact}: score one of them with another --name.")
        taken[other["name"]] = path
    if others:
        own = {each.pair: each.sources() for each in cases.triples if cases.parts[each.part] is None}
        digests = {part.digest for part in cases.parts.values() if part is not None} | {part["digest"] for part in kept}
        digests |= {entries.digest_of(own)} if own else set()
        for path, other in others.items():
            if digests.isdisjoint(part["digest"] for part in other["parts"]):
                fact = f"{path} has no part in common with what is scored, and cannot be compared"
                raise InputError(f"{fact}: give an entry of the same images, or leave it out.")


def values_of(triple: Triple) -> dict[str, float | None]:
    """Every metric of one triple; None where it is undefined.

    Raises:
        InputError: a file cannot be used, or the error of a field is not finite though there are pixels that count.
    """
    ir, vi, fused = (torch.from_numpy(image.copy()).double()[None, None] / 255 for image in triple.images())
    values = metrics.fusion_metrics(ir, vi, fused) | {"Q_CC bound": metrics.q_cc_bound(ir, vi)}
    values |= metrics.further_metrics(ir, vi, fused)
    if (fields := triple.fields()) is not None:
        phi, phi_gt, valid = (torch.from_numpy(np.ascontiguousarray(array))[None] for array in fields)
        values["EPE"] = metrics.endpoint_error(phi, phi_gt, valid[None])
        if valid.any() and not values["EPE"].isfinite():  # as None, it would be left out of the mean, and improve it
            raise InputError(f"The EPE of {triple.field} is not finite: write 0 where the method has diverged.")
        values["EPE_share"] = values["EPE"] / metrics.endpoint_error(torch.zeros_like(phi), phi_gt, valid[None])
        values["folds"] = fold_share(phi)
    return {name: _number(value.item()) for name, value in values.items()}


def _number(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _score_all(triples: Sequence[Triple], journal: Path, threads: int) -> dict[str, dict]:
    """Case to {mark, sources, values}; what the journal has of the same files is not computed again."""
    kept = _read(journal)
    write_text(journal, "".join(map(_line, kept.values())))  # without a line that a kill has cut
    results, errors = {}, []

    def work(triple: Triple) -> dict:
        mark = triple.mark()
        earlier = kept.get(triple.case)
        if earlier is not None and earlier["mark"] == mark:
            return earlier
        facts = {"case": triple.case, "version": SCORES, "mark": mark, "sources": triple.sources()}
        return facts | {"values": values_of(triple)}

    with computing_threads(1), journal.open("a", encoding="utf-8") as file:
        for triple, result in tqdm(
            _side_by_side(work, triples, threads), total=len(triples), unit="image", mininterval=2, smoothing=0.05
        ):
            if isinstance(result, InputError):
                errors.append(str(result))
                continue
            results[triple.case] = result
            if kept.get(triple.case) is not result:
                file.write(_line(result))
                file.flush()
    refuse(errors)
    return results


def _side_by_side(
    work: Callable[[Triple], dict], triples: Iterable[Triple], threads: int
) -> Iterator[tuple[Triple, dict | InputError]]:
    """Each triple with its result or its error as they come; only a few are waiting at any time."""
    remaining, running = iter(triples), {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(running) < 2 * threads and (triple := next(remaining, None)) is not None:
                    running[pool.submit(work, triple)] = triple
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    triple, error = running.pop(future), future.exception()
                    if error is not None and not isinstance(error, InputError):
                        raise error
                    yield triple, future.result() if error is None else error
        except KeyboardInterrupt:
            LOGGER.warning("Stopping as soon as the images in work are scored; what is done is kept.")
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _parts(cases: Cases, values: Mapping[str, Mapping]) -> list[dict]:
    """Each part as an entry has it, without means."""
    parts = []
    for name, part in cases.parts.items():
        part_triples = [triple for triple in cases.triples if triple.part == name]
        facts = {"part": name, "fields": part_triples[0].field is not None}
        if part is not None:
            facts |= {"set": part.set, "level": part.level, "size": part.size, "digest": part.digest}
        else:
            facts |= {
                "digest": entries.digest_of({triple.pair: values[triple.case]["sources"] for triple in part_triples})
            }
        parts.append(facts | {"scores": {triple.pair: values[triple.case]["values"] for triple in part_triples}})
    return parts


def _read(journal: Path) -> dict[str, dict]:
    """What an earlier run has left, by case; a line that is cut off, or of another version, is passed over."""
    results = {}
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return results
    for line in lines:
        try:
            facts = json.loads(line)
            if facts["version"] == SCORES:
                results[facts["case"]] = {key: facts[key] for key in ("case", "version", "mark", "sources", "values")}
        except (ValueError, KeyError, TypeError):
            continue
    return results


def _line(facts: Mapping) -> str:
    return json.dumps(facts, ensure_ascii=False) + "\n"
