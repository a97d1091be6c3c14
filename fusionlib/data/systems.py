"""The compared systems: whose they are, where their code and weights are published, and what is retrained here.

`data/registry/methods/NAME.json` holds the facts about one system; the network itself is a file in
`fusionlib.methods.baselines`. Nothing else knows the systems by name, so a new one is one file and one entry.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module

from fusionlib.support.files import InputError
from fusionlib.support.paths import SYSTEMS

KINDS = ("fuses", "registers", "both")


@dataclass(frozen=True)
class Budget:
    """What the retraining of a system may cost, at 256 pixels: see `fusionlib.methods.retraining`.

    Attributes:
        steps: of the optimiser.
        batch: pairs a step.
        crop: side in pixels of the squares cut from them, which has to suit the network.
    """

    steps: int
    batch: int
    crop: int


@dataclass(frozen=True)
class System:
    """One compared system.

    Attributes:
        name: as `methods.load` knows it; also the folder of its published weights.
        title: as the paper's tables print it.
        kind: "fuses" an aligned pair, "registers" the infrared to the visible image, or "both".
        moves: what a registering system warps: "infrared", "visible" or "features" (no field comes out); else None.
        network, method, loss: dotted names of the class of the network, of the class that makes a
            `protocol.Method` of it, and of the function from network and `training.batches.Batch` to the loss of its
            retraining.
        paper: whom to cite.
        upstream, commit: repository on GitHub and the state of it that this was written from.
        licence: what upstream states about its code and weights.
        files: the published weights, as in the registries of the data sets: path to sha256, bytes and url; of those
            whose SHA-256 is not known, to git_blob, by which the upstream commit names their content, and url.
        published: part of the network to the file that holds it; the part "" is all of it. The file of a TensorFlow
            checkpoint is named without .index and .data.
        untried: the same for parts whose published weights could not be downloaded for the results of this project;
            their rows were measured with retrained weights. Where the files exist, they are used instead.
        untuned: options that turn off the training of the method on each pair that it is given.
        partial: options with which the method works where only the published parts are there.
        budget: of the retraining; None if all weights are published and at hand.
        learning_rate: of the retraining, where the rate of all others is too high for this system; else None.
        retraining: how the loss relates to the published one, and what was cut for want of time.
    """

    name: str
    title: str
    kind: str
    moves: str | None
    network: str
    method: str
    loss: str
    paper: str
    upstream: str
    commit: str
    licence: str
    retraining: str
    files: dict[str, dict]
    published: dict[str, str]
    untried: dict[str, str] = field(default_factory=dict)
    untuned: dict[str, object] = field(default_factory=dict)
    partial: dict[str, object] | None = None
    budget: Budget | None = None
    learning_rate: float | None = None


def names() -> list[str]:
    """Names of all compared systems."""
    return sorted(path.stem for path in SYSTEMS.glob("*.json"))


def system(name: str) -> System:
    """The facts about a system.

    Raises:
        InputError: no such system, or an entry that is not one.
    """
    if name not in names():
        raise InputError(f"There is no compared system {name!r}; choose one of {', '.join(names())}.")
    path = SYSTEMS / f"{name}.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        budget = facts.get("budget")
        entry = System(name, **facts | {"budget": budget and Budget(**budget)})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not the entry of a system ({error}); see fusionlib.data.systems.System.") from None
    if entry.kind not in KINDS:
        raise InputError(f"{path} has the kind {entry.kind!r}: give one of {', '.join(KINDS)}.")
    return entry


def imported(dotted: str) -> object:
    """The class or function of a dotted name, such as "fusionlib.methods.baselines.datfuse.DATFuse"; imports its
    module.

    Systems are imported one by one, when they are asked for: all of them together take a second.
    """
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"There is no {dotted} ({error}); correct the entry of the system.") from None
