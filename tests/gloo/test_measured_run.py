"""`MeasuredRun` over a `LocalRun`, alone and in a group of two."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ranks import Ranks
from run_conformance import Body, Counter, RunConformance, report_and_restore
from test_local_run import CPU, Script

from harness.scaling.measure import MeasuredRun
from harness.scaling.step_timer import StepTimer
from trainers.local_run import LocalRun
from trainers.run import Decision, Run

STEPS = 100


def with_measured_run(body: Body, folder: Path, decisions: Sequence[Decision]) -> Any:
    inner = LocalRun(folder=folder, device=CPU, listener=Script(decisions))
    return body(MeasuredRun(inner, StepTimer(CPU, inner.world_size), STEPS))


def steps_until_interrupted(run: Run) -> int:
    return next(step for step in range(1, STEPS + 2) if run.interrupted(Counter(step)))


class Measured(RunConformance):
    """What a measurement does besides."""

    def test_it_ends_after_its_number_of_steps(self) -> None:
        assert self.on_every_rank(steps_until_interrupted, ()) == [STEPS] * self.world_size

    def test_it_never_goes_on_from_a_report(self) -> None:
        assert self.on_every_rank(report_and_restore, (Decision.CONTINUE,)) == [None] * self.world_size


class TestOneProcess(Measured):
    world_size = 1

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def on_every_rank(self, body: Body, decisions: Sequence[Decision]) -> list[Any]:
        return [with_measured_run(body, self.folder, decisions)]


class TestTwoRanks(Measured):
    world_size = 2

    @pytest.fixture(autouse=True)
    def _world(self, two_ranks: Ranks, tmp_path: Path) -> None:
        self.ranks, self.folder = two_ranks, tmp_path

    def on_every_rank(self, body: Body, decisions: Sequence[Decision]) -> list[Any]:
        return self.ranks.call(with_measured_run, body, self.folder, decisions)
