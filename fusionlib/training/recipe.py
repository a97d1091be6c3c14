"""The recipe of a training: everything that makes a set of weights, and its key."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from fusionlib import data
from fusionlib.deformation import get_level
from fusionlib.detection import DetectorConfig
from fusionlib.losses import LossWeights
from fusionlib.network import NetworkConfig
from fusionlib.support.files import InputError
from fusionlib.support.keys import NEUTRAL, Key, settings
from fusionlib.support.long_training import minutes_for
from fusionlib.support.settings import check, check_choice
from fusionlib.training.augmentation import Augmentation

STAGES = ("epochs", "registration_epochs", "fusion_epochs", "crop_epochs")  # numbers of epochs in a `TrainingConfig`


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained.

    Attributes:
        epochs, batch, learning_rate: as in the paper; Adam.
        registration_epochs: number of first epochs that train the registration alone. PAPER-GAP: not mentioned; fusing
            images that are not registered yet teaches little and takes half of the time.
        fusion_epochs: number of last epochs that train the fusion alone (specific extractors, head and detector), with
            the registration frozen and a learning rate schedule of their own. PAPER-GAP: not mentioned; they cost
            little, and after the few joint epochs of a short training the head has not converged.
        schedule: "constant", or "one-cycle": up for the first tenth, then down to zero. PAPER-GAP: the paper names a
            rate and no schedule, which implies a constant one; `sweep_rows.SWITCHES` has both.
        crop, crop_epochs: side of the random square cut from each training image, and number of first epochs with such
            crops; None for whole images, None for all epochs. PAPER-GAP: not mentioned; crops keep the displacements
            and cost less, whole images show a shift and a rotation as a whole.
        flip: flip half of the pairs horizontally. PAPER-GAP: not mentioned.
        augmentation: other light, other cameras, see `fusionlib.training.augmentation`, in the epochs of the
            registration alone: a fused image is to show what was there. None leaves all images as they are. PAPER-GAP:
            not mentioned.
        clip: largest norm of the gradient. PAPER-GAP: not mentioned; l_reg in pixels dominates the first steps.
        levels: in each epoch each image gets a new deformation of one of these levels. PAPER-GAP: not given, see
            `deformation`; a network trained on large displacements only fails on small ones.
        validate_every, validation_level: epochs between two measurements of the end-point error on the validation
            split, and the level of their deformations.
        validation_pairs: only the first of that split; None for all.
        frozen_statistics: every BatchNorm of the network except those of the specific extractors uses its running
            statistics instead of those of the batch. PAPER-GAP: not mentioned; after a start (`Recipe.start`) the
            weights are then trained with the statistics of inference, which a batch of eight images approximates badly.
        mixed_precision: kinds of device on which layers compute in bfloat16; a "cpu" only if it has instructions for it
            (AVX512-BF16 or AMX), since it is slow otherwise.
    """

    epochs: int = 150
    batch: int = 8
    learning_rate: float = 1e-3
    registration_epochs: int = 0
    fusion_epochs: int = 0
    schedule: str = "one-cycle"
    crop: int | None = None
    crop_epochs: int | None = None
    flip: bool = True
    augmentation: Augmentation | None = field(default=None, metadata=NEUTRAL)
    clip: float = 5.0
    levels: tuple[str, ...] = ("light", "medium", "heavy")
    validate_every: int = 5
    validation_level: str = "medium"
    validation_pairs: int | None = field(default=None, metadata=NEUTRAL)
    frozen_statistics: bool = False
    mixed_precision: tuple[str, ...] = ("cuda",)

    def __post_init__(self) -> None:
        check(self, "epochs", "batch", "validate_every", "crop", "crop_epochs", "validation_pairs", least=1)
        check(self, "learning_rate", "registration_epochs", "fusion_epochs")
        check(self, "clip", most=math.inf)
        check_choice(self, "schedule", "constant", "one-cycle")
        check_choice(self, "mixed_precision", "cpu", "cuda")
        if not self.levels:
            raise InputError("levels of TrainingConfig are empty; name at least one, such as medium.")
        for level in (*self.levels, self.validation_level):
            get_level(level)
        if self.registration_epochs + self.fusion_epochs > self.epochs:
            alone = f"registration_epochs {self.registration_epochs} and fusion_epochs {self.fusion_epochs}"
            raise InputError(f"{alone} are together more than epochs {self.epochs}; lower one of them.")


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a set of weights; equal recipes on equal code and data make equal weights, on one kind of
    CPU and number of threads.

    Attributes:
        dataset, size: the set trained on (its train split) and the side its images are resized to, in pixels.
        train_pairs: number of pairs used, the first ones; None for all.
        seed: of the initial weights, the order and the deformations.
        network, losses, training: the settings of each.
        detector: the detection head on the fused feature, whose loss is l_ob (Eq. 8); None trains without it.
        start: the recipe whose weights this training starts from; None for random weights. PAPER-GAP: the paper trains
            everything at once; here the registration, which takes longest, is trained first, and the variants that are
            compared afterwards (with and without a loss, for example) share that start.
    """

    dataset: str = "RoadScene"
    size: int = 512
    train_pairs: int | None = None
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    detector: DetectorConfig | None = None
    start: Recipe | None = None

    def __post_init__(self) -> None:
        check(self, "seed")
        check(self, "train_pairs", least=1)
        if self.detector is not None and self.detector.start != "random":
            raise InputError("The head on the fused feature starts from random weights: leave start of its settings.")
        if self.start is not None and self.start.network != self.network:
            raise InputError("A recipe and its start have different networks; give both the same NetworkConfig.")

    def key(self) -> Key:
        """Key of the weights: settings, start, training pairs and their boxes, and the behaviour of the code."""
        own = settings(replace(self, start=None))
        labelled = self.detector is not None
        names = data.splits(self.dataset).get("train", [])[: self.train_pairs]
        start = {"start": self.start.key().digest} if self.start is not None else {}
        facts = {"settings": own, **start, self.dataset: data.checksum(self.dataset, names, labelled)}
        behaviour = ["training"] if self.training.augmentation is None else ["training", "augmentation"]
        return Key.of(data.components_of(self.dataset, labelled), **facts) | Key.of(behaviour)

    def with_seed(self, seed: int) -> Recipe:
        """The same with another seed, its start too."""
        return replace(self, seed=seed, start=self.start and self.start.with_seed(seed))

    def shortened(self, share: float) -> Recipe:
        """The same training in a share of its epochs, stage by stage, its start too.

        Args:
            share: over 0 and at most 1; a stage keeps one epoch at least.

        >>> short = Recipe(training=TrainingConfig(epochs=100, registration_epochs=80, crop_epochs=50)).shortened(0.1)
        >>> short.training.epochs, short.training.registration_epochs, short.training.crop_epochs
        (10, 8, 5)
        """
        stages = {name: getattr(self.training, name) for name in STAGES}
        fewer = {name: max(1, round(share * count)) for name, count in stages.items() if count}
        alone = fewer.get("registration_epochs", 0) + fewer.get("fusion_epochs", 0)  # each is rounded by itself
        fewer["epochs"] = max(fewer["epochs"], alone)
        every = min(self.training.validate_every, fewer["epochs"])
        training = replace(self.training, **fewer, validate_every=every)
        return replace(self, training=training, start=self.start and self.start.shortened(share))

    def minutes(self) -> float:
        """Approximate duration of the training on two CPU cores, without that of its start."""
        config = self.training
        pairs = self.train_pairs or data.count_of(self.dataset, "train")
        whole = self.size**2
        cropped = min(config.crop or self.size, self.size) ** 2
        epochs = config.epochs if config.crop_epochs is None else min(config.crop_epochs, config.epochs)
        return minutes_for(pairs * (epochs * cropped + (config.epochs - epochs) * whole))
