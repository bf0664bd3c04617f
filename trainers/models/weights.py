"""Weights of the encoder: their source, and a report of those that match."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from torchvision import models

from trainers.colour import RGB
from trainers.config import ModelConfig
from trainers.config.model import InputConfig
from trainers.errors import DataError, first_line
from trainers.models.build import make_network
from trainers.models.heads import Normalise
from trainers.models.network import Network

LEAST_SHARE = 0.5
"""Weights that fill less of the encoder than this are refused: they are another network's."""

IMAGENET = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
}
WRAPPERS = ("state_dict", "model")
PREFIXES = ("module.", "backbone.", "encoder.")
SAFETENSORS = ".safetensors"
COUNTER = "num_batches_tracked"
"""BatchNorm's counter, which files of older networks lack and nothing here reads; it takes no part in matching."""
NAMES_SHOWN = 3


class Weights(NamedTuple):
    """Tensors by torchvision's or timm's names, and where they come from."""

    source: str
    """A file, or the library's name of its weights."""
    sha256: str | None
    """Of the file, in 64 hexadecimal digits; none of a library's download, which it checks itself."""
    tensors: dict[str, Tensor]


class WeightReport(NamedTuple):
    """Tensors of an encoder that match those of a file, by name and shape, and those that do not."""

    source: str
    sha256: str | None
    matched: int
    """Tensors of the encoder that match."""
    total: int
    """Tensors of the encoder: weights, and BatchNorm's statistics without its counter."""
    share: float
    """Numbers in the matched tensors, of all of the encoder's, in [0, 1]."""
    missing: tuple[str, ...]
    """Tensors of the encoder that the file does not have."""
    unexpected: tuple[str, ...]
    """Tensors of the file that the encoder does not have, such as a classifier."""
    mismatched: tuple[str, ...]
    """Tensors of another shape, as `name [in the file] for [in the encoder]`."""
    deeper: bool
    """Whether the file has more in a part that the encoder has, too."""

    @property
    def complete(self) -> bool:
        """Whether the whole encoder matches, and the file's encoder is no deeper."""
        return self.matched == self.total and not self.deeper

    def __str__(self) -> str:
        parts = [
            f"encoder weights from {self.source}" + (f" (sha256 {self.sha256[:12]})" if self.sha256 else ""),
            f"{self.matched} of {self.total} tensors ({100 * self.share:.1f} % of the numbers) matched",
        ]
        parts += [
            f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{', ...' if len(names) > NAMES_SHOWN else ''})"
            for what, names in (
                ("missing", self.missing),
                ("of another shape", self.mismatched),
                ("not used", self.unexpected),
            )
            if names
        ]
        return ", ".join(parts)


def load_encoder(model: Network, config: ModelConfig) -> WeightReport:
    """Copy the configured weights into the network's encoder; log what matched, and warn where something is missing.

    Raises:
        DataError: they cannot be read or downloaded, or fill less than half of the encoder.
    """
    encoder = encoder_tensors(model)
    weights = _named_as(encoder, model, read_weights(config))
    report = match(encoder, weights)
    with torch.no_grad():
        for name, tensor in encoder.items():
            stored = weights.tensors.get(name)
            if stored is not None and stored.shape == tensor.shape:
                tensor.copy_(stored)
    if not dist.is_initialized() or dist.get_rank() == 0:
        logging.getLogger("trainers").info("%s", report)
        if not report.complete:
            warnings.warn(
                f"{report}: the weights are of another encoder, and what did not match starts at random", stacklevel=2
            )
    return report


def inspect_weights(config: ModelConfig) -> WeightReport | None:
    """Return what `load_encoder` would find in the configured file, without building the network.

    None where the config names no file and no package: nothing is downloaded here.

    Raises:
        ConfigError, DataError: as `build_model`.
    """
    weights = config.backbone_weights
    if config.arch == "tiny" or not (isinstance(weights, Path) or weights == "bundled"):
        return None
    with torch.device("meta"):
        # Any norm may be built for CUDA; nothing is computed.
        model = make_network(config.model_copy(update={"students": 1}), 2, torch.device("cuda"))
    encoder = encoder_tensors(model)
    return match(encoder, _named_as(encoder, model, read_weights(config)))


def encoder_tensors(model: Network) -> dict[str, Tensor]:
    """Return the parameters and statistics of the encoder by torchvision's or, up to `.` and `_`, timm's names."""
    return {
        f"{part}.{name}".removeprefix("."): tensor
        for part, module in model.encoder_parts().items()
        for name, tensor in module.state_dict(keep_vars=True).items()
        if not name.endswith(COUNTER)
    }


