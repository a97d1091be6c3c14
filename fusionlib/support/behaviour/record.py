"""The record of the behaviour of each component, `data/behaviour.json`, and its comparison with the current code.

The version of a component is "3" while it behaves as recorded for version 3, and "3+<digest>" otherwise: results of
such code are valid as long as that code does not change. Verdicts of probes are stored beside the checkout's results,
so that a probe runs once for each state of the code.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from filelock import FileLock

from fusionlib.support.behaviour import components, source
from fusionlib.support.files import InputError, fingerprint, write_json, write_text
from fusionlib.support.paths import FACTS, ROOT

LOGGER = logging.getLogger(__name__)
FILE = FACTS / "behaviour.json"
REMEMBERED = ROOT / "results" / ".probed.json"
PROBING = "FUSIONLIB_PROBING"  # set in the process of a probe, which needs no versions
# One thread and no instruction beyond SSE: sums are then rounded alike on every x86 machine.
PLAIN = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41"}

Probe = Mapping[
    str, list[float]
]  # name of a tensor to its tolerance, size, root mean square and projections, see `fusionlib.probes.views.view`


def versions(names: Iterable[str]) -> dict[str, str]:
    """The version of each component, by the behaviour of the current code.

    Those whose source has changed are probed, side by side. A component that the project does not know, such as a
    system of one's own, has version "0".

    >>> versions(["deformation", "a system of one's own"])["a system of one's own"]
    '0'
    """
    names = list(names)
    if os.environ.get(PROBING):
        return dict.fromkeys(names, "probing")
    recorded, known = read(), set(components.names())
    digests = {name: source.digest(components.entries(name)) for name in names if name in known}
    changed = [name for name, source_digest in digests.items() if recorded.get(name, {}).get("source") != source_digest]
    agrees = _verdicts(changed, digests, recorded)
    version_of = {}
    for name in names:
        number = str(recorded.get(name, {}).get("version", 0))
        version_of[name] = number if agrees.get(name, True) else f"{number}+{digests[name][:8]}"
    return version_of


def read() -> dict[str, dict]:
    """The record: component to version, source, reason and probe."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def accept(names: Collection[str], reason: str | None = None) -> dict[str, str]:
    """Record the current code; returns for each component whether it behaves "as before", or its new version.

    A component that behaves as recorded keeps its version, whatever its source; what its probe has learned to look at
    since is recorded with it. Another one gets the next version, which needs a reason, and results of earlier versions
    no longer fit. If the source is the recorded one, only the probe can have changed: its numbers are recorded, and the
    version stays.

    Args:
        names: of the components to record.
        reason: why the behaviour was changed.

    Raises:
        InputError: no such component, a probe fails, or the reason is missing; nothing is recorded then.
    """
    if unknown := [name for name in names if name not in components.names()]:
        raise InputError(f"There is no component {unknown[0]!r}; choose among {', '.join(components.names())}.")
    recorded, verdicts = read(), {}
    for name, probe in probed(list(names)).items():
        if isinstance(probe, str):
            raise InputError(f"The probe of {name} fails ({probe}): mend the code first.")
        old, source_digest = recorded.get(name), source.digest(components.entries(name))
        if old is None:
            new = {"version": 1, "reason": reason or "first recorded"}
        elif old["source"] == source_digest:
            new = {"version": old["version"], "reason": old["reason"]}
        elif agree({place: probe[place] for place in probe.keys() & old["probe"].keys()}, old["probe"]):
            new, probe = {"version": old["version"], "reason": old["reason"]}, probe | old["probe"]
        elif reason is None:
            raise InputError(f"{name} behaves otherwise than recorded: say why with --why, as results do not fit then.")
        else:
            new = {"version": old["version"] + 1, "reason": reason}
        recorded[name] = {**new, "source": source_digest, "probe": probe}
        verdicts[name] = "as before" if old and old["version"] == new["version"] else f"version {new['version']}"
    _write({name: recorded[name] for name in components.names() if name in recorded})
    return verdicts


