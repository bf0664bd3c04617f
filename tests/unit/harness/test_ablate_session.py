"""Session of an ablation that is interrupted while its runs are evaluated; its trainings are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from harness import api
from harness.ablation.results import RESULTS, Ablation
from harness.event_log import LEDGER, Ledger, read_ledger
from harness.gangs.jobs import Jobs, JobsEnd
from harness.reporting.ablation.record import read_ablation
from harness.trials import Experiment, Trial, TrialState, Value
from trainers.run import Run


class Made(Experiment):
    """One number, which the trainings that are made up here end with."""

    config: Mapping[str, Any] = {"seed": 0, "x": 1.0}  # read only

    def train(self, overrides: Mapping[str, Value], run: Run) -> None:
        raise NotImplementedError


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
) -> Callable[[Callable[..., Any]], Ablation]:
    uri = new_store(tmp_path)
    monkeypatch.setattr("harness.session.ray_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr("harness.session.run_jobs", made_up)

    def call(evaluate: Callable[..., Any]) -> Ablation:
        monkeypatch.setattr("harness.session.evaluate_runs", evaluate)
        return api.ablate(
            Made(), plan={"plain": {}, "more": {"x": 2.0}}, seeds=(0, 1), name="a", metric="val/miou",
            storage=tmp_path, tracking_uri=uri, report=False, quiet=True,
        )  # fmt: skip

    return call


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_one_that_was_interrupted_while_it_was_evaluated_is_evaluated_and_not_trained_again(
    ablate: Callable[[Callable[..., Any]], Ablation], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ablate(interrupted)
    assert not (tmp_path / "a" / RESULTS).exists()
    assert read_ablation(tmp_path / "a").metric == "val/miou"
    ablation = ablate(lambda folder, experiment, request, runs, *_: {run.number: {"val/miou": 0.5} for run in runs})
    assert ablation.scores("more", "val/miou") == {0: 0.5, 1: 0.5}
    assert [len(trial.values) for trial in read_ledger(tmp_path / "a" / LEDGER).trials.values()] == [1] * 4
    assert ablate(interrupted).scores("more", "dev/miou") == {0: 2.0, 1: 2.0}
