"""The recorder against a real SQLite store: the tree of runs, how they end, and what happens when things go wrong."""

import getpass
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from recorded import CONFIG, Store, play, report, trial, wait_until_sent

from harness.tracking import recorder as recording
from harness.tracking.recorder import MlflowRecorder, replay
from harness.tracking.stores import NOTE
from harness.trials import TrialState


def test_a_search_is_a_parent_with_one_child_a_trial_that_ends_as_the_trial_did(store: Store) -> None:
    with store.recorder() as recorder:
        for number, state in enumerate([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]):
            play(recorder, number, state)
    parent = store.run("search-001")
    children = {run.info.run_name: run for run in store.runs() if run.info.run_id != parent.info.run_id}
    assert {name: run.info.status for name, run in children.items()} == {
        "trial-000": "FINISHED", "trial-001": "KILLED", "trial-002": "FAILED",
    }  # fmt: skip
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children.values())
    assert parent.info.status == "FINISHED"
    assert {key: parent.data.tags[key] for key in ("s4.kind", "s4.search", "s4.preset", "s4.state")} == {
        "s4.kind": "search", "s4.search": "search-001", "s4.preset": "digits_css", "s4.state": "FINISHED",
    }  # fmt: skip


def test_a_trial_says_what_it_was_and_why_it_ended(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 7, TrialState.FAIL)
    run = store.run("trial-007")
    expected = {
        "s4.kind": "trial", "s4.search": "search-001", "s4.trial": "7", "s4.config_hash": "hash7", "s4.seed": "3",
        "s4.state": "FAIL", "s4.stop_reason": "error", "s4.error": "Traceback ...\nDivergedError: loss is nan",
    }  # fmt: skip
    assert {key: run.data.tags[key] for key in expected} == expected
    assert run.data.params == {
        "seed": "3", "loss.lambda_u": "1.5", "loss.queries": "256",
        "data.name": "digits", "data.digit_size": "[12, 16]",
    }  # fmt: skip


def test_metrics_are_at_optimizer_steps_with_the_best_value_and_when_it_was(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE, values=(0.2, 0.6, 0.5))
    run = store.run("trial-000")
    history = store.client.get_metric_history(run.info.run_id, "dev/miou")
    assert [(point.step, point.value) for point in history] == [(10, 0.2), (20, 0.6), (30, 0.5)]
    assert run.data.metrics == {"dev/miou": 0.5, "loss/sup": 0.5, "best/dev_miou": 0.6}
    assert run.data.tags["s4.best_step"] == "20"


def test_the_time_of_the_first_step_which_every_report_says_is_a_tag(store: Store) -> None:
    with store.recorder() as recorder:
        playing = trial(0)
        recorder.on_start(playing)
        playing.take_in({"step": 10.0, "dev/miou": 0.5, "time/first_step_unix": 1.5e9}, 0.5)
        recorder.on_report(playing)
        playing.state = TrialState.COMPLETE
        recorder.on_end(playing)
    data = store.run("trial-000").data
    assert data.tags["s4.first_step_unix"] == "1500000000.0"
    assert data.metrics.keys() == {"dev/miou", "best/dev_miou"}


def test_what_was_asked_for_is_in_the_params_of_the_parent_also_where_another_driver_goes_on(store: Store) -> None:
    for params in ({"space": "css_quick", "trials": 16}, {"space": "another"}):
        outbox = store.folder / "outbox.jsonl"
        with MlflowRecorder(store.uri, store.experiment, "search", "s", {}, outbox, params=params) as recorder:
            play(recorder, 0, TrialState.COMPLETE)
    assert store.run("s").data.params == {"space": "css_quick", "trials": "16"}


