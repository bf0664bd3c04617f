"""Trained model for inference: the teacher with its config, from a checkpoint, in one object that can be sent."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.checkpoint import load_checkpoint
from trainers.compute import forward
from trainers.config import TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import upsample
from trainers.errors import DataError
from trainers.models.build import make_network
from trainers.models.pair import of_first


class Segmenter(nn.Module):
    """The teacher of a training, for inference.

    Pickled, it is a call of `restore` with the config as JSON and a dictionary of tensors: no class of the networks is
    named in the file, so it outlives changes of them, and it can be read without running any other code.
    """

    seen: Tensor
    values: Tensor

    def __init__(self, config: TrainConfig, step: int = 0) -> None:
        """Make a network of the config with random parameters; the caller loads others.

        Args:
            step: optimizer steps after which the parameters were saved.
        """
        super().__init__()
        self.config = config
        self.step = step
        self.network = _network(config)
        empty = Prototypes.empty(config.num_classes, config.model.representation_dim)
        self.register_buffer("values", empty.values)
        self.register_buffer("seen", empty.seen)
        self.eval().requires_grad_(False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the logits."""
        return self.config.data.classes

    @property
    def prototypes(self) -> Prototypes:
        """Of the representation space."""
        return Prototypes(self.values, self.seen)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.values.device

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, K, H, W] float32 of images [N, 3, H, W] float in [0, 1], at their own size."""
        return upsample(forward(self.network, images, self.config).logits, (images.shape[-2], images.shape[-1]))

    def __reduce__(self) -> tuple[object, ...]:
        return restore, (self.config.model_dump_json(), self.step, dict(self.state_dict()))


def restore(config: str, step: int, state: dict[str, Tensor]) -> Segmenter:
    """Return the model of a config, as JSON, with these parameters and buffers, on their device."""
    segmenter = Segmenter(TrainConfig.model_validate(json.loads(config)), step)
    segmenter.load_state_dict(state)
    return segmenter.to(state["values"].device)


def load_segmenter(config: TrainConfig, checkpoint: Path, device: torch.device | None = None) -> Segmenter:
    """Return the teacher in a checkpoint that this config wrote, on a device (default: the CPU).

    Only tensors and plain containers are read; the student and the optimizer are dropped.

    Raises:
        DataError: the checkpoint cannot be read, is another config's, or is not that of a training.
    """
    state = load_checkpoint(checkpoint)
    written_by = state.get("config_hash", "an unknown one")
    if written_by != config.hash:
        raise DataError(
            f"a checkpoint must come from the same config (hash {config.hash}), got one of {written_by} in "
            f"{checkpoint}: use the config that wrote it"
        )
    try:
        segmenter = Segmenter(config, int(state["step"]))
        tensors = state[config.evaluation.network]
        tensors = tensors if config.model.students == 1 else of_first(tensors)
        served = {name: tensor for name, tensor in tensors.items() if not name.startswith("auxiliary.")}
        segmenter.network.load_state_dict(served)
        for name in ("values", "seen"):
            getattr(segmenter, name).copy_(state["prototypes"][name])
    except Exception as error:  # torch's answer to other tensors runs over many lines
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"a checkpoint must be one of this version, got {checkpoint} ({reason}): use another") from None
    return segmenter.to(device or torch.device("cpu"))


def read_segmenter(path: Path, device: torch.device | None = None) -> Segmenter:
    """Return a pickled model, without running any code but that of `restore`.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        with torch.serialization.safe_globals([restore]):
            model = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... for an unreadable file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"a model must be one that s4 registered, got {path} ({reason}): choose another") from error
    if not isinstance(model, Segmenter):
        raise DataError(f"a model must be one that s4 registered, got {type(model).__name__} in {path}: choose another")
    return model.to(device or torch.device("cpu"))


def _network(config: TrainConfig) -> nn.Module:
    """Return the network that is scored, without reading the encoder's weights, with a normalisation of any device.

    In evaluation mode BatchNorm over ranks is BatchNorm, with the same tensors.
    """
    norm = "batch" if config.model.norm == "sync_batch" else config.model.norm
    alone = config.model.model_copy(update={"norm": norm, "students": 1, "auxiliary": "none"})
    with torch.random.fork_rng(devices=[]):
        network = make_network(alone, config.num_classes, torch.device("cpu"))
    return network.to(memory_format=torch.channels_last)
