"""`LocalRun` alone and in a group of two."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from run_conformance import Body, RestoringConformance, metrics, three_reports
from torch import nn

from trainers.errors import ConfigError
from trainers.local_run import LocalRun, process_group, share_decision
from trainers.run import Decision

CPU = torch.device("cpu")


class Script:
    """A listener that answers report n with decisions[n], and counts what it hears."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = iter(decisions)
        self.heard: list[float] = []

    def __call__(self, metrics: Mapping[str, float]) -> Decision:
        self.heard.append(metrics["step"])
        return next(self.decisions)


def with_local_run(body: Body, folder: Path, decisions: Sequence[Decision]) -> Any:
    return body(LocalRun(folder=folder, device=CPU, listener=Script(decisions)))


def heard(decisions: Sequence[Decision]) -> list[float]:
    script = Script(decisions)
    three_reports(LocalRun(device=CPU, listener=script))
    return script.heard


class TestOneProcess(RestoringConformance):
    world_size = 1

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def on_every_rank(self, body: Body, decisions: Sequence[Decision]) -> list[Any]:
        return [with_local_run(body, self.folder, decisions)]

    def test_a_model_is_not_wrapped(self) -> None:
        model = nn.Linear(1, 1)
        assert LocalRun(device=CPU).wrap(model) is model

    def test_without_a_folder_nothing_is_kept(self) -> None:
        run = LocalRun(device=CPU)
        run.report(metrics(1), nn.Linear(1, 1))
        assert run.restore_from() is None

    def test_a_listener_that_says_nothing_lets_training_go_on(self) -> None:
        run = LocalRun(device=CPU, listener=lambda metrics: None)
        assert run.report(metrics(1), nn.Linear(1, 1)) is Decision.CONTINUE


class TestTwoRanks(RestoringConformance):
    world_size = 2

    @pytest.fixture(autouse=True)
    def _world(self, two_ranks: Ranks, tmp_path: Path) -> None:
        self.ranks, self.folder = two_ranks, tmp_path

    def on_every_rank(self, body: Body, decisions: Sequence[Decision]) -> list[Any]:
        return self.ranks.call(with_local_run, body, self.folder, decisions)

    def test_only_rank_0_speaks_to_the_listener(self) -> None:
        assert self.ranks.call(heard, [Decision.CONTINUE] * 3) == [[0.0, 1.0, 2.0], []]


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of one, as torchrun describes it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    described = {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in described.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("described")
def test_a_group_described_in_the_environment_is_joined_and_left() -> None:
    with process_group():
        assert dist.get_world_size() == 1
    assert not dist.is_initialized()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What a rank on a machine of four GPUs asks of CUDA and of its group, in order; NCCL is gloo here."""
    calls: list[tuple[str, object]] = []
    join, broadcast = dist.init_process_group, dist.broadcast_object_list

    def joined(backend: str) -> None:
        calls.append(("join", backend))
        join("gloo")

    def sent(objects: list[Any], src: int) -> None:
        calls.append(("broadcast", src))
        broadcast(objects, src=src)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("device", str(device))))
    monkeypatch.setattr(dist, "init_process_group", joined)
    monkeypatch.setattr(dist, "broadcast_object_list", sent)
    return calls


@pytest.mark.usefixtures("described")
def test_a_rank_takes_its_gpu_before_the_first_collective(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    with process_group():
        share_decision(Decision.CONTINUE, world_size=2)
    assert calls == [("device", "cuda:3"), ("join", "nccl"), ("broadcast", 0)]


@pytest.mark.usefixtures("described")
def test_a_rank_without_a_gpu_of_its_own_is_refused_before_it_joins(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ConfigError, match="got LOCAL_RANK 4 and 4 GPUs: start at most 4"), process_group():
        pass
    assert calls == []


def test_without_a_group_in_the_environment_none_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group():
        assert not dist.is_initialized()
