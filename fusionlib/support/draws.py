"""Draws that depend on a key alone, never on the state of a generator: the same on every machine and in every order."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*key: object) -> np.random.Generator:
    """The generator of a key, whose parts may be anything with a stable text form; equal keys draw equal numbers."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()))