def _write(recorded: Mapping[str, dict]) -> None:
    """Write the record with one line for each tensor, so that a difference can be read in git."""
    to_json = json.JSONEncoder(ensure_ascii=False).encode
    blocks = []
    for name, entry in recorded.items():
        facts = [f"  {to_json(key)}: {to_json(value)}" for key, value in entry.items() if key != "probe"]
        probe_lines = ",\n".join(f"   {to_json(place)}: {to_json(values)}" for place, values in entry["probe"].items())
        blocks.append(f" {to_json(name)}: {{\n" + ",\n".join([*facts, f'  "probe": {{\n{probe_lines}\n  }}']) + "\n }")
    write_text(FILE, "{\n" + ",\n".join(blocks) + "\n}\n")


def agree(current: Probe, recorded: Probe) -> bool:
    """Whether two probes gave the same: equal sizes, and numbers within the tolerance."""
    return not differing(current, recorded)


def differing(current: Probe, recorded: Probe) -> list[str]:
    """Names of what differs between two probes.

    The first number of a list is the tolerance, as a part of the root mean square, which is the third one.
    """
    names = sorted(current.keys() ^ recorded.keys())
    for name in current.keys() & recorded.keys():
        (tolerance, size, scale, *views), (_, old_size, old_scale, *old_views) = current[name], recorded[name]
        allowed = tolerance * max(old_scale, 1e-9)
        numbers = zip([scale, *views], [old_scale, *old_views], strict=True)
        if size != old_size or not all(_close(new, old, allowed) for new, old in numbers):
            names.append(name)
    return names


def _close(new: float, old: float, allowed: float) -> bool:
    return (math.isnan(new) and math.isnan(old)) or abs(new - old) <= allowed


def probed(names: Collection[str]) -> dict[str, Probe | str]:
    """The numbers of the probes of some components, run in two separate processes; of a probe that fails, its error."""
    names = list(names)
    shares = [share for place in range(2) if (share := names[place::2])]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        results = [result for share in pool.map(_in_a_process, shares) for result in share.items()]
    return {name: dict(results)[name] for name in names}


def _in_a_process(names: list[str]) -> dict[str, Probe | str]:
    path_variable = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-W", "ignore", "-m", "fusionlib.probes", *names]
    process = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **PLAIN, **path_variable, PROBING: "1"}
    )
    try:
        return json.loads(process.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return dict.fromkeys(names, (process.stderr.strip().splitlines() or ["no answer"])[-1])


def _verdicts(changed: list[str], states: Mapping[str, str], recorded: Mapping[str, dict]) -> dict[str, bool]:
    """Whether each component with a changed source behaves as recorded, by a stored verdict or by its probe."""
    if not changed:
        return {}
    marks = {
        name: fingerprint(name, states[name], recorded.get(name, {}).get("probe"), _code_of_probes())
        for name in changed
    }
    try:
        REMEMBERED.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(REMEMBERED.with_name(f"{REMEMBERED.name}.lock"))
        with lock:  # another process may be probing: its verdict is then used
            known = _remembered()
            if open_questions := [name for name in changed if marks[name] not in known]:
                known |= {marks[name]: verdict for name, verdict in _judged(open_questions, recorded).items()}
                write_json(REMEMBERED, known)
    except (OSError, InputError):  # a checkout that cannot be written to: nothing is remembered
        known = {marks[name]: verdict for name, verdict in _judged(changed, recorded).items()}
    return {name: known.get(marks[name], False) for name in changed}


def _judged(names: list[str], recorded: Mapping[str, dict]) -> dict[str, bool]:
    """Whether components behave as recorded; one whose probe failed, or was killed, is reported and left out."""
    listed = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
    LOGGER.warning(f"The code of {listed} has changed: running its probes ...")
    results = probed(names)
    for name, probe in results.items():
        if isinstance(probe, str):
            LOGGER.warning(f"The probe of {name} failed ({probe}): for now its results do not fit.")
    return {
        name: name in recorded and agree(probe, recorded[name]["probe"])
        for name, probe in results.items()
        if not isinstance(probe, str)
    }


@cache
def _code_of_probes() -> str:
    return fingerprint(
        [path.read_text(encoding="utf-8") for path in sorted((ROOT / "fusionlib").glob("**/probes/*.py"))]
    )


def _remembered() -> dict[str, bool]:
    try:
        return json.loads(REMEMBERED.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
