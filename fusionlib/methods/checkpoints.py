"""The weights of the compared systems: where they are found, and how they come into a network.

Published weights are looked for in three places (`support.paths.weight_file`), and the checksum of every file is
verified. Weights retrained here (`fusionlib.methods.retraining`) are NAME.safetensors below
results/<preset>/weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fusionlib.data.systems import System
from fusionlib.methods.baselines.murf_checkpoint import load_checkpoint
from fusionlib.support.files import InputError, fingerprint, is_recorded, sha256
from fusionlib.support.paths import ROOT, weight_file
from fusionlib.support.weights import mark_of, read_state, recipe_of

ON_REAL_PAIRS = ("paper", "mini")  # presets whose weights and numbers may be used anywhere
PUBLISHED, RETRAINED, IN_PART, GIVEN = "published", "retrained", "published in part", "given"
BOTH = f"{PUBLISHED} + {RETRAINED}"


@dataclass(frozen=True)
class Source:
    """Where the weights of a system come from.

    Attributes:
        kind: PUBLISHED, RETRAINED, BOTH (some parts of the network each), IN_PART (published, and nothing for the
            rest), or GIVEN (a file of one's own).
        mark: digest of the weights: of their files, or of the key of what made them.
        files: part of the network to its file, as in `System.published`; "" is all of it.
        retrained: the file of what was retrained here, if anything was.
    """

    kind: str
    mark: str
    files: Mapping[str, Path] = field(default_factory=dict)
    retrained: Path | None = None


def find(system: System, weights: Path | str | None = None) -> Source:
    """Where the weights of a system are.

    Args:
        system: which.
        weights: a file of weights, or a folder whose NAME.safetensors is used if it exists, before all but
            `System.untried`. By default: the published weights, with `System.untried` if its files are here, else
            those retrained here in the largest preset, else the published part.

    Raises:
        InputError: there are none, or a file is not what it should be; the message says how to get or make them.
    """
    weights = None if weights is None else Path(weights)
    if (weights is None or weights.is_dir()) and is_here(system):
        return published(system, [*system.published, *system.untried])
    if weights is not None and weights.is_dir():
        file = weights / f"{system.name}.safetensors"
        weights = file if file.exists() else None
    if weights is not None:
        return _source_of_file(weights, system)
    if "" in system.published:
        return published(system)
    if retrained := in_results(system.name):
        return _source_of_file(retrained, system)
    if system.partial is not None:
        return published(system)
    make = f"make them with `python -m fusionlib retrain {system.name} --preset mini`, or give a file of your own"
    raise InputError(f"There are no weights of {system.title}, and none that could be fetched are published: {make}.")


def in_results(name: str) -> Path | None:
    """Weights below `results`: of the paper preset if they are there, else of mini; None if neither is."""
    paths = (ROOT / "results" / preset / "weights" / f"{name}.safetensors" for preset in ON_REAL_PAIRS)
    return next((path for path in paths if path.exists()), None)


def is_here(system: System) -> bool:
    """Whether a system has weights in `System.untried`, and this machine has all of them."""
    return bool(system.untried) and all(weight_file(system.name, file) for file in system.untried.values())


def published(system: System, parts: Iterable[str] | None = None) -> Source:
    """The published files of some parts of a system, or of all in `System.published`, each verified.

    Raises:
        InputError: a file is not there, or not the recorded one.
    """
    all_files = system.published | system.untried
    part_files = {part: all_files[part] for part in parts or system.published}
    digests = []
    for file, facts in system.files.items():
        if file.startswith(tuple(part_files.values())):
            path = _path(system, file)
            digests.append(sha256(path))
            if not is_recorded(path, facts):
                raise InputError(f"{path} is not the published file: remove it and run `{_command(system)}`.")
    kind = PUBLISHED if "" in part_files or system.untried.keys() & part_files.keys() else IN_PART
    return Source(kind, fingerprint(digests)[:8], {part: _path(system, file) for part, file in part_files.items()})


def fill(network: nn.Module, system: System, source: Source) -> nn.Module:
    """Load the weights into the network of the system, strictly, and return it; parts without weights stay random.

    Raises:
        InputError: a file cannot be read, or its weights are not those of this network.
    """
    state = {} if source.retrained is None else read_state(source.retrained)
    for part, path in source.files.items():
        tensors = {f"{part}.{key}" if part else key: value for key, value in _read(path).items()}
        if part in system.untried:  # as upstream reads them: what the network does not know is left out
            tensors = {key: value for key, value in tensors.items() if key in network.state_dict()}
        state |= tensors
    if source.kind == IN_PART:
        drawn = network.state_dict()
        state |= {key: value for key, value in drawn.items() if key.partition(".")[0] not in source.files}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        files = ", ".join(str(path) for path in (*source.files.values(), source.retrained) if path)
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{files} holds no weights of {system.title} ({reason}): fetch or make them again.") from None
    return network


def _source_of_file(path: Path, system: System) -> Source:
    """The source of a file of weights, with the published files that hold the other parts."""
    if not path.exists():
        raise InputError(f"There are no weights at {path}: give a file that is there, or none at all.")
    if path.suffix != ".safetensors":
        return Source(GIVEN, sha256(path)[:8], {"": path})
    if not (published_parts := recipe_of(path).get("published")):
        return Source(RETRAINED, mark_of(path), retrained=path)
    source = published(system, published_parts)
    return Source(BOTH, fingerprint(source.mark, mark_of(path))[:8], source.files, path)


def _path(system: System, file: str) -> Path:
    """Where a published file lies, see `weight_file`."""
    if path := weight_file(system.name, file):
        return path
    advice = f"run `{_command(system)}`, or name the folder that has them in FUSIONLIB_WEIGHTS"
    raise InputError(f"The published weights of {system.title} are not here: {advice}.")


def _command(system: System) -> str:
    return f"python -m fusionlib data fetch {system.name}"


def _read(path: Path) -> dict[str, Tensor]:
    if path.with_name(f"{path.name}.index").exists():
        return load_checkpoint(path)
    try:
        return _tensors_by_name(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch and pickle raise many kinds of errors for damaged files
        raise InputError(
            f"{path} is not a readable file of weights ({type(error).__name__}): fetch it again."
        ) from None


def _tensors_by_name(saved: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a file by their names in the network, in whatever way the file was saved.

    Some files hold a state_dict for each part, beside those of the optimisers; those of a network that was trained on
    several GPUs have `module.` before every name.

    >>> saved = {"DM": {"module.a": torch.ones(1)}, "DM_opt": {"state": {}}, "epoch": 3}
    >>> list(_tensors_by_name(saved))
    ['DM.a']
    """
    tensors = {}
    for name, value in saved.items():
        for inner, tensor in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(tensor, Tensor):
                parts = [part.removeprefix("module.") for part in (name, inner) if part]
                tensors[".".join(parts)] = tensor
    return tensors
