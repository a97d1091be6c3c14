"""Weights on disk: safetensors whose header says what made them.

The header holds the recipe (JSON), the fingerprint of recipe, data and code, and the git revision.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from fusionlib.data import ROOT
from fusionlib.files import InputError, atomic
from fusionlib.network import FusionNetwork, NetworkConfig


def save_network(path: Path, net: FusionNetwork, recipe: dict, mark: str) -> None:
    """Write weights as safetensors, with the recipe, its fingerprint and the git revision in the header."""
    header = {"recipe": json.dumps(recipe), "fingerprint": mark, "revision": git_revision()}
    with atomic(path) as part:
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, part, header)


def load_network(path: Path | str) -> FusionNetwork:
    """Read weights that `save_network` wrote, with the network they belong to, ready to fuse.

    Raises:
        InputError: the file is missing, corrupt or of another network.
    """
    config = json.loads(read_header(path)["recipe"])["network"]
    config = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    net = FusionNetwork(NetworkConfig(**config))
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        net.load_state_dict(weights)
    except RuntimeError:
        raise InputError(
            f"{path} holds weights of an earlier network; make them anew with `reproduce 03 --retrain`."
        ) from None
    return net.eval()


def read_header(path: Path | str) -> dict[str, str]:
    """Recipe, fingerprint and revision from the header of a weights file; InputError if it is not one of ours."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except FileNotFoundError:
        raise InputError(
            f"There are no weights at {path}; run `python -m fusionlib reproduce 03` to make them."
        ) from None
    except Exception as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); fetch or train it again.") from None
    if not {"recipe", "fingerprint"} <= header.keys():
        raise InputError(f"{path} does not say what made it; use weights written by fusionlib.")
    return header


def git_revision() -> str:
    """Commit of the checkout, with "+" if files differ from it; "unknown" outside git."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
