"""Beyond what the network has learned: larger deformations, darkness and glare, each by a known amount.

A picture of one failure says that a method can fail, not at what. Here one thing at a time is made worse, on the same
pairs with the same deformations, and the end-point error says at which amount a method fails.

Convention: visible images (1, 1, H, W) in [0, 1]. The infrared one is never touched: it is what sees at night.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fusionlib import deformation
from fusionlib.data import PairSet
from fusionlib.data.scenes import scenes_of
from fusionlib.deformation import Level, get_level
from fusionlib.experiments import evaluation, runner
from fusionlib.methods import Method
from fusionlib.metrics.statistics import holm, sign_flips
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.random_fields import generator

LAMP = 0.04  # radius of a lamp's bright core, as a part of the shorter side


def farther(factor: float) -> Level:
    """Shift and rotation `factor` times those of `heavy`; the elastic part is never made larger: it would fold."""
    heavy = get_level("heavy")
    amounts = (heavy.translation * factor, heavy.rotation * factor, heavy.elastic * min(factor, 1.0))
    return Level(f"{factor:g} x heavy", *amounts)


def night(vi: Tensor, photons: float, key: object) -> Tensor:
    """The visible image in little light: each pixel counts single photons, and the camera turns up its gain.

    Args:
        vi: (1, 1, H, W) in [0, 1].
        photons: that a white pixel catches on average; above 0. At 100 the noise of white is a tenth, at 1 all of it.
        key: anything with a stable text form; equal keys give equal noise.

    Raises:
        InputError: no light at all.
    """
    if not photons > 0:
        raise InputError(f"A camera that catches {photons:g} photons sees nothing: give a number above 0.")
    counts = generator("night", key).poisson(vi.double().numpy() * photons)
    return torch.from_numpy(counts / photons).to(vi.dtype).clamp(0, 1)


def glare(vi: Tensor, lamps: float, key: object) -> Tensor:
    """The visible image with so many lamps shining into the camera, each a white core in a wide halo of light.

    The halo falls as a star's does on a photographic plate, (1 + (r / radius)^2)^-1.5 (Moffat, 1969). With the same
    key, more lamps are those of fewer lamps and others.

    Args:
        vi: (1, 1, H, W) in [0, 1].
        lamps: how many, a whole number.
        key: as in `night`.
    """
    height, width = vi.shape[-2:]
    rows, columns = np.mgrid[:height, :width]
    light = np.zeros((height, width))
    for down, across in generator("glare", key).uniform(size=(int(lamps), 2)) * (height, width):
        distance = np.hypot(rows - down, columns - across) / (LAMP * min(height, width))
        light += 3 * (1 + distance**2) ** -1.5
    return (vi + torch.from_numpy(light).to(vi.dtype)).clamp(0, 1)


@dataclass(frozen=True)
class Trial:
    """One thing that is made worse.

    Attributes:
        name: in tables.
        unit: what an amount counts.
        amounts: from easy to impossible.
        level: of deformation at an amount.
        spoil: (visible image, amount, key) to what the camera sees.
    """

    name: str
    unit: str
    amounts: tuple[float, ...]
    level: Callable[[float], Level] = lambda amount: get_level("medium")
    spoil: Callable[[Tensor, float, object], Tensor] = lambda vi, amount, key: vi


TRIALS = {
    trial.name: trial
    for trial in (
        Trial("distance", "shift and rotation, times heavy", (0.25, 0.5, 1.0, 1.5, 2.0, 3.0), level=farther),
        Trial("darkness", "photons that white catches", (1000.0, 100.0, 30.0, 10.0, 3.0, 1.0), spoil=night),
        Trial("glare", "lamps", (0.0, 1.0, 2.0, 4.0, 8.0, 16.0), spoil=glare),
    )
}


def run(
    trial: Trial, methods: Mapping[Method, Key], pairs: PairSet, path: Path, amounts: Sequence[float] | None = None
) -> pd.DataFrame:
    """Register every pair at every amount, or read what was measured by the same method before.

    Args:
        trial: what is made worse.
        methods: each with the key of what it is, see `methods.origin`.
        pairs: aligned test pairs.
        path: CSV file in which the rows are kept, part by part.
        amounts: only these.

    Returns:
        A row for each amount, method and pair: trial, amount, method, pair, and the columns of
        `evaluation.registration`.
    """
    key = runner.key_of(pairs, "deformation", "hardships", "scores")
    parts = []
    for amount, method in product(map(float, amounts or trial.amounts), methods):
        where = {"trial": trial.name, "amount": amount, "method": method.name}
        parts.append(runner.Part(where, key | methods[method], partial(_measure, trial, amount, method, pairs)))
    return runner.run(path, parts)


def method_inputs(trial: Trial, amount: float, pairs: PairSet, index: int) -> tuple[deformation.Misaligned, Tensor]:
    """What a method is given of one pair: the deformed infrared, and the visible image (1, 1, H, W) as spoilt."""
    ir, vi = pairs.stack([index])
    name = pairs.names[index]
    return evaluation.deform(ir, name, trial.level(amount)), trial.spoil(vi, amount, name)


def _measure(trial: Trial, amount: float, method: Method, pairs: PairSet) -> pd.DataFrame:
    rows = []
    for index, name in enumerate(pairs.names):
        moved, vi = method_inputs(trial, amount, pairs, index)
        errors = evaluation.registration(method.fuse(moved.ir, vi), pairs.stack([index])[0], moved)
        rows.append({"pair": name} | errors)
    return pd.DataFrame(rows)


NOTHING: Mapping[str, Callable[[Tensor, object], Tensor]] = {
    "constant": lambda ir, key: torch.full_like(ir, 0.5),
    "black": lambda ir, key: torch.zeros_like(ir),
    "white": lambda ir, key: torch.ones_like(ir),
    "noise": lambda ir, key: torch.from_numpy(generator("nothing", key).uniform(size=ir.shape)).to(ir.dtype),
}


def at_rest(methods: Mapping[Method, Key], pairs: PairSet, path: Path) -> pd.DataFrame:
    """How far a method moves what it should leave in place: aligned pairs, and infrared images that show nothing.

    Args:
        methods: each with the key of what it is, see `methods.origin`; all of them register.
        pairs: aligned pairs.
        path: CSV file in which the rows are kept, part by part.

    Returns:
        A row for each input ("aligned" and those of `NOTHING`), method and pair: set, input, method, pair, moved, the
        mean length of the field in parts of the image side.
    """
    key = runner.key_of(pairs, "nothing")
    parts = []
    for input_name, method in product(("aligned", *NOTHING), methods):
        where = {"set": pairs.title, "input": input_name, "method": method.name}
        parts.append(runner.Part(where, key | methods[method], partial(_measure_movement, input_name, method, pairs)))
    return runner.run(path, parts)


def _measure_movement(input_name: str, method: Method, pairs: PairSet) -> pd.DataFrame:
    rows = []
    for name, ir, vi in pairs.one_by_one():
        field = method.fuse(ir if input_name == "aligned" else NOTHING[input_name](ir, name), vi).field
        side = (ir.shape[-2] * ir.shape[-1]) ** 0.5
        rows.append({"pair": name, "moved": field.norm(dim=1).mean().item() / side})
    return pd.DataFrame(rows)


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """What is left of the misalignment, mean EPE over that of the identity: rows amount, columns method."""
    means = rows.groupby(["amount", "method"], sort=False)[["EPE", "EPE_identity"]].mean()
    return (means["EPE"] / means["EPE_identity"]).unstack("method", sort=False)


def differences(rows: pd.DataFrame, reference: str = "ours") -> pd.DataFrame:
    """What methods, and the identity, leave more than the reference, pair by pair, at every amount of every trial.

    Args:
        rows: of `run`, of one or more trials.
        reference: the method that is subtracted.

    Returns:
        Rows (trial, amount), two columns for each method: its mean `difference` in EPE, in pixels, and `p` of sign
        flips over scenes, corrected by Holm for the amounts of all trials.
    """
    places, found = ["trial", "amount"], {}
    for place, at_amount in rows.groupby(places, sort=False):
        errors = at_amount.pivot(index="pair", columns="method", values="EPE")
        errors["identity"] = at_amount.groupby("pair")["EPE_identity"].first()
        scenes = scenes_of(errors.index)
        for method in errors.columns.drop(reference):
            change = errors[method] - errors[reference]
            found[(*place, method)] = {"difference": change.mean(), "p": sign_flips(change, scenes)}
    lines = pd.DataFrame.from_dict(found, orient="index").rename_axis([*places, "method"])
    of_method = lines["p"].groupby("method", sort=False)
    lines["p"] = pd.concat([pd.Series(holm(p_values.to_dict())) for _, p_values in of_method])
    return lines.unstack("method", sort=False).swaplevel(axis=1)
