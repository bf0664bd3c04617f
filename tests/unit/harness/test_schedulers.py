from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import MedianStoppingRule, PopulationBasedTraining
from ray.tune.search import Searcher, SearchGenerator

from harness.tuning.objectives import Objective
from harness.tuning.population import draw, explorer, inside
from harness.tuning.schedulers import SCHEDULERS, Past, make_scheduler, replay
from search_spaces import Parameter, load_space
from search_spaces.space import parse_space
from trainers.errors import UsageError

HORIZON = 9
MIOU = Objective("dev/miou", "max")
SPACE = parse_space("""
name: small
source: made up
baseline: {strategy: cross, warmup: 0.25, weight: 0.1, start: 0.2, end: 0.6, width: 3, momentum: 0.99}
parameters:
  strategy:
    categorical: [mix, cross]
  warmup:
    float: {low: 0.1, high: 0.5}
    when: {strategy: cross}
  weight:
    float: {low: 0.01, high: 1.0, log: true}
  start:
    float: {low: 0.1, high: 0.9}
  end:
    float: {low: 0.2, high: 0.9}
    between: [start, 1.0]
  width:
    int: {low: 1, high: 7, step: 2}
  momentum:
    float: {low: 0.9, high: 0.999}
    one_minus: true
""")


class StandIn:
    """A Tune trial: each driver has its own object with its own id."""

    status = "RUNNING"
    experiment_tag = ""

    def __init__(self, number: int, params: dict[str, Any] | None = None) -> None:
        self.trial_id = uuid.uuid4().hex
        self.config: dict[str, Any] = {"number": number, "params": params or {}, "job": f"job {number}"}
        self.run_metadata = self.checkpoint_manager = self
        self.checkpoint_config = type("Config", (), {"num_to_keep": None})
        self.last_result: dict[str, Any] = {}

    def is_finished(self) -> bool:
        return False

    def set_experiment_tag(self, tag: str) -> None:
        self.experiment_tag = tag

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config


class Controller:
    """As much of Tune's controller as PBT asks for."""

    def __init__(self, trials: Sequence[StandIn]) -> None:
        self.trials = trials
        self.search_alg = SearchGenerator(Searcher())

    def get_trials(self) -> Sequence[StandIn]:
        return self.trials

    def pause_trial(self, trial: StandIn, should_checkpoint: bool = True) -> None:
        trial.status = "PAUSED"

    def _schedule_trial_save(self, trial: StandIn, result: Any) -> str:
        return f"checkpoint of {trial.config['number']}"


def make(name: str, objective: Objective = MIOU, **settings: Any) -> Any:
    return make_scheduler(name, objective=objective, horizon=HORIZON, **{"grace_steps": 1, **settings})


def result(step: int, value: float) -> dict[str, Any]:
    return {"step": step, "objective": value, "done": step == HORIZON}


class Driver:
    """Feeds a scheduler as Tune's controller does, and writes its decisions down."""

    def __init__(self, scheduler: Any, curves: Sequence[Sequence[float]]) -> None:
        self.scheduler = scheduler
        self.curves = curves
        self.trials: dict[int, StandIn] = {}
        self.reports: dict[int, list[tuple[int, float]]] = {}
        self.ended: set[int] = set()
        self.decisions: list[tuple[int, int, str]] = []

    def turn(self, number: int) -> None:
        """Let a trial report its next step, if it still runs."""
        if number in self.ended:
            return
        if number not in self.trials:
            self.trials[number] = StandIn(number)
            self.scheduler.on_trial_add(None, self.trials[number])
        reports = self.reports.setdefault(number, [])
        step = len(reports) + 1
        reports.append((step, self.curves[number][step - 1]))
        self.decisions.append((number, step, self.report(number, result(*reports[-1]))))
        if self.decisions[-1][2] == "STOP":
            self.ended.add(number)

    def report(self, number: int, last: dict[str, Any]) -> str:
        trial = self.trials[number]
        decision = "STOP" if last["done"] else self.scheduler.on_trial_result(None, trial, last)
        if decision == "STOP":
            self.scheduler.on_trial_complete(None, trial, last)
        return str(decision)

    def die_and_go_on(self, scheduler: Any) -> None:
        """Begin again with a new scheduler that is told what was reported, and with new trials."""
        assert replay(scheduler, [Past(number, reports) for number, reports in self.reports.items()])
        self.scheduler = scheduler
        self.trials = {number: StandIn(number) for number in self.trials.keys() - self.ended}
        for number, trial in self.trials.items():
            scheduler.on_trial_add(None, trial)
            for step, value in self.reports[number][-2:]:  # what came after the last checkpoint is done again
                assert scheduler.on_trial_result(None, trial, result(step, value)) == "CONTINUE"


