"""Configuration of one training run: everything that it depends on."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.config.adversary import SMALLEST_MAP, AdversaryConfig
from trainers.config.bank import BankConfig
from trainers.config.base import IGNORE, SMALLEST_VIEW, Frozen, Momentum, Positive, added, hashed
from trainers.config.data import AnyData, DigitsData, WeaklyLabelled
from trainers.config.method import (
    AugmentConfig,
    CssConfig,
    EmaConfig,
    LossConfig,
    StrongAugmentConfig,
    ThresholdsConfig,
    similarity_bound,
)
from trainers.config.model import ModelConfig
from trainers.config.streams import StreamConfig, StreamsConfig
from trainers.config.unreliable import UnreliableConfig


class OptimizerConfig(Frozen):
    """The paper's SGD with Nesterov momentum, or AdamW; a poly schedule lr (1 - step / steps)^power with a floor."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """`adamw` (Loshchilov and Hutter, 2019) learns faster from random weights, at a rate some 50 times lower."""
    lr: Positive = 0.1
    """Learning rate at the first step, of encoder and heads unless `encoder_lr_factor` sets them apart."""
    encoder_lr_factor: Positive = added(1.0)
    """The encoder's learning rate as a share of the heads', at every step; below 1 it keeps more of its weights."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = added(1.0)
    """Learning rate of each block of a ViT as a share of the next deeper one's; the last block's is this share of the
    encoder's, as in BEiT (Bao et al., 2022). For dpt only."""
    variance_lr_factor: Positive = added(1.0)
    """Learning rate of the head for variances as a share of the other heads', at every step; 1/64 in PRCL. For
    model.representation=gaussian only."""
    momentum: Momentum = 0.9
    """Nesterov momentum of `sgd`, 0 turns it off; of `adamw`, beta_1."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """On all parameters: with `sgd` an L2 penalty, with `adamw` decoupled from the gradient."""
    power: Annotated[float, Field(ge=0)] = 0.9
    """Exponent of the poly schedule; 0 is a constant rate."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Floor of the schedule."""
    min_lr_rule: Literal["blend", "max"] = added("blend")
    """How the floor acts: min_lr + (lr - min_lr) (1 - step / steps)^power, or, as in the published code,
    max(lr (1 - step / steps)^power, min_lr)."""

    @model_validator(mode="after")
    def _floor_is_below(self) -> OptimizerConfig:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must be at most lr ({self.lr}), got {self.min_lr}: lower it")
        return self


class ScheduleConfig(Frozen):
    """Horizon, reports and batches. Batches are global: ranks share them."""

    steps: int = Field(900, ge=1)
    """The horizon in optimizer steps; every schedule is defined on it."""
    evaluate_every: int = Field(50, ge=1)
    """Steps between two reports; the last step always reports."""
    labelled_batch: int = Field(8, ge=1)
    """Labelled images a step, over all ranks."""
    unlabelled_batch: int = Field(8, ge=1)
    """Unlabelled images a step, over all ranks."""
    joint_forward: bool = True
    """Labelled and unlabelled images pass the student in one batch, with common BatchNorm statistics, or each apart."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a rank's share of the global batch goes through the student: less memory, same batch."""


