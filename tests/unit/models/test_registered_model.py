"""Models in MLflow: a checkpoint without a second copy, and a winner that any process can load."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import yaml
from trained_runs import RATES, TrainedRuns

from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.ledger import LEDGER, read_ledger
from harness.models.find import find_run
from harness.reporting.record import read_or_rebuild
from harness.reporting.records import record_best
from harness.run_folder import LATEST
from harness.tracking import models as logged
from harness.tracking.models import log_external, read_registered, register_winner
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.stores import OUTBOX, connect_client, run_of
from trainers.errors import DataError, UsageError


class Recorded:
    """A trial's run, and what registering it needs."""

    def __init__(self, trained: TrainedRuns, trial: int) -> None:
        self.client = connect_client(trained.uri)
        self.found = find_run(f"search-001/{trial}", trained.storage, trained.uri)
        self.run_id = run_of(trained.uri, trained.storage / "search-001", trial)
        self.config_file = self.found.out / "config.yaml"
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(yaml.safe_dump(self.found.config.model_dump(mode="json")))

    def register(self, name: str, **more: object) -> str:
        return register_winner(
            self.client,
            self.run_id,
            name=name,
            config_file=str(self.config_file),
            alias="champion",
            metrics={},
            **{"checkpoint": str(self.found.checkpoint), "tags": {"s4.variant": "css_mix"}, **more},
        )

    def log(self, name: str, **more: object) -> str:
        about = {"tags": {}, "metrics": {}, "step": 0, **more}
        return log_external(self.client, self.run_id, name=name, uri=str(self.found.checkpoint), **about)

    def models(self, name: str) -> list[object]:
        experiment = self.client.get_run(self.run_id).info.experiment_id
        return list(self.client.search_logged_models([experiment], f"name = '{name}'"))


@pytest.fixture
def recorded(trained: TrainedRuns) -> Recorded:
    return Recorded(trained, 0)


def test_a_checkpoint_is_logged_once_as_a_model_that_says_where_it_lies(recorded: Recorded) -> None:
    assert recorded.log("external", step=6) == recorded.log("external", step=6)
    [model] = recorded.models("external")
    assert (str(model.status), model.tags["s4.checkpoint"]) == ("READY", str(recorded.found.checkpoint))
    assert model.tags["mlflow.model.isExternal"] == "true"


def test_of_a_checkpoint_only_a_description_is_uploaded(recorded: Recorded) -> None:
    recorded.log("described")
    [model] = recorded.models("described")
    assert [item.path for item in recorded.client.list_logged_model_artifacts(model.model_id)] == ["MLmodel"]


def test_a_model_is_an_output_of_its_run_once(recorded: Recorded) -> None:
    ids = [recorded.log("output") for _ in range(2)]
    outputs = [output.model_id for output in recorded.client.get_run(recorded.run_id).outputs.model_outputs]
    assert outputs.count(ids[0]) == 1


def test_metrics_are_shown_with_the_model_and_stay_single_in_the_run(recorded: Recorded) -> None:
    before = recorded.client.get_metric_history(recorded.run_id, "dev/miou")
    for _ in range(2):
        recorded.log("measured", metrics={"dev/miou": before[-1].value, "val/other": 0.25}, step=6)
    [model] = recorded.models("measured")
    assert {metric.key: metric.value for metric in model.metrics} == {"dev/miou": before[-1].value, "val/other": 0.25}
    assert recorded.client.get_metric_history(recorded.run_id, "dev/miou") == before
    assert len(recorded.client.get_metric_history(recorded.run_id, "val/other")) == 1


def test_the_best_trial_of_a_search_is_registered_with_its_config(trained: TrainedRuns, tmp_path: Path) -> None:
    folder = tmp_path / "search-001"
    shutil.copytree(trained.storage / "search-001", folder)
    experiment, trials = CssExperiment(trained.config, "digits_css"), read_ledger(folder / LEDGER).trials
    results = read_or_rebuild(folder)
    with MlflowRecorder(trained.uri, "s4", "search", "search-001", {}, folder / OUTBOX) as recorder:
        said = record_best(recorder, folder, experiment, results, trials)
    assert said == f"registered: trial {trained.best} as models:/s4-search-001@champion"
    model = read_registered(trained.uri, "models:/s4-search-001@champion")
    assert model.segmenter.config.optimizer.lr == RATES[trained.best]
    assert model.run_id == run_of(trained.uri, folder, trained.best)


def test_nothing_is_registered_without_a_checkpoint_or_a_complete_trial(trained: TrainedRuns, tmp_path: Path) -> None:
    results = read_or_rebuild(trained.storage / "search-001")
    experiment, recorder = CssExperiment(trained.config, "digits_css"), MagicMock()
    assert record_best(recorder, tmp_path, experiment, results, {}).startswith("nothing is registered: the checkpoint")
    none = replace(results, rows=[row for row in results.rows if row.state != "COMPLETE"])
    assert record_best(recorder, tmp_path, experiment, none, {}).endswith("no trial reached the horizon")
    assert recorder.mock_calls == []


