"""The sizes in which everything runs: `smoke`, `mini` and `paper`, and a `rehearsal` of the last. The same code path.

A preset composes the settings that the modules own (`network.NetworkConfig`, ...); nothing below knows of presets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from fusionlib.benches import BenchConfig, CostConfig, DetectionBenchConfig
from fusionlib.detection import DetectorConfig
from fusionlib.network import AS_IN_THE_PAPER
from fusionlib.support.files import InputError
from fusionlib.support.paths import SHIPPED, Results
from fusionlib.support.settings import changed
from fusionlib.training.detectors import DetectorTraining
from fusionlib.training.recipe import Recipe, TrainingConfig
from fusionlib.training.schedules import ALL_TOGETHER, AUGMENTED, BRAINS, BRAINS_FUSED, REGISTRATION_FIRST


@dataclass(frozen=True)
class MriConfig:
    """What the MRI study, Table 7, runs with.

    Attributes:
        dataset, size: the set trained on and the side of its slices in pixels; 240 is their own.
        test_size: side of the slices that the table is made on.
        training: registration on crops, then on whole slices, then everything, then the fusion alone. Slices are not
            streets, so the statistics that BatchNorm has seen there do not stay.
        finish: a second training that begins with the weights of the first: the fusion alone, on crops and at a high
            rate, since black has to become black at the end of the head, far from where it begins. None in a preset
            whose one training is long enough. PAPER-GAP: not mentioned.
        test_sets: sets whose test slices the table is made on.
    """

    dataset: str = "open_ms"
    size: int = 240
    test_size: int = 240
    training: TrainingConfig = BRAINS
    finish: TrainingConfig | None = BRAINS_FUSED
    test_sets: tuple[str, ...] = ("open_ms", "brats_format")


@dataclass(frozen=True)
class Preset:
    """What the notebooks run with.

    Attributes:
        name: smoke, mini, paper or rehearsal.
        recipe: what is trained, on what, and how.
        test_sets: the sets whose test split the tables are made on. PAPER-GAP: the paper uses 18 pairs of RoadScene
            and 17 of M3FD without naming them; `data/splits` lists ours.
        test_size: side in pixels to which test images are resized. PAPER-GAP: RoadScene's images reach 512 pixels on no
            short side, so the paper's 512x512 is a resize; squares, as in the authors' lab, not crops.
        levels: deformations the test images are given; the first one is the tables'.
        always_train: train even if weights that fit are there; all its trainings are short.
        augmented: the further training, with photometric augmentation, that `ours_robust` has before everything is
            trained together; after the start of the recipe, or without one from random weights.
        plain_epochs: how long `as_in_the_paper` is trained.
        switch_epochs: how long each of `sweeps.switches` is trained; each of `sweeps.augmentations` half as long.
        sweep_epochs, sweep_longer: epochs of each row of Tables 4 and 5 after the start that all share, and of a few
            rows that are trained once more, longer, to see whether the order stays. PAPER-GAP: not stated; in `paper`
            both are the full recipe.
        sweep_crop: side of the random square that these trainings see of an image; None for all of it.
        sweep_seeds: with how many seeds each row is trained.
        sweep_between: how many values are tried between each of Table 5's and the paper's optimum.
        bench: what the registration bench measures.
        detection: what Table 3 measures.
        cost: what Table 6 measures.
        mri: what Table 7 is trained and measured on.
        shows_shipped: show how well something works with the shipped weights and tables, since its own trainings are
            too short.
        warning: what every page made with it says first; empty if its results can be taken for measurements.
    """

    name: str
    recipe: Recipe
    test_sets: tuple[str, ...] = ("RoadScene", "M3FD")
    test_size: int = 512
    levels: tuple[str, ...] = ("medium", "light")
    always_train: bool = False
    augmented: TrainingConfig = AUGMENTED
    plain_epochs: int = 150
    switch_epochs: int = 12
    sweep_epochs: int = 150
    sweep_longer: int = 150
    sweep_crop: int | None = None
    sweep_seeds: int = 3
    sweep_between: int = 1
    bench: BenchConfig = field(default_factory=BenchConfig)
    detection: DetectionBenchConfig = field(default_factory=DetectionBenchConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    mri: MriConfig = field(default_factory=MriConfig)
    shows_shipped: bool = False
    warning: str = ""

    def results(self, root: Path | str) -> Results:
        """Where this preset's own results lie below the folder `root`; the folder of its weights is made."""
        own = Results(root, self.name)
        own.weights.mkdir(parents=True, exist_ok=True)
        return own

    def shown(self, root: Path | str) -> Results:
        """Where the weights and tables lie that show how well something works: its own, or the shipped ones."""
        return SHIPPED if self.shows_shipped else self.results(root)


