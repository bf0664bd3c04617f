from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from harness.tuning.config import ABILITIES, check_sampler
from harness.tuning.marks import MARK
from harness.tuning.objectives import Objective
from harness.tuning.samplers import CellSampler, grid_of, levels, make_sampler
from harness.tuning.study import journal
from search_spaces import Parameter, Space, load_space
from search_spaces.space import parse_space
from trainers.errors import UsageError

MIOU = (Objective("dev/miou", "max"),)
BOTH = (*MIOU, Objective("time/step_s", "min"))
CONDITIONAL = parse_space("""
name: small
source: made up
baseline: {strategy: cross, warmup: 0.25, weight: 0.1, width: 3}
parameters:
  strategy:
    categorical: [mix, cross]
  warmup:
    float: {low: 0.0, high: 0.5}
    when: {strategy: cross}
  weight:
    float: {low: 0.01, high: 1.0, log: true}
  width:
    int: {low: 1, high: 5, step: 2}
""")
PLAIN = parse_space("""
name: plain
source: made up
baseline: {weight: 0.1, share: 0.5}
parameters:
  weight:
    float: {low: 0.01, high: 1.0, log: true}
  share:
    float: {low: 0.0, high: 1.0}
""")

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def value(params: Mapping[str, Any]) -> float:
    return float(params["weight"]) - abs(float(params.get("share", 0.5)) - 0.3)


def drive(study: optuna.Study, space: Space, trials: int) -> list[dict[str, Any]]:
    """Ask and tell, and return what was drawn."""
    drawn = []
    for _ in range(trials):
        trial = study.ask()
        drawn.append(space.suggest(trial))
        study.tell(trial, value(drawn[-1]))
    return drawn


def study_of(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler)


@pytest.mark.parametrize("name", ABILITIES)
@pytest.mark.parametrize("space", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_the_same_seed_draws_the_same(name: str, space: Space) -> None:
    one, two = (drive(study_of(make_sampler(name, 3, space=space, objectives=MIOU)), space, 8) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("name", ABILITIES)
def test_another_seed_draws_something_else(name: str) -> None:
    one, two = (drive(study_of(make_sampler(name, seed, space=PLAIN, objectives=MIOU)), PLAIN, 8) for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize("name", ABILITIES)
def test_a_continued_search_repeats_no_draw(name: str, tmp_path: Path) -> None:
    storage = journal(tmp_path / "optuna.journal")
    seen: list[dict[str, Any]] = []
    for _ in range(2):  # each turn is a driver of its own
        study = optuna.create_study(storage=storage, study_name="s", direction="maximize", load_if_exists=True)
        study.sampler = make_sampler(name, 0, space=PLAIN, objectives=MIOU, drawn=len(study.trials))
        seen += drive(study, PLAIN, 4)
    assert all(params not in seen[:index] for index, params in enumerate(seen))


def test_a_sampler_that_is_not_told_what_was_drawn_repeats_itself() -> None:
    study = study_of(make_sampler("random", 0, space=PLAIN, objectives=MIOU))
    first = drive(study, PLAIN, 1)
    study.sampler = make_sampler("random", 0, space=PLAIN, objectives=MIOU)
    assert drive(study, PLAIN, 1) == first


@pytest.mark.parametrize("name", [name for name, able in ABILITIES.items() if able.several_objectives])
def test_samplers_that_can_take_several_objectives(name: str) -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=make_sampler(name, 0, space=PLAIN, objectives=BOTH)
    )
    for _ in range(8):
        trial = study.ask()
        study.tell(trial, [value(PLAIN.suggest(trial)), 1.0])
    assert len(study.best_trials) > 0


def test_cmaes_cannot_take_several_objectives() -> None:
    study = optuna.create_study(directions=["maximize"] * 2, sampler=optuna.samplers.CmaEsSampler(seed=0))
    with pytest.raises(ValueError, match="multi-objective"):
        study.ask().suggest_float("x", 0, 1)


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2"])
def test_which_samplers_learn_from_trials_that_were_added(name: str) -> None:
    earlier = study_of(make_sampler("random", 7, space=PLAIN, objectives=MIOU))
    drive(earlier, PLAIN, 60)
    drawn = []
    for sign in (1, -1):
        study = study_of(make_sampler(name, 0, space=PLAIN, objectives=MIOU))
        for trial in earlier.trials:
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions, value=sign * value(trial.params)
                )
            )
        drawn += drive(study, PLAIN, 1)
    assert (drawn[0] != drawn[1]) == ABILITIES[name].warm_start


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2"])
def test_which_samplers_learn_from_pruned_trials(name: str) -> None:
    drawn = []
    for sign in (1, -1):
        study = study_of(make_sampler(name, 0, space=PLAIN, objectives=MIOU))
        for _ in range(15):
            trial = study.ask()
            trial.report(sign * value(PLAIN.suggest(trial)), 1)
            study.tell(trial, state=TrialState.PRUNED)
        drawn += drive(study, PLAIN, 1)
    assert (drawn[0] != drawn[1]) == ABILITIES[name].pruned


@pytest.mark.parametrize("own", [True, False])
def test_cmaes_goes_on_where_a_condition_fails_after_a_generation_unlike_optunas_own(own: bool) -> None:
    ours = make_sampler("cmaes", 0, space=CONDITIONAL, objectives=MIOU)
    study = study_of(ours if own else optuna.samplers.CmaEsSampler(seed=0, warn_independent_sampling=False))
    for strategy in ["cross"] * 12 + ["mix"] * 2:
        study.enqueue_trial({"strategy": strategy})
    drive(study, CONDITIONAL, 16)
    assert all("cma:generation" in trial.system_attrs for trial in study.trials[-3:]) == own


