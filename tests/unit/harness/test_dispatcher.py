from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from harness.gangs.dispatcher import Dispatcher
from harness.gangs.messages import CONTINUE, LEAVE, MOVE, SAVE, STOP, Job, Report


def job(trial: str, config_hash: str = "h") -> Job:
    return Job(trial, {}, f"/checkpoints/{trial}", config_hash)


def report(step: int, finished: bool = False) -> dict[str, float]:
    return {"step": step, "finished": float(finished)}


async def started(waiting: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Let it run until it waits."""
    task = asyncio.ensure_future(waiting)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def on_gang(dispatcher: Dispatcher, trial: str, gang: int = 0) -> None:
    await dispatcher.submit(job(trial))
    given = await dispatcher.next_trial(gang)
    assert given is not None
    assert given.trial == trial


async def test_a_report_waits_for_the_decision() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    reporting = await started(dispatcher.report(0, "a", report(1)))
    assert (await dispatcher.next_report("a")).metrics["step"] == 1
    assert not reporting.done()


async def test_asking_for_the_next_report_means_go_on() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    reporting = await started(dispatcher.report(0, "a", report(1)))
    await dispatcher.next_report("a")
    await started(dispatcher.next_report("a"))
    assert await reporting == CONTINUE


async def test_a_report_that_came_first_is_not_decided_by_the_call_that_fetches_it() -> None:
    dispatcher = Dispatcher()
    await dispatcher.submit(job("a"))
    await dispatcher.next_trial(0)
    reporting = await started(dispatcher.report(0, "a", report(1)))
    await dispatcher.next_report("a")
    await asyncio.sleep(0)
    assert not reporting.done()


async def test_cancel_stops_a_trial_whose_report_is_pending() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    reporting = await started(dispatcher.report(0, "a", report(1)))
    await dispatcher.next_report("a")
    await dispatcher.cancel("a")
    assert await reporting == STOP


async def test_cancel_stops_a_trial_whose_report_was_not_fetched() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    reporting = await started(dispatcher.report(0, "a", report(1)))
    await dispatcher.cancel("a")
    assert await reporting == STOP


async def test_cancel_between_reports_stops_at_the_next() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.cancel("a")
    assert await dispatcher.report(0, "a", report(1)) == STOP


async def test_a_trial_cancelled_in_the_queue_is_never_given_out() -> None:
    dispatcher = Dispatcher()
    await dispatcher.submit(job("a"))
    await dispatcher.submit(job("b"))
    await dispatcher.cancel("a")
    given = await dispatcher.next_trial(0)
    assert given is not None
    assert given.trial == "b"


async def test_cancelling_an_ended_or_unknown_trial_does_nothing() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.fail(0, "a", "broken")
    await dispatcher.cancel("a")
    await dispatcher.cancel("a")
    await dispatcher.cancel("never seen")


async def test_the_finished_report_returns_stop_at_once() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    assert await dispatcher.report(0, "a", report(9, finished=True)) == STOP


async def test_the_finished_report_is_delivered_when_training_has_returned() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.report(0, "a", report(9, finished=True))
    waiting = await started(dispatcher.next_report("a"))
    assert not waiting.done()
    await dispatcher.complete(0, "a", "h")
    assert (await waiting) == Report(report(9, finished=True))


async def test_another_config_hash_fails_the_trial() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.report(0, "a", report(9, finished=True))
    await dispatcher.complete(0, "a", "other")
    assert "'other'" in str((await dispatcher.next_report("a")).error)


async def test_returning_before_the_horizon_fails_the_trial() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.complete(0, "a", "h")
    assert "before its horizon" in str((await dispatcher.next_report("a")).error)


async def test_a_failure_is_delivered() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.fail(0, "a", "broken")
    assert await dispatcher.next_report("a") == Report({}, "broken")


async def test_the_first_failure_of_several_ranks_counts() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.fail(0, "a", "first")
    await dispatcher.fail(0, "a", "second")
    assert (await dispatcher.next_report("a")).error == "first"


async def test_a_restarted_gang_is_given_its_trial_again_with_its_retry() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    again = await dispatcher.next_trial(0)
    assert again is not None
    assert (again.trial, again.retry) == ("a", 1)


async def test_a_trial_that_loses_its_gang_too_often_fails_and_the_gang_moves_on() -> None:
    dispatcher = Dispatcher(max_trial_retries=1)
    await on_gang(dispatcher, "a")
    await dispatcher.next_trial(0)
    await dispatcher.submit(job("b"))
    given = await dispatcher.next_trial(0)
    assert given is not None
    assert given.trial == "b"
    assert "lost 2 times" in str((await dispatcher.next_report("a")).error)


async def test_a_restarted_gang_whose_trial_was_cancelled_is_given_another() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.cancel("a")
    await on_gang(dispatcher, "b")


async def test_steps_that_were_reported_before_are_passed_over() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await started(dispatcher.report(0, "a", report(3)))
    await dispatcher.next_report("a")
    waiting = await started(dispatcher.next_report("a"))
    await dispatcher.next_trial(0)
    assert [await dispatcher.report(0, "a", report(step)) for step in (2, 3)] == [CONTINUE, CONTINUE]
    await started(dispatcher.report(0, "a", report(4)))
    assert (await waiting).metrics["step"] == 4


async def test_a_gang_that_died_with_its_report_pending_is_stopped_at_its_next_step() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await started(dispatcher.report(0, "a", report(1)))  # nobody waits for it any more
    await dispatcher.next_report("a")
    await dispatcher.next_trial(0)
    await dispatcher.cancel("a")
    assert await dispatcher.report(0, "a", report(2)) == STOP


async def test_a_dead_gangs_call_takes_no_trial_from_its_successor() -> None:
    dispatcher = Dispatcher()
    dead = await started(dispatcher.next_trial(0))
    alive = await started(dispatcher.next_trial(0))
    await dispatcher.submit(job("a"))
    assert (await alive).trial == "a"
    assert await dead is None


async def test_a_gang_that_is_behind_cannot_report_for_a_trial_that_moved_on() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a", gang=0)
    assert await dispatcher.report(1, "a", report(1)) == STOP


async def test_close_lets_waiting_gangs_end() -> None:
    dispatcher = Dispatcher()
    waiting = await started(dispatcher.next_trial(0))
    await dispatcher.close()
    assert await waiting is None


async def test_abort_fails_what_runs_what_waits_and_what_comes() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "running")
    await dispatcher.submit(job("waiting"))
    await dispatcher.abort("enough")
    await dispatcher.submit(job("coming"))
    errors = [(await dispatcher.next_report(trial)).error for trial in ("running", "waiting", "coming")]
    assert errors == ["enough"] * 3


async def test_abort_stops_a_trial_whose_report_is_pending() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    reporting = await started(dispatcher.report(0, "a", report(1)))
    await dispatcher.next_report("a")
    await dispatcher.abort("enough")
    assert await reporting == STOP


async def test_a_gang_that_dies_before_it_can_train_closes_the_search() -> None:
    dispatcher = Dispatcher()
    going = [await dispatcher.start_gang(0) for _ in range(6)]
    assert going == [True] * 5 + [False]
    assert "gang 0 died 5 times" in str(await dispatcher.close_reason())


async def test_a_closed_search_says_why_a_gang_could_not_become_one() -> None:
    dispatcher = Dispatcher()
    for _ in range(6):
        await dispatcher.ail(0, "RuntimeError: Found no NVIDIA driver on your system.")
        await dispatcher.start_gang(0)
    assert str(await dispatcher.close_reason()).endswith(": RuntimeError: Found no NVIDIA driver on your system.")


async def test_a_gang_may_die_any_number_of_times_while_it_trains() -> None:
    dispatcher = Dispatcher(max_trial_retries=9)
    await dispatcher.submit(job("a"))
    for _ in range(9):
        assert await dispatcher.start_gang(0)
        assert await dispatcher.next_trial(0)


async def test_ranks_that_all_raised_meet() -> None:
    dispatcher = Dispatcher()
    assert await asyncio.gather(dispatcher.meet("a", 2), dispatcher.meet("a", 2)) == [True, True]


async def test_a_rank_that_raised_alone_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dispatcher, "meeting_timeout_s", 0.01)
    assert not await Dispatcher().meet("a", 2)


async def test_nothing_is_remembered_of_trials_that_both_sides_are_through_with() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "finished")
    await dispatcher.report(0, "finished", report(9, finished=True))
    await dispatcher.complete(0, "finished", "h")
    await dispatcher.next_report("finished")
    await dispatcher.cancel("finished")
    await on_gang(dispatcher, "cancelled")
    await dispatcher.cancel("cancelled")
    await dispatcher.complete(0, "cancelled", "h")
    assert not dispatcher._trials
    assert dispatcher._gangs[0].trial is None


async def test_the_trial_of_a_lost_node_goes_to_another_gang_without_a_retry() -> None:
    dispatcher = Dispatcher()
    await dispatcher.introduce(0, ["w0", "w1"], ["node a", "node b"])
    await on_gang(dispatcher, "a")
    other = await started(dispatcher.next_trial(1))
    await dispatcher.nodes_lost(["node b"])
    given = await other
    assert given is not None
    assert (given.trial, given.retry) == ("a", 0)


async def test_a_lost_node_ends_the_gangs_other_workers() -> None:
    killed: list[str] = []
    dispatcher = Dispatcher(kill=killed.append)
    await dispatcher.introduce(0, ["w0", "w1"], ["node a", "node b"])
    await dispatcher.introduce(1, ["w2"], ["node a"])
    await dispatcher.nodes_lost(["node b"])
    assert killed == ["w0", "w1"]


async def test_a_lost_node_without_gangs_changes_nothing() -> None:
    dispatcher = Dispatcher()
    await dispatcher.introduce(0, ["w0"], ["node a"])
    await on_gang(dispatcher, "a")
    await dispatcher.nodes_lost(["node b"])
    reporting = await started(dispatcher.report(0, "a", report(1)))
    assert (await dispatcher.next_report("a")).metrics["step"] == 1
    assert not reporting.done()


async def test_gangs_on_a_leaving_node_are_told_to_save() -> None:
    dispatcher = Dispatcher()
    await dispatcher.introduce(0, ["w0"], ["node a"])
    await dispatcher.introduce(1, ["w1"], ["node b"])
    commands = [await started(dispatcher.next_command(gang)) for gang in (0, 1)]
    await dispatcher.nodes_leaving(["node b"])
    assert await commands[1] == SAVE
    assert not commands[0].done()


async def test_a_word_is_said_once() -> None:
    dispatcher = Dispatcher()
    await dispatcher.move(0)
    assert await dispatcher.next_command(0) == MOVE
    assert not (await started(dispatcher.next_command(0))).done()


async def test_a_dead_gangs_call_takes_no_word_from_its_successor() -> None:
    dispatcher = Dispatcher()
    dead, alive = await started(dispatcher.next_command(0)), await started(dispatcher.next_command(0))
    await dispatcher.move(0)
    assert await alive == MOVE
    assert await dead == ""


async def test_every_gang_is_told_of_an_interruption() -> None:
    dispatcher = Dispatcher()
    commands = [await started(dispatcher.next_command(gang)) for gang in (0, 1)]
    await dispatcher.interrupt("enough")
    assert [await word for word in commands] == [LEAVE, LEAVE]


async def test_the_trial_of_a_gang_that_moved_comes_first() -> None:
    dispatcher = Dispatcher()
    await on_gang(dispatcher, "a")
    await dispatcher.submit(job("b"))
    await dispatcher.moved(0, "a")
    given = await dispatcher.next_trial(0)
    assert given is not None
    assert (given.trial, given.retry) == ("a", 0)


async def while_saving(dispatcher: Dispatcher) -> asyncio.Task[str | None]:
    """Return a save that waits for the gang, which has been told and has not answered yet."""
    await on_gang(dispatcher, "a")
    reporting = await started(dispatcher.report(0, "a", report(1)))
    await dispatcher.next_report("a")
    saving = await started(dispatcher.save("a"))
    assert await reporting == SAVE
    assert not saving.done()
    return saving


async def test_a_trial_that_is_dropped_while_it_is_saved_leaves_nobody_waiting() -> None:
    dispatcher = Dispatcher()
    saving = await while_saving(dispatcher)
    await dispatcher.drop("a")
    assert await asyncio.wait_for(saving, 1) is None
    assert await dispatcher.saved(0, "a", "/a/file") == STOP


async def test_a_save_that_raises_leaves_nobody_waiting() -> None:
    dispatcher = Dispatcher()
    saving = await while_saving(dispatcher)
    await dispatcher.fail(0, "a", "the state cannot be saved")
    assert await asyncio.wait_for(saving, 1) is None
    assert (await dispatcher.next_report("a")).error == "the state cannot be saved"


async def test_an_aborted_session_leaves_no_save_waiting() -> None:
    dispatcher = Dispatcher()
    saving = await while_saving(dispatcher)
    await dispatcher.abort("the gangs are gone")
    assert await asyncio.wait_for(saving, 1) is None