def _named_as(encoder: Mapping[str, Tensor], model: Network, weights: Weights) -> Weights:
    """Return the weights by the encoder's names, in which timm joins the parts that it flattens with `_`.

    The first convolution, which is one of RGB images, becomes one of the network's input.

    Raises:
        DataError: they have names of a published network, and not its tensors.
    """
    try:
        tensors = model.by_own_names(weights.tensors)
    except Exception as error:  # timm's readers of other names raise whatever a missing or odd tensor leads them into
        raise DataError(
            f"model.backbone_weights must be of model.encoder, got {weights.source} ({first_line(error)}): set "
            "model.encoder to the network that the file was made with, or take another file"
        ) from None
    names = {_flat(name): name for name in encoder}
    named = {names.get(_flat(name), name): tensor for name, tensor in tensors.items()}
    normalise = next(module for module in model.modules() if isinstance(module, Normalise))
    first = next((key for key, of in encoder.items() if of.ndim == 4 and of.shape[1] == normalise.channels), "")
    if normalise.config != InputConfig() and first in named and named[first].shape[1] == len(RGB):
        named[first] = normalise.of_channels(named[first])
    return weights._replace(tensors=named)


def _flat(name: str) -> str:
    return name.removeprefix("model.").replace(".", "_")


def match(encoder: Mapping[str, Tensor], weights: Weights) -> WeightReport:
    """Compare by name and shape.

    Raises:
        DataError: less than half of the encoder matches.
    """
    stored = weights.tensors
    matched = [name for name, tensor in encoder.items() if name in stored and stored[name].shape == tensor.shape]
    numbers = sum(tensor.numel() for tensor in encoder.values())
    parts = {name.split(".")[0] for name in encoder}
    unexpected = tuple(name for name in stored if name not in encoder)
    report = WeightReport(
        weights.source,
        weights.sha256,
        len(matched),
        len(encoder),
        sum(encoder[name].numel() for name in matched) / numbers,
        tuple(name for name in encoder if name not in stored),
        unexpected,
        tuple(
            f"{name} {list(stored[name].shape)} for {list(tensor.shape)}"
            for name, tensor in encoder.items()
            if name in stored and stored[name].shape != tensor.shape
        ),
        any(name.split(".")[0] in parts for name in unexpected),
    )
    if report.share < LEAST_SHARE:
        raise DataError(
            f"model.backbone_weights must fill at least half of the encoder; {report}: "
            "set model.backbone and model.stem, or model.encoder, to the network that the file was made with, or take "
            "another file"
        )
    return report


def read_weights(config: ModelConfig) -> Weights:
    """Read the configured file or package, or let torchvision or timm download its weights.

    Raises:
        DataError: there is no such file or package, it holds no state dict, or the download fails.
    """
    if isinstance(config.backbone_weights, Path):
        return _read_file(config.backbone_weights)
    if config.backbone_weights == "bundled":
        from trainers.models.bundled import read_bundled

        source, digest, tensors = read_bundled()
        return Weights(source, digest, _without_counters(tensors))
    if config.backbone_weights == "pretrained":
        return _download(str(config.encoder))
    weights = IMAGENET[config.backbone]
    try:
        tensors = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"model.backbone_weights=imagenet must be able to download {weights.url}, got {first_line(error)}: "
            "go online once, or set model.backbone_weights to a file"
        ) from None
    return Weights(f"torchvision's {weights}", None, _without_counters(tensors))


def _download(name: str) -> Weights:
    """Let timm download the weights of a network, or find them in its cache."""
    import timm

    try:
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(name, pretrained=True)
    except Exception as error:  # of timm, huggingface_hub, its HTTP library or safetensors
        raise DataError(
            f"model.backbone_weights=pretrained must be able to download timm's weights of {name}, got "
            f"{first_line(error)}: go online once, or set model.backbone_weights to a file"
        ) from None
    known = network.pretrained_cfg
    source = ".".join(filter(None, (known["architecture"], known.get("tag"))))
    return Weights(f"timm's {source}", None, _without_counters(network.state_dict()))


def _read_file(path: Path) -> Weights:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        stored = load_file(path) if path.suffix == SAFETENSORS else torch.load(path, "cpu", weights_only=True)
    except OSError as error:
        raise DataError(
            f"model.backbone_weights must be a file that can be read, got {path}: {error.strerror}"
        ) from None
    except Exception as error:  # torch raises whatever a broken or a hostile file leads it into
        raise DataError(
            "model.backbone_weights must be a state dict of tensors, as torch.save or safetensors writes it, got "
            f"{path} ({first_line(error)}): save the state_dict() alone"
        ) from None
    for key in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
            break
    tensors = {} if not isinstance(stored, Mapping) else {k: v for k, v in stored.items() if isinstance(v, Tensor)}
    if not tensors:
        raise DataError(
            f"model.backbone_weights must hold tensors by name, bare or under {' or '.join(WRAPPERS)}, got {path} "
            "without any: save the state_dict()"
        )
    named = {_bare(str(name)): tensor for name, tensor in tensors.items()}
    return Weights(str(path), digest, _without_counters(named))


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
