"""Configuration of one training run: frozen, validated at birth, valid or not constructed.

Every field that is read changes the result, and every field is read. Symbols and equation numbers are
those of CSS: "Space Engage: Collaborative Space Supervision for Contrastive-based Semi-Supervised Semantic
Segmentation", ICCV 2023 (arXiv 2307.09755).

Durations are optimizer steps or shares of the whole horizon, so that a step means the same in every run.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

IGNORE = 255
"""The one label of pixels that take no part in anything."""

Share = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Frozen(BaseModel):
    """Base of all configuration: immutable, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DigitsData(Frozen):
    """Scenes composed from scikit-learn's real handwritten digits; 10 digits and the background, K = 11.

    A scene is a grid of cells over a smooth dark background; each cell holds a digit with probability `fill`. The 1797
    digits are split into train, dev and val before composing, so no digit of one split is seen in another.
    """

    name: Literal["digits"] = "digits"
    image_size: int = Field(32, ge=16, le=512, multiple_of=4)
    """Height and width of a scene in pixels."""
    grid: int = Field(2, ge=1, le=16)
    """Cells along each side."""
    fill: Share = 0.6
    """Probability that a cell holds a digit."""
    digit_size: tuple[int, int] = (13, 16)
    """Smallest and largest side of a digit, in pixels; at most a cell."""
    clutter: Share = 0.2
    """Brightest value of the smooth background, in [0, 1]; digits reach 1."""
    labelled: int = Field(80, ge=1)
    """Labelled scenes."""
    unlabelled: int = Field(2048, ge=1)
    """Unlabelled scenes, apart from the labelled ones."""
    dev: int = Field(256, ge=1)
    """Scenes that the objective is measured on, from digits of the training part."""
    val: int = Field(256, ge=1)
    """Scenes for the final evaluation."""
    seed: int = Field(0, ge=0)
    """Draws the splits and the scenes; apart from the training seed, so that seeds of training share their data."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""
        return ("background", *(str(digit) for digit in range(10)))

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images that are stored."""
        return self.image_size, self.image_size

    @model_validator(mode="after")
    def _digits_fit_their_cells(self) -> DigitsData:
        low, high = self.digit_size
        cell = self.image_size // self.grid
        if not 4 <= low <= high <= cell:
            raise ValueError(
                f"digit_size must satisfy 4 <= smallest <= largest <= cell ({cell} px = image_size // grid), "
                f"got {self.digit_size}: change digit_size, image_size or grid"
            )
        return self


class FolderData(Frozen):
    """A folder of images and masks: ROOT/{train,val}/{images,masks}/NAME.*, a mask being one byte a pixel."""

    name: Literal["folder"] = "folder"
    root: Path
    """The folder; relative paths are taken from where the command runs."""
    train: str = "train"
    """Folder of the training images below `root`."""
    val: str = "val"
    """Folder of the official validation images below `root`; only a final evaluation reads it."""
    classes: tuple[str, ...] = Field(min_length=2, max_length=254)
    """Names of the K classes, in the order of the mask values 0 to K - 1."""
    ignore_values: tuple[int, ...] = (IGNORE,)
    """Mask values that mean 'no label'; they become 255."""
    height: int = Field(ge=16, multiple_of=4)
    """Images and masks are resized to this height when read (bilinear, nearest)."""
    width: int = Field(ge=16, multiple_of=4)
    """Images and masks are resized to this width when read."""
    labelled: int | Path = 40
    """Labelled training images: how many to draw with `seed`, or a text file with one name (no extension) a line."""
    dev: int | Path = 60
    """Training images held back for the objective: how many to draw with `seed`, or a text file of names."""
    seed: int = Field(0, ge=0)
    """Draws the splits."""

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images that are stored."""
        return self.height, self.width

    @model_validator(mode="after")
    def _values_mean_one_thing(self) -> FolderData:
        clash = sorted(set(self.ignore_values) & set(range(len(self.classes))))
        if clash:
            raise ValueError(
                f"ignore_values must not be classes (0 to {len(self.classes) - 1}), got {clash}: remove them"
            )
        for field in ("labelled", "dev"):
            value = getattr(self, field)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{field} must be at least 1 image or a file of names, got {value}")
        return self


class ModelConfig(Frozen):
    """The network: encoder f, segmentation head g (K logits), representation head h (D numbers a pixel)."""

    arch: Literal["tiny", "deeplabv3plus"] = "tiny"
    """`tiny`: a stride-4 network of about 0.3 M parameters; `deeplabv3plus`: on a torchvision ResNet."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Encoder of deeplabv3plus."""
    backbone_weights: Literal["none", "imagenet"] = "none"
    """Encoder initialisation of deeplabv3plus; `imagenet` lets torchvision download its weights."""
    output_stride: Literal[8, 16] = 16
    """Stride of the deepest features of deeplabv3plus; ASPP rates are 12/24/36 at 8 and 6/12/18 at 16."""
    width: int = Field(32, ge=8, le=256, multiple_of=8)
    """Channels of the tiny network's first stage."""
    representation_dim: int = Field(64, ge=8, le=1024)
    """D, the size of a pixel's representation (256 in the paper)."""
    norm: Literal["batch", "sync_batch", "group"] = "batch"
    """Normalisation: of the rank's batch, of the batch of all ranks (CUDA only), or of groups of channels."""


