"""The sender: what waits together is applied together, in order, and what is refused takes nothing with it."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.tracking import sender as sending
from harness.tracking.outbox import Operation, Outbox
from harness.tracking.sender import MERGED, Sender


class Applied:
    """Stands in for MLflow: takes operations once it is let go, and refuses those named `wrong`."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go = threading.Event()

    def connect(self) -> Callable[[Sequence[Operation]], None]:
        self.go.wait(30)
        return self.apply

    def apply(self, operations: Sequence[Operation]) -> None:
        if any(operation.get("wrong") for operation in operations):
            raise ValueError("wrong")
        self.groups.append([operation["n"] for operation in operations])


def delivered(tmp_path: Path, operations: Sequence[Operation]) -> tuple[Applied, Sender, int]:
    """Let all operations wait behind each other, deliver them, and say how many are noted as done."""
    applied, outbox = Applied(), Outbox(tmp_path / "outbox.jsonl")
    sender = Sender(outbox, applied.connect)
    for n, operation in enumerate(operations):
        numbered = {**operation, "n": n}
        sender.send(numbered, outbox.append(numbered))
    applied.go.set()
    assert sender.close(30)
    outbox.close()
    return applied, sender, outbox.done()


REPORT, END = {"op": "report"}, {"op": "end"}


def test_what_waits_is_applied_together_and_in_order(tmp_path: Path) -> None:
    applied, _, done = delivered(tmp_path, [{"op": "start"}, REPORT, REPORT, END, REPORT])
    assert [n for group in applied.groups for n in group] == [0, 1, 2, 3, 4]
    assert len(applied.groups) <= 2  # the thread may wake up for the first one
    assert done == 5


def test_a_long_backlog_is_applied_in_groups_of_a_bounded_size(tmp_path: Path) -> None:
    applied, _, _ = delivered(tmp_path, [REPORT] * (2 * MERGED + 1))
    assert max(map(len, applied.groups)) <= MERGED
    assert [n for group in applied.groups for n in group] == list(range(2 * MERGED + 1))
    assert len(applied.groups) <= 4


def test_a_report_that_is_refused_takes_no_other_with_it(tmp_path: Path) -> None:
    applied, sender, done = delivered(tmp_path, [REPORT, {**REPORT, "wrong": True}, REPORT])
    assert [n for group in applied.groups for n in group] == [0, 2]
    assert (sender.applied, sender.rejected, done) == (2, 1, 3)


def test_a_password_that_is_not_taken_is_said_in_one_line_without_it(tmp_path: Path) -> None:
    class UnknownUserError(Exception):
        def get_http_status_code(self) -> int:
            return 401

    def connect() -> Callable[[Sequence[Operation]], None]:
        raise UnknownUserError("<html>\nhttp://me:secret@host")

    outbox = Outbox(tmp_path / "outbox.jsonl")
    sender = Sender(outbox, connect)
    sender.send(REPORT, outbox.append(REPORT))
    assert not sender.close(0.5)
    outbox.close()
    assert sender.last_error is not None
    assert "MLFLOW_TRACKING_USERNAME" in sender.last_error
    assert "secret" not in sender.last_error


@pytest.mark.parametrize("status", [400, 404, 413])
def test_what_mlflow_will_never_take_is_not_tried_again(tmp_path: Path, status: int) -> None:
    class WrongError(Exception):
        def get_http_status_code(self) -> int:
            return status

    tries: list[int] = []

    def apply(operations: Sequence[Operation]) -> None:
        tries.append(len(operations))
        raise WrongError

    outbox = Outbox(tmp_path / "outbox.jsonl")
    sender = Sender(outbox, lambda: apply)
    sender.send(END, outbox.append(END))
    assert sender.close(30)
    outbox.close()
    assert (tries, sender.rejected) == ([1], 1)


def test_what_keeps_the_client_from_being_made_costs_no_record(tmp_path: Path) -> None:
    def connect() -> Callable[[Sequence[Operation]], None]:
        raise ValueError("no such kind of store")

    outbox = Outbox(tmp_path / "outbox.jsonl")
    sender = Sender(outbox, connect)
    sender.send(END, outbox.append(END))
    assert not sender.close(0.5)
    outbox.close()
    assert (sender.rejected, outbox.done()) == (0, 0)


@pytest.mark.parametrize("held", [0, 3])
def test_what_is_not_held_in_memory_is_read_from_the_outbox_in_its_turn(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "HELD", held)
    applied, _, done = delivered(tmp_path, [{**REPORT, "n": n} for n in range(3 * MERGED)])
    assert [n for group in applied.groups for n in group] == list(range(3 * MERGED))
    assert done == 3 * MERGED


def test_what_a_full_disk_kept_out_of_the_outbox_is_sent_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "HELD", 0)
    applied, outbox = Applied(), Outbox(tmp_path / "outbox.jsonl")
    sender = Sender(outbox, applied.connect)
    for n in range(6):
        outbox._broken = n >= 3  # as after a write that failed
        sender.send({**REPORT, "n": n}, outbox.append({**REPORT, "n": n}))
    applied.go.set()
    assert sender.close(30)
    outbox.close()
    assert [n for group in applied.groups for n in group] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("fails", "arrives"), [(False, True), (True, False)])
def test_what_goes_well_is_waited_for_longer_than_what_failed(fails: bool, arrives: bool, tmp_path: Path) -> None:
    tries: list[int] = []

    def connect() -> Callable[[Sequence[Operation]], None]:
        tries.append(1)
        if fails and len(tries) == 1:
            raise ConnectionError("away")
        time.sleep(1.0)  # as tables of a new database take
        return lambda _: None

    outbox = Outbox(tmp_path / "outbox.jsonl")
    sender = Sender(outbox, connect)
    sender.send(END, outbox.append(END))
    assert sender.close(0.4) == arrives
    outbox.close()
