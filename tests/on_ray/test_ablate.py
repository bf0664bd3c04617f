"""A small ablation of the real trainer through the command line: trained, added to, and its books."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mlflow import MlflowClient
from scipy import stats

from harness.cli.main import run
from trainers.image_evaluation import load_image_evaluation

PLAN = """
name: small
source: made up
preset: digits_css
base: mix
variants:
  mix: {css.label_strategy: mix}
  logit: {css.label_strategy: logit}
  broken: {optimizer.lr: 1.0e+30}
"""
SETTINGS = ("data.labelled=16", "data.unlabelled=32", "data.dev=16", "data.val=16", "model.width=8",
            "model.representation_dim=16", "loss.queries=16", "loss.negatives=16", "thresholds.delta_u=0.1",
            "schedule.steps=6", "schedule.evaluate_every=3")  # fmt: skip

pytestmark = [pytest.mark.usefixtures("ray_here"), pytest.mark.timeout(600)]


class Said(NamedTuple):
    code: int
    data: dict[str, Any]
    words: str


class Ablated(NamedTuple):
    """What the command left: two seeds, then a third, then nothing new."""

    folder: Path
    two: Said
    three: Said
    again: Said

    def runs(self, kind: str) -> list[Any]:
        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        experiment = client.get_experiment_by_name("s4")
        return [run for run in client.search_runs([experiment.experiment_id]) if run.data.tags["s4.kind"] == kind]


def s4(folder: Path, *words: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    line = ["ablate", "plan.yaml", *words, *(word for setting in SETTINGS for word in ("--set", setting)), "--json"]
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(line)
    return Said(code, json.loads(out.getvalue() or "{}"), err.getvalue())


@pytest.fixture(scope="module")
def ablated(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Ablated:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("ablated")
        (folder / "plan.yaml").write_text(PLAN)
        return Ablated(folder, s4(folder, "--seeds", "0,1"), s4(folder, "--seeds", "0,1,2", "--register"), s4(folder))


def row(said: Said, variant: str) -> Mapping[str, Any]:
    return next(row for row in said.data["variants"] if row["variant"] == variant)


def test_its_table_is_that_of_the_seeds_scores(ablated: Ablated) -> None:
    assert ablated.three.code == 0
    mix, logit = (list(row(ablated.three, name)["scores"].values()) for name in ("mix", "logit"))
    expected = stats.ttest_rel(logit, mix).confidence_interval(0.95)
    found = row(ablated.three, "logit")
    assert (found["n"], found["mean"]) == (3, pytest.approx(np.mean(logit)))
    assert found["difference"] == pytest.approx(np.mean(logit) - np.mean(mix))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(tuple(expected))
    assert found["p"] is None  # three seeds allow none below 0.05


def test_a_seed_that_is_added_trains_only_what_is_missing(ablated: Ablated) -> None:
    events = [json.loads(line) for line in (ablated.folder / "runs/small/trials.jsonl").read_text().splitlines()]
    starts = [event["trial"] for event in events if event["event"] == "start"]
    assert sorted(starts) == list(range(9))  # two gangs: either may be first
    assert "9 trainings of 6 steps, 3 to train" in ablated.three.words
    assert row(ablated.three, "mix")["scores"].items() > row(ablated.two, "mix")["scores"].items()


def test_a_finished_one_is_only_shown(ablated: Ablated) -> None:
    assert "nothing to train" in ablated.again.words
    assert ablated.again.data["variants"] == ablated.three.data["variants"]


def test_a_variant_that_diverges_fails_and_the_others_are_compared(ablated: Ablated) -> None:
    broken = [run for run in ablated.three.data["outcomes"] if run["variant"] == "broken"]
    assert {run["state"] for run in broken} == {"FAIL"}
    assert all("DivergedError" in run["error"] for run in broken)
    assert row(ablated.three, "broken")["verdict"] == "too few seeds"


def test_its_scores_are_those_of_its_confusion_matrices(ablated: Ablated) -> None:
    for outcome in ablated.three.data["outcomes"]:
        if outcome["state"] == "COMPLETE":
            folder = ablated.folder / f"runs/small/trials/{outcome['number']:05d}"
            for split in ("dev", "val"):
                found = load_image_evaluation(folder / f"{split}.npz")
                assert found.confusion.shape == (16, 11, 11)
                assert found.miou == pytest.approx(outcome["metrics"][f"{split}/miou"], abs=1e-9)


def test_mlflow_has_a_run_a_variant_and_seed_and_a_summary_a_variant(ablated: Ablated) -> None:
    (parent,) = ablated.runs("ablation")
    trials, summaries = ablated.runs("trial"), ablated.runs("aggregate")
    assert {run.data.tags["mlflow.parentRunId"] for run in [*trials, *summaries]} == {parent.info.run_id}
    names = {run.info.run_name for run in trials}
    assert names == {f"{variant}, seed {seed}" for variant in ("mix", "logit", "broken") for seed in range(3)}
    assert {run.info.run_name for run in summaries} == {"mix", "logit"}
    assert "RUNNING" not in {run.info.status for run in [parent, *trials, *summaries]}


def test_a_summary_says_mean_spread_and_difference_of_all_seeds(ablated: Ablated) -> None:
    (logit,) = [run for run in ablated.runs("aggregate") if run.info.run_name == "logit"]
    scores = list(row(ablated.three, "logit")["scores"].values())
    metrics = logit.data.metrics
    assert (logit.data.tags["s4.seeds"], metrics["seeds"]) == ("0, 1, 2", 3)
    assert metrics["mean/val/miou"] == pytest.approx(np.mean(scores))
    assert metrics["std/val/miou"] == pytest.approx(np.std(scores, ddof=1))
    base = list(row(ablated.three, "mix")["scores"].values())
    by_seed = np.subtract(scores, base)
    low, high = stats.t.interval(0.95, 2, np.mean(by_seed), stats.sem(by_seed))
    assert (metrics["ci_low/val/miou"], metrics["ci_high/val/miou"]) == pytest.approx((low, high))
    assert logit.data.params["diff"] == "css.label_strategy=logit"


def test_validation_scores_and_pictures_are_with_each_run(ablated: Ablated) -> None:
    client = MlflowClient(f"sqlite:///{ablated.folder}/mlflow.db")
    whole = [run for run in ablated.runs("trial") if run.info.status == "FINISHED"]
    assert len(whole) == 6
    for trained in whole:
        variant, seed = (trained.data.tags[f"s4.{name}"] for name in ("variant", "seed"))
        assert trained.data.metrics["val/miou"] == row(ablated.three, variant)["scores"][seed]
        kept = {file.path for file in client.list_artifacts(trained.info.run_id)}
        assert {"overlays.png", "confusion.png", "dev", "val"} <= kept


def test_data_sets_are_on_the_parent_and_on_each_run(ablated: Ablated) -> None:
    for each in (*ablated.runs("ablation"), *ablated.runs("trial")):
        contexts = {tag.value for entry in each.inputs.dataset_inputs for tag in entry.tags}
        assert contexts == {"training", "dev", "val"}


def test_checkpoints_are_models_without_a_copy_and_the_winner_is_registered(ablated: Ablated) -> None:
    client = MlflowClient(f"sqlite:///{ablated.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("s4")
    models = client.search_logged_models([experiment.experiment_id])
    external = [model for model in models if model.model_type == "checkpoint"]
    assert len(external) == 6
    assert all(Path(model.tags["s4.checkpoint"]).is_file() for model in external)
    version = client.get_model_version_by_alias("s4-small", "champion")
    assert version.tags["s4.variant"] == ablated.three.data["winner"]
    assert version.tags["s4.search"] == "small"


def test_the_report_is_written_and_recorded(ablated: Ablated) -> None:
    client = MlflowClient(f"sqlite:///{ablated.folder}/mlflow.db")
    (parent,) = ablated.runs("ablation")
    page = (ablated.folder / "runs/small/report/report.html").read_text()
    assert "broken" in page
    assert "report" in {file.path for file in client.list_artifacts(parent.info.run_id)}
