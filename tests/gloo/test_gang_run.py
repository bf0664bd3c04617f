"""`GangRun` in gangs of one and two ranks."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gangs_here import TRIAL, answer, in_gang
from ranks import Ranks
from run_conformance import Body, Counter, RestoringConformance, metrics, restored

from harness.gangs.dispatcher import Dispatcher
from harness.gangs.gang_run import GangRun
from trainers.run import Decision


class TestGangOfOne(RestoringConformance):
    world_size = 1

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def on_every_rank(self, body: Body, decisions: Sequence[Decision]) -> list[Any]:
        return [in_gang(body, self.folder, partial(answer, decisions))]


class TestGangOfTwo(RestoringConformance):
    world_size = 2

    @pytest.fixture(autouse=True)
    def _world(self, two_ranks: Ranks, tmp_path: Path) -> None:
        self.ranks, self.folder = two_ranks, tmp_path

    def on_every_rank(self, body: Body, decisions: Sequence[Decision]) -> list[Any]:
        return self.ranks.call(in_gang, body, self.folder, partial(answer, decisions))


async def interrupt(dispatcher: Dispatcher) -> None:
    await dispatcher.interrupt("the session ends")


async def interrupt_at_a_report(dispatcher: Dispatcher) -> None:
    await dispatcher.next_report(TRIAL)
    await dispatcher.interrupt("the session ends")


async def ask_to_save(dispatcher: Dispatcher) -> None:
    await dispatcher.nodes_leaving(["node"])


def steps_until_interrupted(run: GangRun) -> tuple[int, str, int | None]:
    """Return the step at which a training without reports was left, why, and the step that was saved."""
    for step in range(1, 6000):
        time.sleep(0.001)
        if run.interrupted(Counter(step)):
            return step, run.left, restored(run)
    return 0, run.left, restored(run)


def steps_until_saved(run: GangRun) -> tuple[bool, int | None]:
    """Return whether a training without reports was left, and the first step that was saved."""
    saved = None
    for step in range(1, 6000):
        time.sleep(0.001)
        if run.interrupted(Counter(step)):
            return True, restored(run)
        if step % 10 == 0 and (saved := restored(run)) is not None:
            break
    return False, saved


def report_once(run: GangRun) -> tuple[Decision, str, int | None]:
    return run.report(metrics(40), Counter(40 + run.rank)), run.left, restored(run)


def test_ranks_that_are_asked_to_leave_save_and_leave_at_the_same_step(two_ranks: Ranks, tmp_path: Path) -> None:
    one, other = two_ranks.call(in_gang, steps_until_interrupted, tmp_path, interrupt)
    step, why, saved = one
    assert one == other
    assert step > 0
    assert (why, saved) == ("leave", step)


def test_ranks_whose_node_will_leave_save_between_two_reports_and_go_on(two_ranks: Ranks, tmp_path: Path) -> None:
    one, other = two_ranks.call(in_gang, steps_until_saved, tmp_path, ask_to_save)
    left, saved = one
    assert one == other
    assert saved is not None
    assert not left


def test_a_report_of_a_session_that_ends_is_saved_and_every_rank_leaves(two_ranks: Ranks, tmp_path: Path) -> None:
    assert two_ranks.call(in_gang, report_once, tmp_path, interrupt_at_a_report) == [(Decision.STOP, "leave", 40)] * 2
