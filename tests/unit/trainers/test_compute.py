"""Settings of CUDA that `compute` names: in force for what they are for, and put back."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reference.tiny import tiny_config
from torch._subclasses.fake_tensor import FakeTensorMode

from trainers import evaluate, loop, whole_step
from trainers.compute import forward, in_precision, step_algorithms
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.state import TrainState

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def settings() -> tuple[bool, ...]:
    """TF32 in convolutions and in matrix products; trials of algorithms; repeatable ones, of cuDNN and of torch."""
    cudnn = torch.backends.cudnn
    return (
        cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _as_they_were() -> Iterator[None]:
    """All settings are as torch has them, before a test and after it."""
    assert settings() == (True, False, False, False, False)
    yield
    assert settings() == (True, False, False, False, False)


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_on_cuda_a_forward_takes_the_precision_of_the_config(
    precision: str, tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with FakeTensorMode():
        images = torch.zeros(1, 3, 4, 4, device=CUDA)
        forward(lambda _: seen.append(settings()[:2]), images, tiny_config({"compute.precision": precision}))  # type: ignore[arg-type]
    assert seen == [(tf32, tf32)]


class Loss:
    """A loss on CUDA whose backward looks at the settings."""

    device = CUDA
    seen: tuple[bool, ...] = ()

    def backward(self) -> None:
        self.seen = settings()[:2]


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_on_cuda_a_backward_takes_the_precision_of_the_config(precision: str, tf32: bool) -> None:
    loss: Any = Loss()
    TrainState(tiny_config({"compute.precision": precision}), LocalRun(device=CPU)).accumulate(loss)
    assert loss.seen == (tf32, tf32)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_on_a_cpu_no_setting_of_cuda_is_touched(precision: str) -> None:
    config = tiny_config({"compute.precision": precision, "compute.deterministic": True})
    before = settings()
    with in_precision(config, CPU), step_algorithms(config, CPU):
        assert settings() == before


def watched(function: Callable[..., Any], seen: list[tuple[bool, ...]]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        seen.append(settings()[2:])
        return function(*args, **options)

    return call


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training on a CPU chooses algorithms as one on CUDA would."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(loop, "step_algorithms", lambda config, _: step_algorithms(config, CUDA))


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize(
    ("deterministic", "in_steps", "in_evaluations"),
    [(False, (True, False, False), (False, False, False)), (True, (False, True, True), (False, True, True))],
)
def test_algorithms_are_tried_out_in_steps_and_never_in_evaluations(
    deterministic: bool, in_steps: tuple[bool, ...], in_evaluations: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[bool, ...]] = []
    evaluations: list[tuple[bool, ...]] = []
    monkeypatch.setattr(whole_step, "css_step", watched(whole_step.css_step, steps))
    monkeypatch.setattr(evaluate, "confusion_matrix", watched(evaluate.confusion_matrix, evaluations))
    config = tiny_config({"schedule.steps": 2, "schedule.evaluate_every": 1, "compute.deterministic": deterministic})
    train(config, LocalRun(device=CPU))
    assert (steps, evaluations) == ([in_steps] * 2, [in_evaluations] * 2)


@pytest.mark.usefixtures("as_on_cuda")
def test_repeatable_steps_give_cublas_a_workspace_of_fixed_size() -> None:
    with step_algorithms(tiny_config({"compute.deterministic": True}), CUDA):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_settings_are_put_back_where_a_step_fails() -> None:
    config = tiny_config({"compute.deterministic": True, "compute.precision": "float32"})
    with pytest.raises(KeyError), step_algorithms(config, CUDA), in_precision(config, CUDA):
        raise KeyError
