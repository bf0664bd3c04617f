"""The benchmark of the step runs, and says what it is asked for; its figures at this size mean nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers.methods import METHODS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / "bench_step.py"), "--quick", "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


@pytest.mark.parametrize("name", ["outside_network_share", "contrast_memory_ratio"])
def test_a_share_is_between_nothing_and_all(figures: dict[str, Any], name: str) -> None:
    assert 0 < figures[name] < 1


@pytest.mark.parametrize("name", ["contrast_speedup", "images_per_s", "images_per_s_cached", "step_peak_bytes"])
def test_a_figure_is_positive(figures: dict[str, Any], name: str) -> None:
    assert figures[name] > 0


def test_prototypes_cross_the_ranks_as_one_sum_and_one_count_a_class(figures: dict[str, Any]) -> None:
    assert figures["prototype_bytes_per_step"] == 4 * 5 * (16 + 1)  # K = 5, D = 16


def test_all_messages_of_a_step_are_the_prototypes_hard_counts_and_three_more_numbers(figures: dict[str, Any]) -> None:
    assert sum(figures["message_bytes_per_step"]) == 4 * (5 * (16 + 1) + 5 + 3)


def test_every_stage_took_some_time(figures: dict[str, Any]) -> None:
    assert all(seconds > 0 for stage, seconds in figures["stages_s"].items() if stage != "everything else")


@pytest.fixture
def peak_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from measuring import peak_memory

    function: Callable[[Callable[[], object]], int] = peak_memory
    return function


def chain(ones: Tensor) -> Tensor:
    for _ in range(4):
        ones = ones.exp()
    return ones


def test_peak_memory_counts_what_lives_at_the_same_time(peak_memory: Callable[[Callable[[], object]], int]) -> None:
    ones = torch.ones(1000)
    assert peak_memory(lambda: chain(ones)) == 2 * 4000  # one result and the one before


def test_peak_memory_counts_what_is_kept_for_the_backward(peak_memory: Callable[[Callable[[], object]], int]) -> None:
    ones = torch.ones(1000, requires_grad=True)
    assert peak_memory(lambda: chain(ones)) == 4 * 4000  # every result, for exp's backward is its result


def test_peak_memory_counts_neither_inputs_nor_views(peak_memory: Callable[[Callable[[], object]], int]) -> None:
    ones = torch.ones(1000)
    assert peak_memory(lambda: ones.view(10, 100).T) == 0


def test_networks_for_a_cpu_are_told_apart() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_encoders.py"), "--quick"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    figures = [[float(word) for word in line[26:].split()] for line in lines if line.startswith(("Eff", "tiny", "Res"))]
    assert [row[0] for row in figures] == [3.07, 0.2, 16.73] * 2
    assert all(value > 0 for row in figures for value in row)


@pytest.mark.parametrize(
    "some",
    [["supervised", "css_mix", "unimatch_v2", "cps"], pytest.param(list(METHODS), marks=pytest.mark.long)],
    ids=["some", "all"],
)
def test_a_step_of_each_method_is_counted(some: list[str]) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_methods.py"), "--quick", "--only", ",".join(some)]
    _, *lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    figures = {line.split()[0]: [float(word) for word in line.split()[1:]] for line in lines}
    assert list(figures) == some
    images = {method: row[:2] for method, row in figures.items()}
    assert images["supervised"] == [0, 4]
    assert images["css_mix"] == [8, 8]  # the teacher sees labelled images, too, for prototypes
    assert images["unimatch_v2"] == [4, 4 + 2 * 4]
    assert images["cps"] == [2 * 4, 2 * 8]
    assert figures["css_mix"][3] == 1
