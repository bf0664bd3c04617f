"""What a confirmation chooses and says of its choice; and what is read back."""

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from harness.confirm.report import (
    Confirmation,
    Outcome,
    collect,
    lines,
    read_confirmation,
    to_csv,
    to_json,
    to_markdown,
    to_table,
    write_confirmation,
)
from harness.confirm.request import BASELINE, Configuration, Request
from harness.confirm.statistics import choose, verdict
from harness.tuning.fixed import FixedTrials

from harness.statistics.intervals import paired
from harness.trials import Trial, TrialState
from trainers.errors import UsageError

SEEDS = (0, 1, 2)
ITEMS = (
    Configuration(BASELINE, 0, 0.5, {"loss.lambda_u": 1.0}),
    Configuration("trial 9", 9, 0.7, {"loss.lambda_u": 2.0, "optimizer.lr": 0.1}),
    Configuration("trial 4", 4, 0.6, {"loss.lambda_u": 3.0}),
)
REQUEST = Request("a-search", "digits_css", "dev/miou", "abc", 7, SEEDS, False, ITEMS)
STEADY, LUCKY, BASE = {0: 0.60, 1: 0.61, 2: 0.62}, {0: 0.90, 1: 0.50, 2: 0.60}, {0: 0.50, 1: 0.52, 2: 0.51}


def found(request: Request = REQUEST) -> Confirmation:
    outcomes = [Outcome(ITEMS[0], BASE), Outcome(ITEMS[1], LUCKY), Outcome(ITEMS[2], STEADY)]
    return Confirmation("a-search-confirm", request, outcomes, "sqlite:///x.db")


def test_the_steady_configuration_is_chosen_and_not_the_lucky_one() -> None:
    assert sum(LUCKY.values()) > sum(STEADY.values())
    assert choose({"lucky": LUCKY, "steady": STEADY}) == "steady"


def test_of_equal_ones_the_first_is_chosen() -> None:
    assert choose({"a": STEADY, "b": dict(STEADY)}) == "a"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({0: 0.60, 1: 0.63, 2: 0.61}, "tuning beat the noise"),
        ({0: 0.40, 1: 0.41, 2: 0.42}, "the published baseline is better"),
        ({0: 0.60, 1: 0.50, 2: 0.52}, "tuning did not beat the noise"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(values: dict[int, float], said: str) -> None:
    assert verdict(paired(values, BASE), "trial 9", "val/miou").startswith(said)


def test_the_baseline_is_never_the_chosen_one() -> None:
    best_baseline = dataclasses.replace(found(), outcomes=[Outcome(ITEMS[0], STEADY), Outcome(ITEMS[1], BASE)])
    assert best_baseline.chosen == "trial 9"


def test_a_configuration_that_failed_with_a_seed_cannot_be_chosen() -> None:
    failed = Outcome(ITEMS[2], {0: 0.9, 1: 0.91}, errors={2: "diverged"})
    result = dataclasses.replace(found(), outcomes=[Outcome(ITEMS[0], BASE), Outcome(ITEMS[1], LUCKY), failed])
    assert result.chosen == "trial 9"
    assert "trial 4 failed with seed 2: diverged" in lines(result)
    assert to_table(result).rows[2][2:4] == ["2/3", None]


def test_without_a_whole_baseline_nothing_is_compared() -> None:
    result = dataclasses.replace(found(), outcomes=[Outcome(ITEMS[0], {0: 0.5}), Outcome(ITEMS[2], STEADY)])
    assert result.difference("trial 4", "dev") is None
    assert result.to_validate() == ["trial 4"]
    assert "nothing to compare with" in lines(result)[-1]


def test_where_every_configuration_failed_nothing_is_chosen() -> None:
    result = dataclasses.replace(found(), outcomes=[Outcome(item, {}) for item in ITEMS])
    assert result.chosen is None
    assert to_json(result)["chosen"] is None
    assert "nothing is chosen" in lines(result)[-1]


def test_the_validation_images_do_not_change_the_choice() -> None:
    before = found()
    after = before.with_val({BASELINE: {0: 0.9, 1: 0.9, 2: 0.91}, "trial 4": {0: 0.1, 1: 0.1, 2: 0.12}})
    assert (before.validated, after.validated) == (False, True)
    assert before.chosen == after.chosen == "trial 4"
    assert to_json(after)["beat_the_noise"] is False
    assert "the published baseline is better" in lines(after)[-1]


def test_only_the_chosen_one_and_the_baseline_are_validated() -> None:
    assert found().to_validate() == [BASELINE, "trial 4"]


def test_a_seed_that_the_search_used_is_pointed_out() -> None:
    again = found(dataclasses.replace(REQUEST, searched_seed=1))
    assert "(seed 1 is the one that it was found with)" in lines(again)[-1]
    assert "found with" not in lines(found())[-1]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    result = found().with_val({BASELINE: BASE, "trial 4": STEADY})
    assert read_confirmation(tmp_path) is None
    write_confirmation(tmp_path, result)
    assert read_confirmation(tmp_path) == result
    assert {path.name for path in tmp_path.iterdir()} == {"confirm.json", "confirm.csv", "confirm.md"}


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "confirm.json").write_text("[]")
    with pytest.raises(UsageError, match="must be that of `s4 confirm`"):
        read_confirmation(tmp_path)


