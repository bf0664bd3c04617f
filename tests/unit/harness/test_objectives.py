from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tuning.objectives import (
    UNKNOWN,
    Constraint,
    Objective,
    check_metrics,
    pareto_front,
    parse_constraint,
    parse_objective,
    parse_objectives,
    values_of,
)
from trainers.errors import UsageError

MIOU = Objective("dev/miou", "max")
SECONDS = Objective("time/step_s", "min")


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("dev/miou", MIOU),
        ("dev/miou:max", MIOU),
        ("time/step_s:min", SECONDS),
        (" time/step_s:min ", SECONDS),
    ],
)
def test_an_objective_is_a_metric_and_a_mode(text: str, objective: Objective) -> None:
    assert parse_objective(text) == objective


@pytest.mark.parametrize("text", ["", ":min", "dev/miou:", "dev/miou:most", "dev/miou:max:min", "<=3"])
def test_a_malformed_objective_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^an objective must be METRIC[^\n]*$"):
        parse_objective(text)


def test_an_objective_reads_back_from_its_text() -> None:
    assert parse_objective(str(SECONDS)) == SECONDS


def test_the_first_objective_stays_first() -> None:
    assert parse_objectives(["time/step_s:min", "dev/miou"]) == (SECONDS, MIOU)


@pytest.mark.parametrize("texts", [[], ["dev/miou", "dev/miou:min"]])
def test_no_objective_or_one_named_twice_is_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_objectives(texts)


def test_the_direction_is_what_optuna_calls_the_mode() -> None:
    study = optuna.create_study(directions=[MIOU.direction, SECONDS.direction])
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_better_follows_the_mode_and_is_strict() -> None:
    assert MIOU.better(0.6, than=0.5)
    assert SECONDS.better(0.5, than=0.6)
    assert not MIOU.better(0.5, than=0.5)
    assert not SECONDS.better(0.5, than=0.5)


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("memory/peak_gib<=20", Constraint("memory/peak_gib", "<=", 20.0)),
        ("kept/road >= 1e-2", Constraint("kept/road", ">=", 0.01)),
        ("gap<=-3", Constraint("gap", "<=", -3.0)),
    ],
)
def test_a_constraint_is_a_metric_and_a_bound(text: str, constraint: Constraint) -> None:
    assert parse_constraint(text) == constraint


@pytest.mark.parametrize(
    "text", ["memory", "memory<20", "<=20", "memory<=", "memory<=x", "memory<=nan", "m<=inf", "m==3"]
)
def test_a_malformed_constraint_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^a constraint must be METRIC<=NUMBER[^\n]*$"):
        parse_constraint(text)


def test_a_constraint_reads_back_from_its_text() -> None:
    constraint = Constraint("memory/peak_gib", "<=", 0.5)
    assert parse_constraint(str(constraint)) == constraint


@given(value=st.floats(-1e6, 1e6), bound=st.floats(-1e6, 1e6))
def test_a_violation_is_positive_exactly_where_the_bound_is_missed(value: float, bound: float) -> None:
    assert (Constraint("m", "<=", bound).violation({"m": value}) > 0) == (value > bound)
    assert (Constraint("m", ">=", bound).violation({"m": value}) > 0) == (value < bound)


def test_a_violation_is_a_share_of_the_bound() -> None:
    assert Constraint("m", "<=", 20).violation({"m": 25}) == 0.25
    assert Constraint("m", ">=", 0.2).violation({"m": 0.1}) == 0.5
    assert Constraint("m", "<=", 0).violation({"m": 3}) == 3


@pytest.mark.parametrize("metrics", [{}, {"m": math.nan}, {"m": math.inf}, {"m": -math.inf}])
def test_what_is_unknown_misses_the_bound_by_a_finite_amount(metrics: dict[str, float]) -> None:
    assert Constraint("m", "<=", 20).violation(metrics) == UNKNOWN


def test_values_come_in_the_order_of_the_objectives() -> None:
    assert values_of({"dev/miou": 0.5, "time/step_s": 2.0}, [SECONDS, MIOU]) == [2.0, 0.5]


@pytest.mark.parametrize("metrics", [{"dev/miou": 0.5}, {"dev/miou": 0.5, "time/step_s": math.nan}])
def test_values_are_all_there_or_none(metrics: dict[str, float]) -> None:
    assert values_of(metrics, [SECONDS, MIOU]) is None


few_values = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@given(rows=st.lists(st.tuples(few_values, few_values, few_values), min_size=1, max_size=12))
def test_the_front_is_that_of_optuna(rows: list[tuple[float, float, float]]) -> None:
    objectives = [MIOU, SECONDS, Objective("health/x", "max")]
    study = optuna.create_study(directions=[objective.direction for objective in objectives])
    for row in rows:
        study.add_trial(optuna.trial.create_trial(values=row))
    assert pareto_front(rows, objectives) == sorted(trial.number for trial in study.best_trials)


def test_a_row_that_is_not_a_number_is_in_no_front() -> None:
    assert pareto_front([(math.nan, 0.1), (0.5, 0.2)], [MIOU, SECONDS]) == [1]


@pytest.mark.parametrize(
    ("sampler", "trials"),
    [
        (optuna.samplers.TPESampler(seed=0), 24),
        (optuna.samplers.GPSampler(seed=0, n_startup_trials=4), 10),
        (optuna.samplers.NSGAIISampler(seed=0, population_size=8), 80),
    ],
    ids=["tpe", "gp", "nsga2"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_samplers_read_what_is_set_on_the_trial_as_constraints(
    sampler: optuna.samplers.BaseSampler, trials: int
) -> None:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    constraint = parse_constraint("x<=0.3")
    drawn = []
    for _ in range(trials):
        trial = study.ask()
        drawn.append(trial.suggest_float("x", 0, 1))
        trial.set_constraint(str(constraint), constraint.violation({"x": drawn[-1]}))
        study.tell(trial, drawn[-1])
    assert sum(drawn[-4:]) / 4 < 0.35  # unconstrained they go to 1; at random the mean is 0.5


def test_a_constraint_comes_too_late_once_a_trial_was_told() -> None:
    study = optuna.create_study()
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_constraint("m<=1", 0.0)


def test_a_trial_of_several_objectives_takes_no_intermediate_values() -> None:
    with pytest.raises(NotImplementedError):
        optuna.create_study(directions=["maximize", "minimize"]).ask().report(0.5, 1)


KNOWN = ["dev/miou", "time/step_s", *(f"dev/iou/{name}" for name in range(20))]


def test_a_metric_that_there_is_or_of_which_nothing_is_known_is_taken() -> None:
    check_metrics("--objective", ["time/step_s", "dev/iou/19"], KNOWN)
    check_metrics("--objective", ["anything"], ())


def test_a_metric_that_there_is_not_is_refused_with_the_nearest_one_and_a_short_list() -> None:
    with pytest.raises(UsageError) as refused:
        check_metrics("--constraint", ["dev/miou", "dev/iou/20"], KNOWN)
    assert str(refused.value) == (
        "--constraint must name a metric that there will be, got 'dev/iou/20': did you mean dev/iou/2? "
        "There are dev/miou, time/step_s, dev/iou/..."
    )