PAPER = Preset(
    "paper",
    Recipe("RoadScene", size=512, training=TrainingConfig(epochs=150), detector=DetectorConfig()),
    augmented=replace(AUGMENTED, epochs=150, registration_epochs=120, fusion_epochs=30),
    mri=MriConfig(training=TrainingConfig(epochs=150), finish=None),
)
ONE_STEP = TrainingConfig(epochs=1, batch=4, validation_pairs=1)  # of a rehearsal, on as many pairs

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "smoke",
            Recipe(
                "synthetic",
                size=64,
                train_pairs=8,
                training=replace(ALL_TOGETHER, epochs=1, batch=4, validate_every=1),
                detector=DetectorConfig(begin_small=True),
                start=Recipe(
                    "synthetic",
                    size=64,
                    train_pairs=8,
                    training=TrainingConfig(epochs=2, registration_epochs=1, batch=4, validate_every=1),
                ),
            ),
            test_sets=("synthetic",),
            test_size=256,
            always_train=True,
            shows_shipped=True,
            augmented=replace(AUGMENTED, epochs=2, registration_epochs=1, fusion_epochs=1, batch=4, validate_every=1),
            plain_epochs=2,
            switch_epochs=1,
            sweep_epochs=1,
            sweep_longer=2,
            sweep_seeds=2,
            sweep_between=0,
            bench=BenchConfig(sets=(("synthetic", "test"),), sizes=(256,), draws=1, count=3),
            detection=DetectionBenchConfig(
                "synthetic",
                tests=(("drawn scenes", "synthetic", ("test",)),),
                size=64,
                count=8,
                start=DetectorTraining(epochs=2, side=64),
                own=DetectorTraining(epochs=1, side=64),
                methods=("average",),
                seeds=(0,),
            ),
            cost=CostConfig(
                chains=(),
                side=64,
                own_sides=(("ivfwsr", 32),),
                timed=((64, 1),),
                growth=(64, 96, 128),
                large=(160, 224),
                runs=2,
            ),
            mri=MriConfig(
                "brains",
                size=64,
                training=TrainingConfig(epochs=2, registration_epochs=1, batch=4, validate_every=1),
                finish=TrainingConfig(epochs=1, fusion_epochs=1, batch=4, validate_every=1),
                test_sets=("brains",),
            ),
        ),
        Preset(
            "mini",
            Recipe(
                "RoadScene",
                size=256,
                training=ALL_TOGETHER,
                detector=DetectorConfig(begin_small=True),
                start=Recipe("RoadScene", size=256, training=REGISTRATION_FIRST),
            ),
            test_size=256,
            sweep_epochs=3,  # some two minutes a training on two cores, of which Tables 4 and 5 have 104
            sweep_between=0,
            sweep_longer=9,
            sweep_crop=128,
            sweep_seeds=8,
        ),
        PAPER,
        replace(
            PAPER,
            name="rehearsal",
            recipe=replace(PAPER.recipe, train_pairs=4, training=ONE_STEP),
            test_sets=("M3FD",),
            always_train=True,
            augmented=replace(AUGMENTED, epochs=2, registration_epochs=1, fusion_epochs=1, batch=4, validation_pairs=1),
            plain_epochs=1,
            switch_epochs=1,
            sweep_epochs=1,
            sweep_longer=1,
            sweep_seeds=1,
            bench=BenchConfig(draws=1, count=1),
            detection=replace(
                PAPER.detection,
                count=2,
                methods=("visible", "crossraft+tardal", "ivfwsr"),  # one of each kind; Tables 1 and 2 have them all
                start=replace(PAPER.detection.start, epochs=1),
                own=replace(PAPER.detection.own, epochs=1),
                seeds=(0,),
            ),
            cost=CostConfig(
                joint=("ours", "ivfwsr", "superfusion"),
                chains=("crossraft+ydtr",),
                timed=((512, 2),),
                growth=(256, 512),
                large=(768, 1024),
                runs=1,
            ),
            mri=replace(PAPER.mri, training=ONE_STEP),
            warning="A rehearsal of the preset `paper`, at its image size, with one step of each training and one test "
            "pair: it shows that everything runs. **None of these numbers means anything.**",
        ),
    )
}


