"""How long the threads of a computation spin while they wait for each other.

By default GNU's OpenMP lets a waiting thread spin for milliseconds. On an idle machine that saves its waking up; where
another process keeps a core busy, the spinning threads keep each other from the cores and a fusion takes several times
as long. A short spin is a little slower on an idle machine and much faster on a busy one. It has to be set before torch
is imported, so every process that the project starts is given it: commands, kernels of notebooks, workers, `make`.
"""

from __future__ import annotations

from collections.abc import Mapping

SPIN = "GOMP_SPINCOUNT"  # rounds of the waiting loop before a thread sleeps
ROUNDS = "1000"
OWN = (SPIN, "OMP_WAIT_POLICY")  # whoever sets one of these has decided


def short_spin(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable to add to an environment; none where the user has set one that decides it.

    >>> short_spin({}), short_spin({"OMP_WAIT_POLICY": "active"})
    ({'GOMP_SPINCOUNT': '1000'}, {})
    """
    return {} if any(name in environment for name in OWN) else {SPIN: ROUNDS}
