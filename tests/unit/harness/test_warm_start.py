from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from harness.tracking.recorder import MlflowRecorder
from harness.trials import Trial
from harness.trials import TrialState as State
from harness.tuning.marks import MARK, own_trials
from harness.tuning.objectives import Constraint, Objective
from harness.tuning.study import journal
from harness.tuning.warm_start import (
    NO_CONSTRAINT,
    NO_VALUE,
    OUTSIDE,
    _raw_params,
    distribution_of,
    earlier_trials,
)
from search_spaces import Space, load_space
from search_spaces.space import parse_space
from trainers.errors import UsageError

MIOU = Objective("dev/miou", "max")
SECONDS = Objective("time/step_s", "min")
MEMORY = Constraint("memory/peak_gib", "<=", 20.0)

TEXT = """
name: small
source: made up
fixed: {thresholds.unit: of_maximum}
baseline: {strategy: cross, warmup: 0.25, weight: 0.1, low: 0.2, high: 0.6, width: 3, momentum: 0.99}
parameters:
  strategy:
    categorical: [mix, cross, null]
  warmup:
    float: {low: 0.0, high: 0.5}
    when: {strategy: cross}
  weight:
    float: {low: 0.01, high: 1.0, log: true}
  low:
    float: {low: 0.1, high: 0.5}
  high:
    float: {low: 0.2, high: 0.9}
    between: [low, 1.0]
  width:
    int: {low: 1, high: 7, step: 2}
  momentum:
    float: {low: 0.9, high: 0.999}
    one_minus: true
"""
SPACE = parse_space(TEXT)
NARROWER = parse_space(TEXT.replace("{low: 0.01, high: 1.0, log: true}", "{low: 0.09, high: 0.11, log: true}"))


pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def earlier_search(folder: Path, objectives: tuple[Objective, ...] = (MIOU,), named: bool = False) -> optuna.Study:
    """A search with a journal: 6 complete, then a pruned, a failed and a running trial."""
    study = optuna.create_study(
        storage=journal(folder / "optuna.journal"),
        study_name="earlier",
        directions=[objective.direction for objective in objectives],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    if named:
        study.set_metric_names([objective.metric for objective in objectives])
    study.enqueue_trial(SPACE.baseline_params)
    for number in range(6):
        trial = study.ask()
        SPACE.suggest(trial)
        trial.set_constraint(str(MEMORY), 0.1 * number)
        study.tell(trial, [0.1 * number, 10.0 - number][: len(objectives)])
    for state in (TrialState.PRUNED, TrialState.FAIL, None):
        trial = study.ask()
        SPACE.suggest(trial)
        if len(objectives) == 1:
            trial.report(0.3, 5)
        if state:
            study.tell(trial, state=state)
    return study


def test_finished_trials_come_with_what_they_had(tmp_path: Path) -> None:
    study = earlier_search(tmp_path)
    taken = earlier_trials(str(tmp_path), SPACE, [MIOU])
    had = study.trials[:7]
    assert [trial.state for trial in taken.trials] == [trial.state for trial in had]
    assert [trial.params for trial in taken.trials] == [trial.params for trial in had]
    assert [trial.values for trial in taken.trials] == [trial.values for trial in had]
    assert [trial.intermediate_values for trial in taken.trials] == [trial.intermediate_values for trial in had]
    assert not taken.left_out


def test_the_journal_may_be_named_itself(tmp_path: Path) -> None:
    earlier_search(tmp_path)
    assert len(earlier_trials(str(tmp_path / "optuna.journal"), SPACE, [MIOU]).trials) == 7


def test_every_trial_says_where_it_comes_from(tmp_path: Path) -> None:
    earlier_search(tmp_path)
    assert {trial.user_attrs[MARK] for trial in earlier_trials(str(tmp_path), SPACE, [MIOU]).trials} == {str(tmp_path)}


def test_earlier_trials_are_not_the_searchs_own(tmp_path: Path) -> None:
    earlier_search(tmp_path)
    study = optuna.create_study(direction="maximize")
    study.add_trials(earlier_trials(str(tmp_path), SPACE, [MIOU]).trials)
    study.tell(study.ask(), 0.5)
    assert [trial.number for trial in own_trials(study)] == [7]


def test_trials_outside_the_present_ranges_are_left_out_and_counted(tmp_path: Path) -> None:
    study = earlier_search(tmp_path)
    inside = [trial for trial in study.trials[:7] if 0.09 <= trial.params["weight"] <= 0.11]
    taken = earlier_trials(str(tmp_path), NARROWER, [MIOU])
    assert [trial.params for trial in taken.trials] == [trial.params for trial in inside]
    assert taken.left_out == {OUTSIDE: 7 - len(inside)}
    assert len(inside) == 1
    assert taken.words() == f"1 earlier trial taken, 6 left out because {OUTSIDE}"


def test_a_search_of_other_parameters_gives_nothing(tmp_path: Path) -> None:
    earlier_search(tmp_path)
    assert not earlier_trials(str(tmp_path), load_space("css_quick"), [MIOU]).trials


@pytest.mark.parametrize("name", ["small", "css", "css_quick"])
def test_distributions_are_those_that_are_drawn_from(name: str) -> None:
    space = SPACE if name == "small" else load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn: dict[str, Any] = {}
    for _ in range(20):
        trial = study.ask()
        space.suggest(trial)
        drawn |= trial.distributions
    assert drawn == {parameter.name: distribution_of(parameter) for parameter in space.parameters}


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler(seed=0), optuna.samplers.GPSampler(seed=0)])
def test_a_sampler_goes_on_from_earlier_trials_with_constraints(
    sampler: optuna.samplers.BaseSampler, tmp_path: Path
) -> None:
    earlier_search(tmp_path)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(2 * earlier_trials(str(tmp_path), SPACE, [MIOU], [MEMORY]).trials)
    assert SPACE.overrides(SPACE.suggest(study.ask()))


