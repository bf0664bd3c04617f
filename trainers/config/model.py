"""Configuration of the network."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from trainers.config.base import Frozen, added

WEIGHT_WORDS = ("none", "imagenet", "pretrained", "bundled")
WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors")
BUNDLED = "tf_efficientnet_lite0"
"""The network whose weights a package ships (`trainers.models.bundled`)."""
INVERTIBLE = ("rgb", "yiq", "opponent")
"""Colour spaces from which a matrix leads back to RGB."""
PLAIN_VIT = "vit_small_patch14_dinov2"
"""timm's name of DINOv2's smallest network."""


Added = Literal["gradient", "local_std", "position", "lightness"]


class InputConfig(Frozen):
    """Channels that the network makes of an RGB image, after augmentation, each standardised by fixed numbers.

    With a learned first convolution the linear spaces (yiq, opponent) differ from rgb only in its initialisation and in
    what weight decay and the optimizer make of it.
    """

    space: Literal["rgb", "yiq", "lab", "hsv", "opponent", "grey", "normalised_rgb"] = "rgb"
    """Colour space: `lab` is CIELAB of sRGB, `opponent` the orthonormal one, `normalised_rgb` each colour's share in
    their sum. With weights of an encoder rgb, yiq or opponent; the first convolution is then changed such that the
    network starts as the same function of the image."""
    add: tuple[Added, ...] = ()
    """Maps beside the colours: length of the luminance's gradient, its standard deviation in 5 x 5 pixels, row and
    column in the view (crop or window), and CIELAB's L*. With weights of an encoder they start without effect."""

    @field_validator("add", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        # Plans of ablations hold no lists.
        return value.split(",") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _each_once(self) -> InputConfig:
        if len({*self.add}) < len(self.add):
            raise ValueError(f"add must name a map once, got {', '.join(self.add)}: remove one")
        return self


class ModelConfig(Frozen):
    """The network: encoder f, segmentation head g (K logits), representation head h (D numbers a pixel)."""

    arch: Literal["tiny", "deeplabv3plus", "light", "dpt"] = "tiny"
    """`tiny`: a stride-4 network of about 0.3 M parameters; `deeplabv3plus`: on a torchvision ResNet or an `encoder`;
    `light`: the sum of an `encoder`'s maps and one depthwise-separable convolution, for small machines; `dpt`: four
    maps of a plain ViT as `encoder`, fused from the coarsest to the finest."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """torchvision's ResNet below deeplabv3plus, where no `encoder` is named."""
    encoder: str | None = added(None, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")
    """A network of timm with maps of features from stride 4 on, with or without the tag of its weights, such as
    `tf_efficientnet_lite0` or `convnext_tiny.fb_in1k`, for deeplabv3plus and light; or a plain ViT, such as
    `vit_small_patch14_dinov2`, for dpt."""
    stem: Literal["standard", "deep"] = "standard"
    """How the encoder of deeplabv3plus starts: one 7x7 convolution, or three 3x3 ones with 64, 64 and 128 channels
    (the ResNet-101 that the paper takes to compare with other methods)."""
    backbone_weights: Literal["none", "imagenet", "pretrained", "bundled"] | Path = "none"
    """Encoder initialisation of all but tiny: random; torchvision's download for its ResNets (`imagenet`) or
    timm's for an `encoder` (`pretrained`); EfficientNet-Lite0's from the package of the extra `bundled`; or a state
    dict in a .pt, .pth or .safetensors file (with torchvision's or timm's names, of a ViT with Meta's, too, or with
    those behind `module.`, `backbone.` or `encoder.`)."""
    freeze: Literal["none", "norm", "all"] = added("none")
    """What of the encoder stays as its weights have it: nothing, BatchNorm's statistics, or the whole encoder."""
    drop_path: float = added(0.0, ge=0, lt=1)
    """Stochastic depth: probability that an image skips the last block of a ViT in training; from the first block on it
    grows evenly from 0. For dpt only."""
    checkpointing: bool = added(False)
    """Whether the backward pass computes each block of a ViT again instead of keeping what is within it: a third more
    operations of the encoder, and a fraction of its memory. For dpt only."""
    output_stride: Literal[8, 16] = 16
    """Stride of the deepest features of deeplabv3plus; ASPP rates are 12/24/36 at 8 and 6/12/18 at 16."""
    aspp_width: int = Field(256, ge=8, le=1024, multiple_of=8)
    """Channels of the spatial pyramid (ASPP) of deeplabv3plus; 256 in the paper."""
    head_width: int = Field(256, ge=8, le=1024, multiple_of=8)
    """Channels between the two convolutions of both heads of all but tiny (256 in the paper), of light's sum, and of
    dpt's fused maps."""
    width: int = Field(32, ge=8, le=256, multiple_of=8)
    """Channels of the tiny network's first stage."""
    representation_dim: int = Field(64, ge=8, le=1024)
    """D, the size of a pixel's representation (256 in the paper)."""
    representation_init: Literal["default", "centred"] = "default"
    """How the last layer of the representation head starts: as PyTorch does, or with rows of mean zero and no bias. Its
    inputs are not negative, so with the default all representations, and all prototypes, start nearly parallel."""
    representation: Literal["point", "gaussian"] = added("point")
    """What represents a pixel: D numbers, or, as in PRCL, the means of a Gaussian whose D variances a third head gives.
    Gaussians are compared in L_c by their mutual likelihood score, and count in a prototype by 1 / variance."""
    students: int = added(1, ge=1, le=2)
    """Networks that are trained: one, or two that start unlike and label unlabelled images for each other, as in CPS.
    The first one is scored. Two must take all labels from the logits, without prototypes and bank."""
    norm: Literal["batch", "sync_batch", "group", "auto", "none"] = "batch"
    """Normalisation: of the rank's batch, of the batch of all ranks (CUDA only), or of groups of channels; `auto`: of
    all ranks on CUDA, as published, and of the rank elsewhere. An `encoder` keeps its own kind; its BatchNorm is of all
    ranks where this is. `none`: the heads of dpt without normalisation, as in UniMatch V2."""
    pool_norm: bool = added(False)
    """Whether the image-level features of the spatial pyramid are normalised, as published; a rank then needs at least
    two images. For deeplabv3plus only."""
    auxiliary: Literal["none", "inner"] = added("none")
    """Deep supervision: a segmentation head more, on the map of the stage before the encoder's deepest one, as layer3
    of a ResNet (PSPNet); of the third quarter of a ViT's blocks. The student has it in training alone."""

    input: InputConfig = added(InputConfig())

    @field_validator("backbone_weights", mode="before")
    @classmethod
    def _a_word_or_a_file(cls, value: object) -> object:
        # Here and not by the union's own rules, which would take a slip in a word for a file and answer in two lines.
        if isinstance(value, str | Path):
            if str(value) in WEIGHT_WORDS:
                return str(value)
            if Path(value).suffix in WEIGHT_SUFFIXES:
                return Path(value)
        raise ValueError(
            f"must be {', '.join(WEIGHT_WORDS)}, or a state dict in a {', '.join(WEIGHT_SUFFIXES)} file: choose one"
        )

    @property
    def summed(self) -> int:
        """Numbers of each class that are summed over pixels and ranks: D and a count, or of Gaussians 2 D."""
        return self.representation_dim + (1 if self.representation == "point" else self.representation_dim)

    @property
    def patch(self) -> int:
        """Pixels a side of dpt's patches, as the encoder's name has them; 1 where it has none."""
        found = re.search(r"_patch(\d+)", self.encoder or "") if self.arch == "dpt" else None
        return int(found[1]) if found else 1

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder in its library; none of the tiny network."""
        return None if self.arch == "tiny" else self.encoder or self.backbone

    @model_validator(mode="after")
    def _encoder_fits(self) -> ModelConfig:
        if self.arch in ("light", "dpt") and self.encoder is None:
            raise ValueError(
                f"arch={self.arch} must have a network of timm, got none: set encoder, for example to "
                f"{BUNDLED if self.arch == 'light' else PLAIN_VIT}"
            )
        if self.encoder is None:
            return self
        if self.arch == "tiny":
            raise ValueError(
                f"encoder must have arch=light, deeplabv3plus or dpt, got encoder={self.encoder} with arch=tiny: "
                "set arch"
            )
        if self.stem == "deep":
            raise ValueError(
                "stem=deep is one of torchvision's ResNets, got encoder="
                f"{self.encoder}: set stem=standard, or encoder to a network with such a stem, as resnet50d"
            )
        return self

    @model_validator(mode="after")
    def _what_is_of_a_vit_has_one(self) -> ModelConfig:
        for name, is_set in (
            ("drop_path", self.drop_path > 0), ("checkpointing", self.checkpointing), ("norm", self.norm == "none"),
        ):  # fmt: skip
            if is_set and self.arch != "dpt":
                raise ValueError(
                    f"{name}={getattr(self, name)} must have arch=dpt, got {self.arch}: set arch and encoder, or "
                    f"{name} to {type(self).model_fields[name].default}"
                )
        return self

    @model_validator(mode="after")
    def _weights_are_of_the_encoder(self) -> ModelConfig:
        words, network = self.backbone_weights, self.encoder or self.backbone
        if words in ("pretrained", "bundled") and self.encoder is None:
            raise ValueError(
                f"backbone_weights={words} must have a network of timm, got none: set encoder, or backbone_weights to "
                "imagenet for a ResNet of torchvision"
            )
        if words == "imagenet" and self.encoder is not None:
            raise ValueError(
                f"backbone_weights=imagenet is torchvision's, got encoder={network}: set backbone_weights to pretrained"
            )
        if words == "bundled" and network.partition(".")[0] != BUNDLED:
            raise ValueError(
                f"backbone_weights=bundled must have encoder={BUNDLED}, got {network}: set encoder, or "
                "backbone_weights to pretrained or a file"
            )
        if self.freeze != "none" and words == "none":
            warnings.warn(f"model.freeze={self.freeze} keeps an encoder of random weights as it is", stacklevel=2)
        return self

    @model_validator(mode="after")
    def _auxiliary_head_supervises_something(self) -> ModelConfig:
        if self.auxiliary != "none" and self.freeze == "all":
            raise ValueError(
                f"auxiliary={self.auxiliary} must have an encoder that learns, got freeze=all: set one of them to none"
            )
        return self

    @model_validator(mode="after")
    def _weights_fit_the_input(self) -> ModelConfig:
        if self.arch == "tiny" or self.backbone_weights == "none":
            return self
        if self.input.space not in INVERTIBLE:
            raise ValueError(
                f"input.space must be {', '.join(INVERTIBLE)} with backbone_weights={self.backbone_weights}, which are "
                f"of RGB images, got {self.input.space}: set one of them, or backbone_weights=none"
            )
        if self.input.add and self.freeze == "all":
            raise ValueError(
                f"input.add must be empty with freeze=all, which would keep its maps without effect, got "
                f"{', '.join(self.input.add)}: set freeze to none or norm, or remove them"
            )
        return self

    @model_validator(mode="after")
    def _weights_fit_the_stem(self) -> ModelConfig:
        if self.stem == "deep" and self.backbone_weights == "imagenet":
            raise ValueError(
                "backbone_weights=imagenet must have stem=standard, torchvision has no weights of a deep stem, got "
                "stem=deep: set stem=standard, or backbone_weights to a file"
            )
        return self
