"""Configuration of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from trainers.config.base import Frozen, added

WEIGHT_WORDS = ("none", "imagenet")
WEIGHT_SUFFIXES = (".pt", ".pth")


class ModelConfig(Frozen):
    """The network: encoder f, segmentation head g (K logits), representation head h (D numbers a pixel)."""

    arch: Literal["tiny", "deeplabv3plus"] = "tiny"
    """`tiny`: a stride-4 network of about 0.3 M parameters; `deeplabv3plus`: on a torchvision ResNet."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Encoder of deeplabv3plus."""
    stem: Literal["standard", "deep"] = "standard"
    """How the encoder of deeplabv3plus starts: one 7x7 convolution, or three 3x3 ones with 64, 64 and 128 channels
    (the ResNet-101 that the paper takes to compare with other methods)."""
    backbone_weights: Literal["none", "imagenet"] | Path = "none"
    """Encoder initialisation of deeplabv3plus: random, torchvision's download, or a state dict in a .pt or .pth file
    (with torchvision's names, or with those behind `module.`, `backbone.` or `encoder.`)."""
    output_stride: Literal[8, 16] = 16
    """Stride of the deepest features of deeplabv3plus; ASPP rates are 12/24/36 at 8 and 6/12/18 at 16."""
    aspp_width: int = Field(256, ge=8, le=1024, multiple_of=8)
    """Channels of the spatial pyramid (ASPP) of deeplabv3plus; 256 in the paper."""
    head_width: int = Field(256, ge=8, le=1024, multiple_of=8)
    """Channels between the two convolutions of both heads of deeplabv3plus; 256 in the paper."""
    width: int = Field(32, ge=8, le=256, multiple_of=8)
    """Channels of the tiny network's first stage."""
    representation_dim: int = Field(64, ge=8, le=1024)
    """D, the size of a pixel's representation (256 in the paper)."""
    representation_init: Literal["default", "centred"] = "default"
    """How the last layer of the representation head starts: as PyTorch does, or with rows of mean zero and no bias. Its
    inputs are not negative, so with the default all representations, and all prototypes, start nearly parallel."""
    norm: Literal["batch", "sync_batch", "group", "auto"] = "batch"
    """Normalisation: of the rank's batch, of the batch of all ranks (CUDA only), or of groups of channels; `auto`: of
    all ranks on CUDA, as published, and of the rank elsewhere."""
    pool_norm: bool = added(False)
    """Whether the image-level features of the spatial pyramid are normalised, as published; a rank then needs at least
    two images. For deeplabv3plus only."""

    @field_validator("backbone_weights", mode="before")
    @classmethod
    def _a_word_or_a_file(cls, value: object) -> object:
        # Here and not by the union's own rules, which would take a slip in a word for a file and answer in two lines.
        if isinstance(value, str | Path):
            if str(value) in WEIGHT_WORDS:
                return str(value)
            if Path(value).suffix in WEIGHT_SUFFIXES:
                return Path(value)
        raise ValueError("must be none, imagenet, or a state dict in a .pt or .pth file: choose one")

    @model_validator(mode="after")
    def _weights_fit_the_stem(self) -> ModelConfig:
        if self.stem == "deep" and self.backbone_weights == "imagenet":
            raise ValueError(
                "backbone_weights=imagenet must have stem=standard, torchvision has no weights of a deep stem, got "
                "stem=deep: set stem=standard, or backbone_weights to a file"
            )
        return self
