"""Ledger and study of a search whose driver died between any two events: whichever knows that a trial is over is
believed, and the search goes on with nothing lost and nothing twice.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState as OptunaState
from sessions import EVERY, MIOU, SEARCH, TRIALS, Line, Session

from harness.ledger import LEDGER, Ledger, read_ledger
from harness.trials import Trial, TrialState, Value
from harness.tuning.objectives import Constraint
from harness.tuning.study import JOURNAL, LOCK, fault_of, journal, rebuild, reconcile
from trainers.errors import UsageError


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """A study with one trial that runs and reported twice."""
    study = optuna.create_study(study_name="s", storage=journal(tmp_path / JOURNAL), direction="maximize")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(0.1, 10)
    trial.report(0.2, 20)
    return study


def ledger(folder: Path, state: TrialState | None = None) -> None:
    """A ledger of the same trial, with an end if a state is given."""
    book = Ledger(folder / LEDGER, "dev/miou")
    trial = Trial(0, {"x": 0.5}, {})
    book.on_start(trial)
    for step, value in ((10, 0.1), (20, 0.2)):
        trial.take_in({"step": float(step), "dev/miou": value}, value)
        book.on_report(trial)
    if state is not None:
        trial.state = state
        book.on_end(trial)
    book.close()


def reopened(folder: Path) -> optuna.trial.FrozenTrial:
    return optuna.load_study(study_name="s", storage=journal(folder / JOURNAL)).trials[0]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_optuna_is_told_what_only_the_ledger_knows(tmp_path: Path, study: optuna.Study, state: TrialState) -> None:
    ledger(tmp_path, state)
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).state.name == state


def test_optuna_is_told_the_value_of_a_complete_trial(tmp_path: Path, study: optuna.Study) -> None:
    ledger(tmp_path, TrialState.COMPLETE)
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).value == 0.2


def test_optuna_is_told_the_last_value_of_a_pruned_trial(tmp_path: Path, study: optuna.Study) -> None:
    ledger(tmp_path, TrialState.PRUNED)
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).value == 0.2


def test_a_trial_that_waits_can_be_told_too(tmp_path: Path, study: optuna.Study) -> None:
    study._storage.set_trial_state_values(study.trials[0]._trial_id, OptunaState.WAITING)
    ledger(tmp_path, TrialState.PRUNED)
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).state is OptunaState.PRUNED


def test_the_ledger_is_told_what_only_optuna_knows(tmp_path: Path, study: optuna.Study) -> None:
    study.tell(0, state=OptunaState.PRUNED)
    ledger(tmp_path)
    reconcile(tmp_path, "s", MIOU)
    assert read_ledger(tmp_path / LEDGER).trials[0].state is TrialState.PRUNED


def test_a_trial_that_nobody_knows_to_be_over_waits_to_go_on(tmp_path: Path, study: optuna.Study) -> None:
    ledger(tmp_path)
    history = reconcile(tmp_path, "s", MIOU)
    assert (reopened(tmp_path).state, history.trials[0].state) == (OptunaState.WAITING, TrialState.INTERRUPTED)


def test_a_trial_that_was_drawn_but_never_started_waits(tmp_path: Path, study: optuna.Study) -> None:
    assert reconcile(tmp_path, "s", MIOU).trials == {}
    assert reopened(tmp_path).state is OptunaState.WAITING


def test_a_journal_that_ends_in_half_a_line_can_be_opened(tmp_path: Path, study: optuna.Study) -> None:
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code": 5, "work')
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).intermediate_values == {10: 0.1, 20: 0.2}


def test_a_lock_of_a_killed_driver_is_not_waited_for(tmp_path: Path, study: optuna.Study) -> None:
    ledger(tmp_path)
    (tmp_path / LOCK).symlink_to(tmp_path / JOURNAL)
    began = time.monotonic()
    reconcile(tmp_path, "s", MIOU)
    assert time.monotonic() - began < 5  # Optuna alone waits 30 s
    assert reopened(tmp_path).state is OptunaState.WAITING


def test_a_new_folder_has_no_history(tmp_path: Path) -> None:
    assert reconcile(tmp_path, "s", MIOU).trials == {}


class Cut(NamedTuple):
    """Bytes that a driver had written when it died."""

    ledger: int
    journal: int


class Recorded(NamedTuple):
    """A search of two sessions, and where it can be cut: after every line of either file, and in the middle of it."""

    folder: Path
    cuts: list[Cut]

    def cut(self, at: Cut, folder: Path) -> None:
        """Leave in a new folder what had been written by then."""
        folder.mkdir()
        for name, size in ((LEDGER, at.ledger), (JOURNAL, at.journal)):
            (folder / name).write_bytes((self.folder / name).read_bytes()[:size])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    sizes = [Cut(0, 0)]

    def watched(write: Any) -> Any:
        def call(*args: Any, **more: Any) -> None:
            write(*args, **more)
            sizes.append(Cut(*((folder / name).stat().st_size for name in (LEDGER, JOURNAL))))

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)  # what is on the disk is not asked here
        with pytest.MonkeyPatch.context() as watching:
            watching.setattr(Ledger, "_append", watched(Ledger._append))
            watching.setattr(JournalFileBackend, "append_logs", watched(JournalFileBackend.append_logs))
            Session(folder).run(turns=8)
            Session(folder).run()
        yield Recorded(folder, list(cuts_of(folder, sizes)))


def cuts_of(folder: Path, sizes: list[Cut]) -> Iterator[Cut]:
    texts = {"ledger": (folder / LEDGER).read_bytes(), "journal": (folder / JOURNAL).read_bytes()}
    for before, after in pairwise(sizes):
        for name, text in texts.items():
            begin, end = getattr(before, name), getattr(after, name)
            while begin < end:
                line = text.index(b"\n", begin) + 1
                yield before._replace(**{name: (begin + line) // 2})
                yield before._replace(**{name: line})
                begin = line


class Books(NamedTuple):
    """What both books say of each trial, by number."""

    states: dict[int, str]
    params: dict[int, Mapping[str, Value]]
    values: dict[int, dict[int, float]]


def by_ledger(folder: Path) -> Books:
    trials = read_ledger(folder / LEDGER).trials
    return Books(
        {number: str(trial.state) for number, trial in trials.items()},
        {number: trial.params for number, trial in trials.items()},
        {number: dict(trial.values) for number, trial in trials.items()},
    )


def by_study(folder: Path) -> Books:
    storage = journal(folder / JOURNAL)
    names = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=SEARCH, storage=storage).trials if names else []
    return Books(
        {trial.number: trial.state.name for trial in trials},
        {trial.number: trial.params for trial in trials},
        {trial.number: trial.intermediate_values for trial in trials},
    )


def over(books: Books) -> dict[int, str]:
    return {number: state for number, state in books.states.items() if state in ("COMPLETE", "PRUNED", "FAIL")}


def test_the_recorded_search_has_every_outcome_and_an_interrupted_trial(recorded: Recorded) -> None:
    assert sorted(over(by_ledger(recorded.folder)).values()) == ["COMPLETE"] * 4 + ["FAIL", "PRUNED"]
    assert '"state":"INTERRUPTED"' in (recorded.folder / LEDGER).read_text()
    assert len(recorded.cuts) > 100


def test_wherever_the_driver_died_both_books_mean_the_same(recorded: Recorded, tmp_path: Path) -> None:
    for index, cut in enumerate(recorded.cuts):
        folder = tmp_path / str(index)
        recorded.cut(cut, folder)
        reports = by_ledger(folder).values
        known = over(by_ledger(folder)) | over(by_study(folder))
        history = reconcile(folder, SEARCH, MIOU)
        ledger, study = by_ledger(folder), by_study(folder)
        assert over(ledger) == over(study) == known, cut
        assert {number: str(trial.state) for number, trial in history.trials.items()} == ledger.states, cut
        assert set(study.states.values()) <= {"WAITING", "COMPLETE", "PRUNED", "FAIL"}, cut
        assert ledger.values == reports, cut


def test_wherever_the_driver_died_the_search_goes_on_to_its_end_with_nothing_lost_and_nothing_twice(
    recorded: Recorded, tmp_path: Path
) -> None:
    for index, cut in enumerate(recorded.cuts):
        folder = tmp_path / str(index)
        recorded.cut(cut, folder)
        drawn = by_ledger(folder)
        Session(folder).run()
        ledger, study = by_ledger(folder), by_study(folder)
        assert ledger.states.keys() == set(range(TRIALS)), cut
        assert ledger == study, cut
        assert over(drawn).items() <= over(ledger).items(), cut
        assert drawn.params.items() <= ledger.params.items(), cut
        assert reports_of(folder) == Counter(
            {(number, step): 1 for number, values in ledger.values.items() for step in values}
        ), cut
        assert all(list(values) == list(range(EVERY, max(values) + 1, EVERY)) for values in ledger.values.values()), cut


BREAK: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(b"\xff\n" + path.read_bytes()),
    "another shape": lambda path: path.write_bytes(b"[]\n" + path.read_bytes()),
    "gone": lambda path: path.unlink(missing_ok=True),
}


@pytest.mark.parametrize("breaks", BREAK.values(), ids=BREAK)
def test_a_search_goes_on_with_a_study_that_was_rebuilt_from_the_ledger(
    breaks: Callable[[Path], object], recorded: Recorded, tmp_path: Path
) -> None:
    for index, cut in enumerate(recorded.cuts[:: len(recorded.cuts) // 10]):
        folder = tmp_path / str(index)
        recorded.cut(cut, folder)
        before, drawn = (folder / JOURNAL).read_bytes(), by_ledger(folder)
        breaks(folder / JOURNAL)
        history = read_ledger(folder / LEDGER)
        assert (fault_of(folder, SEARCH, history) is None) == (not (folder / JOURNAL).exists() and not history.trials)
        said = rebuild(folder, SEARCH, Line(), [MIOU], [])
        assert f"rebuilt from the ledger, with {len(history.trials)} trials" in said
        assert [path.read_bytes().endswith(before) for path in folder.glob(f"{JOURNAL}.broken-*")] in ([], [True])
        assert fault_of(folder, SEARCH, history) is None
        assert over(by_study(folder)) == over(drawn), cut
        Session(folder).run()
        ledger, study = by_ledger(folder), by_study(folder)
        assert ledger.states.keys() == set(range(TRIALS)), cut
        assert ledger == study, cut
        assert over(drawn).items() <= over(ledger).items(), cut


def test_a_rebuilt_study_is_the_one_that_it_stands_for(recorded: Recorded, tmp_path: Path) -> None:
    recorded.cut(recorded.cuts[-1], tmp_path / "search")

    def told(folder: Path) -> list[Any]:
        study = optuna.load_study(study_name=SEARCH, storage=journal(folder / JOURNAL))
        return [
            (trial.state, trial.values, trial.distributions, "fixed_params" in trial.system_attrs, trial.constraints)
            for trial in study.trials
        ]

    before, bound = told(tmp_path / "search"), Constraint(MIOU.metric, ">=", 0.5)
    (tmp_path / "search" / JOURNAL).write_text("")
    rebuild(tmp_path / "search", SEARCH, Line(), [MIOU], [bound])
    after = told(tmp_path / "search")
    assert [trial[:4] for trial in after] == [trial[:4] for trial in before]
    assert [bool(trial[4]) for trial in after] == [trial[0].name in ("COMPLETE", "PRUNED") for trial in after]


def test_nothing_is_changed_where_the_ledger_is_broken_too(recorded: Recorded, tmp_path: Path) -> None:
    recorded.cut(recorded.cuts[-1], tmp_path / "search")
    for name in (JOURNAL, LEDGER):
        (tmp_path / "search" / name).write_text("garbage\n")
    with pytest.raises(UsageError, match="must be the ledger of a run, it is not: line 1 is no JSON"):
        rebuild(tmp_path / "search", SEARCH, Line(), [MIOU], [])
    assert sorted(path.name for path in (tmp_path / "search").iterdir()) == [JOURNAL, LEDGER]


def reports_of(folder: Path) -> Counter[tuple[int, int]]:
    """Return how often the ledger tells of each report."""
    events = map(json.loads, (folder / LEDGER).read_text().splitlines())
    return Counter((event["trial"], int(event["metrics"]["step"])) for event in events if event["event"] == "report")