class EvaluationConfig(Frozen):
    """Scoring of the teacher or the student; every image counts once, whatever the number of ranks."""

    network: Literal["teacher", "student"] = added("teacher")
    """Which network `dev/...` and `val/...` score, predictions are of, and a registered model holds. The paper scores
    supervised-only by its student."""
    both: bool = added(False)
    """Whether a report scores the other network on dev, too, as `other/...`."""
    mode: Literal["whole", "sliding"] = "whole"
    """Whole images, or overlapping windows whose probabilities are averaged (Cityscapes in the paper)."""
    window: tuple[int, int] = (512, 512)
    """Height and width of a window; an image that is smaller is seen whole. For `sliding` only."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 1 / 3
    """Share of a window that the next one covers again, at least. For `sliding` only."""
    batch: int = Field(32, ge=1)
    """Images (or windows) a forward, a rank."""
    quality_images: int = Field(64, ge=0)
    """Unlabelled images with known truth on which pseudo-labels are scored at each evaluation; 0: none."""
    representation_pixels: int = added(16, ge=0)
    """Pixels of each class whose representations a checkpoint keeps of each evaluation, to draw them; 0: none."""

    @model_validator(mode="after")
    def _window_is_no_speck(self) -> EvaluationConfig:
        if min(self.window) < SMALLEST_VIEW:
            raise ValueError(f"window must be at least {SMALLEST_VIEW} pixels a side, got {self.window}: enlarge it")
        return self


class ComputeConfig(Frozen):
    """Arithmetic of the step; its results stay the same up to rounding."""

    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the networks; losses and prototypes are always float32. `tf32`: on CUDA, convolutions and matrix
    products of float32 numbers read 10 of their 23 bits; elsewhere it is float32."""
    compile: bool = False
    """Compile the step with torch.compile: worth its minutes on long GPU runs."""
    graph: bool = added(False)
    """Compile the step as one graph, which on CUDA is captured and replayed: for small networks, whose steps are bound
    by launches. With one worker, in one part."""
    deterministic: bool = added(False)
    """On CUDA, take algorithms that repeat bit by bit where torch has them, at a cost; it warns where it has none.
    On a CPU a step repeats in any case."""