class WeakAugmentConfig(Frozen):
    """What every training image goes through: random scale, crop and flip. The teacher sees no more than this."""

    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Range of the magnification, drawn log-uniformly; 1 keeps the stored size."""
    flip: Share = 0.0
    """Probability of a horizontal flip."""
    crop: tuple[int, int] | None = None
    """Height and width of the crop; none: the stored size."""

    @model_validator(mode="after")
    def _crop_fits_the_stride(self) -> WeakAugmentConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be (smallest, largest), got {self.scale}")
        if self.crop is not None and (min(self.crop) < 16 or self.crop[0] % 4 or self.crop[1] % 4):
            raise ValueError(f"crop must be multiples of 4 of at least 16 pixels, got {self.crop}")
        return self


class StrongAugmentConfig(Frozen):
    """What the student sees of an unlabelled image, in this order: geometry, jitter, blur, mixing.

    The pseudo-labels and their confidences go through the same geometry and mixing, as floats.
    """

    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Range of a further magnification."""
    shift: Share = 0.0
    """Largest further shift, as a share of the side; what moves in from outside is ignored."""
    flip: Share = 0.0
    """Probability of a horizontal flip."""
    jitter: Share = 0.8
    """Probability of colour jitter."""
    brightness: Share = 0.4
    """Brightness factor is drawn from 1 +- this."""
    contrast: Share = 0.4
    """Contrast factor is drawn from 1 +- this."""
    saturation: Share = 0.4
    """Saturation factor is drawn from 1 +- this."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Hue is rotated by up to this share of the circle."""
    blur: Share = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[Positive, Positive] = (0.1, 1.0)
    """Range of the blur's standard deviation, in pixels."""
    mix: Literal["none", "cutmix", "classmix", "cutout"] = "cutmix"
    """How images of a batch are mixed."""
    mix_probability: Share = 1.0
    """Share of images that are mixed."""


class AugmentConfig(Frozen):
    """Weak and strong augmentation, both on batches of tensors."""

    weak: WeakAugmentConfig = WeakAugmentConfig()
    strong: StrongAugmentConfig = StrongAugmentConfig()


class CssConfig(Frozen):
    """Collaborative space supervision: which space labels what (section 3.3), and the indicator (Eq. 5)."""

    label_strategy: Literal["logit", "representation", "mix", "cross"] = "mix"
    """Pseudo-labels: from the logits, from the representations, where both agree, or each supervising the other."""
    indicator: Literal["similarity", "confidence"] = "similarity"
    """What tells valid and hard pixels of the contrastive loss: similarity to the prototypes, or softmax confidence."""
    indicator_temperature: Positive = 0.25
    """tau of Eq. 5. The published code uses 0.25 with mix and 0.1 with cross."""
    cross_warmup: Share = 0.1
    """With `cross`, the share of the horizon in which the logits' labels supervise both spaces. For `cross` only."""


class ThresholdsConfig(Frozen):
    """Which pixels count. delta_w < delta_s."""

    delta_u: Share = 0.97
    """delta_u of Eq. 8, on the confidence of the teacher's logits: pixels at or above it enter L_u."""
    delta_w: Share = 0.7
    """Unlabelled pixels whose indicator is above it are valid for the contrastive loss."""
    delta_s: Share = 0.97
    """Valid pixels whose indicator is below it are hard, and become anchors."""
    unit: Literal["probability", "of_maximum"] = "probability"
    """Unit of delta_w and delta_s: as published, or relative to the largest value that the indicator can reach."""

    @model_validator(mode="after")
    def _ordered(self) -> ThresholdsConfig:
        if not self.delta_w < self.delta_s:
            raise ValueError(
                f"delta_w must be below delta_s, or no pixel is both valid and hard; got delta_w={self.delta_w}, "
                f"delta_s={self.delta_s}: lower delta_w or raise delta_s"
            )
        return self


class LossConfig(Frozen):
    """L = L_s + lambda_u L_u + lambda_c L_c (Eq. 6)."""

    lambda_u: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the unsupervised loss (Eq. 8); 1 in the paper."""
    lambda_c: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrastive loss (Eq. 9) at the start."""
    lambda_c_ramp: Literal["constant", "exp"] = "exp"
    """`exp`: lambda_c * exp(-5 (step / steps)^2), the published ramp on the whole horizon."""
    unsupervised: Literal["pixel", "image_share"] = "pixel"
    """L_u over confident pixels (Eq. 8), or over all pixels weighted by their image's confident share (published)."""
    temperature: Positive = 0.5
    """tau of Eq. 9, in the contrastive loss and in the choice of negative classes."""
    queries: int = Field(256, ge=1)
    """Anchors a class, over all ranks, drawn with replacement from its hard pixels."""
    negatives: int = Field(512, ge=1)
    """Negatives an anchor."""
    negative_groups: int = Field(8, ge=1)
    """Anchors of a class share their negatives in this many groups: same expectation, less memory. Divides queries."""

    @model_validator(mode="after")
    def _groups_divide(self) -> LossConfig:
        if self.queries % self.negative_groups:
            raise ValueError(f"negative_groups must divide queries ({self.queries}), got {self.negative_groups}")
        return self


