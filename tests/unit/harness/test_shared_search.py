"""Searches of two folders on one study, as commands see them. The second one's trials begin at number 4."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from scale_simulation import Course, without_ray

from harness import api
from harness.cli.main import run
from harness.doctor import Finding, Records, check_study
from harness.ledger import LEDGER, read_ledger
from harness.reporting.record import read_or_rebuild
from harness.reporting.results import lead
from harness.run_folder import RUN, read_run
from harness.tuning.config import SearchConfig, recorded_space
from harness.tuning.marks import own_trials
from harness.tuning.objectives import Objective
from harness.tuning.shared import shared_of
from harness.tuning.warm_start import earlier_trials
from trainers.errors import UsageError


def search(storage: Path, name: str, trials: int, **options: Any) -> None:
    """Begin or go on with a search without Ray and without MLflow."""
    resume = (storage / name / RUN).exists()
    with without_ray(Course(), mlflow=False):
        api.search(
            None if resume else "digits_css", name=name, resume=resume, storage=storage, trials=trials, report=False,
            tracking_uri=f"sqlite:///{storage}/mlflow.db", quiet=True, **options,
        )  # fmt: skip


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("shared")
    for name, trials in (("a", 4), ("b", 7)):
        search(storage, name, trials, space="css_quick", study=f"sqlite:///{storage}/study.db", study_name="both")
    search(storage, "a", 9)
    return storage


def findings(folder: Path) -> list[Finding]:
    return [*check_study(Records(folder, read_run(folder, "search"), "", read_ledger(folder / LEDGER)))]


def test_each_folder_holds_its_own_trials_and_the_study_all(storage: Path) -> None:
    numbers = {name: sorted(read_ledger(storage / name / LEDGER).trials) for name in "ab"}
    assert numbers == {"a": [0, 1, 2, 3, 7, 8], "b": [4, 5, 6]}
    shared = shared_of(storage / "a", read_run(storage / "a"))
    assert shared is not None
    study = shared.found()
    assert study is not None
    assert [trial.number for trial in own_trials(study)] == list(range(9))
    assert not list(storage.glob("*/optuna.journal"))


def test_a_table_without_the_baseline_says_nothing_of_it(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "b", "--storage", str(storage)]) == 0
    said = capsys.readouterr().out
    assert "3 trials" in said
    assert "baseline" not in said
    results = read_or_rebuild(storage / "b")
    assert [row.number for row in sorted(results.rows, key=lambda row: row.number)] == [4, 5, 6]
    assert "baseline" not in lead(results)


def test_the_records_of_both_agree(storage: Path) -> None:
    assert findings(storage / "a") == findings(storage / "b") == []


def test_what_the_study_does_not_know_to_be_over_is_found_and_told(storage: Path, tmp_path: Path) -> None:
    options = {"space": "css_quick", "study": f"sqlite:///{tmp_path}/study.db"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optuna.Study.tell", lambda *_, **__: None)  # the database was away
        search(tmp_path, "one", 2, **options)
    found = findings(tmp_path / "one")
    assert [str(finding) for finding in found] == [
        f"trial {n}: COMPLETE in the ledger, RUNNING in Optuna" for n in (0, 1)
    ]
    assert found[0].repair is not None
    found[0].repair()
    assert findings(tmp_path / "one") == []


def test_a_study_that_lacks_trials_is_no_reason_to_make_another_one(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search(tmp_path, "one", 2, space="css_quick", study=f"sqlite:///{tmp_path}/study.db")
    (tmp_path / "study.db").unlink()
    (finding,) = findings(tmp_path / "one")
    assert "lacks 2 of the ledger's 2 trials; the ledger is safe" in finding.what
    assert finding.repair is None
    assert run(["tune", "--resume", "--name", "one", "--storage", str(tmp_path)]) == 2
    assert "a search must go on with its study" in capsys.readouterr().err


def test_a_database_that_cannot_be_reached_is_a_finding(storage: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for name in (RUN, LEDGER):
        text = (storage / "b" / name).read_text()
        (folder / name).write_text(text.replace(f"{storage}/study.db", f"{tmp_path}/nowhere/study.db"))
    assert "unable to open database file" in findings(folder)[0].what


def test_a_search_can_begin_with_the_trials_of_all_drivers_of_a_study(storage: Path) -> None:
    space = recorded_space(read_run(storage / "b"))
    earlier = earlier_trials(str(storage / "b"), space, [Objective("dev/miou", "max")])
    ends = [trial.state.name for name in "ab" for trial in read_ledger(storage / name / LEDGER).trials.values()]
    assert len(earlier.trials) == len(ends) == 9


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        ("--space css", "space"), ("--sampler random", "sampler"), ("--set schedule.steps=800", "config"),
        ("--objective dev/miou:min", "objective"), ("--constraint time/step_s<=2", "constraint"),
        ("--set data.labelled=30", "config"),
    ],
)  # fmt: skip
def test_a_driver_that_means_something_else_is_refused_before_it_begins(
    words: str, differs: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{storage}/study.db"
    given = ["tune", *words.split(), "--study", url, "--study-name", "both", "--name", "c", "--storage", str(storage)]
    assert run(given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"drivers of a study must have the same {differs}, the study both at {url} has" in line
    assert not (storage / "c").exists()


def test_earlier_trials_are_for_the_driver_that_makes_the_study(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--study", f"sqlite:///{storage}/study.db", "--study-name", "both", "--warm-start", "a"]
    assert run(["tune", *words, "--name", "c", "--storage", str(storage)]) == 2
    assert "--warm-start must be given by the driver that makes the study" in capsys.readouterr().err


def test_a_search_keeps_its_study_when_it_goes_on(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--resume", "--name", "b", "--storage", str(storage), "--study", f"sqlite:///{storage}/other.db"]
    assert run(["tune", *words]) == 2
    assert "a search must go on with --study sqlite:///" in capsys.readouterr().err


def test_a_password_is_shown_by_no_refusal() -> None:
    for url in ("postgresql+psycopg://me:secret@host/db", "mysql://host/db?password=secret", "postgresql://me:secret@"):
        with pytest.raises(UsageError, match="must hold no password") as refused:
            SearchConfig.of(study=url)
        assert "secret" not in str(refused.value)
