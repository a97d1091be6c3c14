"""Table 6 measured: what methods that register and fuse count, take and need, kept as `fusionlib.support.result_tables`
keeps tables.

Every method has random weights: what it costs does not depend on them. Times are of one machine; the table says which.
Operations are counted of the networks as they are trained; time and memory of Ours are those of
`fusionlib.methods.fast`, which gives the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd

from fusionlib.benches import CostConfig
from fusionlib.data import systems
from fusionlib.experiments import profiling, runner
from fusionlib.experiments.profiling import interleaved
from fusionlib.experiments.runner import Part
from fusionlib.methods import Method
from fusionlib.support.keys import Key
from fusionlib.support.machine import computing_threads, machine


def counts(config: CostConfig, path: Path) -> pd.DataFrame:
    """A row per method: side, `thop`, `fvcore` and `executed` multiply-accumulates in G, `parameters` in M."""
    sides = (config.sides() | {config.plain: config.side}).items()
    parts = [Part({"method": name, "side": side}, _key(name), partial(_count, name, side)) for name, side in sides]
    return runner.run(path, parts)


def _count(name: str, side: int) -> pd.DataFrame:
    method = profiling.fresh(name)
    counted = asdict(profiling.count(profiling.Whole(method), *profiling.pair(side)))
    row = {kind: None if number is None else number / 1e9 for kind, number in counted.items()}
    return pd.DataFrame([row | {"parameters": sum(profiling.parameters(method).values()) / 1e6}])


def memory(config: CostConfig, path: Path) -> pd.DataFrame:
    """A row per method at its side: the GiB by which a process grows at most while it fuses, `memory`."""
    cases = list(config.sides().items())

    def measure() -> pd.DataFrame:
        return pd.DataFrame(cases, columns=["method", "side"]).assign(memory=profiling.peak_memory(cases))

    return runner.run(path, [Part({"what": "memory"}, Key.of(cases=cases) | _key(*config.sides()), measure)])


def times(config: CostConfig, path: Path, again: bool = False) -> pd.DataFrame:
    """A row for each method, side and number of threads: the seconds of `profiling.Timed`, and the cpu.

    All methods of one side and number of threads are one part, measured in turns: their ratios are of one run. Kept
    times are taken whatever machine made them, unless `again`.
    """
    parts = []
    for side, threads in config.timed:
        too_large = [name for name, largest_side in config.own_sides if side > 1.2 * largest_side]
        names = [name for name in config.sides() if name not in too_large]
        key = Key.of(methods=names) | _key(*names) | Key.of(runs=config.runs)
        makers = {name: partial(profiling.quick, name) for name in names}
        measure = partial(_time, "method", makers, side, config.runs, threads)
        parts.append(Part({"side": side, "threads": threads}, key, measure))
    return runner.run(path, parts, again)


def gain(config: CostConfig, path: Path, again: bool = False) -> pd.DataFrame:
    """Ours as it is trained, `plain`, and as `fusionlib.methods.fast` has it, `fast`: a row each with its seconds.

    Sides and numbers of threads are those of `timed`; the two are timed in turns.
    """
    makers = {"plain": partial(profiling.fresh, "ours"), "fast": partial(profiling.quick, "ours")}
    parts = []
    for side, threads in config.timed:
        measure = partial(_time, "way", makers, side, config.runs, threads)
        parts.append(Part({"side": side, "threads": threads}, _key("ours") | Key.of(runs=config.runs), measure))
    return runner.run(path, parts, again)


def _time(column: str, makers: Mapping[str, Callable[[], Method]], side: int, runs: int, threads: int) -> pd.DataFrame:
    """Time several methods in turns on one pair: a row each, its name in `column`."""
    images = profiling.pair(side)
    calls = {name: partial(make().fuse, *images) for name, make in makers.items()}
    with computing_threads(threads):
        timings = interleaved(calls, runs)
    return pd.DataFrame([{column: name, **asdict(timed), "cpu": machine()["cpu"]} for name, timed in timings.items()])


def growth(config: CostConfig, path: Path) -> pd.DataFrame:
    """How the time of Ours grows with the image: a row per side with the seconds of `profiling.Timed`, on all cores."""

    def measure() -> pd.DataFrame:
        method = profiling.quick("ours")
        calls = {side: partial(method.fuse, *profiling.pair(side)) for side in config.growth}
        timings = interleaved(calls, config.runs)
        return pd.DataFrame([{"side": side, **asdict(timed)} for side, timed in timings.items()])

    key = Key.of(sides=config.growth, runs=config.runs) | _key("ours")
    return runner.run(path, [Part({"method": "ours"}, key, measure)])


def tiles(config: CostConfig, path: Path) -> pd.DataFrame:
    """A row a size: the GiB by which a process grows at most while Ours fuses it, `plain` and `fast`.

    Sizes are those of `growth`, and the large one, which only the fast network is measured at.
    """
    sizes = [(side, side) for side in config.growth] + [config.large]

    def measure() -> pd.DataFrame:
        plain = profiling.peak_memory([("ours", size) for size in sizes[:-1]], fast=False)
        fast = profiling.peak_memory([("ours", size) for size in sizes])
        rows = pd.DataFrame(sizes, columns=["height", "width"])
        return rows.assign(plain=pd.Series(plain), fast=fast)

    return runner.run(path, [Part({"method": "ours"}, Key.of(sizes=sizes) | _key("ours"), measure)])


def _key(*names: str) -> Key:
    """What is counted and timed: the way it is done, and the behaviour of the methods, whose weights do not matter."""
    parts = dict.fromkeys(part for name in names for part in name.split("+"))
    components = [part if part in systems.names() else "network" for part in parts]
    return Key.of(dict.fromkeys(["cost", *components]))
