"""What a confirmation chooses and says of its choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.ablation.confirm import BASELINE, confirmation, confirmation_table, verdict, verdict_lines
from harness.ablation.request import Request, Run, write_request
from harness.ablation.results import Ablation, Outcome, read_results, write_results
from harness.experiment import CssExperiment
from harness.run_folder import RunInfo
from harness.statistics.intervals import paired
from search_spaces import load_space
from trainers.errors import UsageError

EXPERIMENT = CssExperiment.of("digits_css", {"schedule.steps": 7, "schedule.evaluate_every": 7, "seed": 9})
SPACE = load_space("css_quick")
SEEDS = (0, 1, 2)
STEADY, LUCKY, BASE = {0: 0.60, 1: 0.61, 2: 0.62}, {0: 0.90, 1: 0.50, 2: 0.60}, {0: 0.50, 1: 0.52, 2: 0.51}
Scores = Mapping[int, float]


def request_of(seeds: Sequence[int] = SEEDS, vary_data: bool = False, ours: int | None = None) -> Request:
    info = RunInfo.of("confirm", EXPERIMENT, "dev/miou", {})
    trials = [
        (number, best, {**SPACE.baseline, "loss.lambda_u": u}) for number, best, u in ((9, 0.7, 2.0), (4, 0.6, 3.0))
    ]
    return confirmation("a-search", info, EXPERIMENT, SPACE, 0.5, trials, seeds, vary_data, ours)


def found(
    baseline: Scores = BASE, nine: Scores = LUCKY, four: Scores = STEADY, *, on_val: Mapping[str, Scores] | None = None,
    request: Request | None = None,
) -> Ablation:  # fmt: skip
    """A confirmation of three variants; a run without a score on dev failed."""
    request = request or request_of()
    dev, outcomes = {BASELINE: baseline, "trial 9": nine, "trial 4": four, "ours": four}, []
    for number, run in enumerate(request.runs):
        score = dev[run.variant].get(run.seed)
        late = (on_val or {}).get(run.variant, {}).get(run.seed)
        metrics = {"dev/miou": score, **({} if late is None else {"val/miou": late})}
        state = "COMPLETE" if score is not None else "FAIL"
        error = None if score is not None else "diverged"
        outcomes.append(Outcome(number, run.variant, run.seed, state, metrics if score is not None else {}, error))  # type: ignore[arg-type]
    return Ablation("a-search-confirm", request, outcomes, "val/miou", "sqlite:///x.db", 9.0, 18.0)


def test_the_steady_configuration_is_chosen_and_not_the_lucky_one() -> None:
    assert sum(LUCKY.values()) > sum(STEADY.values())
    assert found().chosen == "trial 4"


def test_of_equal_ones_the_first_is_chosen() -> None:
    assert found(nine=STEADY).chosen == "trial 9"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({0: 0.60, 1: 0.63, 2: 0.61}, "tuning beat the noise"),
        ({0: 0.40, 1: 0.41, 2: 0.42}, "the baseline is better"),
        ({0: 0.60, 1: 0.50, 2: 0.52}, "tuning did not beat the noise"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(values: dict[int, float], said: str) -> None:
    assert verdict(paired(values, BASE), "trial 9", "val/miou").startswith(said)


def test_the_baseline_is_never_the_chosen_one() -> None:
    assert found(baseline=STEADY, nine=BASE, four={}).chosen == "trial 9"


def test_a_configuration_that_failed_with_a_seed_cannot_be_chosen() -> None:
    result = found(four={0: 0.9, 1: 0.91})
    assert result.chosen == "trial 9"
    assert "trial 4 failed with seed 2: diverged" in verdict_lines(result)
    assert confirmation_table(result).rows[2][2:4] == ["2/3", None]


def test_without_a_whole_baseline_nothing_is_compared() -> None:
    result = found(baseline={0: 0.5})
    assert {run.variant for run in result.to_evaluate} == {"trial 4"}
    assert "nothing to compare with" in verdict_lines(result)[-1]


def test_where_every_configuration_failed_nothing_is_chosen() -> None:
    result = found({}, {}, {})
    assert (result.chosen, result.to_dict()["chosen"], result.to_evaluate) == (None, None, [])
    assert "nothing is chosen" in verdict_lines(result)[-1]


def test_the_validation_images_do_not_change_the_choice() -> None:
    before = found()
    after = found(on_val={BASELINE: {0: 0.9, 1: 0.9, 2: 0.91}, "trial 4": {0: 0.1, 1: 0.1, 2: 0.12}})
    assert before.chosen == after.chosen == "trial 4"
    assert (before.beat_the_noise, after.beat_the_noise) == (None, False)
    assert "the baseline is better" in verdict_lines(after)[-1]


def test_only_the_chosen_one_and_the_baseline_are_evaluated() -> None:
    assert {run.variant for run in found().to_evaluate} == {BASELINE, "trial 4"}


def test_the_spaces_own_values_are_evaluated_and_compared_with_too() -> None:
    on_val = {BASELINE: BASE, "trial 9": {0: 0.70, 1: 0.71, 2: 0.73}, "ours": {0: 0.60, 1: 0.61, 2: 0.62}}
    result = found(nine={0: 0.7, 1: 0.71, 2: 0.72}, on_val=on_val, request=request_of(ours=4))
    assert [variant.name for variant in result.request.variants] == [BASELINE, "trial 9", "ours"]
    assert {run.variant for run in result.to_evaluate} == {BASELINE, "trial 9", "ours"}
    assert "trial 9 - ours is val/miou +0.1033 [+0.0" in verdict_lines(result)[-1]


def test_the_spaces_own_values_can_be_chosen_and_are_then_not_compared_with_themselves() -> None:
    result = found(request=request_of(ours=4), on_val={BASELINE: BASE, "ours": STEADY})
    assert (result.chosen, {run.variant for run in result.to_evaluate}) == ("ours", {BASELINE, "ours"})
    assert not any("ours - ours" in line for line in verdict_lines(result))


def test_a_seed_that_the_search_used_is_pointed_out() -> None:
    again = found(request=request_of((0, 1, 9)), four={0: 0.6, 1: 0.61, 9: 0.62}, baseline={0: 0.5, 1: 0.52, 9: 0.51})
    assert "(seed 9 is the one that it was found with)" in verdict_lines(again)[-1]
    assert "found with" not in verdict_lines(found())[-1]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    result = found(on_val={BASELINE: BASE, "trial 4": STEADY})
    write_request(tmp_path, result.request)
    write_results(tmp_path, result)
    again = read_results(tmp_path)
    assert (again.request, again.outcomes, again.beat_the_noise) == (result.request, result.outcomes, True)


def test_one_seed_gives_no_interval_and_is_refused() -> None:
    with pytest.raises(UsageError, match="--seeds must be at least two, for an interval, got 0"):
        request_of((0,))


def test_each_run_is_one_configuration_with_one_seed_that_wins_over_the_searchs() -> None:
    request = request_of()
    seen = {(request.overrides(run)["loss.lambda_u"], request.overrides(run)["seed"]) for run in request.runs}
    assert seen == {(value, seed) for value in (SPACE.baseline["loss.lambda_u"], 2.0, 3.0) for seed in SEEDS}
    assert "data.seed" not in request.overrides(request.runs[0])


def test_the_seed_draws_the_data_too_where_that_is_asked_for() -> None:
    request = request_of(vary_data=True)
    assert {request.overrides(Run(BASELINE, seed))["data.seed"] for seed in SEEDS} == set(SEEDS)


def test_the_request_keeps_what_the_search_saw() -> None:
    request, info = request_of(), RunInfo.of("confirm", EXPERIMENT, "dev/miou", {})
    assert request.confirms is not None
    assert (request.confirms.best, request.confirms.seed) == ({BASELINE: 0.5, "trial 9": 0.7, "trial 4": 0.6}, 9)
    assert replace(request.info, request={}) == info
