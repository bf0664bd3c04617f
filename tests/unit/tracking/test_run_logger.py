"""Files, tags, late metrics, data sets and summaries of several runs, against a real SQLite store."""

import json
from pathlib import Path

import pytest
from recorded import Store, play, wait_until_sent

from harness.experiment import CssExperiment
from harness.tracking.run_logger import FILES, HERE
from harness.tracking.stores import NOTE
from harness.trials import TrialState


def artifacts(store: Store, run: str, folder: str | None = None) -> list[str]:
    return [item.path for item in store.client.list_artifacts(store.run(run).info.run_id, folder)]


def test_a_text_is_an_artifact_of_the_trial_that_is_named(store: Store) -> None:
    with store.recorder("ablation") as recorder:
        play(recorder, 0, TrialState.COMPLETE)
        recorder.artifact("tables/seed.md", "| 1 |", trial=0)
        recorder.artifact("all.md", "| 2 |")
    assert artifacts(store, "trial-000", "tables") == ["tables/seed.md"]
    assert artifacts(store, "search-001") == ["all.md"]


def test_a_file_is_an_artifact_in_the_folder_that_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
        recorder.file(tmp_path / "picture.png", trial=0, folder="val/first")
        recorder.file(tmp_path / "picture.png")
    assert artifacts(store, "trial-000", "val/first") == ["val/first/picture.png"]
    assert artifacts(store, "search-001") == ["picture.png"]


def test_a_file_that_is_gone_is_skipped_and_counted(store: Store, tmp_path: Path) -> None:
    recorder = store.recorder()
    recorder.file(tmp_path / "gone.png")
    recorder.artifact("after.md", "x")
    delivery = recorder.close()
    assert (delivery.rejected, delivery.pending) == (1, 0)
    assert artifacts(store, "search-001") == ["after.md"]


