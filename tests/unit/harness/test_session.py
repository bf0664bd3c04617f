"""What surrounds a search or a training: records, results and words, whatever happens in between."""

import base64
import io
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console as RichConsole

from harness.console import Console, program
from harness.experiment import CssExperiment
from harness.reporting.next_steps import next_commands
from harness.reporting.results import read_results, to_table
from harness.run_folder import RunInfo, write_run
from harness.session import Session, record_session
from harness.trials import Trial, TrialObserver, TrialState
from harness.tuning.objectives import Objective
from search_spaces import load_space


@pytest.fixture
def task(tmp_path: Path, new_store: Callable[[Path], str]) -> Session:
    folder, experiment, space = tmp_path / "runs" / "s-001", CssExperiment.of("digits_css"), load_space("css_quick")
    info = RunInfo.of("search", experiment, "dev/miou", {"options": {}, "space": space.text})
    write_run(folder, info)
    return Session(
        folder, info, experiment, new_store(tmp_path), Console(RichConsole(file=io.StringIO()), None),
        (Objective("dev/miou", "max"),), total=2, space=space,
    )  # fmt: skip


def tell(observers: Sequence[TrialObserver], trial: Trial) -> None:
    for observer in observers:
        observer.on_start(trial)
        observer.on_report(trial)
    trial.state = TrialState.COMPLETE
    for observer in observers:
        observer.on_end(trial)


def play(observers: Sequence[TrialObserver]) -> None:
    space = load_space("css_quick")
    config, config_hash = CssExperiment.of("digits_css").resolve(space.baseline)
    trial = Trial(0, space.baseline_params, space.baseline, config_hash, config)
    trial.metrics, trial.best = {"step": 900, "dev/miou": 0.5}, {"value": 0.5, "step": 900}
    tell(observers, trial)


def test_the_best_trial_is_compared_with_the_published_baseline_and_with_ours(task: Session) -> None:
    out, space = io.StringIO(), load_space("css_quick")

    def play_three(observers: Sequence[TrialObserver]) -> None:
        assert space.ours_params is not None
        drawn = (space.baseline_params, space.ours_params, {**space.baseline_params, "loss.lambda_u": 2.0})
        for number, (params, value) in enumerate(zip(drawn, (0.5, 0.55, 0.6), strict=True)):
            trial = Trial(number, params, space.overrides(params), str(number))
            trial.metrics, trial.best = {"step": 900, "dev/miou": value}, {"value": value, "step": 900}
            tell(observers, trial)

    record_session(replace(task, total=3, console=Console(RichConsole(file=out, width=200), None)), play_three)
    compared = "; the published baseline 0.5000 (+0.1000); ours 0.5500 (+0.0500), one seed each"
    assert f"best: trial 2, dev/miou 0.6000 at step 900{compared}" in out.getvalue()
    assert [row[1] for row in to_table(read_results(task.folder)).rows] == ["2", "1 (ours)", "0 (baseline)"]
    lead = (task.folder / "report" / "report.md").read_text()
    assert "the published baseline 0.5000 (+0.1000); ours 0.5500 (+0.0500)." in lead


def test_a_search_leaves_results_records_and_words(task: Session) -> None:
    out = io.StringIO()
    record_session(replace(task, console=Console(RichConsole(file=out, width=200), None)), play)
    assert "[1/2] trial 0 COMPLETE at step 900/900" in out.getvalue()
    assert "best: trial 0, dev/miou 0.5000 at step 900, the published baseline" in out.getvalue()
    best = task.folder / "best.yaml"
    assert f"next: s4 report s-001 --storage {task.folder.parent}    the best: s4 train {best}    " in out.getvalue()
    [row] = read_results(task.folder).rows
    assert row.values["ema.teacher_momentum"] == 0.99
    client = MlflowClient(task.tracking_uri)
    [experiment] = [found for found in client.search_experiments() if found.name == "s4"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"s-001": "FINISHED", "trial-000": "FINISHED"}
    kept = {file.path for file in client.list_artifacts(runs["s-001"].info.run_id)}
    assert kept == {"config.yaml", "space.yaml", "results.csv", "results.md", "best.yaml", "report"}
    assert len(runs["trial-000"].data.tags["s4.data_digest"]) == 12


def test_the_report_is_written_named_and_kept_in_mlflow(task: Session) -> None:
    out = io.StringIO()
    record_session(replace(task, console=Console(RichConsole(file=out, width=200), None)), play)
    page = task.folder / "report" / "report.html"
    assert f"report: {page}" in out.getvalue()
    client = MlflowClient(task.tracking_uri)
    [parent] = [run for run in client.search_runs([client.get_experiment_by_name("s4").experiment_id])
                if run.info.run_name == "s-001"]  # fmt: skip
    kept = {file.path for folder in ("report", "report/tables", "report/figures")
            for file in client.list_artifacts(parent.info.run_id, folder) if not file.is_dir}  # fmt: skip
    written = {str(file.relative_to(task.folder)) for file in page.parent.rglob("*") if file.is_file()}
    assert kept == {file for file in written if "figures" not in file or file.endswith("-light.png")}
    note = parent.data.tags["mlflow.note.content"]
    address = f"#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}/artifacts/report/report.html"
    assert f"[the report]({address})" in note


