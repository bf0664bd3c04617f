"""The folder of a run belongs to one process from before its first write; who comes second touches nothing."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from harness.one_driver import LOCK, Lock, is_new, new_run, sole_driver
from trainers.errors import UsageError

PROCESSES = 6


def _take(storage: Path, name: str | None, barrier: Barrier, answers: Any) -> None:
    barrier.wait()
    try:
        with new_run(storage, name, "stem") as folder:
            (folder / "run.yaml").write_text("mine")
            answers.put(folder.name)
            barrier.wait()
    except UsageError as error:
        answers.put(str(error))
        barrier.wait()


@pytest.mark.parametrize(
    ("name", "expected"), [("same", ["same"]), (None, [f"stem-{number:03d}" for number in range(1, PROCESSES + 1)])]
)
def test_of_processes_that_begin_at_the_same_moment_each_has_a_folder_of_its_own_or_none(
    tmp_path: Path, name: str | None, expected: list[str]
) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(PROCESSES), context.Queue()
    processes = [context.Process(target=_take, args=(tmp_path, name, barrier, answers)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    said = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
    assert sorted(word for word in said if "must be free" not in word) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


def test_without_a_name_the_next_free_one_is_taken(tmp_path: Path) -> None:
    (tmp_path / "stem-001").mkdir()
    (tmp_path / "stem-001" / "a-file").touch()
    with new_run(tmp_path, None, "stem") as folder:
        assert folder == tmp_path / "stem-002"


def test_a_name_that_is_taken_is_refused_and_nothing_is_written_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a-file").touch()
    with pytest.raises(UsageError, match=r"a name must be free, .*mine exists"), new_run(tmp_path, "mine", "stem"):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["a-file"]


def test_where_nothing_began_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="refused later"), new_run(tmp_path, "mine", "stem"):
        raise UsageError("refused later")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_driver_left_of_a_run_that_never_began_is_free(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / LOCK).touch()
    assert is_new(tmp_path / "mine")
    with new_run(tmp_path, "mine", "stem") as folder:
        (folder / "run.yaml").write_text("mine")
    assert not is_new(folder)


def test_who_holds_the_lock_may_take_it_again_and_others_may_not(tmp_path: Path) -> None:
    with sole_driver(tmp_path / "run") as folder:
        (folder / "run.yaml").write_text("mine")
        with sole_driver(folder):
            pass
        with pytest.raises(UsageError, match="a run must have one driver, run is being run by process"):
            _in_a_thread(lambda: sole_driver(folder).__enter__())
    with sole_driver(folder):
        pass


def _in_a_thread(work: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UsageError, match=r"file system with locks .*No locks available.: choose another"):
        Lock(tmp_path / "run" / LOCK)