def test_a_trial_that_does_not_know_a_constraint_is_left_out(tmp_path: Path) -> None:
    earlier_search(tmp_path)
    taken = earlier_trials(str(tmp_path), SPACE, [MIOU], [MEMORY, Constraint("kept", ">=", 0.1)])
    assert taken.left_out == {NO_CONSTRAINT: 7}


def test_constraints_that_this_search_does_not_have_are_dropped(tmp_path: Path) -> None:
    earlier_search(tmp_path)
    assert not any(trial.constraints for trial in earlier_trials(str(tmp_path), SPACE, [MIOU]).trials)


def test_several_objectives_are_found_by_name(tmp_path: Path) -> None:
    earlier_search(tmp_path, (SECONDS, MIOU), named=True)
    taken = earlier_trials(str(tmp_path), SPACE, [MIOU, SECONDS])
    assert taken.trials[2].values == [8.0, pytest.approx(0.2)]


@pytest.mark.parametrize(
    ("had", "named", "wanted"),
    [
        ((MIOU,), False, [SECONDS]),
        ((MIOU,), True, [Objective("dev/other", "max")]),
        ((MIOU,), False, [MIOU, SECONDS]),
        ((MIOU, SECONDS), False, [MIOU]),
    ],
)
def test_a_search_with_other_objectives_is_refused(
    had: tuple[Objective, ...], named: bool, wanted: list[Objective], tmp_path: Path
) -> None:
    earlier_search(tmp_path, had, named)
    with pytest.raises(UsageError, match="must have had the objectives"):
        earlier_trials(str(tmp_path), SPACE, wanted)


def test_what_an_earlier_search_took_itself_is_not_taken_again(tmp_path: Path) -> None:
    study = earlier_search(tmp_path)
    study.add_trials(earlier_trials(str(tmp_path), SPACE, [MIOU]).trials)
    assert len(earlier_trials(str(tmp_path), SPACE, [MIOU]).trials) == 7


def test_a_source_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^an earlier search must be a folder with optuna.journal[^\n]*$"):
        earlier_trials(str(tmp_path / "nothing"), SPACE, [MIOU])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "not a journal\n", '{"op_code": 99}\n'])
def test_a_file_that_is_no_journal_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "optuna.journal").write_text(text)
    with pytest.raises(UsageError, match=r"^[^\n]*optuna.journal must[^\n]*$"):
        earlier_trials(str(tmp_path), SPACE, [MIOU])