def test_an_outbox_of_an_earlier_version_which_has_no_params_is_sent(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
    lines = recorder._outbox.path.read_text().splitlines()
    opening = {**json.loads(lines[0]), "search_id": "old", "name": "old"}
    opening.pop("params")
    old = store.folder / "old.jsonl"
    old.write_text("\n".join([json.dumps(opening), *lines[1:]]) + "\n")
    assert replay(old, store.uri).rejected == 0
    assert store.run("old").info.status == "FINISHED"


def test_a_run_says_who_made_it_with_which_command_of_which_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/s4", "tune", "--set", "data.root=/my data"])
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
    for run in store.runs():
        tags = run.data.tags
        assert tags["mlflow.source.name"] == "s4 tune --set 'data.root=/my data'"
        assert tags["mlflow.user"] == getpass.getuser()
        assert tags["s4.git_sha"].removesuffix("-dirty") == tags["mlflow.source.git.commit"]


def test_an_experiment_has_a_description_and_one_of_the_users_own_stays(store: Store) -> None:
    store.recorder(name="first").close()
    experiment = store.client.get_experiment_by_name(store.experiment)
    assert "ablations" in experiment.tags[NOTE]
    store.client.set_experiment_tag(experiment.experiment_id, NOTE, "mine")
    store.recorder(name="second").close()
    assert store.client.get_experiment_by_name(store.experiment).tags[NOTE] == "mine"


@pytest.mark.parametrize("kind", ["ablation", "confirm"])
def test_only_a_search_has_a_best_trial(kind: str, store: Store) -> None:
    with store.recorder(kind) as recorder:
        play(recorder, 0, TrialState.COMPLETE)
    assert store.run("search-001").data.metrics == {}


def test_values_that_are_not_finite_are_dropped_and_counted(store: Store) -> None:
    with store.recorder() as recorder:
        playing = trial(0)
        recorder.on_start(playing)
        playing.metrics = {"step": 10, "dev/miou": float("nan"), "loss/sup": float("inf"), "loss/u": 1.0}
        recorder.on_report(playing)
    metrics = store.run("trial-000").data.metrics
    assert metrics == {"loss/u": 1.0, "nonfinite": 2.0}


def test_the_parent_shows_the_best_of_the_completed_trials(store: Store) -> None:
    with store.recorder() as recorder:
        for number, (state, value) in enumerate(
            [
                (TrialState.COMPLETE, 0.3),
                (TrialState.PRUNED, 0.9),
                (TrialState.COMPLETE, 0.4),
                (TrialState.COMPLETE, 0.2),
            ]
        ):
            play(recorder, number, state, values=(value,))
    parent = store.run("search-001")
    history = store.client.get_metric_history(parent.info.run_id, "best/dev_miou")
    assert [(point.step, point.value) for point in history] == [(1, 0.3), (3, 0.4)]
    assert parent.data.metrics["best/trial"] == 2


def test_a_training_is_one_run_of_its_own(store: Store) -> None:
    with store.recorder("train", "digits-001") as recorder:
        play(recorder, 0, TrialState.COMPLETE)
    [run] = store.runs()
    assert run.info.status == "FINISHED"
    assert (run.info.run_name, run.data.tags["s4.kind"]) == ("digits-001", "train")
    assert run.data.params["loss.lambda_u"] == "1.5"
    assert "mlflow.parentRunId" not in run.data.tags


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the batches that the store gets, by what each holds."""
    counted: Counter[str] = Counter()
    log_batch = SqlAlchemyStore.log_batch

    def counting(self: SqlAlchemyStore, run_id: str, metrics: object, params: object, tags: object) -> None:
        counted.update(kind for kind, held in (("metrics", metrics), ("params", params)) if held)
        log_batch(self, run_id, metrics, params, tags)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", counting)
    return counted


def test_a_report_is_one_batch_and_params_are_logged_once(store: Store, calls: Counter[str]) -> None:
    recorder = store.recorder()
    playing = trial(0)
    recorder.on_start(playing)
    for step in (10, 20, 30, 40):
        report(recorder, playing, step, 0.5)
        wait_until_sent(recorder)
    recorder.on_start(playing)  # the gang was restarted
    recorder.close()
    assert calls == {"metrics": 4, "params": 1}


def test_a_config_of_many_fields_is_logged_in_batches_that_mlflow_takes(store: Store, calls: Counter[str]) -> None:
    playing = trial(0)
    playing.config = {f"field{index}": "x" * (7000 if index == 0 else 1) for index in range(230)}
    with store.recorder() as recorder:
        recorder.on_start(playing)
    assert calls["params"] == 3
    assert len(store.run("trial-000").data.params) == 230


def test_resuming_creates_no_second_run_and_ends_the_trials_that_were_lost(store: Store) -> None:
    first = store.recorder()
    play(first, 0, TrialState.COMPLETE)
    first.on_start(trial(1))
    first.on_start(trial(2))
    first._sender.close(30)  # the driver is killed: nobody closes the recorder
    first._outbox.close()
    assert store.run("trial-001").info.status == "RUNNING"
    second = store.recorder()
    play(second, 1, TrialState.COMPLETE)
    second.close()
    statuses = sorted((run.info.run_name, run.info.status) for run in store.runs())
    assert statuses == [
        ("search-001", "FINISHED"), ("trial-000", "FINISHED"), ("trial-001", "FINISHED"), ("trial-002", "KILLED"),
    ]  # fmt: skip


def test_an_operation_that_was_applied_but_not_noted_changes_nothing_when_it_is_applied_again(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
    before = {run.info.run_name: run.to_dictionary()["data"] for run in store.runs()}
    (store.folder / "search-001" / "outbox.jsonl.done").write_text("0")
    store.recorder().close()
    assert {run.info.run_name: run.to_dictionary()["data"] for run in store.runs()} == before
    [_] = store.client.get_metric_history(store.run("trial-000").info.run_id, "best/dev_miou")


def test_the_same_name_in_another_folder_is_another_search(store: Store, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        with MlflowRecorder(
            store.uri, store.experiment, "search", "same", {}, tmp_path / folder / "o.jsonl"
        ) as recorder:
            play(recorder, 0, TrialState.COMPLETE)
    assert len(store.runs()) == 4


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "KILLED"), (RuntimeError("boom"), "FAILED")])
def test_nothing_is_left_running_when_the_driver_stops(store: Store, error: BaseException, status: str) -> None:
    def driver() -> None:
        with store.recorder() as recorder:
            recorder.on_start(trial(0))
            raise error

    with pytest.raises(type(error)):
        driver()
    assert store.run("search-001").info.status == status
    interrupted = store.run("trial-000")
    assert (interrupted.info.status, interrupted.data.tags["s4.state"]) == ("KILLED", "INTERRUPTED")


def test_artifacts_are_kept_beside_the_database(store: Store) -> None:
    with store.recorder() as recorder:
        recorder.artifact("space.yaml", "name: s\n")
    uri = store.run("search-001").info.artifact_uri
    assert uri.startswith(f"{Path(store.uri.removeprefix('sqlite:///')).parent.as_uri()}/mlartifacts/")
    assert Path(uri.removeprefix("file://"), "space.yaml").read_text() == "name: s\n"


def test_a_server_that_is_down_delays_nobody_and_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outbox = tmp_path / "outbox.jsonl"
    started = time.monotonic()
    recorder = MlflowRecorder("http://127.0.0.1:1", store.experiment, "search", "s", {}, outbox)
    play(recorder, 0, TrialState.COMPLETE)
    assert time.monotonic() - started < 1
    delivery = recorder.close(timeout_s=2)
    assert time.monotonic() - started < 5
    written = [json.loads(line)["op"] for line in outbox.read_text().splitlines()]
    assert written == ["open", "start", "report", "report", "end", "report", "end"]
    assert delivery.pending == 7
    assert delivery.note is not None
    assert "7 operations did not reach MLflow" in delivery.note
    assert replay(outbox, store.uri).applied == 7
    assert replay(outbox, store.uri).applied == 0
    assert store.run("s").info.status == "FINISHED"
    assert store.run("trial-000").data.metrics["best/dev_miou"] == 0.5


def test_a_trial_that_the_user_interrupted_is_killed_and_not_failed(store: Store) -> None:
    with store.recorder() as recorder:
        interrupted = trial(0)
        recorder.on_start(interrupted)
        interrupted.state, interrupted.error = TrialState.INTERRUPTED, "interrupted"
        recorder.on_end(interrupted)
    run = store.run("trial-000")
    assert (run.info.status, run.data.tags["s4.stop_reason"]) == ("KILLED", "interrupted")
    assert "s4.error" not in run.data.tags


def test_params_that_were_changed_while_a_trial_ran_are_metrics_from_then_on(store: Store) -> None:
    with store.recorder() as recorder:
        changed = trial(0)
        recorder.on_start(changed)
        changed.take_in({"step": 30.0, "dev/miou": 0.4}, 0.4)
        changed.overrides = {"loss.lambda_u": 2.5, "css.label_strategy": "mix"}
        recorder.on_start(changed)
    history = store.client.get_metric_history(store.run("trial-000").info.run_id, "param/loss.lambda_u")
    assert [(metric.step, metric.value) for metric in history] == [(30, 2.5)]


def test_a_refused_operation_is_counted_and_the_next_ones_go_on(store: Store) -> None:
    recorder = store.recorder()
    recorder._send({"op": "start", "time": 0, "trial": 0, "params": {"bad\nname": "1"}, "tags": {}})
    play(recorder, 1, TrialState.COMPLETE)
    delivery = recorder.close()
    assert (delivery.rejected, delivery.pending) == (1, 0)
    assert store.run("trial-001").info.status == "FINISHED"
    assert store.run("trial-000").info.status == "KILLED"


def test_params_that_a_scheduler_changes_before_anything_was_sent_stay_those_of_the_start(
    store: Store,
) -> None:
    """A backlog holds both starts, and MLflow refuses a param that has another value already."""
    changing = trial(0)
    with pytest.MonkeyPatch.context() as away:
        away.setattr(recording, "connect_client", lambda uri: (_ for _ in ()).throw(ConnectionError("away")))
        recorder = store.recorder()
        recorder.on_start(changing)
        report(recorder, changing, 10, 0.5)
        changing.overrides, changing.config = {"loss.lambda_u": 9.0}, {**CONFIG, "loss": {"lambda_u": 9.0}}
        recorder.on_start(changing)
        report(recorder, changing, 20, 0.6)
        recorder.close(timeout_s=0)
    delivery = recording.replay(store.folder / "search-001" / "outbox.jsonl", store.uri)
    assert (delivery.pending, delivery.rejected) == (0, 0)
    run = store.run("trial-000")
    assert (run.data.params["loss.lambda_u"], run.data.metrics["param/loss.lambda_u"]) == ("1.5", 9.0)
