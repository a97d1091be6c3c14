"""Table 3: how well objects are found on what each method makes of unregistered pairs.

Protocol, the same for every method: the pairs are deformed and fused, and the images kept with 8 bits; one detector of
the same kind learns on the fused training images, with the same budget and the same seeds; it is scored on fused images
that it has not seen. With each seed, all detectors begin with the same weights: YOLOv5n as COCO has made it
(`fusionlib.training.coco`), trained on the aligned training pairs as they are. What has a detection head of its own is
scored end to end: its head finds objects on its fused feature. And COCO's detector as published is scored on all images
(`untrained`): what it says depends on no training here. So it also judges several short trainings of Ours, with the
detection loss and without (`target_awareness`).

PAPER-GAP: the paper says "YOLOv5", "M3FD" and "mAP 50->90" and nothing about who trained which detector on what, nor
where the boxes of its 152 training pairs come from, since RoadScene has none. Here they are those that FLIR drew on the
same frames (`fusionlib.data.labels`).

Columns of the table: method, seed, start (the file of weights that the detector began with, by its checksum), dataset,
class ("all" is their mean), boxes, AP50 to AP95, mAP50, mAP50:90, mAP50:95; of "all" also the ends of the bootstrap
interval over scenes, as mAP50:90_low and so on. How certain the difference of two methods is: `differences`.

On M3FD in full (`with_dataset`), which has to be downloaded by hand, detectors learn and are scored on its own splits,
with its six classes.
"""

from fusionlib.experiments.detection_bench.differences import against, pairwise
from fusionlib.experiments.detection_bench.images import (
    Labelled,
    fused,
    labelled,
    pictures,
    read_images,
    tested,
    with_dataset,
)
from fusionlib.experiments.detection_bench.scoring import end_to_end, head, scores, untrained
from fusionlib.experiments.detection_bench.training import detections, minutes, over_scenes, run, start

__all__ = [
    "Labelled",
    "against",
    "detections",
    "end_to_end",
    "fused",
    "head",
    "labelled",
    "minutes",
    "over_scenes",
    "pairwise",
    "pictures",
    "read_images",
    "run",
    "scores",
    "start",
    "tested",
    "untrained",
    "with_dataset",
]