def load(name: str, seed: int = 0, **changes: object) -> Preset:
    """A preset by name, with another seed or single settings changed.

    Args:
        name: smoke, mini, paper or rehearsal.
        seed: of weights, order and deformations.
        changes: settings by their path, dots written as double underscores, as in `recipe__training__epochs=3`.

    Raises:
        InputError: an unknown preset or setting; the message lists those there are.
    """
    if name not in PRESETS:
        raise InputError(f"Unknown preset {name!r}; choose one of {', '.join(PRESETS)}.")
    preset = replace(PRESETS[name], recipe=PRESETS[name].recipe.with_seed(seed))
    for path, value in changes.items():
        preset = changed(preset, path.replace("__", "."), value)
    return preset


def as_in_the_paper(preset: Preset) -> Preset:
    """The same preset with the plainest reading of the paper: images in, one U-Net, only the final field supervised,
    all losses from the first epoch to the last, at the paper's constant rate, the detector as upstream begins it.

    In `mini`, it learns from squares of 128 px cut from images of 256 px, where the paper has whole ones of 512 px.
    """
    recipe = preset.recipe
    losses = replace(recipe.losses, coarse=0.0, matching=0.0)
    training = replace(
        first(recipe).training,
        epochs=preset.plain_epochs,
        registration_epochs=0,
        fusion_epochs=0,
        schedule="constant",
        learning_rate=1e-3,
        crop_epochs=None,
        validate_every=2,
    )
    head = recipe.detector and replace(recipe.detector, begin_small=False)
    plain = replace(recipe, network=AS_IN_THE_PAPER, losses=losses, training=training, detector=head, start=None)
    return replace(preset, recipe=plain)


def robust(preset: Preset) -> Recipe:
    """The recipe of `ours_robust`: that of the preset, whose start is trained further first, as `augmented` says."""
    return replace(preset.recipe, start=replace(preset.recipe, training=preset.augmented, detector=None))


def mri(preset: Preset) -> Preset:
    """The same preset on brains, as its `mri` says: T2 slices moved against T1, and no objects.

    The training begins with the weights that RoadScene's began with; its finish, if it has one, with what it made.
    PAPER-GAP: the paper does not say whether its network learned on brains, nor from what.
    """
    study = preset.mri
    recipe = replace(preset.recipe, dataset=study.dataset, size=study.size, training=study.training, detector=None)
    if study.finish is not None:
        recipe = replace(recipe, training=study.finish, start=recipe)
    tests = tuple((name, "test") for name in study.test_sets)
    bench = replace(preset.bench, sets=tests, sizes=(study.test_size,), draws=1)
    return replace(preset, recipe=recipe, test_sets=study.test_sets, test_size=study.test_size, bench=bench)


def first(recipe: Recipe) -> Recipe:
    """The recipe that begins with random weights: the start of the start, and so on, or the recipe itself."""
    return recipe if recipe.start is None else first(recipe.start)
