"""The notebooks as things to run: their parameters, what they need, and in which order they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nbformat
import papermill

from fusionlib.support.files import InputError
from fusionlib.support.paths import notebook_files, notebook_number

TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool}  # annotations that values are held against
OPTIONS = ("preset", "seed", "retrain", "results")  # parameters that the command line has options for


@dataclass(frozen=True)
class Notebook:
    """A notebook that can be run: `known` maps each of its parameters to its type, `needs` are numbers of others.

    One that `spreads` hands out its own tasks where there is a cluster (`fusionlib.support.parallel`), and waits for
    them. One that `follows` others reads what they have made, whatever that is: it runs after them, also if they have
    failed.
    """

    path: Path
    needs: tuple[str, ...]
    known: Mapping[str, str]
    cells: tuple[tuple[str, str], ...] = field(repr=False)
    spreads: bool = False
    follows: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        return notebook_number(self.name)

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def code(self) -> str:
        """All code cells, one after another."""
        return "\n".join(text for kind, text in self.cells if kind == "code")


def find_notebooks(folder: Path) -> dict[str, Notebook]:
    """Every notebook NN_name.ipynb of a folder by its number; InputError if there is none or one cannot be read."""
    notebooks: dict[str, Notebook] = {}
    for number, path in notebook_files(folder).items():
        try:
            content = nbformat.read(path, as_version=4)
        except Exception as error:
            raise InputError(f"{path} is not a readable notebook ({error}); restore it.") from None
        known = {name: facts["inferred_type_name"] for name, facts in papermill.inspect_notebook(path).items()}
        facts, cells = content.metadata.get("fusionlib", {}), tuple((c.cell_type, c.source) for c in content.cells)
        needs, follows = (tuple(facts.get(name, ())) for name in ("needs", "follows"))
        notebooks[number] = Notebook(path, needs, known, cells, bool(facts.get("spreads", False)), follows)
    if not notebooks:
        raise InputError(f"There are no notebooks NN_name.ipynb in {folder}; run the command from a checkout.")
    return notebooks


def choose(everything: Mapping[str, Notebook], numbers: Sequence[str] | None) -> list[Notebook]:
    """The notebooks with these numbers ("3" and "03_training" mean "03"); InputError if one is not there."""
    names = {alias: notebook for n, notebook in everything.items() for alias in (n, n.removeprefix("0"), notebook.name)}
    wanted = list(numbers or everything)
    unknown = [number for number in wanted if number not in names]
    if unknown:
        raise InputError(f"There is no notebook {unknown[0]!r}; choose from {', '.join(everything)}.")
    return list({names[number].number: names[number] for number in wanted}.values())


def in_order(chosen: Sequence[Notebook], everything: Mapping[str, Notebook]) -> list[Notebook]:
    """Every notebook after the chosen ones it needs; those that others wait for come first, then by number."""
    for notebook in chosen:
        if missing := [number for number in (*notebook.needs, *notebook.follows) if number not in everything]:
            raise InputError(
                f"{notebook.name} needs notebook {missing[0]!r}, which is not there; correct its metadata."
            )
    numbers = {notebook.number for notebook in chosen}
    graph = {notebook.number: numbers.intersection((*notebook.needs, *notebook.follows)) for notebook in chosen}
    needed = set().union(*(notebook.needs for notebook in chosen))
    sorter, order = TopologicalSorter(graph), []
    try:
        sorter.prepare()
    except CycleError as error:
        raise InputError(f"Notebooks {', '.join(error.args[1])} need each other; correct their metadata.") from None
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda number: (number not in needed, number))
        order += [everything[number] for number in ready]
        sorter.done(*ready)
    return order


def checked_parameters(parameters: Mapping[str, object], chosen: Sequence[Notebook]) -> dict[str, object]:
    """Parameters as papermill can pass them on; InputError if no chosen notebook knows one or its type is another."""
    checked = {}
    for name, value in parameters.items():
        if name in OPTIONS:
            raise InputError(f"{name!r} is an option of its own: give --{name} instead of -p {name}.")
        kinds = {notebook.known[name] for notebook in chosen if name in notebook.known}
        if not kinds:
            known_names = ", ".join(sorted(set().union(*(notebook.known for notebook in chosen)))) or "none"
            raise InputError(f"None of the chosen notebooks has a parameter {name!r}; there are {known_names}.")
        value = value.item() if hasattr(value, "item") else value  # a NumPy number is not JSON
        value = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for kind in kinds & TYPES.keys():
            value = str(value) if kind == "str" else value
            if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
                raise InputError(f"Parameter {name!r} must be of type {kind}, not {value!r}.")
        checked[name] = value
    return checked
