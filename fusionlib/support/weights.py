"""Weights on disk: safetensors whose header says what made them.

The header holds the recipe (JSON), the key of recipe, data and code (`made_by`), the git revision, and the machine
(JSON): the same recipe gives slightly other weights on another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fusionlib.support.files import InputError, atomic, fingerprint
from fusionlib.support.keys import Key
from fusionlib.support.machine import git_revision, machine

Module = TypeVar("Module", bound=nn.Module)
Config = TypeVar("Config")


def save_weights(path: Path, weights: Mapping[str, Tensor], recipe: dict, key: Key) -> None:
    """Write a state_dict as safetensors, with the recipe, its key, the git revision and the machine in the header."""
    header = {"recipe": json.dumps(recipe), "made_by": str(key), "revision": git_revision()}
    header |= {"machine": json.dumps(machine())}
    with atomic(path) as part:
        try:
            save_file({name: value.contiguous() for name, value in weights.items()}, part, header)
        except SafetensorError as error:  # safetensors raises this instead of an OSError
            raise InputError(f"{path} cannot be written ({error}): free some space and run it again.") from None


def read_header(path: Path | str) -> dict[str, str]:
    """Recipe, key and revision from the header of a weights file; InputError if `save_weights` did not write it."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except FileNotFoundError:
        if Path(path).exists():  # safetensors says this of a file that it may not open, too
            raise InputError(f"{path} cannot be opened: make it readable.") from None
        raise InputError(f"There are no weights at {path}; check the path.") from None
    except Exception as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); fetch or train it again.") from None
    if not {"recipe", "made_by"} <= header.keys():
        raise InputError(f"{path} does not say what made it; use weights written by fusionlib.")
    return header


def key_of(path: Path | str) -> Key:
    """The key of what made a weights file; errors as in `read_header`."""
    return Key.parse(read_header(path)["made_by"])


def mark_of(path: Path | str) -> str:
    """Eight hexadecimal digits for what made a weights file and for its numbers, for the keys of what is measured with
    it: another machine or another number of threads gives slightly other weights. Errors as in `read_state`.
    """
    key, numbers = key_of(path), hashlib.sha256()
    for name, value in sorted(read_state(path).items()):
        numbers.update(name.encode() + value.contiguous().numpy().tobytes())
    return fingerprint(key.digest, numbers.hexdigest())[:8]


def recipe_of(path: Path | str) -> dict[str, object]:
    """The recipe in the header, as JSON has it; InputError as in `read_header`, or if it is damaged."""
    text = read_header(path)["recipe"]
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(recipe := json.loads(text), dict):
            return recipe
    raise InputError(f"{path} has a damaged header: fetch or train it again.")


def settings_of(path: Path | str, part: str) -> dict[str, object]:
    """The settings of a part of the recipe in the header, such as "network"; InputError as in `read_header`, or if the
    recipe has no such part.
    """
    settings = recipe_of(path).get(part)
    if not isinstance(settings, dict):
        raise InputError(f"{path} holds weights of a recipe without a {part}; give a file that was made with one.")
    # JSON has made lists of the tuples.
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def config_of(kind: type[Config], path: Path | str, part: str) -> Config:
    """`settings_of` as the dataclass that they belong to; InputError also for settings that it does not have."""
    settings = settings_of(path, part)
    try:
        return kind(**settings)
    except TypeError:
        raise InputError(f"{path} has settings of another version of fusionlib: use that version.") from None


def read_state(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a weights file that `read_header` has accepted; InputError if one has NaN or infinite numbers, or
    a running variance below 0.
    """
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if bad := [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise InputError(f"{path} holds NaN or infinite numbers in {bad[0]}: fetch or train it again.")
    if bad := [name for name, tensor in state.items() if name.endswith("running_var") and (tensor < 0).any()]:
        raise InputError(f"{path} holds a negative variance in {bad[0]}: fetch or train it again.")
    return state


def with_weights(module: Module, path: Path | str) -> Module:
    """The module with the weights of a file, in evaluation mode; InputError if they are of another module."""
    try:
        module.load_state_dict(read_state(path))
    except RuntimeError:
        raise InputError(
            f"{path} holds weights of another network, or of an earlier version of it: give a file of this network, "
            "or train it again with `--retrain`."
        ) from None
    return module.eval()
