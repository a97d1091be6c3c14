"""Images and what is known about them: sets of pairs, volumes of brains, labels, raw frames, drawn scenes, downloads,
the compared systems and the paper's tables. Uses the method and `support`.

The names of `fusionlib.data.sets` are those of this folder, too: `from fusionlib import data; data.open_set(...)`.
"""

from fusionlib.data.images import IMAGE_SUFFIXES, Size, read_infrared, read_visible, recolour, save_image
from fusionlib.data.lists import DRAWN, checksum, components_of, splits
from fusionlib.data.scenes import scenes_of
from fusionlib.data.sets import (
    CACHE_BYTES,
    SETS,
    SYNTHETIC_SCENES,
    Pair,
    PairSet,
    count_of,
    open_folders,
    open_set,
    read_pair,
)
from fusionlib.support.paths import FACTS, ROOT, SHIPPED, data_root

__all__ = [
    "CACHE_BYTES",
    "DRAWN",
    "FACTS",
    "IMAGE_SUFFIXES",
    "ROOT",
    "SETS",
    "SHIPPED",
    "SYNTHETIC_SCENES",
    "Pair",
    "PairSet",
    "Size",
    "checksum",
    "components_of",
    "count_of",
    "data_root",
    "open_folders",
    "open_set",
    "read_infrared",
    "read_pair",
    "read_visible",
    "recolour",
    "save_image",
    "scenes_of",
    "splits",
]
