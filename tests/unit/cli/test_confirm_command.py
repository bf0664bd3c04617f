"""`s4 confirm` before it trains: what is chosen, what is refused, and that a finished one is only shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import api, session
from harness.ablation.request import Request, read_request, write_request
from harness.ablation.results import Ablation, Outcome, read_results, write_results
from harness.api import comparisons
from harness.cli.main import run
from harness.cluster import Slots
from harness.experiment import CssExperiment
from harness.reporting.results import Results, Row
from harness.reporting.results import write_results as write_search_results
from harness.run_folder import RunInfo, read_run, write_run
from harness.tuning.config import SearchConfig
from search_spaces import load_space

SETTINGS = {"data.labelled": 16, "data.unlabelled": 32, "data.dev": 16, "model.width": 8}
EXPERIMENT, SPACE = CssExperiment.of("digits_css", SETTINGS), load_space("css_quick")
REQUEST = {"options": SearchConfig.of(trials=4).model_dump(mode="json"), "space": SPACE.text}
INFO = RunInfo.of("search", EXPERIMENT, "dev/miou", REQUEST)


def row(number: int, best: float, lambda_u: float, state: str = "COMPLETE", **more: Any) -> Row:
    values = {**SPACE.baseline, "loss.lambda_u": lambda_u}
    fields = {"best_step": 900, "step": 900, "error": None, "start_s": None, "report_s": None}
    return Row(**{**fields, "number": number, "state": state, "best": best, "values": values,
                  "config_hash": EXPERIMENT.resolve(values)[1], **more})  # fmt: skip


PUBLISHED = SPACE.baseline["loss.lambda_u"]
assert isinstance(PUBLISHED, float)
ROWS = [row(3, 0.8, 2.0), row(5, 0.7, 2.0), row(2, 0.6, 3.0), row(0, 0.5, PUBLISHED), row(7, 0.4, PUBLISHED)]
PRUNED = [row(1, 0.9, 0.5, "PRUNED")]


def write_search(runs: Path, rows: list[Row], name: str = "searched", info: RunInfo = INFO) -> None:
    results = Results(name, info.kind, "digits_css", SPACE.name, "dev/miou", 900, 1.0, "uri", SPACE.paths, rows)
    write_search_results(runs / name, results)
    write_run(runs / name, info)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(session, "local_slots", lambda *_: Slots(2, "CPU"))
    return tmp_path / "runs"


class StartedError(Exception):
    """A session would begin to train now."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Requests of the sessions that would have begun to train."""
    seen: list[Request] = []

    def ablate_session(folder: Path, request: Request, *_: Any, **__: Any) -> Ablation:
        seen.append(request)
        raise StartedError

    monkeypatch.setattr(comparisons, "ablate_session", ablate_session)
    return seen


def confirm(runs: Path, asked: list[Request], **options: Any) -> Request:
    with pytest.raises(StartedError):
        api.confirm("searched", storage=runs, quiet=True, **options)
    return asked[-1]


def test_the_best_complete_trials_are_confirmed_each_configuration_once(runs: Path, asked: list[Request]) -> None:
    # Trial 5 is trial 3 again, trial 7 is the baseline again, trial 1 was stopped early.
    write_search(runs, [*ROWS, *PRUNED])
    request = confirm(runs, asked, top=2, seeds=(0, 1))
    assert [variant.name for variant in request.variants] == ["baseline", "trial 3", "trial 2"]
    overrides = {**request.overrides(request.runs[1])}
    assert overrides.pop("seed") == 0
    assert EXPERIMENT.resolve(overrides)[1] == ROWS[0].config_hash


def test_the_baseline_is_the_published_one_even_if_the_search_did_not_complete_it(
    runs: Path, asked: list[Request]
) -> None:
    write_search(runs, ROWS[:1])
    request = confirm(runs, asked, top=1, seeds=(0, 1))
    assert request.variants[0].overrides == SPACE.baseline
    assert request.confirms is not None
    assert request.confirms.best["baseline"] is None


def test_the_seeds_of_the_request_win_over_that_of_the_search(runs: Path, asked: list[Request]) -> None:
    experiment = CssExperiment.of("digits_css", {**SETTINGS, "seed": 9})
    rows = [replace(ROWS[0], config_hash=experiment.resolve(ROWS[0].values)[1])]
    write_search(runs, rows, info=RunInfo.of("search", experiment, "dev/miou", REQUEST))
    request = confirm(runs, asked, top=1, seeds=(4, 5))
    assert experiment.configure(request.overrides(request.runs[0])).seed == 4


