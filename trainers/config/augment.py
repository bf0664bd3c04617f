"""Configuration of the augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.config.base import Frozen, Positive, Share


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
