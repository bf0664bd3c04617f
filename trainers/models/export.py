"""A trained model as a program that needs nothing of this project, of torch.export, TorchScript or ONNX, checked."""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trainers.config import TrainConfig
from trainers.css.pseudo_labels import upsample
from trainers.drafts import draft_of
from trainers.errors import UsageError, first_line
from trainers.models.served import Segmenter

Format = Literal["torch", "torchscript", "onnx"]
Program = Callable[[Tensor], Tensor]
SUFFIXES = {"torch": ".pt2", "torchscript": ".pt", "onnx": ".onnx"}
ONNX = ("onnx", "onnxscript", "onnxruntime")
"""Packages that make, and run, a program in ONNX."""
ABOUT = "s4.json"
"""Name of the description within the file: classes, size, config."""
CLOSE = 1e-3
"""Largest difference of a logit, as a share of the largest logit, that is rounding."""


class Exported(NamedTuple):
    """A file, and how its program compares with the model on images that it was not made with."""

    path: Path
    size: tuple[int, int]
    pixels: int
    different: int
    """Pixels whose class is another one: where two classes are as likely up to rounding."""
    error: float
    """Largest difference of a logit."""


class _Program(nn.Module):
    """The network in float32, with logits at the size of the images."""

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, 3, H, W] in [0, 1] to logits [N, K, H, W]."""
        return upsample(self.network(images).logits, self.size)


def view_size(config: TrainConfig) -> tuple[int, int]:
    """Return height and width of what the network sees in an evaluation, or else in training."""
    if config.evaluation.mode == "sliding":
        return config.evaluation.window
    size = config.data.image_shape or config.augment.weak.crop
    assert size is not None  # noqa: S101 - training was refused without
    return size


@torch.no_grad()
def export(segmenter: Segmenter, form: Format, size: tuple[int, int], path: Path) -> Exported:
    """Write the model of a CPU for any number of images of one size, once a reloaded copy agrees with it.

    Raises:
        UsageError: torch cannot make such a program of this network, it computes something else, or a package lacks.
    """
    lacking = [name for name in ONNX if form == "onnx" and importlib.util.find_spec(name) is None]
    if lacking:
        raise UsageError(
            f"--format onnx must have the package {lacking[0]}, it is not installed: pip install -e '.[onnx]'"
        )
    program, draws = _Program(segmenter.network.float(), size).eval(), torch.Generator().manual_seed(0)
    # Three images and two: a program that has the number of images built in is found out.
    made_with, images = (torch.rand(count, 3, *size, generator=draws) for count in (3, 2))
    about = {"classes": segmenter.classes, "size": size, "step": segmenter.step, "config": segmenter.config.hash}
    try:
        content = _content(program, form, made_with, json.dumps(about | {"images": "[N, 3, H, W] float32 in [0, 1]"}))
        logits = _loaded(content, form)(images)
    except Exception as error:  # torch raises RuntimeError, TypeError, errors of its compiler, ...
        raise UsageError(
            f"--format {form} must be able to hold this network, got {first_line(error)}: take another format"
        ) from None
    expected = program(images)
    difference = (logits - expected).abs().max().item()
    if not difference <= CLOSE * max(1.0, expected.abs().max().item()):
        raise UsageError(
            f"an exported model must compute what the model does, its logits differ by {difference:.2g} with "
            f"--format {form}: take another format"
        )
    with draft_of(path) as draft:
        draft.write_bytes(content)
    masks, truth = logits.argmax(dim=1), expected.argmax(dim=1)
    return Exported(path, size, truth.numel(), int((masks != truth).sum()), difference)


def _content(program: nn.Module, form: Format, images: Tensor, about: str) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: what depends on the size is constant, which is what is meant
        if form == "torchscript":
            traced = torch.jit.trace(program, images, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, file, _extra_files={ABOUT: about})
            return file.getvalue()
        dynamic = ({0: torch.export.Dim("images", min=1, max=1024)},)
        if form == "onnx":
            made: Any = torch.onnx.export(
                program, (images,), dynamo=True, dynamic_shapes=dynamic, verbose=False,
                input_names=["images"], output_names=["logits"],
            )  # fmt: skip
            model = made.model_proto
            model.metadata_props.add(key=ABOUT, value=about)
            file.write(model.SerializeToString())
        else:
            exported = torch.export.export(program, (images,), dynamic_shapes=dynamic)
            torch.export.save(exported, file, extra_files={ABOUT: about})
    return file.getvalue()


def _loaded(content: bytes, form: Format) -> Program:
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    file = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "torchscript":
            loaded: Program = torch.jit.load(file)  # type: ignore[no-untyped-call]
            return loaded
        return torch.export.load(file).module()
