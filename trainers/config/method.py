"""Configuration of the method: augmentation, labels of two spaces, thresholds, losses, moving averages."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainers.config.base import SMALLEST_VIEW, Frozen, Momentum, Positive, Share, added


def _check_range(name: str, bounds: tuple[float, float]) -> None:
    if bounds[0] > bounds[1]:
        raise ValueError(f"{name} must be (smallest, largest), got {bounds}: swap them")


class GeometryConfig(Frozen):
    """Magnification and flip, drawn for each image."""

    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Range of the magnification; 1 keeps the size."""
    scale_draw: Literal["log", "uniform"] = added("log")
    """What is uniform: the magnification's logarithm or, as in the published code, the magnification."""
    flip: Share = 0.0
    """Probability of a horizontal flip."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        _check_range("scale", self.scale)
        return self


class PhotometricConfig(Frozen):
    """Colour jitter, then loss of colour, then Gaussian blur, of images alone."""

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
    grey: Share = added(0.0)
    """Probability that an image becomes grey."""
    blur: Share = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[Positive, Positive] = (0.1, 1.0)
    """Range of the blur's standard deviation, in pixels."""

    @model_validator(mode="after")
    def _sigma_is_a_range(self) -> Self:
        _check_range("blur_sigma", self.blur_sigma)
        return self


class WeakAugmentConfig(GeometryConfig):
    """Random scale, crop and flip of training images. The teacher's images get no other augmentation."""

    crop: tuple[int, int] | None = None
    """Height and width of the crop; none: the stored size."""

    @model_validator(mode="after")
    def _crop_is_no_speck(self) -> Self:
        if self.crop is not None and min(self.crop) < SMALLEST_VIEW:
            raise ValueError(f"crop must be at least {SMALLEST_VIEW} pixels a side, got {self.crop}: enlarge it")
        return self


class LabelledAugmentConfig(GeometryConfig, PhotometricConfig):
    """Augmentation of labelled images where it is another than the weak one: scale, crop, flip, jitter, blur.

    The crop is that of the weak augmentation, for a batch for the student holds images of one size.
    """

    jitter: Share = 0.0
    """Probability of colour jitter; 0.8 in the published code."""
    blur: Share = 0.0
    """Probability of a Gaussian blur; 0.5 in the published code."""


class StrongAugmentConfig(GeometryConfig, PhotometricConfig):
    """Augmentation of the student's unlabelled images, on top of the weak one.

    The pseudo-labels and their confidences go through the same geometry and mixing, as floats.
    """

    order: Literal["jitter_first", "mix_first"] = added("jitter_first")
    """Geometry, jitter, blur, mixing; or, as published, geometry, mixing, and jitter, blur and flip of the result."""
    place: Literal["centred", "anywhere"] = added("centred")
    """Which part of the magnified image is seen: its centre, moved by `shift`, or, as published, any, drawn uniformly.

    An image that is made smaller lies at the centre or anywhere; around it is its mean colour, which is ignored.
    """
    shift: Share = 0.0
    """Largest shift, as a share of the side; what moves in from outside is ignored. For `centred` only."""
    mix: Literal["none", "cutmix", "classmix", "cutout"] = "cutmix"
    """How images of a batch are mixed."""
    mix_probability: Share = 1.0
    """Share of images that are mixed."""
    box: Literal["area", "half"] = added("area")
    """Of CutMix and CutOut: area and aspect drawn, or, as published, half of the image with a width of half or more."""
    box_area: tuple[Positive, Positive] = added((0.1, 0.5))
    """Range of the box's share of the image. For `area` only."""
    box_aspect: tuple[Positive, Positive] = added((0.5, 2.0))
    """Range of the box's height by its width, both as shares of the side, drawn log-uniformly. For `area` only."""
    classmix: Literal["ceil", "published"] = added("ceil")
    """Half of the classes: rounded up, or rounded down of all with the ignored label, which may be taken as well."""

    @model_validator(mode="after")
    def _box_fits(self) -> Self:
        _check_range("box_area", self.box_area)
        _check_range("box_aspect", self.box_aspect)
        largest = min(1.0, 1 / self.box_aspect[1], self.box_aspect[0])
        if self.box_area[1] > largest:
            raise ValueError(
                f"box_area must be at most {largest:g}, or a box of box_aspect={self.box_aspect} is larger than the "
                f"image, got {self.box_area}: lower it, or bring box_aspect nearer to 1"
            )
        return self