curve = st.lists(st.floats(0, 1), min_size=HORIZON, max_size=HORIZON)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("name", [name for name, able in SCHEDULERS.items() if able.remembers])
@settings(max_examples=40)
@given(curves=st.lists(curve, min_size=8, max_size=8), seed=st.integers(0, 999), cut=st.floats(0, 1))
def test_decisions_are_those_of_a_driver_that_never_died(
    name: str, mode: Any, curves: list[list[float]], seed: int, cut: float
) -> None:
    turns = [number for number in range(8) for _ in range(HORIZON)]
    random.Random(seed).shuffle(turns)
    whole, broken = (Driver(make(name, Objective("m", mode)), curves) for _ in range(2))
    for number in turns:
        whole.turn(number)
    for place, number in enumerate(turns):
        if place == int(cut * len(turns)):
            broken.die_and_go_on(make(name, Objective("m", mode)))
        broken.turn(number)
    assert broken.decisions == whole.decisions


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_scheduler_that_forgot_decides_otherwise(name: str) -> None:
    good, bad = [0.9] * HORIZON, [0.1] * HORIZON
    driver = Driver(make(name), [good, good, good, good, bad])
    for number in (0, 1, 2, 3):
        for _ in range(HORIZON):
            driver.turn(number)
    driver.scheduler = make(name)
    driver.turn(4)
    assert driver.decisions[-1] == (4, 1, "CONTINUE")
    driver.die_and_go_on(make(name))
    driver.turn(4)
    driver.turn(4)  # ASHA's next rung is at step 3; the median rule decides at every step
    assert driver.decisions[-1][2] == "STOP"


@pytest.mark.parametrize("name", ["asha", "median"])
@pytest.mark.parametrize(("mode", "worse"), [("max", 0.1), ("min", 0.9)])
def test_the_worse_trial_is_stopped_in_either_mode(name: str, mode: Any, worse: float) -> None:
    curves = [[0.5] * HORIZON] * 4 + [[worse] * HORIZON]
    driver = Driver(make(name, Objective("m", mode)), curves)
    for number in range(5):
        driver.turn(number)
    assert [decision for _, _, decision in driver.decisions] == ["CONTINUE"] * 4 + ["STOP"]


@pytest.mark.parametrize("name", ["asha", "median"])
def test_the_baseline_is_never_stopped_but_others_are_compared_with_it(name: str) -> None:
    driver = Driver(make(name), [[0.1] * HORIZON] + [[0.5] * HORIZON] * 4)
    for number in (1, 2, 3, 4):
        driver.turn(number)
    for _ in range(HORIZON):
        driver.turn(0)
    assert [(step, decision) for number, step, decision in driver.decisions if number == 0] == [
        *((step, "CONTINUE") for step in range(1, HORIZON)),
        (HORIZON, "STOP"),  # it is done
    ]
    better = Driver(make(name), [[0.9] * HORIZON] * 4 + [[0.5] * HORIZON])
    for _ in range(HORIZON):
        better.turn(0)
    for number in (1, 2, 3, 4):
        better.turn(number)
    assert better.decisions[-1] == (4, 1, "STOP")