@pytest.mark.parametrize(
    ("name", "objectives", "constrained", "warm", "words"),
    [
        ("cma", MIOU, False, False, "a sampler must be one of tpe, gp"),
        ("cmaes", BOTH, False, False, "with several objectives the sampler must be one of tpe, gp, nsga2"),
        ("cmaes", MIOU, True, False, "with constraints the sampler must be one of tpe, gp, nsga2"),
        ("nsga2", MIOU, False, True, "with earlier trials the sampler must be one of tpe, gp, got nsga2"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused(
    name: str, objectives: tuple[Objective, ...], constrained: bool, warm: bool, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        check_sampler(name, objectives, constrained, warm)


@pytest.mark.parametrize("name", ABILITIES)
def test_one_objective_alone_is_taken_by_all(name: str) -> None:
    check_sampler(name, MIOU, constrained=False, warm=False)


@pytest.mark.parametrize(
    ("parameter", "points", "expected"),
    [
        (Parameter("p", "float", 0.0, 1.0), 3, [0.0, 0.5, 1.0]),
        (Parameter("p", "float", 0.01, 1.0, log=True), 3, [0.01, pytest.approx(0.1), 1.0]),
        (Parameter("p", "float", 0.9, 0.99, one_minus=True), 2, [0.01, 0.1]),
        (Parameter("p", "float", 0.0, 1.0), 1, [0.5]),
        (Parameter("p", "int", 1, 4), 9, [1, 2, 3, 4]),
        (Parameter("p", "int", 0, 100, step=10), 3, [0, 50, 100]),
        (Parameter("p", "int", 1, 100, log=True), 3, [1, 10, 100]),
        (Parameter("p", "categorical", choices=("a", "b", None)), 2, ["a", "b", None]),
    ],
)
def test_levels_are_even_in_what_the_sampler_draws(parameter: Parameter, points: int, expected: list[Any]) -> None:
    assert list(levels(parameter, points)) == expected


def test_a_conditional_parameter_is_in_the_cells_where_it_exists() -> None:
    cells = grid_of(CONDITIONAL, 3)
    mix = [cell for cell in cells if cell["strategy"] == "mix"]
    assert all("warmup" not in cell for cell in mix)
    assert len(mix) == 9  # 3 weights x 3 widths


def test_the_baseline_is_not_in_the_grid_again() -> None:
    without = len(grid_of(CONDITIONAL, 3))
    assert CONDITIONAL.baseline_params not in grid_of(CONDITIONAL, 3)
    assert without == 9 + 3 * 9 - 1  # the middles of all ranges are the baseline: warm-up 0.25, weight 0.1, width 3


@pytest.mark.parametrize("name", ["css", "css_quick"])
def test_every_cell_of_a_shipped_space_can_be_set(name: str) -> None:
    space = load_space(name)
    points = 1 if name == "css" else 2
    assert all(space.overrides(cell) for cell in grid_of(space, points))


@pytest.mark.parametrize(("points", "words"), [(0, "at least 1 point"), (9, "at most 100000 cells")])
def test_a_grid_without_points_or_without_end_is_refused(points: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        grid_of(load_space("css"), points)


def run_grid(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    drawn = []
    assert isinstance(study.sampler, CellSampler)
    while study.sampler.left(study):
        drawn += drive(study, space, 1)
    return drawn


def test_a_grid_visits_each_cell_once_and_ends() -> None:
    study = study_of(make_sampler("grid", 0, space=CONDITIONAL, objectives=MIOU))
    study.enqueue_trial(CONDITIONAL.baseline_params)
    drawn = run_grid(study, CONDITIONAL)
    assert drawn[0] == CONDITIONAL.baseline_params
    assert sorted(drawn[1:], key=str) == sorted(grid_of(CONDITIONAL, 3), key=str)


def test_a_grid_goes_on_after_failures_retries_and_earlier_trials() -> None:
    make: Callable[[], Any] = lambda: make_sampler("grid", 0, space=CONDITIONAL, objectives=MIOU)  # noqa: E731
    study = study_of(make())
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={MARK: "elsewhere"}))
    first = study.ask()
    lost = CONDITIONAL.suggest(first)
    study.tell(first, state=TrialState.FAIL)
    study.enqueue_trial(lost)  # tried again
    study.sampler = make()  # a new driver
    drawn = run_grid(study, CONDITIONAL)
    assert drawn[0] == lost
    assert sorted(drawn, key=str) == sorted(grid_of(CONDITIONAL, 3), key=str)


def test_gangs_at_work_at_once_are_given_different_cells() -> None:
    study = study_of(make_sampler("grid", 0, space=CONDITIONAL, objectives=MIOU))
    trials = [study.ask() for _ in range(4)]
    drawn = [CONDITIONAL.suggest(trial) for trial in reversed(trials)]
    assert all(params not in drawn[:index] for index, params in enumerate(drawn))


def test_optunas_own_grid_raises_where_trials_are_asked_and_told() -> None:
    study = study_of(optuna.samplers.GridSampler({"x": [0.5]}, seed=0))
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    with pytest.raises(RuntimeError, match=r"Study.stop"):
        study.tell(trial, 1.0)