def test_tags_are_set_on_a_trial_or_on_the_search_and_may_change(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
        recorder.tag({"s4.chosen": "no"}, trial=0)
        recorder.tag({"s4.chosen": "yes"}, trial=0)
        recorder.tag({"s4.winner": 0})
    assert store.run("trial-000").data.tags["s4.chosen"] == "yes"
    assert store.run("search-001").data.tags["s4.winner"] == "0"


def test_a_note_leads_to_the_page_of_its_run_and_to_its_artifacts(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
        recorder.note(f"[page]({HERE}/artifacts) ![picture]({FILES}a.png)", trial=0)
    run = store.run("trial-000").info
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts"
    note = f"[page]({page}) ![picture](get-artifact?run_uuid={run.run_id}&path=a.png)"
    assert store.run("trial-000").data.tags[NOTE] == note


def test_a_note_that_is_too_long_is_cut_and_arrives(store: Store) -> None:
    recorder = store.recorder()
    recorder.note("word " * 5000)
    assert recorder.close().rejected == 0
    assert store.run("search-001").data.tags[NOTE].startswith("word word")


@pytest.mark.parametrize(("state", "status"), [(TrialState.COMPLETE, "FINISHED"), (TrialState.PRUNED, "KILLED")])
def test_late_metrics_leave_a_run_that_has_ended_as_it_ended(store: Store, state: TrialState, status: str) -> None:
    recorder = store.recorder()
    play(recorder, 0, state)
    wait_until_sent(recorder)
    ended = store.run("trial-000").info.end_time
    recorder.metrics({"val/miou": 0.5, "val/bad": float("nan")}, 900, trial=0)
    recorder.close()
    run = store.run("trial-000")
    assert (run.info.status, run.info.end_time, run.data.metrics["val/miou"]) == (status, ended, 0.5)
    assert "val/bad" not in run.data.metrics


def summarise(recorder: object, n: int, mean: float) -> None:
    recorder.aggregate(  # type: ignore[attr-defined]
        "css/mix's", "css_mix", {"dev/mean": mean}, {"s4.n": n}, {"method": "css_mix", "n": n}, step=n
    )


def test_a_summary_is_a_finished_child_of_its_own(store: Store) -> None:
    with store.recorder("ablation") as recorder:
        play(recorder, 0, TrialState.COMPLETE)
        summarise(recorder, 3, 0.5)
    run = store.run("css_mix")
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == store.run("search-001").info.run_id
    assert (run.data.tags["s4.kind"], run.data.tags["s4.n"]) == ("aggregate", "3")
    assert run.data.params == {"method": "css_mix", "n": "3"}


def test_a_summary_that_is_made_again_is_the_same_run_with_new_metrics_and_tags(store: Store) -> None:
    for n, mean in ((3, 0.5), (5, 0.6)):
        with store.recorder("ablation") as recorder:  # the second time by another driver
            summarise(recorder, n, mean)
    run = store.run("css_mix")
    history = store.client.get_metric_history(run.info.run_id, "dev/mean")
    assert [(point.step, point.value) for point in history] == [(3, 0.5), (5, 0.6)]
    assert (run.data.tags["s4.n"], run.data.params["n"], run.info.status) == ("5", "3", "FINISHED")


def test_data_sets_are_inputs_of_the_parent_and_of_its_trials_each_with_its_context(store: Store) -> None:
    with store.recorder() as recorder:
        recorder.dataset("digits/labelled", "0a1b", "digits", context="training", profile={"images": 80})
        recorder.dataset("digits/dev", "0a1c", "digits", context="dev")
        recorder.dataset("digits/dev", "0a1c", "digits", context="dev")
        play(recorder, 0, TrialState.COMPLETE)
    with store.recorder() as resumed:
        play(resumed, 1, TrialState.COMPLETE)
    for name in ("search-001", "trial-000", "trial-001"):
        inputs = store.run(name).inputs.dataset_inputs
        found = {(item.dataset.name, item.dataset.digest, item.tags[0].value) for item in inputs}
        assert found == {("digits/labelled", "0a1b", "training"), ("digits/dev", "0a1c", "dev")}
        assert len(inputs) == 2
        [profile] = [json.loads(item.dataset.profile) for item in inputs if item.dataset.name == "digits/labelled"]
        assert profile == {"images": 80}


def test_a_trial_on_other_data_than_the_search_does_not_have_its_data_sets(store: Store) -> None:
    recorder = store.recorder()
    recorder._trial_tags = lambda trial: {"s4.data_digest": "other"} if trial.number else {}
    recorder.dataset("digits/dev", "0a1c", "digits", context="dev")
    for number in range(2):
        play(recorder, number, TrialState.COMPLETE)
    recorder.close()
    assert [len(store.run(name).inputs.dataset_inputs) for name in ("trial-000", "trial-001")] == [1, 0]


def test_a_data_set_of_any_size_is_taken(store: Store) -> None:
    with store.recorder() as recorder:
        recorder.dataset("n" * 600, "d" * 60, "s" * 70_000, context="val", profile={"x": "p" * 2_000_000})
    [found] = store.run("search-001").inputs.dataset_inputs
    assert (len(found.dataset.name), len(found.dataset.digest)) == (500, 36)
    assert "left_out" in found.dataset.profile


def test_more_tags_and_metrics_than_a_request_takes_arrive_all(store: Store) -> None:
    recorder = store.recorder()
    play(recorder, 0, TrialState.COMPLETE)
    recorder.tag({f"tag{index}": "é" * 8000 for index in range(130)}, trial=0)
    recorder.metrics({f"class{index}/iou": index for index in range(2500)}, 1, trial=0)
    delivery = recorder.close()
    run = store.run("trial-000")
    assert (delivery.rejected, len([key for key in run.data.tags if key.startswith("tag")])) == (0, 130)
    assert len([key for key in run.data.metrics if key.startswith("class")]) == 2500


def test_a_difference_that_is_too_long_for_a_tag_is_cut_between_two_of_its_items(store: Store) -> None:
    changes = ", ".join(f"loss.weight_{index}=0.125" for index in range(1000))
    recorder = store.recorder("ablation")
    recorder._trial_tags = lambda _: {"s4.diff": changes}
    play(recorder, 0, TrialState.COMPLETE)
    assert recorder.close().rejected == 0
    assert store.run("trial-000").data.tags["s4.diff"].endswith("=0.125, ...")


def test_the_data_of_a_config_are_its_training_images_and_its_dev_images(store: Store, tmp_path: Path) -> None:
    experiment = CssExperiment.of("digits_css")
    config = experiment.base
    with store.recorder() as recorder:
        experiment.record_inputs(recorder, tmp_path)
    inputs = store.run("search-001").inputs.dataset_inputs
    contexts = {item.dataset.name: item.tags[0].value for item in inputs}
    assert contexts == {"digits train": "training", "digits dev": "dev"}
    profiles = {item.dataset.name: json.loads(item.dataset.profile) for item in inputs}
    assert profiles["digits train"] == {"labelled": config.data.labelled, "unlabelled": config.data.unlabelled}
    assert profiles["digits dev"] == {"images": config.data.dev}


def test_a_checkpoint_is_a_model_of_its_trial(store: Store, tmp_path: Path) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
        for _ in range(2):
            recorder.model("labels/mix/seed0", str(tmp_path), trial=0, tags={"s4.step": 900}, metrics={"dev/miou": 0.5})
    run = store.run("trial-000")
    [model] = store.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    assert (model.tags["s4.checkpoint"], model.tags["s4.step"]) == (str(tmp_path), "900")
    assert model.name == "labels-mix-seed0"
    assert run.info.status == "FINISHED"


def test_a_winner_whose_files_are_gone_is_skipped_and_counted(store: Store, tmp_path: Path) -> None:
    recorder = store.recorder()
    play(recorder, 0, TrialState.COMPLETE)
    recorder.register("digits", tmp_path / "gone.pt", tmp_path / "gone.yaml", trial=0)
    delivery = recorder.close()
    assert (delivery.rejected, delivery.pending) == (1, 0)
    assert "must hold a config" in str(delivery.note)


def test_a_summary_that_has_not_changed_leaves_one_point(store: Store) -> None:
    for _ in range(2):
        with store.recorder("ablation") as recorder:
            summarise(recorder, 3, 0.5)
    history = store.client.get_metric_history(store.run("css_mix").info.run_id, "dev/mean")
    assert [(point.step, point.value) for point in history] == [(3, 0.5)]