@pytest.fixture(scope="module")
def tracking_uri(new_store: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a search as the recorder leaves it: 3 complete trials, a pruned one, and two that are unlike."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("tracking")
    uri = new_store(folder)
    with MlflowRecorder(uri, "project/s4", "search", "first", {}, folder / "outbox.jsonl") as recorder:
        for number in range(6):
            recorder.on_start(trial := recorded(number))
            recorder.on_report(trial)
            trial.state = State.PRUNED if number == 3 else State.COMPLETE
            recorder.on_end(trial)
    return uri


def params_of(number: int) -> dict[str, Any]:
    return {
        **SPACE.baseline_params,
        "strategy": "cross" if number else None,
        "weight": 0.05 * (number + 1),
        "momentum.one_minus": 0.02,
    }


def recorded(number: int) -> Trial:
    overrides = SPACE.overrides(params_of(number))
    if number == 4:
        overrides["weight"] = 7.0
    if number == 5:
        overrides["thresholds.unit"] = "probability"
    config: Mapping[str, Any] = {**overrides, "seed": 3, "data": {"classes": ["a"]}}
    metrics = {"step": 9.0, "finished": 1.0, "dev/miou": 0.1 * number, "time/step_s": 2.0, "memory/peak_gib": 10.0}
    if number == 2:
        del metrics["memory/peak_gib"]
    return Trial(number, params_of(number), overrides, config=config, metrics=metrics)


def from_mlflow(uri: str, *more: Any, space: Space = SPACE, source: str = "mlflow:project/s4/first") -> Any:
    return earlier_trials(source, space, [MIOU, SECONDS], *more, tracking_uri=uri)


def test_complete_trials_are_read_back_from_mlflow(tracking_uri: str) -> None:
    taken = from_mlflow(tracking_uri)
    expected = [{name: raw for name, raw in params_of(n).items() if n or name != "warmup"} for n in range(3)]
    assert [trial.params for trial in taken.trials] == [pytest.approx(params) for params in expected]
    assert [trial.values for trial in taken.trials] == [[pytest.approx(0.1 * n), 2.0] for n in range(3)]
    assert taken.left_out == {OUTSIDE: 2}


def test_a_parent_run_names_a_search_too(tracking_uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("project/s4").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`s4.kind` = 'search'")
    by_run = from_mlflow(tracking_uri, source=f"mlflow:{parent.info.run_id}")
    assert [trial.params for trial in by_run.trials] == [trial.params for trial in from_mlflow(tracking_uri).trials]


def test_constraints_are_measured_on_what_mlflow_holds(tracking_uri: str) -> None:
    taken = from_mlflow(tracking_uri, [MEMORY])
    assert [trial.constraints for trial in taken.trials] == [{str(MEMORY): -0.5}] * 2
    assert taken.left_out == {OUTSIDE: 2, NO_CONSTRAINT: 1}


def test_a_metric_that_mlflow_does_not_hold_leaves_trials_out(tracking_uri: str) -> None:
    taken = earlier_trials("mlflow:project/s4/first", SPACE, [Objective("dev/other", "max")], tracking_uri=tracking_uri)
    assert taken.left_out == {OUTSIDE: 2, NO_VALUE: 3}


@pytest.mark.parametrize(
    "source", ["mlflow:project/s4/second", "mlflow:nowhere/first", "mlflow:first", "mlflow:" + "0" * 32, "mlflow:a/b'c"]
)
def test_a_search_that_mlflow_does_not_hold_is_refused_in_one_line(source: str, tracking_uri: str) -> None:
    with pytest.raises(UsageError, match=r"^[^\n]+$"):
        from_mlflow(tracking_uri, source=source)


def test_mlflow_needs_a_tracking_uri() -> None:
    with pytest.raises(UsageError, match="a tracking URI must be given"):
        earlier_trials("mlflow:s4/first", SPACE, [MIOU])


@pytest.mark.parametrize(
    ("text", "raw"),
    [("[0.5, 2.0]", "[0.5, 2]"), ("['a', 'b']", '["a", "b"]'), ("[1]", None), ("[", None), ("plain", "plain")],
)
def test_a_list_is_found_again_in_the_text_that_mlflow_has_of_it(text: str, raw: str | None) -> None:
    space = parse_space("baseline: {a.s: plain}\nparameters:\n  a.s: [[0.5, 2], [a, b], plain]\n")
    assert _raw_params({"a.s": text}, space) == ({} if raw is None else {"a.s": raw})
