"""What RUN may be: a training, a trial, an MLflow run, a registered model; and what is answered to anything else."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from trained_runs import RATES, TrainedRuns

from harness.ablation.request import Request, Run, write_request
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.ledger import LEDGER
from harness.models.find import TrainedRun, find_run
from harness.run_folder import LATEST, RunInfo
from harness.tracking.stores import connect_client, run_of
from search_spaces.ablation import Variant
from trainers.errors import UsageError
from trainers.overrides import apply_overrides


def find(trained: TrainedRuns, word: str) -> TrainedRun:
    return find_run(word, trained.storage, trained.uri)


def test_a_name_means_the_training(trained: TrainedRuns) -> None:
    found = find(trained, "first")
    assert (found.title, found.config, found.checkpoint) == (
        "first",
        trained.config,
        trained.storage / "first" / LATEST,
    )


@pytest.mark.parametrize("number", [0, 1])
def test_a_number_means_the_trial_with_its_config(trained: TrainedRuns, number: int) -> None:
    found = find(trained, f"search-001/{number}")
    assert found.config == apply_overrides(trained.config, {"optimizer.lr": RATES[number]})
    assert found.load().step == 6


def test_the_name_of_a_search_means_its_best_complete_trial(trained: TrainedRuns) -> None:
    assert find(trained, "search-001").title == f"search-001/{trained.best}"


def test_a_run_of_a_confirmation_is_found_by_its_number(trained: TrainedRuns) -> None:
    found = find(trained, "search-001-confirm/0")
    assert found.config == apply_overrides(trained.config, {"optimizer.lr": RATES[0]})
    assert found.load().step == 6


@pytest.fixture
def ablated(trained: TrainedRuns, tmp_path: Path) -> Path:
    """A storage with an ablation of which run 1 is trial 1 of the search."""
    shutil.copytree(trained.storage / "search-001", tmp_path / "ablation")
    (tmp_path / "ablation" / "run.yaml").unlink()
    variant = Variant("183/+ rate", {"optimizer.lr": RATES[1]})
    info = RunInfo.of("ablation", CssExperiment(trained.config, "digits_css"), "dev/miou", {})
    runs = (Run(variant.name, 7), Run(variant.name, 3))
    write_request(tmp_path / "ablation", Request(info, "plan", "", variant.name, (variant,), runs, False))
    return tmp_path


@pytest.mark.parametrize("word", ["ablation/1", "ablation/183/+ rate/3"])
def test_a_run_of_an_ablation_is_found_by_its_number_and_by_its_label(
    word: str, ablated: Path, trained: TrainedRuns
) -> None:
    found = find_run(word, ablated, trained.uri)
    assert found.config == apply_overrides(trained.config, {"optimizer.lr": RATES[1]})
    assert found.title == "ablation/183/+ rate/3"


@pytest.mark.parametrize(
    ("word", "said"),
    [("ablation", "must be named as ablation/VARIANT/SEED"), ("ablation/rate/3", "must be a number or VARIANT/SEED"),
     ("ablation/9", "must be one of 0 to 2")],
)  # fmt: skip
def test_a_label_that_is_none_is_answered_with_those_there_are(
    word: str, said: str, ablated: Path, trained: TrainedRuns
) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        find_run(word, ablated, trained.uri)
    assert str(refusal.value).endswith("ablation keeps the checkpoints of trials 183/+ rate/7, 183/+ rate/3")


def test_an_mlflow_run_of_a_trial_means_that_trial(trained: TrainedRuns) -> None:
    run_id = run_of(trained.uri, trained.storage / "search-001", 1)
    assert run_id is not None
    found = find(trained, run_id)
    assert (found.title, found.run_id) == ("search-001/1", run_id)


def test_the_name_of_an_mlflow_run_means_it_where_it_is_the_only_one(trained: TrainedRuns, tmp_path: Path) -> None:
    renamed = dataclasses.replace(trained, storage=tmp_path / "elsewhere")
    assert find(renamed, "trial-001").title == "search-001/1"


def test_the_mlflow_run_of_a_search_means_its_best_trial(trained: TrainedRuns, tmp_path: Path) -> None:
    found = find_run("search-001", tmp_path / "elsewhere", trained.uri)
    assert (found.title, found.run_id) == (f"search-001/{trained.best}", None)


def test_each_trial_has_a_run_of_its_own(trained: TrainedRuns) -> None:
    ids = [run_of(trained.uri, trained.storage / "search-001", number) for number in RATES]
    client = connect_client(trained.uri)
    assert [client.get_run(one).data.tags["s4.trial"] for one in ids] == ["0", "1", "2"]


def test_a_training_is_run_zero_of_itself(trained: TrainedRuns) -> None:
    run_id = run_of(trained.uri, trained.storage / "first", 0)
    assert connect_client(trained.uri).get_run(run_id).info.run_name == "first"


def test_the_model_that_is_loaded_is_the_teacher(trained: TrainedRuns) -> None:
    state = torch.load(trained.storage / "first" / LATEST, weights_only=True)
    loaded = find(trained, "first").load().network.state_dict()
    assert all(torch.equal(value, state["teacher"][name]) for name, value in loaded.items())


WRONG = {
    "frist": "did you mean first",
    "search-001/2": r"search-001/2 \(PRUNED\) has none: search-001 keeps the checkpoints of trials 0, 1",
    "search-001/7": "must be one of 0 to 2, got search-001/7",
    "search-001/x/1": "a trial must be a number, got search-001/x/1: search-001 keeps the checkpoints of trials 0, 1",
    "first/1": "a training has no trials, got first/1: write first",
    "search-001-confirm": "a trial must be named as search-001-confirm/TRIAL",
    "models:/nothing@champion": "a registered model must exist, got models:/nothing@champion",
    "models:/nothing": "must be models:/NAME@ALIAS or models:/NAME/VERSION",
    "'; drop": "RUN must be NAME, NAME/TRIAL",
}


@pytest.mark.parametrize("word", WRONG)
def test_anything_else_is_refused_in_one_line(word: str, trained: TrainedRuns) -> None:
    with pytest.raises(UsageError, match=WRONG[word]) as refusal:
        find(trained, word)
    assert "\n" not in str(refusal.value)


def test_a_wrong_run_ends_with_exit_code_2(trained: TrainedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "frist", *trained.options()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "did you mean first" in said.err


def test_where_nothing_was_trained_no_store_is_created(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train first"):
        find_run("first", tmp_path / "runs", f"sqlite:///{tmp_path / 'new.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_folder_is_not_here_says_where_it_was(trained: TrainedRuns, tmp_path: Path) -> None:
    client = connect_client(trained.uri)
    experiment = client.create_experiment(tmp_path.name, artifact_location=tmp_path.as_uri())
    run_id = client.create_run(experiment, tags={"s4.folder": "/gone/far-away", "s4.trial": "0"}).info.run_id
    with pytest.raises(UsageError, match=r"must be seen from here, that of .* is /gone/far-away: mount it, or copy"):
        find(trained, run_id)


def test_a_run_of_another_program_is_refused(trained: TrainedRuns, tmp_path: Path) -> None:
    client = connect_client(trained.uri)
    experiment = client.create_experiment(tmp_path.name, artifact_location=tmp_path.as_uri())
    with pytest.raises(UsageError, match="must be one that s4 recorded"):
        find(trained, client.create_run(experiment).info.run_id)


def test_a_trial_that_means_something_else_now_is_refused(trained: TrainedRuns, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(trained.storage / "search-001", folder)
    ledger = folder / LEDGER
    ledger.write_text(ledger.read_text().replace(find(trained, "search-001/1").config.hash, "0123456789ab"))
    with pytest.raises(UsageError, match="its config had hash 0123456789ab"):
        find_run("changed/1", tmp_path, trained.uri)