@pytest.mark.parametrize("name", ["asha", "median"])
def test_no_trial_is_stopped_in_its_grace(name: str) -> None:
    driver = Driver(make(name, grace_steps=3), [[0.9] * HORIZON] * 4 + [[0.0] * HORIZON])
    for number in (0, 1, 2, 3, 4):
        for _ in range(3 if number < 4 else 9):
            driver.turn(number)
    assert [(step, decision) for number, step, decision in driver.decisions if number == 4][-1] == (3, "STOP")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_trial_that_fails_takes_no_other_with_it(name: str) -> None:
    scheduler = make(name, explore=explorer(SPACE, dict))
    trials = [StandIn(number, SPACE.baseline_params) for number in range(5)]
    controller = Controller(trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    failed = {"error": "it raised", "finished": False, "done": True, "metrics": {}}
    scheduler.on_trial_result(controller, trials[1], result(1, 0.5))
    scheduler.on_trial_complete(controller, trials[0], failed)
    scheduler.on_trial_complete(controller, trials[1], failed)
    decisions = [scheduler.on_trial_result(controller, trial, result(1, 0.5)) for trial in trials[2:]]
    assert set(decisions) <= {"CONTINUE", "PAUSE"}


def test_rays_own_median_rule_ends_the_search_when_a_trial_fails() -> None:
    rule = MedianStoppingRule(time_attr="step", metric="objective", mode="max", grace_period=1)
    failed, other = StandIn(0), StandIn(1)
    rule.on_trial_complete(None, failed, {"error": "it raised", "done": True})
    with pytest.raises(KeyError):
        rule.on_trial_result(None, other, result(1, 0.5))


@pytest.mark.parametrize("name", ["hyperband", "pbt", "none"])
def test_schedulers_without_a_memory_say_so(name: str) -> None:
    assert not replay(make(name, explore=explorer(SPACE, dict)), [Past(0, [(1, 0.5)])])
    assert not SCHEDULERS[name].remembers


@pytest.mark.parametrize(
    ("horizon", "grace", "brackets"),
    [
        (81, 9, [(3, 81), (5, 27), (9, 9)]),
        (81, 1, [(5, 81), (8, 27), (15, 9), (34, 3), (81, 1)]),
        (243, 1, [(6, 243), (9, 81), (18, 27), (41, 9), (98, 3), (243, 1)]),
        (600, 100, [(2, 600), (3, 200)]),
        (9, 9, [(1, 9)]),
    ],
)
def test_hyperband_has_no_bracket_shorter_than_the_grace(
    horizon: int, grace: int, brackets: list[tuple[int, int]]
) -> None:
    scheduler = make_scheduler("hyperband", objective=MIOU, horizon=horizon, grace_steps=grace)
    assert scheduler.bracket_sizes == brackets
    for number in range(sum(size for size, _ in brackets)):
        scheduler.on_trial_add(None, StandIn(number))
    (band,) = scheduler._hyperbands
    assert [(bracket._n0, bracket._r0) for bracket in band] == brackets


def test_hyperbands_brackets_fill_up_though_trials_end_before_others_begin() -> None:
    scheduler = make_scheduler("hyperband", objective=MIOU, horizon=81, grace_steps=9)
    for number in range(8):
        scheduler.on_trial_add(None, trial := StandIn(number))
        scheduler.on_trial_complete(None, trial, result(81, 0.5))
    assert [len(bracket._all_trials) for bracket in scheduler._hyperbands[0]] == [3, 5]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("bohb", {}, "a scheduler must be one of asha, hyperband"),
        ("asha", {"grace_steps": 10}, "grace steps must be in 1 to the horizon of 9 steps, got 10"),
        ("median", {"grace_steps": 0}, "grace steps must be in 1 to the horizon"),
        ("asha", {"reduction_factor": 1}, "the reduction factor must be at least 2, got 1"),
        ("pbt", {}, "pbt must have a space to explore"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make(name, **changes)


def population(size: int, rebuild: Any) -> tuple[Any, list[StandIn], Controller]:
    scheduler = make("pbt", explore=explorer(SPACE, rebuild), perturb_steps=3, grace_steps=3)
    trials = [StandIn(number, {**SPACE.baseline_params, "weight": 0.1 + 0.1 * number}) for number in range(size)]
    controller = Controller(trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    return scheduler, trials, controller


def test_pbt_takes_members_from_our_searcher_where_rays_own_refuses() -> None:
    _, trials, controller = population(1, dict)
    own = PopulationBasedTraining("step", "objective", "max", hyperparam_mutations={"params": {"weight": [1, 2]}})
    with pytest.raises(ValueError, match="Search algorithms cannot be used"):
        own.on_trial_add(controller, trials[0])


def test_pbt_goes_on_from_the_better_trial_under_its_own_number() -> None:
    random.seed(0)
    scheduler, (best, worst), controller = population(2, lambda config: {**config, "job": f"for {config['number']}"})
    scheduler.on_trial_result(controller, best, result(3, 0.9))
    scheduler.on_trial_result(controller, worst, result(3, 0.1))  # the best was not yet known to be, nor saved
    scheduler.on_trial_result(controller, best, result(6, 0.9))
    assert scheduler.on_trial_result(controller, worst, result(6, 0.1)) == "NOOP"
    assert {key: worst.config[key] for key in ("number", "donor", "job")} == {"number": 1, "donor": 0, "job": "for 1"}
    assert best.config["number"] == 0


def test_pbt_leaves_trials_alone_between_exploits() -> None:
    scheduler, trials, controller = population(4, dict)
    before = [trial.config for trial in trials]
    for step in (1, 2):
        for number, trial in enumerate(trials):
            assert scheduler.on_trial_result(controller, trial, result(step, number / 10)) == "CONTINUE"
    assert [trial.config for trial in trials] == before


@pytest.mark.parametrize("name", ["small", "css", "css_quick"])
def test_what_pbt_makes_can_always_be_set(name: str) -> None:
    random.seed(1)
    space = SPACE if name == "small" else load_space(name)
    made: list[dict[str, Any]] = []
    scheduler = make("pbt", explore=explorer(space, lambda config: made.append(config["params"]) or config))  # type: ignore[func-returns-value]
    trial, donor = StandIn(0), StandIn(1, space.baseline_params)
    for _ in range(200):
        donor.config, _ = scheduler._get_new_config(trial, donor)
    assert all(space.overrides(params) for params in made)
    varied = {name for params in made for name in params if len({str(other.get(name)) for other in made}) > 1}
    assert varied == {parameter.name for parameter in space.parameters}


def test_params_follow_the_conditions_of_the_space() -> None:
    assert "warmup" not in inside(SPACE, {**SPACE.baseline_params, "strategy": "mix"})
    bare = {name: raw for name, raw in SPACE.baseline_params.items() if name != "warmup"}
    assert 0.1 <= inside(SPACE, bare)["warmup"] <= 0.5  # type: ignore[operator]


@pytest.mark.parametrize(
    ("given_params", "expected"),
    [({"weight": 9.0}, 1.0), ({"weight": 0.001}, 0.01), ({"width": 8}, 7), ({"width": 0}, 1), ({"width": 4}, 5)],
)
def test_numbers_are_moved_to_the_nearest_that_the_space_has(given_params: dict[str, Any], expected: float) -> None:
    (name,) = given_params
    assert inside(SPACE, {**SPACE.baseline_params, **given_params})[name] == expected


@pytest.mark.parametrize(
    "parameter",
    [
        Parameter("p", "float", 0.5, 2.0),
        Parameter("p", "float", 1e-3, 1.0, log=True),
        Parameter("p", "float", 0.9, 0.999, one_minus=True),
        Parameter("p", "int", 1, 9, step=4),
        Parameter("p", "int", 1, 100, log=True),
        Parameter("p", "categorical", choices=(1, "1", None)),
    ],
)
def test_what_is_drawn_anew_can_be_set(parameter: Parameter) -> None:
    random.seed(0)
    drawn = [draw(parameter) for _ in range(100)]
    assert all(parameter.encode(parameter.decode(raw, {}), {}) == pytest.approx(raw) or raw is None for raw in drawn)
    assert len({(type(raw), raw) for raw in drawn}) > 2