def test_a_session_is_recorded_in_the_experiment_that_is_named_and_goes_on_there(task: Session) -> None:
    record_session(replace(task, mlflow_experiment="mine"), play)
    record_session(task, lambda observers: None)
    client = MlflowClient(task.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert {run.info.run_name for run in runs} == {"s-001", "trial-000"}
    assert client.get_experiment_by_name("s4") is None


def test_a_parent_says_what_was_asked_for_and_what_came_of_it(task: Session) -> None:
    record_session(task, play)
    client = MlflowClient(task.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("s4").experiment_id])
    data = {run.info.run_name: run.data for run in runs}
    assert (data["s-001"].params["space"], data["s-001"].params["preset"]) == ("css_quick", "digits_css")
    assert data["s-001"].tags["mlflow.note.content"].startswith("Nothing beat the published baseline")
    assert data["trial-000"].tags["mlflow.note.content"] == "The baseline."


def test_a_view_has_charts_of_what_was_reported_alone(task: Session) -> None:
    record_session(task, play)
    tags = MlflowClient(task.tracking_uri).get_experiment_by_name("s4").tags
    [view] = [json.loads(text) for key, text in tags.items() if key.startswith("mlflow.sharedViewState.")]
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    drawn = {(chart["type"], chart["metricKey"]) for chart in state["compareRunCharts"]}
    assert drawn == {("PARALLEL", "best/dev_miou"), ("BAR", "best/dev_miou"), ("LINE", "dev/miou")}
    assert "params.`loss.lambda_u`" in state["selectedColumns"]


def test_a_report_that_fails_loses_no_search(task: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> list[Path]:
        raise RuntimeError("no\nink")

    monkeypatch.setattr("harness.reporting.reports.report_on", broken)
    out = io.StringIO()
    results = record_session(replace(task, console=Console(RichConsole(file=out, width=200), None)), play)
    assert results.counts == {"COMPLETE": 1}
    assert "no report: no ink; s4 report s-001 tries again" in out.getvalue()


def test_an_interrupted_search_keeps_what_was_done(task: Session) -> None:
    def interrupted(observers: Sequence[TrialObserver]) -> None:
        play(observers)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_session(task, interrupted)
    assert not (task.folder / "report").exists()  # it would be waited for
    assert len(read_results(task.folder).rows) == 1
    client = MlflowClient(task.tracking_uri)
    experiment = client.get_experiment_by_name("s4")
    statuses = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert statuses == {"s-001": "KILLED", "trial-000": "FINISHED"}


def test_commands_to_look_further_name_what_is_not_the_default(
    task: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert next_commands(task.folder, task.tracking_uri) == (
        f"s4 report s-001 --storage {tmp_path / 'runs'}    records: s4 ui s-001 --tracking-uri {task.tracking_uri}"
    )
    monkeypatch.chdir(tmp_path)
    assert next_commands(task.folder, task.tracking_uri) == "s4 report s-001    records: s4 ui s-001"


@pytest.mark.parametrize(("called", "shown"), [("bin/s4", "bin/s4"), ("s4", "s4"), ("harness/cli/main.py", "s4")])
def test_commands_are_shown_as_they_must_be_typed(
    called: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / "s4"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", [called])
    assert program() == shown


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (TrialState.COMPLETE, "s-001: trained 900 of 900 steps in [0-9.]+ m?s; the best dev/miou is 0.5000, at step "
                              "600, and 0.4000 at the end"),
        (TrialState.INTERRUPTED, "s-001: interrupted after 900 of 900 steps"),
    ],
)  # fmt: skip
def test_a_training_ends_with_a_sentence_and_no_leaderboard(task: Session, state: TrialState, said: str) -> None:
    out = io.StringIO()

    def train(observers: Sequence[TrialObserver]) -> None:
        trial = Trial(0, {}, {}, "h", task.info.config)
        trial.metrics, trial.best = {"step": 900, "dev/miou": 0.4}, {"value": 0.5, "step": 600}
        tell(observers, trial)
        trial.state = state
        observers[1].on_end(trial)

    single = replace(task, total=1, space=None, info=replace(task.info, kind="train"))
    record_session(replace(single, console=Console(RichConsole(file=out, width=200), None)), train, report=False)
    assert re.search(said, out.getvalue())
    assert "rank" not in out.getvalue()
    assert "trial" not in out.getvalue()


def test_the_baseline_of_a_space_without_a_source_is_not_called_published(task: Session) -> None:
    out = io.StringIO()
    assert task.space is not None
    own = replace(task, space=replace(task.space, source=""))
    record_session(replace(own, console=Console(RichConsole(file=out, width=200), None)), play)
    assert "at step 900, the baseline" in out.getvalue()
    assert "published" not in out.getvalue() + (task.folder / "report" / "report.md").read_text()