class AugmentConfig(Frozen):
    """Augmentations, all on batches of tensors."""

    weak: WeakAugmentConfig = WeakAugmentConfig()
    labelled: LabelledAugmentConfig | None = added(None)
    """Of labelled images; none: `weak`, as the unlabelled ones."""
    strong: StrongAugmentConfig = StrongAugmentConfig()


class CssConfig(Frozen):
    """Collaborative space supervision: which space labels what (section 3.3), and the indicator (Eq. 5)."""

    label_strategy: Literal["logit", "representation", "mix", "cross"] = "mix"
    """Pseudo-labels: from the logits, from the representations, where both agree, or each supervising the other."""
    indicator: Literal["similarity", "confidence", "discriminator"] = "similarity"
    """Selects valid and hard pixels of the contrastive loss: similarity to the prototypes, softmax confidence, or the
    probability that a discriminator (`adversary`) gives to a pixel of being labelled."""
    indicator_temperature: Positive = 0.25
    """tau of Eq. 5. The constructors of the published code have 0.25 with mix and 0.1 with cross; its scripts hand 0.5
    to both."""
    valid_indicator: Literal["same", "similarity", "confidence"] = added("same")
    """Selects valid pixels, where `indicator` selects the hard ones alone; `same`: `indicator` selects both, as in the
    paper's text. The published code takes the confidence for valid pixels."""
    unsupervised_gate: Literal["logit", "representation", "own", "discriminator"] = added("logit")
    """What delta_u is compared with: the logits' confidence (Eq. 8), the similarity of the target's class, or that of
    the space whose labels supervise the logits: the similarity with cross after its warm-up, as in the published code;
    or the probability that a discriminator (`adversary`) gives to a pixel of the logits' map of being labelled."""
    veto: bool = added(False)
    """Whether pseudo-labels of a class outside of the group that the weak map (`data.weak_groups`) says are ignored."""
    cross_warmup: Annotated[float, Field(ge=0)] = 0.1
    """With `cross`, how long the logits' labels supervise both spaces; 20 epochs in the paper. For `cross` only."""
    cross_warmup_unit: Literal["share", "steps", "epochs", "labelled_epochs"] = "share"
    """Of the whole horizon, optimizer steps, passes through the unlabelled images, or passes through the labelled ones,
    which are the epochs of the published code (`mix_label.py`)."""

    @model_validator(mode="after")
    def _share_is_a_share(self) -> CssConfig:
        if self.cross_warmup_unit == "share" and self.cross_warmup > 1:
            raise ValueError(
                f"cross_warmup must be in [0, 1] as a share of the horizon, got {self.cross_warmup}: "
                "lower it, or set cross_warmup_unit to steps or epochs"
            )
        return self


