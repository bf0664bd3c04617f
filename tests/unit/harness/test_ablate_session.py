"""Session of an ablation: interrupted while its runs are evaluated, and of a crossing plan; trainings are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from harness import api
from harness.ablation.results import RESULTS, Ablation
from harness.ablation.run import evaluate_runs
from harness.cluster import Allocation
from harness.console import make_console
from harness.gangs.jobs import Jobs, JobsEnd
from harness.ledger import LEDGER, Ledger, json_lines, read_ledger
from harness.reporting.ablation.record import read_ablation
from harness.tracking.stores import OUTBOX
from harness.trials import Experiment, Trial, TrialState, Value
from search_spaces.ablation import AblationPlan, parse_plan
from trainers.errors import UsageError
from trainers.run import Run

PLAIN_AND_MORE = {"plain": {}, "more": {"x": 2.0}}
CROSSED = """
name: crossed
source: made up
cross: {first: {low: {y: 0.0}, high: {y: 1.0}}, second: {plain: {x: 1.0}, more: {x: 2.0}}}
"""


class Made(Experiment):
    """One number, which the trainings that are made up here end with."""

    config: Mapping[str, Any] = {"seed": 0, "x": 1.0, "y": 0.0}  # read only

    def train(self, overrides: Mapping[str, Value], run: Run) -> None:
        raise NotImplementedError


def test_an_own_experiment_is_not_registered_for_nobody_else_could_load_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--register must go with a preset of s4"):
        api.ablate(Made(), plan=PLAIN_AND_MORE, storage=tmp_path, register=True, quiet=True)
    assert list(tmp_path.iterdir()) == []


def made_up(jobs: Jobs) -> JobsEnd:
    """End every training that is not over as its config says, as `run_jobs` would."""
    trials = dict(jobs.earlier.trials) if jobs.earlier else {}
    with closing(Ledger(jobs.folder / LEDGER, jobs.experiment.metric)) as ledger:
        for number, overrides in enumerate(jobs.overrides):
            if number not in trials:
                trial = trials[number] = Trial(number, {}, overrides, *jobs.experiment.resolve(overrides)[::-1])
                trial.metrics = {"step": 1.0, "finished": 1.0, "dev/miou": float(trial.config["x"])}
                for observer in (ledger, *jobs.observers):
                    observer.on_start(trial)
                    observer.on_report(trial)
                trial.state = TrialState.COMPLETE
                for observer in (ledger, *jobs.observers):
                    observer.on_end(trial)
    return JobsEnd([*trials.values()], None)


@pytest.fixture
def ablate(
    tmp_path: Path, new_store: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ablation]:
    uri = new_store(tmp_path)
    monkeypatch.setattr("harness.session.ray_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr("harness.session.run_jobs", made_up)

    def call(evaluate: Callable[..., Any], plan: Mapping[str, Any] | AblationPlan = PLAIN_AND_MORE) -> Ablation:
        monkeypatch.setattr("harness.session.evaluate_runs", evaluate)
        return api.ablate(
            Made(), plan=plan, seeds=(0, 1), name="a", metric="val/miou",
            storage=tmp_path, tracking_uri=uri, report=False, quiet=True,
        )  # fmt: skip

    return call


def test_runs_of_an_experiment_without_an_evaluation_are_not_evaluated(tmp_path: Path) -> None:
    # Without a session of Ray: it would be started, and lines would count evaluations that do nothing.
    assert evaluate_runs(tmp_path, Made(), None, [None], Allocation(), make_console(quiet=True)) == {}  # type: ignore[arg-type,list-item]


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_one_that_was_interrupted_while_it_was_evaluated_is_evaluated_and_not_trained_again(
    ablate: Callable[..., Ablation], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ablate(interrupted)
    assert not (tmp_path / "a" / RESULTS).exists()
    assert read_ablation(tmp_path / "a").metric == "val/miou"
    ablation = ablate(lambda folder, experiment, request, runs, *_: {run.number: {"val/miou": 0.5} for run in runs})
    assert ablation.scores("more", "val/miou") == {0: 0.5, 1: 0.5}
    assert [len(trial.values) for trial in read_ledger(tmp_path / "a" / LEDGER).trials.values()] == [1] * 4
    assert ablate(interrupted).scores("more", "dev/miou") == {0: 2.0, 1: 2.0}


def test_one_whose_outbox_cannot_be_read_does_not_go_on_before_anything_starts(
    ablate: Callable[..., Ablation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ablate(interrupted)
    (tmp_path / "a" / OUTBOX).write_text("garbage\n")
    monkeypatch.setattr("harness.session.ray_session", MagicMock(side_effect=AssertionError))
    with pytest.raises(UsageError, match="must hold operations"):
        ablate(interrupted)


def test_a_crossing_plan_is_trained_recorded_and_gone_on_with_by_its_groups(
    ablate: Callable[..., Ablation], tmp_path: Path
) -> None:
    evaluated = {
        f"{group}/{level}": score for group in ("low", "high") for level, score in (("plain", 0.4), ("more", 0.5))
    }
    found = ablate(
        lambda folder, experiment, request, runs, *_: {
            run.number: {"val/miou": evaluated[run.variant] + run.seed / 100} for run in runs
        },
        parse_plan(CROSSED),
    )
    assert found.winners == {"low": "low/more", "high": "high/more"}
    assert read_ablation(tmp_path / "a").request.groups == ("low", "high")
    assert ablate(interrupted, parse_plan(CROSSED)).winners == found.winners
    recorded = [line for line in json_lines(tmp_path / "a" / OUTBOX) if line["op"] == "start"]
    assert [line["name"] for line in recorded][:2] == ["low/plain, seed 0", "low/more, seed 0"]
