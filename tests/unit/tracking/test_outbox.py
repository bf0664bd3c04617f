"""The outbox survives its driver."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from harness.tracking.outbox import Outbox, pending
from trainers.errors import UsageError

Opener = Callable[[Path], Outbox]


@pytest.fixture
def opened() -> Iterator[Opener]:
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(closing(Outbox(path)))


def test_operations_come_back_in_order(opened: Opener, tmp_path: Path) -> None:
    outbox = opened(tmp_path / "new" / "outbox.jsonl")
    assert [outbox.append({"op": "report", "step": step}) for step in range(3)] == [1, 2, 3]
    assert [operation["step"] for operation in outbox.operations()] == [0, 1, 2]


def test_an_operation_is_in_the_file_before_append_returns(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    opened(path).append({"op": "open"})
    assert path.read_text() == '{"op":"open"}\n'


def test_a_line_cut_short_by_a_kill_is_dropped_and_the_rest_is_continued(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    path.write_text('{"op":"open"}\n{"op":"rep')
    outbox = opened(path)
    assert outbox.append({"op": "end"}) == 2
    assert [operation["op"] for operation in outbox.operations()] == ["open", "end"]


def test_how_far_it_got_is_remembered(opened: Opener, tmp_path: Path) -> None:
    outbox = opened(tmp_path / "outbox.jsonl")
    assert outbox.done() == 0
    outbox.mark_done(7)
    outbox.close()
    assert opened(tmp_path / "outbox.jsonl").done() == 7


def test_one_process_at_a_time_sends_and_the_other_changes_nothing(opened: Opener, tmp_path: Path) -> None:
    """The other would take a line that is being written for one that a kill cut short."""
    path = tmp_path / "outbox.jsonl"
    first = opened(path)
    first._file.write(b'{"op":"rep')
    with pytest.raises(UsageError, match=rf"outbox.jsonl is held by process {os.getpid()} on .*: wait for it"):
        Outbox(path)
    assert pending(path) == 0
    first._file.write(b'ort"}\n')
    assert [operation["op"] for operation in first.operations()] == ["report"]
    assert pending(path) == 1
    first.close()
    assert opened(path).count == 1


def test_a_full_disk_costs_the_record_and_not_the_search(opened: Opener, tmp_path: Path) -> None:
    outbox = opened(tmp_path / "outbox.jsonl")
    outbox._file.close()
    outbox._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    assert outbox.append({"op": "open"}) == 0
    assert outbox.append({"op": "end"}) == 0