class ThresholdsConfig(Frozen):
    """Thresholds on confidence and indicator that select pixels. delta_w < delta_s."""

    kind: Literal["fixed", "entropy_percentile"] = added("fixed")
    """What enters L_u: pixels that reach delta_u, or those below a percentile of the entropy of the teacher's logits,
    over the pseudo-labelled pixels of all ranks' batches (U2PL), whatever `css.unsupervised_gate` says."""
    percentile: Share = added(0.8)
    """Share of the pseudo-labelled pixels, those of the lowest entropy, that enter L_u at the first step; rises
    linearly to 1 at the horizon. For `entropy_percentile` only."""
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
    """L = lambda_s L_s + lambda_u L_u + lambda_c L_c (Eq. 6) + lambda_w L_w; L_u is the streams' weighted sum."""

    lambda_s: Annotated[float, Field(ge=0)] = added(1.0)
    """Weight of the supervised loss (Eq. 7); 1 in the paper, 1/2 in FixMatch and UniMatch."""
    lambda_u: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the unsupervised loss (Eq. 8); 1 in the paper."""
    labelled_first: Annotated[float, Field(ge=0, lt=1)] = added(0.0)
    """Share of the horizon during which L_u and L_c weigh nothing: labels, also weak ones, act alone. One of 80 epochs
    in U2PL on VOC."""
    lambda_w: Annotated[float, Field(ge=0)] = added(0.0)
    """Weight of L_w, by which the student's first view of an unlabelled image is to have, in each pixel whose group the
    weak map says, a class of it (`data.weak_groups`); 0: weak maps are not read for it."""
    lambda_c: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrastive loss (Eq. 9) at the start."""
    lambda_c_ramp: Literal["constant", "exp"] = "exp"
    """`exp`: lambda_c * exp(-5 (step / steps)^2), the published ramp on the whole horizon."""
    supervised: Literal["cross_entropy", "ohem"] = "cross_entropy"
    """L_s over all labelled pixels, or over the hard ones (online hard example mining; Cityscapes in the paper)."""
    ohem_threshold: Share = 0.7
    """A labelled pixel is hard where the student gives its class less than this probability. For `ohem` only."""
    ohem_min_kept: int = Field(50_000, ge=1)
    """Pixels an image that are kept at least, the hardest ones. For `ohem` only."""
    ohem_scope: Literal["image", "batch"] = added("image")
    """Where the hardest pixels are sought: in each image, or, as in the published code, in all images of a rank's batch
    together, `ohem_min_kept` times their number; that depends on the number of ranks and parts. For `ohem` only."""
    class_weights: tuple[Positive, ...] | Literal["auto"] | None = None
    """Weight of each class in L_s, in the order of the classes; none: all alike; `auto`: the square root of the median
    class's pixels by its own, counted in the masks of the labelled images."""
    auxiliary: Annotated[float, Field(ge=0)] = added(0.4)
    """Weight of the losses of the auxiliary head, as a share of that of the same loss of the segmentation head; 0.4 in
    PSPNet and U2PL. For `model.auxiliary` only."""
    auxiliary_targets: Literal["labelled", "all"] = added("labelled")
    """What the auxiliary head learns from: L_s by cross-entropy of all labelled pixels, or L_u, too. For
    `model.auxiliary` only."""
    unsupervised: Literal["pixel", "all_pixels", "image_share", "pixel_by_share"] = "pixel"
    """L_u over confident pixels, divided by their number (Eq. 8), by that of all pseudo-labelled pixels (FixMatch), or
    by their number and by their share of all pixels (U2PL); or over all pixels, weighted by their image's confident
    share (published code)."""
    contrast: Literal["hard", "unreliable"] = added("hard")
    """L_c of hard pixels against pixels of other classes in the batch (Eq. 9), or, as in U2PL, of reliable pixels
    against queues of pixels that the teacher is unsure of (`unreliable`), where delta_w and delta_s are not read."""
    temperature: Positive = 0.5
    """tau of Eq. 9, in the contrastive loss and in the choice of negative classes."""
    queries: int = Field(256, ge=1)
    """Anchors a class, over all ranks, drawn with replacement from its hard pixels."""
    negatives: int = Field(512, ge=1)
    """Negatives an anchor."""
    negative_groups: int = Field(8, ge=1)
    """Anchors of a class share their negatives in this many groups: same expectation, less memory. Divides queries."""

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Weights as numbers, which `auto` must have become before a step (`trainers.class_weights`)."""
        assert not isinstance(self.class_weights, str)  # noqa: S101 - the loop counts them
        return self.class_weights

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
    teacher_norm: Literal["eval", "train"] = added("eval")
    """Statistics of the teacher's BatchNorm: averages of the student's, or those of each batch, whose running averages
    are the teacher's own, as in the published code. Scores are made with running averages."""


def similarity_bound(num_classes: int, temperature: float) -> float:
    """Return the largest value of the similarity indicator (Eq. 5): cosine 1 to one prototype, -1 to all others.

    softmax over K cosines in [-1, 1] at temperature tau cannot exceed 1 / (1 + (K - 1) exp(-2 / tau)).
    """
    return 1.0 / (1.0 + (num_classes - 1) * math.exp(-2.0 / temperature))