Change = Callable[[Path], None]
WRONG: dict[str, tuple[str, Change]] = {
    "confirm nothing": ("got 'nothing': known: searched", lambda runs: None),
    "confirm search": ("got 'search': did you mean searched?", lambda runs: None),
    "confirm searched --top 3": ("--top must be at most the 2 complete trials of searched", lambda runs: None),
    "confirm searched --top 1 --seeds 0,1,1": ("--seeds must be different ones, got 1 twice", lambda runs: None),
    "confirm searched --top 1 --seeds 0,": ("--seeds must be at least two, for an interval, got 0", lambda runs: None),
    "confirm searched --seeds 0,x": ("--seeds must be whole numbers from 0", lambda runs: None),
    "confirm searched --seeds=0,-1": ("--seeds must be whole numbers from 0", lambda runs: None),
    "confirm searched --top 1 --name a/b": ("a name must be letters, digits", lambda runs: None),
    "confirm searched --top 1 --workers 3": ("schedule.labelled_batch is shared by all workers", lambda runs: None),
    "confirm searched --top 1 --gangs 3": ("gangs x workers must be at most the 2 CPUs", lambda runs: None),
    "confirm searched --top 1 --name searched": ("exists and is no confirmation", lambda runs: None),
    "confirm pruned --top 1": (
        "must have complete trials beside the baseline to be confirmed, pruned has none",
        lambda runs: write_search(runs, [ROWS[3], *PRUNED], "pruned"),
    ),
    "confirm trained --top 1": (
        "trained must be a search, it is a training",
        lambda runs: write_search(runs, ROWS, "trained", replace(INFO, kind="train")),
    ),
    "confirm other --top 1": (
        "trial 3 of other must be the same now as then, its config had hash x and has",
        lambda runs: write_search(runs, [replace(ROWS[0], config_hash="x")], "other"),
    ),
    "confirm data --top 1": (
        "the data must be that of data, its splits had digest gone",
        lambda runs: write_search(runs, ROWS, "data", replace(INFO, data_digest="gone")),
    ),
    "confirm speed --top 1": (
        "must maximise a metric dev/..., speed has time/step_s",
        lambda runs: write_search(runs, ROWS, "speed", replace(INFO, metric="time/step_s")),
    ),
    "confirm searched --top 2 --seeds 0,2 --name begun": (
        "a confirmation must go on as it began, the seeds of begun differ now",
        lambda runs: _begin(runs),
    ),
}


def _begin(runs: Path) -> None:
    finished(runs, val=False)
    (runs / "searched-confirm").rename(runs / "begun")


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_in_a_confirmation_is_answered_in_one_line(
    line: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, change = WRONG[line]
    write_search(runs, [*ROWS, *PRUNED])
    change(runs)
    before = sorted(path for path in runs.rglob("*"))
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(path for path in runs.rglob("*")) == before


def finished(runs: Path, val: bool) -> Ablation:
    """Write a confirmation of which everything was trained, and with `val` evaluated."""
    write_search(runs, [*ROWS, *PRUNED])
    seen: list[Request] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparisons, "ablate_session", lambda folder, request, *_, **__: seen.append(request))
        api.confirm("searched", top=2, seeds=(0, 1), storage=runs, quiet=True)
    [request] = seen
    folder = runs / "searched-confirm"
    write_request(folder, request)
    dev = {"baseline": 0.5, "trial 3": 0.51, "trial 2": 0.52}
    outcomes = [
        Outcome(number, of.variant, of.seed, "COMPLETE", {
            "dev/miou": dev[of.variant] + 0.001 * of.seed,
            **({"val/miou": 0.4 + 0.05 * of.seed} if val and of.variant in ("baseline", "trial 2") else {}),
        })
        for number, of in enumerate(request.runs)
    ]  # fmt: skip
    ablation = Ablation(folder.name, request, outcomes, "val/miou", "uri", 1.0, 2.0)
    write_results(folder, ablation)
    return ablation


LINE = ["confirm", "searched", "--top", "2", "--seeds", "0,1"]


def test_a_finished_confirmation_is_shown_and_nothing_is_trained_or_evaluated_again(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(runs, val=True)
    monkeypatch.setattr(session, "ray_session", lambda *_, **__: pytest.fail("it ran again"))
    assert run([*LINE, "--json"]) == 0
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert (shown["chosen"], shown["confirms"], shown["beat_the_noise"]) == ("trial 2", "searched", False)
    assert [of["metrics"]["val/miou"] for of in shown["outcomes"] if of["variant"] == "baseline"] == [0.4, 0.45]
    assert "on val, which decided nothing" in re.sub(r"\s+", " ", captured.err)


def test_one_that_was_interrupted_before_the_validation_goes_on_from_its_choice(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finished(runs, val=False)

    def goes_on(*_: Any, **__: Any) -> None:
        raise StartedError

    monkeypatch.setattr(session, "ray_session", goes_on)
    with pytest.raises(StartedError):
        api.confirm("searched", top=2, seeds=(0, 1), storage=runs, quiet=True)
    again = read_results(runs / "searched-confirm")
    assert (again.chosen, again.to_evaluate) == (found.chosen, found.to_evaluate)
    assert read_request(runs / "searched-confirm") == found.request


def test_the_search_that_the_tests_write_is_one(runs: Path) -> None:
    write_search(runs, ROWS)
    assert read_run(runs / "searched", "search") == INFO
