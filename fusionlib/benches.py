"""What the benches of registration, of detection and of cost measure: their settings, which the presets compose."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fusionlib.training.detectors import FROM_COCO, DetectorTraining


@dataclass(frozen=True)
class BenchConfig:
    """What the bench of registration measures.

    Attributes:
        sets, sizes: (set, split) pairs, and sides in pixels to which the images are resized.
        levels, draws: of deformation, and how many deformations of each pair at each level.
        count: only so many pairs of each split; None for all.
    """

    sets: tuple[tuple[str, str], ...] = (("RoadScene", "val"), ("RoadScene", "test"))
    sizes: tuple[int, ...] = (256, 512)
    levels: tuple[str, ...] = ("light", "medium", "heavy")
    draws: int = 5
    count: int | None = None


@dataclass(frozen=True)
class DetectionBenchConfig:
    """What Table 3 measures.

    Attributes:
        dataset: whose training split the detectors learn on.
        tests: name in the table, to the (set, splits) scored under it.
        size: side in pixels to which images are resized.
        level: of deformation, of training and test images alike.
        count: only so many pairs of each split; None for all.
        start: the training that all detectors have in common, on aligned infrared, visible and averaged pictures.
        own: the training that each adds, on the images of its method; its detector's classes are those that are scored.
        methods: whose images are compared, beside Ours with and without l_ob: each source alone, their average and
            their maximum, and the rows of Tables 1 and 2. Each costs fusing all training and test images.
        own_sides: (method, another side) at which it fuses; its images are then enlarged. IVFWSR's script makes images
            of 256 pixels and takes ten seconds for each; at 512, it would take minutes.
        seeds: of the detectors, the same for every method.
    """

    dataset: str = "RoadScene"
    tests: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("RoadScene", "RoadScene", ("test", "val", "external")),
        ("M3FD", "M3FD", ("test",)),
    )
    size: int = 512
    level: str = "medium"
    count: int | None = None
    start: DetectorTraining = field(default_factory=lambda: replace(FROM_COCO, epochs=8, learning_rate=1e-3))
    own: DetectorTraining = field(default_factory=lambda: replace(FROM_COCO, epochs=4, learning_rate=5e-4))
    methods: tuple[str, ...] = (
        "infrared",
        "visible",
        "average",
        "maximum",
        "crossraft+datfuse",
        "crossraft+tardal",
        "crossraft+ydtr",
        "crossraft+emma",
        "imf",
        "ivfwsr",
        "murf",
        "superfusion",
    )
    own_sides: tuple[tuple[str, int], ...] = (("ivfwsr", 256),)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class CostConfig:
    """What Table 6 measures.

    Attributes:
        joint, chains: methods that register and fuse at once, those of Table 6, and those that do so in a row.
        plain: the plainest reading of the paper, whose operations are counted beside them.
        side: of the square images whose multiply-accumulates are counted. PAPER-GAP: the paper says 512 for all rows.
        own_sides: (method, another side). The paper's number of IVFWSR belongs to 252 pixels, which is what its test
            script makes of 256; at 512 a pair would take minutes.
        timed: (side, threads), each timed in one run in turns; methods in `own_sides` only up to about theirs.
        growth: sides at which time (`growth`) and memory (`tiles`) of Ours are measured.
        large: height and width of a pair that is fused in tiles.
        runs: timed calls of each method.
    """

    joint: tuple[str, ...] = ("ours", "imf", "ivfwsr", "murf", "superfusion")
    chains: tuple[str, ...] = ("crossraft+datfuse", "crossraft+tardal", "crossraft+ydtr", "crossraft+emma")
    plain: str = "as_in_the_paper"
    side: int = 512
    own_sides: tuple[tuple[str, int], ...] = (("ivfwsr", 252),)
    timed: tuple[tuple[int, int], ...] = ((256, 1), (256, 2), (512, 2))
    growth: tuple[int, ...] = (128, 256, 384, 512, 768, 1024)
    large: tuple[int, int] = (3072, 4096)
    runs: int = 7

    def sides(self) -> dict[str, int]:
        """Method to the side at which it is counted."""
        return dict.fromkeys((*self.joint, *self.chains), self.side) | dict(self.own_sides)
