"""Several drivers on one study in a database: each trial is one driver's, whatever happens to the drivers."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState as OptunaState
from sessions import MIOU, SEARCH, Line, Session, resolve
from sqlalchemy import Engine, event

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from postgres import Postgres, lacking, serving

from harness.ledger import LEDGER, Ledger, read_ledger
from harness.trials import Trial, TrialState
from harness.tuning import database, joining
from harness.tuning.joining import join, open_trials, standing
from harness.tuning.marks import DRIVER, own_trials
from harness.tuning.objectives import Constraint
from harness.tuning.samplers import make_sampler
from harness.tuning.searcher import TruthfulOptunaSearch
from harness.tuning.shared import TERMS, Shared
from harness.tuning.study import fault_of, reconcile
from search_spaces.space import parse_space
from trainers.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # connections of drivers that died

TRIALS = 10
NO_POSTGRES = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with serving(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=NO_POSTGRES)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    made: str = request.getfixturevalue("server").database(f"d{time.monotonic_ns()}")
    return made


@pytest.fixture(scope="module", autouse=True)
def _quick_files() -> Iterator[None]:
    """Let SQLite not wait for the disk: no test pulls a plug."""

    def hurry(connection: Any, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("pragma synchronous = off")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def part(url: str, driver: str = "a", **terms: Any) -> Shared:
    return Shared(url, SEARCH, driver, terms)


def study_of(url: str) -> optuna.Study:
    study = part(url).found()
    assert study is not None
    return study


def books(folder: Path) -> dict[int, tuple[str, Mapping[str, Any], dict[int, float]]]:
    return {
        number: (str(trial.state), trial.params, dict(trial.values))
        for number, trial in read_ledger(folder / LEDGER).trials.items()
    }


def in_study(url: str) -> dict[int, tuple[str, Mapping[str, Any], dict[int, float]]]:
    return {
        trial.number: (trial.state.name, trial.params, trial.intermediate_values) for trial in own_trials(study_of(url))
    }


def end(*sessions: Session) -> None:
    """Let drivers take turns until nothing is left."""
    while any(session.left or session.live for session in sessions):
        for session in sessions:
            session.turn()
    for session in sessions:
        session.close()


def test_the_ledgers_of_two_drivers_together_are_the_study(url: str, tmp_path: Path) -> None:
    end(*(Session(tmp_path / driver, part(url, driver), TRIALS) for driver in "ab"))
    one, other = books(tmp_path / "a"), books(tmp_path / "b")
    assert not one.keys() & other.keys()
    assert one | other == in_study(url)
    assert sorted(one | other) == list(range(TRIALS))
    assert min(len(one), len(other)) > 2


def test_a_trial_that_was_interrupted_is_drawn_by_its_own_driver_alone(file_url: str, tmp_path: Path) -> None:
    first = Session(tmp_path / "a", part(file_url, "a"), TRIALS)
    first.turn()
    first.turn()
    first.close()
    begun = books(tmp_path / "a").keys()
    end(Session(tmp_path / "b", part(file_url, "b"), TRIALS))
    assert not books(tmp_path / "b").keys() & begun
    assert {state for state, *_ in in_study(file_url).values()} > {"RUNNING"}
    end(Session(tmp_path / "a", part(file_url, "a"), TRIALS))
    assert books(tmp_path / "a") | books(tmp_path / "b") == in_study(file_url)
    assert "RUNNING" not in {state for state, *_ in in_study(file_url).values()}


class Killed(BaseException):
    """The driver is dead."""


class Deadly:
    """Lets a driver die at one of the writes of its session, to the ledger or to the database, before or after it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left, self.after = -1, False
        for owner, name in (
            (Ledger, "_append"), (RDBStorage, "_create_new_trial"), (RDBStorage, "set_trial_state_values"),
            (RDBStorage, "set_trial_intermediate_value"), (RDBStorage, "_set_trial_param"),
            (RDBStorage, "set_study_user_attr"), (RDBStorage, "create_new_study"),
        ):  # fmt: skip
            patch.setattr(owner, name, self.guarded(getattr(owner, name)))

    def guarded(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            dies = self.left == -1
            if dies and not self.after:
                raise Killed
            try:
                return write(*arguments, **options)
            finally:
                if dies:
                    raise Killed

        return call


@pytest.mark.parametrize("after", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_driver_that_is_killed_at_any_write_loses_nothing_and_trains_nothing_twice(
    after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly, points = Deadly(monkeypatch), [*range(8), 12, 19, 26, 40, 55]
    points.remove(0 if after else 1)  # after which nobody is known to have made the study: see below
    for point in points:
        folder = tmp_path / str(point)
        shared = {driver: part(f"sqlite:///{folder}.db", driver) for driver in "ab"}
        deadly.left, deadly.after = point, after
        with pytest.raises(Killed):  # noqa: PT012  # wherever it is
            killed = Session(folder / "a", shared["a"], 6)
            killed.run()
        deadly.left = -1
        drawn = books(folder / "a")
        end(*(Session(folder / driver, shared[driver], 6) for driver in "ab"))
        one, other = books(folder / "a"), books(folder / "b")
        assert sorted([*one, *other]) == list(range(6)), point
        assert one | other == in_study(shared["a"].url), point
        assert "RUNNING" not in {state for state, *_ in (one | other).values()}, point
        assert {number: params for number, (_, params, _) in drawn.items()}.items() <= {
            number: params for number, (_, params, _) in one.items()
        }.items(), point


def test_drivers_that_start_at_the_same_moment_make_one_study_with_one_baseline(url: str) -> None:
    count = 5
    together = threading.Barrier(count)

    def start(driver: int) -> list[int]:
        together.wait()
        shared = part(url, f"{driver:x}", sampler="tpe")
        return [trial.number for trial in open_trials(join(shared, Line(), [MIOU]), shared)]

    with ThreadPoolExecutor(count) as pool:
        taken = list(pool.map(start, range(count)))
    assert sorted(map(len, taken)) == [0] * (count - 1) + [1]
    assert len(study_of(url).trials) == 1


def test_the_last_trials_are_drawn_once_by_drivers_that_draw_at_the_same_moment(url: str, tmp_path: Path) -> None:
    count, limit = 4, 6
    together = threading.Barrier(count)
    join(part(url), Line(), [MIOU])

    def draw(driver: int) -> list[int]:
        shared = part(url, f"{driver:x}")
        study, sampler = join(shared, Line(), [MIOU]), optuna.samplers.RandomSampler(seed=driver)
        searcher = TruthfulOptunaSearch(
            Line(), resolve, study._storage, SEARCH, sampler, tmp_path, shared=shared, limit=limit
        )
        together.wait()
        drawn = [searcher.suggest(f"{driver}-{place}") for place in range(limit)]
        return [config["number"] for config in drawn if not isinstance(config, str)]

    with ThreadPoolExecutor(count) as pool:
        numbers = sorted(number for drawn in pool.map(draw, range(count)) for number in drawn)
    ours = own_trials(study_of(url))
    assert len(ours) == limit
    assert [trial.number for trial in ours if DRIVER in trial.user_attrs and trial.user_attrs[DRIVER] != "a"] == numbers


def test_two_drivers_draw_each_cell_of_a_grid_once(file_url: str, tmp_path: Path) -> None:
    space = parse_space(
        "{name: line, source: made up, baseline: {x: 0.25}, parameters: {x: {float: {low: 0.0, high: 1.0}}}}"
    )
    searchers = []
    for driver in "ab":
        shared = part(file_url, driver)
        study, sampler = join(shared, space, [MIOU]), make_sampler("grid", 0, space=space, objectives=[MIOU], points=5)
        searchers.append(
            TruthfulOptunaSearch(space, resolve_x, study._storage, SEARCH, sampler, tmp_path, shared=shared, limit=99)
        )
    drawn = [searchers[place % 2].suggest(str(place)) for place in range(10)]
    values = [config["params"]["x"] for config in drawn if not isinstance(config, str)]
    assert sorted(values) == [0.0, 0.25, 0.5, 0.75, 1.0]  # the baseline, and the four other cells


def resolve_x(overrides: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    return overrides, ""


def test_two_drivers_of_one_seed_draw_different_numbers() -> None:
    def draws(driver: str) -> list[float]:
        study = optuna.create_study(sampler=make_sampler("tpe", 0, space=Line(), objectives=[MIOU], driver=driver))
        return [study.ask().suggest_float("x", 0, 1) for _ in range(5)]

    assert not {*draws("a1")} & {*draws("b2")}
    assert draws("a1") == draws("a1")


def test_the_space_of_a_study_stays_that_of_its_first_driver(file_url: str) -> None:
    join(part(file_url, "a", space="123", sampler="tpe"), Line(), [MIOU])
    with pytest.raises(UsageError, match=r"must have the same space, the study s at .* has 123 and this search 456"):
        join(part(file_url, "b", space="456", sampler="tpe"), Line(), [MIOU])


def test_a_study_that_stays_half_made_is_refused_and_its_maker_goes_on_with_it(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "MAKING_S", 0.0)
    optuna.create_study(storage=part(file_url).storage(), study_name=SEARCH)
    with pytest.raises(UsageError, match="or remove it"):
        join(part(file_url, "a"), Line(), [MIOU])
    optuna.delete_study(storage=part(file_url).storage(), study_name=SEARCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "new_trial", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            join(part(file_url, "a"), Line(), [MIOU])
    with pytest.raises(UsageError, match="must be made whole by one driver"):
        join(part(file_url, "b"), Line(), [MIOU])
    assert len(join(part(file_url, "a"), Line(), [MIOU]).trials) == 1
    assert TERMS in join(part(file_url, "b"), Line(), [MIOU]).user_attrs


def test_trials_of_other_drivers_are_left_alone_when_a_search_goes_on(file_url: str, tmp_path: Path) -> None:
    for driver in "ab":
        session = Session(tmp_path / driver, part(file_url, driver), TRIALS)
        session.turn()
        session.turn()
    before, first, second = in_study(file_url), books(tmp_path / "a"), books(tmp_path / "b")
    history = reconcile(tmp_path / "b", SEARCH, MIOU, shared=part(file_url, "b"))
    assert sorted(history.trials) == sorted(second) != list(range(len(second)))  # with gaps
    assert (in_study(file_url), books(tmp_path / "a")) == (before, first)


def test_a_study_that_lacks_trials_of_the_ledger_is_told_from_one_that_has_them_with_gaps(
    file_url: str, tmp_path: Path
) -> None:
    end(*(Session(tmp_path / driver, part(file_url, driver), TRIALS) for driver in "ab"))
    history = read_ledger(tmp_path / "b" / LEDGER)
    assert fault_of(tmp_path / "b", SEARCH, history, part(file_url, "b")) is None
    assert "lacks" in str(fault_of(tmp_path / "b", SEARCH, history, part(file_url, "a")))


def test_a_constraint_that_only_the_ledger_knows_is_told(file_url: str, tmp_path: Path) -> None:
    shared, bound = part(file_url), Constraint(MIOU.metric, ">=", 0.5)
    join(shared, Line(), [MIOU])
    book, trial = Ledger(tmp_path / LEDGER, MIOU.metric), Trial(0, {"x": 0.25}, {})
    book.on_start(trial)
    trial.take_in({"step": 10.0, MIOU.metric: 0.25}, 0.25)
    book.on_report(trial)
    trial.state = TrialState.COMPLETE
    book.on_end(trial)
    book.close()
    reconcile(tmp_path, SEARCH, MIOU, shared=shared, constraints=[bound])
    (theirs,) = study_of(file_url).trials
    assert (theirs.state, theirs.value, theirs.constraints) == (OptunaState.COMPLETE, 0.25, {str(bound): 0.5})


def test_a_database_that_is_away_for_long_ends_the_drawing_and_learns_the_rest_later(
    file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tmp_path / "a", part(file_url), TRIALS)
    session.turn()
    session.turn()
    with pytest.MonkeyPatch.context() as patch:
        lost = optuna.exceptions.StorageInternalError("no route to host")
        for name in ("set_trial_intermediate_value", "_get_trials"):
            patch.setattr(RDBStorage, name, lambda *_, **__: (_ for _ in ()).throw(lost))
        for _ in range(5):
            session.turn()
        assert session.searcher.away == "the database of the study is away (no route to host)"
        assert not session.left
        session.close()
    known = books(tmp_path / "a")
    assert {state for state, *_ in known.values()} == {"COMPLETE", "PRUNED"}  # of the two that ran
    assert "RUNNING" in {state for state, *_ in in_study(file_url).values()}
    reconcile(tmp_path / "a", SEARCH, MIOU, shared=part(file_url))
    assert in_study(file_url) == known


@NO_POSTGRES
def test_connections_that_break_are_made_anew(server: Postgres, tmp_path: Path) -> None:
    import psycopg

    url = server.database("breaks")
    session = Session(tmp_path / "a", part(url), TRIALS)
    while session.left or session.live:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        session.turn()
    session.close()
    assert session.searcher.away is None
    assert books(tmp_path / "a") == in_study(url)


def test_a_database_that_takes_no_connections_is_waited_for(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "RETRY_S", 0.01)
    storage = database.open_database(file_url, lasting=True)
    storage.engine.dispose()
    connect, tries = storage.engine.dialect.connect, []

    def refuse_twice(*arguments: Any, **options: Any) -> Any:
        tries.append(None)
        if len(tries) < 3:
            raise storage.engine.dialect.loaded_dbapi.OperationalError("refused")
        return connect(*arguments, **options)

    monkeypatch.setattr(storage.engine.dialect, "connect", refuse_twice)
    assert storage.get_all_studies() == []
    assert len(tries) == 3
    tries.clear()
    storage.engine.dispose()
    monkeypatch.setattr(database, "AWAY_S", -1.0)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        storage.get_all_studies()


def test_a_line_says_what_the_whole_study_has(file_url: str, tmp_path: Path) -> None:
    end(*(Session(tmp_path / driver, part(file_url, driver), TRIALS) for driver in "ab"))
    line, share = standing(part(file_url, "b"), [MIOU]), len(books(tmp_path / "b"))
    trials = {number: values for number, (state, _, values) in in_study(file_url).items() if state == "COMPLETE"}
    best = max(trials, key=lambda number: trials[number][30])
    assert line == (
        f"the study s at {file_url} has {TRIALS} trials, {share} of this driver; its best is trial {best}, "
        f"dev/miou {trials[best][30]:.4f}"
    )
    (tmp_path / "study.db").unlink()
    assert standing(replace(part(file_url), url="foo://x/y"), [MIOU]).startswith("--study must be a database")
