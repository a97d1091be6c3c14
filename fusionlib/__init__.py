"""fusionlib: the thin library behind the notebooks of *Target-aware unregistered infrared and visible image fusion*.

The paper is the root of this package: `network` and `registration` (Figs. 2 and 3, Eqs. 3, 4, 6 and 7), `deformation`,
`losses` (Eqs. 1, 2, 5 and 9-12) and `detection` (Eq. 8). Beside it, `presets` and `benches` hold the settings.
Everything else lies in folders; each says what lives there and what it may use. To begin with:

    import fusionlib

    fusionlib.fuse("infrared.png", "visible.png", "fused.png")    # two files, or two folders
    ours = fusionlib.load()    # the best that is here, see the README; fusionlib.load("ours") is the paper's network
    fused = ours.fuse(ir, vi)    # (B, 1, H, W) in [0, 1] -> fused.image, fused.field, fused.registered_ir
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusionlib.methods import Method

__all__ = ["fuse", "load"]
__version__ = "0.1.0"


def load(name: str = "ours_robust", weights: Path | str | None = None, **options: object) -> Method:
    """A method by name; see `fusionlib.methods.load`. Of a folder of weights, only those of this method are taken."""
    from fusionlib import methods  # torch comes with it

    methods.check_weights(name, weights)
    return methods.load(name, weights, **options)


def fuse(ir: Path | str, vi: Path | str, out: Path | str, method: str = "ours_robust", **options: object) -> list[Path]:
    """Fuse two image files, or two folders of them; see `fusionlib.methods.fuse.fuse_files`."""
    from fusionlib.methods.fuse import fuse_files

    return fuse_files(ir, vi, out, method, **options)