class EmaConfig(Frozen):
    """Moving averages over steps: x <- m x + (1 - m) new."""

    teacher_momentum: Momentum = 0.99
    """Of the teacher, warmed up as min(1 - 1 / (step + 1), m)."""
    prototype_momentum: Momentum = 0.99
    """alpha of Eq. 3; a class's first mean is taken as it is."""
    prototype_source: Literal["teacher", "student"] = "teacher"
    """Whose representations make a prototype: the paper's teacher, or the published code's student."""


class OptimizerConfig(Frozen):
    """SGD with Nesterov momentum and the poly schedule lr (1 - step / steps)^power."""

    lr: Positive = 0.1
    """Learning rate at the first step. Encoder, heads: the same."""
    momentum: Momentum = 0.9
    """Nesterov momentum; 0 turns it off."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """L2 penalty on all parameters."""
    power: Annotated[float, Field(ge=0)] = 0.9
    """Exponent of the poly schedule; 0 is a constant rate."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the networks; losses and prototypes are always float32."""


class ScheduleConfig(Frozen):
    """How long, how often, how much at once. Batches are global: ranks share them."""

    steps: int = Field(900, ge=1)
    """The horizon in optimizer steps; every schedule is defined on it."""
    evaluate_every: int = Field(50, ge=1)
    """Steps between two reports; the last step always reports."""
    labelled_batch: int = Field(8, ge=1)
    """Labelled images a step, over all ranks."""
    unlabelled_batch: int = Field(8, ge=1)
    """Unlabelled images a step, over all ranks."""
    evaluation_batch: int = Field(32, ge=1)
    """Images an evaluation forward, a rank."""


class TrainConfig(Frozen):
    """Everything that one training run depends on."""

    data: Annotated[DigitsData | FolderData, Field(discriminator="name")] = DigitsData()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    css: CssConfig = CssConfig()
    thresholds: ThresholdsConfig = ThresholdsConfig()
    loss: LossConfig = LossConfig()
    ema: EmaConfig = EmaConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    seed: int = Field(0, ge=0, lt=2**31)
    """Of initialisation, order of the data, augmentation and sampling."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.data.classes)

    @property
    def uses_unlabelled(self) -> bool:
        """Whether any loss reads unlabelled images; supervised-only training does not load them."""
        return self.loss.lambda_u > 0 or self.loss.lambda_c > 0

    @property
    def indicator_maximum(self) -> float:
        """Largest value that the indicator of valid and hard pixels can take, with K classes (see `css`)."""
        if self.css.indicator == "confidence":
            return 1.0
        return similarity_bound(self.num_classes, self.css.indicator_temperature)

    @property
    def delta_w_probability(self) -> float:
        """delta_w as a probability, whatever its unit."""
        return self.thresholds.delta_w * (self.indicator_maximum if self.thresholds.unit == "of_maximum" else 1.0)

    @property
    def delta_s_probability(self) -> float:
        """delta_s as a probability, whatever its unit."""
        return self.thresholds.delta_s * (self.indicator_maximum if self.thresholds.unit == "of_maximum" else 1.0)

    @property
    def hash(self) -> str:
        """Hash of every field: equal configs, equal hashes. 12 hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @model_validator(mode="after")
    def _thresholds_can_be_met(self) -> TrainConfig:
        if self.loss.lambda_c == 0 or self.thresholds.unit == "of_maximum":
            return self
        bound = self.indicator_maximum
        explain = (
            f"the {self.css.indicator} indicator cannot exceed {bound:.3f} with K={self.num_classes} "
            f"and css.indicator_temperature={self.css.indicator_temperature}"
        )
        if self.thresholds.delta_w >= bound:
            raise ValueError(
                f"thresholds.delta_w must be below what the indicator can reach: {explain}, got "
                f"{self.thresholds.delta_w}: lower it or the temperature, or use thresholds.unit=of_maximum"
            )
        if self.thresholds.delta_s >= bound and not math.isclose(bound, 1.0):
            warnings.warn(
                f"thresholds.delta_s={self.thresholds.delta_s} excludes no pixel, every valid one is hard: {explain}",
                stacklevel=2,
            )
        return self


def similarity_bound(num_classes: int, temperature: float) -> float:
    """Return the largest value of the similarity indicator (Eq. 5): cosine 1 to one prototype, -1 to all others.

    softmax over K cosines in [-1, 1] at temperature tau cannot exceed 1 / (1 + (K - 1) exp(-2 / tau)).
    """
    return 1.0 / (1.0 + (num_classes - 1) * math.exp(-2.0 / temperature))
