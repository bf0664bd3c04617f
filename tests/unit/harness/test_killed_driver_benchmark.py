"""The benchmark of a killed driver sees what a kill can do to the books."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from killed_driver import NAME, Watch, faults
from scale_simulation import Course, without_ray

from harness import api
from harness.ledger import LEDGER
from harness.tuning.study import JOURNAL

TRIALS = 4


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> Path:
    storage = tmp_path_factory.mktemp("played")
    with without_ray(Course(), mlflow=True):
        api.search(
            "digits_css", space="css_quick", trials=TRIALS, name=NAME, storage=storage / "searches", quiet=True,
            tracking_uri=new_store(storage), report=False,
        )  # fmt: skip
    return storage


def in_mlflow(statement: str) -> Callable[[Path], None]:
    def change(storage: Path) -> None:
        with closing(sqlite3.connect(storage / "mlflow.db")) as database, database:
            assert database.execute(statement).rowcount

    return change


def in_file(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def write(storage: Path) -> None:
        path = storage / "searches" / NAME / name
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return write


def report_of(lines: list[str]) -> str:
    return next(line for line in lines if '"report"' in line)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a report is lost in MLflow": (
        in_mlflow("delete from metrics where rowid = (select max(rowid) from metrics where key = 'dev/miou')"),
        "reports",
    ),
    "a report is twice in MLflow": (
        in_mlflow(
            "insert into metrics (key, value, timestamp, run_uuid, step, is_nan) select key, value, timestamp + 1, "
            "run_uuid, step, is_nan from metrics where key = 'dev/miou' limit 1"
        ),
        "reports",
    ),
    "a run is left open": (in_mlflow("update runs set status = 'RUNNING' where name like '%1%'"), "runs of trials"),
    "a report is twice in the ledger": (in_file(LEDGER, lambda lines: [*lines, report_of(lines)]), "reports twice"),
    "a trial is lost in the ledger": (
        in_file(LEDGER, lambda lines: [line for line in lines if '"trial":2' not in line]),
        "the ledger has 3 trials",
    ),
    "Optuna was not told": (in_file(JOURNAL, lambda lines: lines[:-1]), "Optuna's trials"),
}


def test_the_books_of_a_search_that_nobody_killed_agree(played: Path) -> None:
    assert list(faults(played, TRIALS)) == []


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_lost_or_doubled_is_a_fault(
    damage: Callable[[Path], None], words: str, played: Path, tmp_path: Path
) -> None:
    shutil.copytree(played, tmp_path / "copy")
    damage(tmp_path / "copy")
    assert any(words in fault for fault in faults(tmp_path / "copy", TRIALS))


def test_a_ledger_is_counted_while_it_grows(tmp_path: Path) -> None:
    path, watch = tmp_path / LEDGER, Watch(tmp_path / LEDGER)
    seen = []
    for text in (
        '{"event":"report"}\n{"event":"en',
        'd","state":"PRUNED"}\n',
        '{"event":"end","state":"INTERRUPTED"}\n',
    ):
        watch.look()
        with path.open("a") as file:
            file.write(text)
        watch.look()
        seen.append((watch.reports, watch.over))
    assert seen == [(1, 0), (1, 1), (1, 1)]
