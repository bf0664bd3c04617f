"""Folders that version 0.1 left are shown and gone on with; of a confirmation it is said that it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.ablation.request import begun, make_request, read_request
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.run_folder import RunInfo, read_run, run_names
from harness.tuning.config import SearchConfig
from search_spaces.ablation import load_plan
from search_spaces.space import parse_space

BEGUN = {"search": "search", "training": "train", "ablation": "ablation"}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = Path(shutil.copytree(Path(__file__).parent / "version_1", tmp_path / "runs"))
    (storage / "ablation" / "ablation.json").touch()  # results that are older than their ledger are out of date
    return storage


@pytest.mark.parametrize(("name", "kind"), BEGUN.items())
def test_what_a_run_began_with_is_read_and_is_the_same_now(name: str, kind: str, storage: Path) -> None:
    info = read_run(storage / name)
    experiment = CssExperiment.of(info.preset, info.settings)
    assert (info.kind, info.horizon, info.report_every, info.trainer) == (kind, 20, 10, "css")
    assert (info.config_hash, info.data_digest) == (experiment.resolve({})[1], experiment.data_digest)
    assert run_names(storage) == ["ablation", "confirmation", "search", "training"]


def test_options_and_space_of_a_search_are_read(storage: Path) -> None:
    asked = read_run(storage / "search", "search").request
    assert SearchConfig.of(**asked["options"]).trials == 3
    assert [SearchConfig.of(threads_per_worker=threads).cpus_per_worker for threads in (1, 3)] == [None, 3]
    assert parse_space(asked["space"]).name == "css_quick"


def test_an_ablation_takes_more_seeds(storage: Path) -> None:
    before = read_request(storage / "ablation")
    experiment = CssExperiment.of(before.preset, before.settings)
    info = RunInfo.of("ablation", experiment, "dev/miou", {})
    asked = make_request(load_plan("css_labels"), info, experiment, (0, 1, 2), vary_data=False)
    assert begun(storage / "ablation", asked) == before
    assert len(before.runs) == 8


@pytest.mark.parametrize(("name", "said"), [("search", "3 trials (3 complete)"), ("ablation", "within noise")])
def test_it_is_reported(name: str, said: str, storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", name, "--storage", str(storage), "--json"]) == 0
    captured = capsys.readouterr()
    assert said in captured.err
    assert Path(json.loads(captured.out)["report"]).stat().st_size > 100_000


def test_a_training_that_is_over_is_not_gone_on_with(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--resume", "--name", "training", "--storage", str(storage)]) == 2
    assert "training is complete: s4 report training shows it" in capsys.readouterr().err


def test_a_confirmation_is_refused_in_one_line(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "confirmation", "--storage", str(storage)]) == 2
    said = capsys.readouterr().err
    assert "a confirmation of version 0.1 cannot go on or be shown: confirm the search again by a new --name" in said
    assert said.count("\n") == 1