def test_registered_twice_a_winner_has_one_version_with_the_alias(recorded: Recorded) -> None:
    assert [recorded.register("s4-twice") for _ in range(2)] == ["1", "1"]
    [version] = recorded.client.search_model_versions("name = 's4-twice'")
    assert version.tags == {
        "s4.variant": "css_mix", "s4.config_hash": recorded.found.config.hash, "s4.step": "6",
    }  # fmt: skip
    assert str(recorded.client.get_model_version_by_alias("s4-twice", "champion").version) == "1"


def test_another_winner_is_a_new_version_and_takes_the_alias(trained: TrainedRuns) -> None:
    versions = [Recorded(trained, trial).register("s4-next") for trial in (0, 1, 0)]
    assert versions == ["1", "2", "1"]
    client = connect_client(trained.uri)
    assert str(client.get_model_version_by_alias("s4-next", "champion").version) == "1"


def test_a_registration_that_broke_off_goes_on_without_a_second_model(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = recorded.client.log_model_artifacts

    def fails(model_id: str, folder: str) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(recorded.client, "log_model_artifacts", fails)
    with pytest.raises(ConnectionError):
        recorded.register("s4-broken")
    monkeypatch.setattr(recorded.client, "log_model_artifacts", upload)
    assert recorded.register("s4-broken") == "1"
    [model] = recorded.models(logged.model_name("s4-broken", recorded.found.config.hash, "6"))
    assert str(model.status) == "READY"


def test_a_fresh_process_elsewhere_loads_the_champion_with_mlflow_alone(
    trained: TrainedRuns, recorded: Recorded, tmp_path: Path
) -> None:
    recorded.register("s4-fresh")
    images = np.random.default_rng(0).random((2, 3, 32, 36), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import mlflow, numpy, torch\n"
        f"mlflow.set_tracking_uri({trained.uri!r})\n"
        "model = mlflow.pytorch.load_model('models:/s4-fresh@champion')\n"
        "numpy.save('logits.npy', model(torch.from_numpy(numpy.load('images.npy'))).numpy())\n"
        "print(*model.classes)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(recorded.found.config.data.classes)
    with torch.no_grad():
        expected = recorded.found.load()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)  # threads may add otherwise
    assert expected.shape == (2, 11, 32, 36)


@pytest.mark.parametrize("form", ["@champion", "/1"])
def test_a_registered_model_is_evaluated_like_its_checkpoint(
    form: str, trained: TrainedRuns, recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.register("s4-scored")
    found = find_run(f"models:/s4-scored{form}", trained.storage, trained.uri)
    assert (found.title, found.run_id, found.config) == ("models:/s4-scored/1", recorded.run_id, recorded.found.config)
    words = ["evaluate", f"models:/s4-scored{form}", "--split", "dev", "--no-pictures", "--no-record"]
    assert run([*words, *trained.options()]) == 0
    assert f"mIoU {trained.reports['search-001/0']['dev/miou']:.4f}" in capsys.readouterr().out


def test_a_version_that_is_not_there_is_answered_with_those_that_are(trained: TrainedRuns, recorded: Recorded) -> None:
    recorded.register("s4-versions")
    for form in ("/9", "@nobody"):
        with pytest.raises(UsageError, match="it has 1; aliases champion"):
            find_run(f"models:/s4-versions{form}", trained.storage, trained.uri)


def test_a_name_near_that_of_a_registered_model_is_suggested(trained: TrainedRuns, recorded: Recorded) -> None:
    recorded.register("s4-suggested")
    with pytest.raises(UsageError, match=r"did you mean s4-suggested\?"):
        find_run("models:/s4-sugested@champion", trained.storage, trained.uri)


def test_a_checkpoint_is_not_registered_with_another_config(trained: TrainedRuns) -> None:
    recorded = Recorded(trained, 1)
    with pytest.raises(DataError, match="must come from the same config"):
        recorded.register("s4-mixed", checkpoint=str(trained.storage / "first" / LATEST))
    assert list(recorded.client.search_registered_models("name = 's4-mixed'")) == []


@pytest.mark.parametrize(
    ("parts", "name"),
    [(("s4", "digits", "css_mix"), "s4-digits-css_mix"), (("a/b:c", "", "ü %"), "a_b_c-___"), ((), "_")],
)
def test_names_of_models_hold_what_mlflow_accepts(parts: tuple[str, ...], name: str) -> None:
    assert logged.model_name(*parts) == name
