"""A digest of source code that stays the same when only the wording of the code changes.

All definitions that some entry points can reach (functions, classes, constants, over all imports) are written in a
normal form. Left out: docstrings, comments, layout, annotations, `repr=` flags, printed and logged text, warnings, the
text of errors, the module of a definition, and the names of modules, top-level definitions and local variables.
Definitions that are never reached do not count.

An equal digest means equal behaviour, since the versions of the third-party packages are part of it. The reverse does
not hold: a rewritten loop has another digest and may behave the same. `fusionlib.support.behaviour.record` then runs
a probe.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from fusionlib.support.behaviour.normal_form import (
    PACKAGE,
    External,
    Module,
    Reference,
    collect,
    form,
    normal_form,
    path_of,
    resolve,
)


def digest(entries: Iterable[str]) -> str:
    """Sixteen hexadecimal digits for all definitions that the entry points can reach.

    Args:
        entries: dotted names, such as "fusionlib.training.train"; a module stands for everything in it.

    Raises:
        ValueError: there is no such entry.

    >>> digest(["fusionlib.deformation.warp"]) == digest(["fusionlib.deformation.warp"])
    True
    """
    return _digest(tuple(entries))


@cache  # every key asks for the same few
def _digest(entries: tuple[str, ...]) -> str:
    return _hash(_reachable([_entry(dotted) for dotted in entries]))


def modules_of(entries: Iterable[str], code: str = "") -> dict[str, Path]:
    """The modules in which the reachable definitions stand, name to file.

    Args:
        entries: as in `digest`.
        code: Python that imports from this package, such as the cells of a notebook: what it names is an entry, too.
    """
    scope = collect(Module("__main__"), ast.parse(code).body)
    nodes = [*scope.statements, *(node for nodes in scope.definitions.values() for node in nodes)]
    parts = [part for node in nodes for part in form(scope, node)]
    named = [part for part in parts if isinstance(part, Reference) and part.module != scope.name]
    modules = {reference.module for reference in _walk([*map(_entry, entries), *dict.fromkeys(named)], set())}
    return {name: path_of(name) for name in sorted(modules)}


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _entry(dotted: str) -> Reference:
    reference = resolve(dotted)
    if not isinstance(reference, Reference):
        raise ValueError(f"There is no {dotted} in {PACKAGE}: name a module, or a function or class of one.")
    return reference


def _walk(entries: list[Reference], packages: set[str]) -> Iterator[Reference]:
    """Every reachable definition once, in the order in which it is first met; fills `packages`."""
    known, waiting = set(entries), list(entries)
    for reference in waiting:  # grows meanwhile
        yield reference
        for part in normal_form(reference):
            if isinstance(part, External) and not part.name.startswith(f"{PACKAGE}."):
                packages.add(part.name.partition(".")[0])
            elif isinstance(part, Reference) and part not in known:
                known.add(part)
                waiting.append(part)


def _reachable(entries: list[Reference]) -> list[str]:
    packages: set[str] = set()
    order = list(_walk(list(dict.fromkeys(entries)), packages))
    numbers = {reference: f"d{place}" for place, reference in enumerate(order)}
    lines = [
        " ".join(numbers.get(part) or getattr(part, "name", part) for part in normal_form(reference))
        for reference in order
    ]
    return [*lines, *(f"{package} {_version(package)}" for package in sorted(packages) if _version(package))]


@cache
def _version(package: str) -> str:
    """Of a third-party package, without the part that names a build; empty for the standard library."""
    if package in sys.stdlib_module_names:
        return ""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(package, [])
        version = importlib.metadata.version(names[0]) if names else ""
    return version.partition("+")[0]
