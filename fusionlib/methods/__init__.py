"""Everything that can register and fuse, behind one protocol: Ours, the compared systems (`baselines`), classical ones;
the weights and the retraining of each. Uses `training` and what lies below.

The names of `fusionlib.methods.registry` are those of this folder, too: `fusionlib.methods.load("ours")`.
"""

from fusionlib.methods.classical import CLASSICAL, Classical
from fusionlib.methods.protocol import Fused, Method
from fusionlib.methods.registry import (
    NETWORKS,
    Chain,
    Origin,
    Ours,
    check_weights,
    key_of_network,
    load,
    names,
    network,
    origin,
    overview,
    shipped_weights,
)
from fusionlib.methods.simple_fusion import RULES

__all__ = [
    "CLASSICAL",
    "NETWORKS",
    "RULES",
    "Chain",
    "Classical",
    "Fused",
    "Method",
    "Origin",
    "Ours",
    "check_weights",
    "key_of_network",
    "load",
    "names",
    "network",
    "origin",
    "overview",
    "shipped_weights",
]
