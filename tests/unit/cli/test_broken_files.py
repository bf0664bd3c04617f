"""Files that a disk fault broke: every command that reads one says so in one line, and starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from invented.searches import made_search

from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.ledger import LEDGER
from harness.run_folder import RunInfo, write_run
from harness.tracking.stores import OUTBOX, absolute_uri
from harness.tuning.config import SearchConfig
from harness.tuning.study import JOURNAL
from search_spaces import load_space
from trainers.errors import UsageError

RESUME = ["tune", "--resume", "--name", "search", "--gangs", "10000"]
"""More gangs than fit anywhere: what is refused for these was read before."""
TEXT_AS_NUMBER = b'{"event":"start","trial":"text","params":{},"overrides":{},"config_hash":""}\n'


@pytest.fixture(scope="module")
def info() -> RunInfo:
    options = SearchConfig.of(trials=16).model_dump(mode="json")
    request = {"options": options, "space": load_space("css_quick").text}
    return RunInfo.of("search", CssExperiment.of("digits_css", {"schedule.steps": 120}), "dev/miou", request)


@pytest.fixture
def folder(info: RunInfo, tmp_path: Path) -> Path:
    """A search that was killed."""
    folder = made_search(tmp_path / "runs" / "search", ended=False)
    write_run(folder, info)
    return folder


def database(folder: Path) -> Path:
    return folder.parents[1] / "mlflow.db"


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe garbage, longer than the beginning of a database\n")


def no_database(folder: Path) -> None:
    garbage(database(folder))


def a_broken_outbox(folder: Path) -> None:
    garbage(folder / OUTBOX)


def an_outbox_of_texts(folder: Path) -> None:
    (folder / OUTBOX).write_text('"text"\n')


def a_broken_ledger(folder: Path) -> None:
    with (folder / LEDGER).open("ab") as file:
        file.write(b"\xff\xfe garbage\n")


def a_trial_that_is_a_text(folder: Path) -> None:
    with (folder / LEDGER).open("ab") as file:
        file.write(TEXT_AS_NUMBER)


def both_books_broken(folder: Path) -> None:
    a_broken_ledger(folder)
    garbage(folder / JOURNAL)


STORE, LEDGERS, OPERATIONS = "records must go to a SQLite database", "must be the ledger", "must hold operations"
DOCTOR, SYNC, REPORT = ["doctor", "search"], ["sync", "search"], ["report", "search"]
CASES = [
    *((no_database, words, STORE) for words in (DOCTOR, ["doctor", "--all"], SYNC, RESUME, ["tune"], ["ui"])),
    *((fault, words, OPERATIONS) for fault in (a_broken_outbox, an_outbox_of_texts) for words in (SYNC, RESUME)),
    *((fault, words, LEDGERS) for fault in (a_broken_ledger, a_trial_that_is_a_text)
      for words in (DOCTOR, REPORT, RESUME)),
    (both_books_broken, RESUME, LEDGERS),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "words", "says"), CASES)
def test_a_broken_file_is_said_in_one_line_and_nothing_is_changed(
    fault: Callable[[Path], None], words: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    place = ["--storage", str(folder.parent)] if words[0] != "ui" else []
    store = ["--tracking-uri", f"sqlite:///{database(folder)}"] if words[0] != "report" else []
    assert run([*words, *place, *store]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said
    assert "\n" not in said
    left = {path: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}
    assert left == before


def test_a_study_that_cannot_be_read_is_kept_aside_and_rebuilt_when_its_search_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    garbage(folder / JOURNAL)
    broken = (folder / JOURNAL).read_bytes()
    assert run([*RESUME, "--storage", str(folder.parent), "--tracking-uri", f"sqlite:///{database(folder)}"]) == 2
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if JOURNAL in line]
    assert f"{JOURNAL} cannot be read (line 1 is no JSON" in line
    assert f"rebuilt from the ledger, with 6 trials, the old one is kept as {JOURNAL}.broken-001" in line
    assert (folder / f"{JOURNAL}.broken-001").read_bytes() == broken
    assert "Traceback" not in said.err


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and more", None])
def test_a_database_that_is_one_or_is_yet_to_be_made_is_taken(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "m.db").write_bytes(content)
    assert absolute_uri(f"sqlite:///{tmp_path}/m.db") == f"sqlite:///{tmp_path}/m.db"


def test_no_database_is_refused_with_what_is_safe_and_how_records_are_sent_again(tmp_path: Path) -> None:
    garbage(tmp_path / "m.db")
    with pytest.raises(UsageError, match=r"runs are safe in their folders.*s4 sync NAME sends all its records"):
        absolute_uri(f"sqlite:///{tmp_path}/m.db")