def test_the_csv_has_a_line_a_run_with_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(found().with_val({BASELINE: BASE, "trial 4": STEADY})))))
    assert [(row["configuration"], row["seed"]) for row in rows] == [
        (item.label, str(seed)) for item in ITEMS for seed in SEEDS
    ]
    assert [float(row["dev/miou"]) for row in rows[:3]] == [*BASE.values()]
    assert [row["val/miou"] for row in rows[3:6]] == ["", "", ""]
    assert [row["optimizer.lr"] for row in rows[::3]] == ["", "0.1", ""]


def test_the_markdown_table_has_a_line_a_configuration() -> None:
    table = [line for line in to_markdown(found()).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ITEMS)
    assert {line.count("|") for line in table} == {11}


def test_each_run_is_one_configuration_with_one_seed() -> None:
    seen = {(REQUEST.overrides(run)["loss.lambda_u"], REQUEST.overrides(run)["seed"]) for run in range(9)}
    assert seen == {(value, seed) for value in (1.0, 2.0, 3.0) for seed in SEEDS}
    assert "data.seed" not in REQUEST.overrides(0)


def test_the_seed_draws_the_data_too_where_that_is_asked_for() -> None:
    request = dataclasses.replace(REQUEST, vary_data=True)
    assert [request.overrides(run)["data.seed"] for run in (0, 3, 6)] == [0, 1, 2]


def test_trials_are_collected_by_their_runs() -> None:
    trials = []
    for number, (item, seed) in enumerate(REQUEST.runs):
        lost = (item.label, seed) == ("trial 9", 1)
        state = TrialState.FAIL if lost else TrialState.COMPLETE
        metrics = {"dev/miou": item.trial + seed / 10, "step": 10.0}
        trials.append(Trial(number, {}, {}, state=state, metrics=metrics, error="a\nb" if lost else None))
    result = collect("name", REQUEST, trials, "uri")
    assert [outcome.dev for outcome in result.outcomes] == [
        {0: 0.0, 1: 0.1, 2: 0.2},
        {0: 9.0, 2: 9.2},
        {0: 4.0, 1: 4.1, 2: 4.2},
    ]
    assert result.outcomes[1].errors == {1: "b"}


def test_a_study_draws_each_run_once_and_leaves_no_choice_to_its_sampler() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = FixedTrials("again", [REQUEST.overrides(run) for run in range(len(REQUEST.runs))])
    study = optuna.create_study()
    study.enqueue_trial(dict(space.baseline_params))
    drawn = [space.suggest(study.ask()) for _ in range(9)]
    assert [space.overrides(params) for params in drawn] == [REQUEST.overrides(run) for run in range(9)]