class TrainConfig(Frozen):
    """Everything that one training run depends on."""

    data: AnyData = DigitsData()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    streams: StreamsConfig = added(StreamsConfig())
    css: CssConfig = CssConfig()
    thresholds: ThresholdsConfig = ThresholdsConfig()
    loss: LossConfig = LossConfig()
    bank: BankConfig = added(BankConfig())
    unreliable: UnreliableConfig = added(UnreliableConfig())
    adversary: AdversaryConfig = added(AdversaryConfig())
    ema: EmaConfig = EmaConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    compute: ComputeConfig = ComputeConfig()
    seed: int = Field(0, ge=0, lt=2**31)
    """Of initialisation, order of the data, augmentation and sampling."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.data.classes)

    @property
    def uses_unlabelled(self) -> bool:
        """Whether any loss reads unlabelled images; supervised-only training does not load them."""
        weights = self.loss.lambda_u, self.loss.lambda_c, self.loss.lambda_w, self.adversary.weight_unlabelled
        return max(weights) > 0

    @property
    def uses_discriminator(self) -> bool:
        """Whether a loss of the student or the choice of pixels reads a discriminator; else there is none."""
        gates = self.loss.lambda_u > 0 and self.css.unsupervised_gate == "discriminator"
        indicates = self.loss.lambda_c > 0 and self.css.indicator == "discriminator"
        return gates or indicates or self.adversary.weight_labelled > 0 or self.adversary.weight_unlabelled > 0

    @property
    def uses_weak(self) -> bool:
        """Whether weak maps of unlabelled images are read: by L_w, or to veto pseudo-labels."""
        return self.loss.lambda_w > 0 or (self.css.veto and self.uses_unlabelled)

    @property
    def class_groups(self) -> tuple[int, ...]:
        """Value of each class's group in weak maps; 255 for a class of no group."""
        data = self.data
        return data.class_groups if isinstance(data, WeaklyLabelled) else (IGNORE,) * self.num_classes

    @property
    def active_streams(self) -> dict[str, StreamConfig]:
        """The streams of a step, by name: those that a loss reads."""
        if not self.uses_unlabelled:
            return {}
        return self.streams.active() if self.loss.lambda_u > 0 else {"first": self.streams.first}

    def strong_of(self, stream: StreamConfig) -> StrongAugmentConfig:
        """Return the augmentation of a stream's strong view."""
        return self.augment.strong if stream.strong is None else stream.strong

    @property
    def uses_prototypes(self) -> bool:
        """Whether labels or the contrastive loss read prototypes; else none are made."""
        return self.loss.lambda_c > 0 or (self.loss.lambda_u > 0 and self.css.label_strategy != "logit")

    @property
    def uses_unreliable(self) -> bool:
        """Whether the contrastive loss reads queues of unreliable pixels."""
        return self.loss.lambda_c > 0 and self.loss.contrast == "unreliable"

    @property
    def ranks_entropy(self) -> bool:
        """Whether unlabelled pixels are ranked by the teacher's entropy, and taken by a share that follows the step."""
        return self.uses_unlabelled and (self.uses_unreliable or self.thresholds.kind == "entropy_percentile")

    @property
    def ring_size(self) -> int:
        """Places for each class in the ring that crosses steps; 0: there is none."""
        if self.uses_unreliable:
            return self.unreliable.size
        return self.bank.size if self.bank.weight > 0 else 0

    @property
    def valid_indicator(self) -> str:
        """Name of the indicator of valid pixels."""
        return self.css.indicator if self.css.valid_indicator == "same" else self.css.valid_indicator

    def largest(self, indicator: str) -> float:
        """Return the largest value that an indicator can take with K classes."""
        if indicator != "similarity":
            return 1.0
        return similarity_bound(self.num_classes, self.css.indicator_temperature)

    @property
    def delta_w_probability(self) -> float:
        """delta_w as a probability, whatever its unit."""
        return self.thresholds.delta_w * self._unit(self.valid_indicator)

    @property
    def delta_s_probability(self) -> float:
        """delta_s as a probability, whatever its unit."""
        return self.thresholds.delta_s * self._unit(self.css.indicator)

    def _unit(self, indicator: str) -> float:
        return self.largest(indicator) if self.thresholds.unit == "of_maximum" else 1.0

    @property
    def hash(self) -> str:
        """Hash of every field (see `hashed`): equal configs, equal hashes. 12 hexadecimal digits."""
        text = json.dumps(hashed(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @model_validator(mode="after")
    def _fits_a_vit(self) -> TrainConfig:
        model, crop = self.model, self.augment.weak.crop
        if self.optimizer.layer_decay < 1 and model.arch != "dpt":
            raise ValueError(
                f"optimizer.layer_decay={self.optimizer.layer_decay} must have model.arch=dpt, got {model.arch}: set "
                "it to 1, or model.arch and model.encoder"
            )
        if model.drop_path > 0 and self.ema.teacher_norm == "train":
            raise ValueError(
                f"model.drop_path={model.drop_path} must have ema.teacher_norm=eval, got train, with which the "
                "teacher's labels would skip blocks, too: set one of them"
            )
        views = {"augment.weak.crop": crop or self.data.image_shape}
        if self.evaluation.mode == "sliding":
            views["evaluation.window"] = self.evaluation.window
        for name, view in views.items():
            if view is not None and any(side % model.patch for side in view):
                near = "x".join(str(max(2, round(side / model.patch)) * model.patch) for side in view)
                raise ValueError(
                    f"{name} must be multiples of the patch of model.encoder ({model.patch}), got "
                    f"{view[0]}x{view[1]}: set it, for example to {near}"
                )
        return self

    @model_validator(mode="after")
    def _a_weight_for_each_class(self) -> TrainConfig:
        weights = self.loss.class_weights
        if isinstance(weights, tuple) and len(weights) != self.num_classes:
            raise ValueError(
                f"loss.class_weights must have one weight a class ({self.num_classes}), got {len(weights)}: "
                "give one for each of data.classes, or auto, or null"
            )
        return self

    @model_validator(mode="after")
    def _weak_maps_have_groups(self) -> TrainConfig:
        if self.uses_weak and getattr(self.data, "weak_groups", None) is None:
            raise ValueError(
                f"data.weak_groups must name groups of classes with loss.lambda_w={self.loss.lambda_w:g} and css.veto="
                f"{str(self.css.veto).lower()}, got none (data.name={self.data.name}): set it for digits, a folder or "
                "cityscapes, or set these to 0 and false"
            )
        return self

    @model_validator(mode="after")
    def _two_students_share_nothing_but_labels(self) -> TrainConfig:
        if self.model.students == 2 and (self.uses_prototypes or self.bank.weight > 0):
            raise ValueError(
                "model.students=2 must have css.label_strategy=logit, loss.lambda_c=0 and bank.weight=0, got "
                f"{self.css.label_strategy}, {self.loss.lambda_c:g} and {self.bank.weight:g}: set them, or "
                "model.students to 1"
            )
        return self

    @model_validator(mode="after")
    def _discriminator_fits(self) -> TrainConfig:
        if not self.uses_discriminator:
            return self
        if self.model.students == 2:
            raise ValueError("adversary must be of one student, got model.students=2: set it to 1, or leave adversary")
        view = self.augment.weak.crop or self.data.image_shape
        if view is not None and min(view) < SMALLEST_MAP:
            raise ValueError(
                f"adversary must have images of {SMALLEST_MAP} pixels a side or more, got {view[0]}x{view[1]}: set "
                "augment.weak.crop or the size of the data"
            )
        return self

    @model_validator(mode="after")
    def _gaussians_are_of_one_batch(self) -> TrainConfig:
        momentum, unreliable = self.ema.prototype_momentum, self.uses_unreliable
        if self.model.representation == "gaussian" and (momentum > 0 or unreliable):
            raise ValueError(
                "model.representation=gaussian must have ema.prototype_momentum=0 and loss.contrast=hard, for no "
                f"variance is kept from step to step, got {momentum:g} and {self.loss.contrast}: set them, or "
                "model.representation to point"
            )
        return self

    @model_validator(mode="after")
    def _unreliable_pixels_fit(self) -> TrainConfig:
        if not self.uses_unreliable:
            return self
        if self.bank.weight > 0:
            raise ValueError(
                f"bank.weight must be 0 with loss.contrast=unreliable, whose queues take its place, got "
                f"{self.bank.weight:g}: set one of them"
            )
        if self.ema.prototype_source != "teacher":
            raise ValueError(
                "ema.prototype_source must be teacher with loss.contrast=unreliable, got student: set one of them"
            )
        if self.unreliable.low_rank >= self.num_classes:
            raise ValueError(
                f"unreliable.low_rank must be below the number of classes ({self.num_classes}), or no unlabelled pixel "
                f"is a negative, got {self.unreliable.low_rank}: lower it"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_can_be_met(self) -> TrainConfig:
        bound = self.largest("similarity")
        explain = (
            f"the similarity indicator cannot exceed {bound:.3f} with K={self.num_classes} "
            f"and css.indicator_temperature={self.css.indicator_temperature}"
        )
        gate, strategy = self.css.unsupervised_gate, self.css.label_strategy
        by_similarity = gate == "representation" or (gate == "own" and strategy in ("representation", "cross"))
        thresholds, lower = self.thresholds, "lower it or the temperature"
        fixed = thresholds.kind == "fixed"
        if self.loss.lambda_u > 0 and fixed and by_similarity and thresholds.delta_u >= bound:
            raise ValueError(
                f"thresholds.delta_u must be below what css.unsupervised_gate={gate} can reach: {explain}, got "
                f"{thresholds.delta_u}: {lower}"
            )
        if self.loss.lambda_c == 0 or self.uses_unreliable or thresholds.unit == "of_maximum":
            return self
        if self.valid_indicator == "similarity" and thresholds.delta_w >= bound:
            raise ValueError(
                f"thresholds.delta_w must be below what the indicator can reach: {explain}, got "
                f"{thresholds.delta_w}: {lower}, or use thresholds.unit=of_maximum"
            )
        if self.css.indicator == "similarity" and thresholds.delta_s >= bound and not math.isclose(bound, 1.0):
            warnings.warn(
                f"thresholds.delta_s={thresholds.delta_s} excludes no pixel, every valid one is hard: {explain}",
                stacklevel=2,
            )
        return self
