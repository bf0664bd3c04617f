"""`s4 confirm` before it trains: what is chosen, what is refused, and that a finished one is only shown."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.confirm.report import Confirmation, Outcome, write_confirmation
from harness.confirm.request import BASELINE, Request, make_request, write_request
from harness.tuning.manifest import Manifest, read_manifest, write_manifest

from harness.cli import confirm as module
from harness.cli.main import run
from harness.cluster import Slots
from harness.reporting.results import Results, Row, write_results
from search_spaces import load_space
from trainers.data.splits import open_splits
from trainers.overrides import apply_overrides, parse_settings
from trainers.presets import load_preset

SETTINGS = parse_settings(["data.labelled=16", "data.unlabelled=32", "data.dev=16", "model.width=8"])
SPACE = load_space("css_quick")


def manifest_of(settings: dict[str, Any] = SETTINGS) -> Manifest:
    config = apply_overrides(load_preset("digits_css"), settings)
    digest = open_splits(config.data).digest
    return Manifest("digits_css", settings, config, digest, SPACE, "dev/miou")


def row(number: int, best: float, lambda_u: float, state: str = "COMPLETE", **more: Any) -> Row:
    values = {**SPACE.baseline, "loss.lambda_u": lambda_u}
    config_hash = apply_overrides(manifest_of().config, values).hash
    fields = {"best_step": 900, "step": 900, "error": None, "start_s": None, "report_s": None}
    return Row(**{**fields, "number": number, "state": state, "best": best, "values": values,
                  "config_hash": config_hash, **more})  # fmt: skip


PUBLISHED = SPACE.baseline["loss.lambda_u"]
assert isinstance(PUBLISHED, float)
ROWS = [row(3, 0.8, 2.0), row(5, 0.7, 2.0), row(2, 0.6, 3.0), row(0, 0.5, PUBLISHED), row(7, 0.4, PUBLISHED)]
PRUNED = [row(1, 0.9, 0.5, "PRUNED")]


def results_of(rows: list[Row], name: str = "searched", kind: str = "search") -> Results:
    return Results(name, kind, "digits_css", SPACE.name, "dev/miou", 900, 1.0, "uri", SPACE.paths, rows)


def write_search(runs: Path, rows: list[Row], name: str = "searched", kind: str = "search") -> None:
    write_results(runs / name, results_of(rows, name, kind))
    write_manifest(runs / name, manifest_of())


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(module, "local_slots", lambda: Slots(2, "CPU"))
    return tmp_path / "runs"


def asked(top: int = 2, seeds: tuple[int, ...] = (0, 1)) -> Request:
    return make_request(results_of([*ROWS, *PRUNED]), manifest_of(), top, seeds, False)


def test_the_best_complete_trials_are_confirmed_each_configuration_once() -> None:
    # Trial 5 is trial 3 again, trial 7 is the baseline again, trial 1 was stopped early.
    assert [item.trial for item in asked().configurations] == [0, 3, 2]


def test_the_baseline_is_the_published_one_even_if_the_search_did_not_complete_it() -> None:
    request = make_request(results_of(ROWS[:1]), manifest_of(), 1, (0, 1), False)
    assert (request.configurations[0].label, request.configurations[0].overrides) == (BASELINE, SPACE.baseline)
    assert request.configurations[0].found is None


def test_a_run_resolves_to_the_config_that_the_search_trained_but_for_its_seed() -> None:
    request = asked(seeds=(0, 1))
    config = apply_overrides(manifest_of().config, request.overrides(1))
    assert (config.hash, config.seed) == (ROWS[0].config_hash, 0)


def test_the_seeds_of_the_request_win_over_that_of_the_search() -> None:
    config = apply_overrides(manifest_of({**SETTINGS, "seed": 9}).config, asked(seeds=(4, 5)).overrides(0))
    assert config.seed == 4


Change = Callable[[Path], None]
WRONG: dict[str, tuple[str, Change]] = {
    "confirm nothing": ("got 'nothing': known: searched", lambda runs: None),
    "confirm search": ("got 'search': did you mean searched?", lambda runs: None),
    "confirm searched --top 3": ("--top must be at most the 2 complete trials of searched", lambda runs: None),
    "confirm searched --seeds 0,1,1": ("--seeds must be different ones, got 1 twice", lambda runs: None),
    "confirm searched --seeds 0": ("--seeds must be at least two, for an interval, got 0", lambda runs: None),
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
        "a search must be confirmed, trained is a train",
        lambda runs: write_search(runs, ROWS, "trained", "train"),
    ),
    "confirm old --top 1": (
        "a search must have written",
        lambda runs: write_results(runs / "old", results_of(ROWS, "old")),
    ),
    "confirm other --top 1": (
        "trial 3 of other must be the same now as then, its config had hash x and has",
        lambda runs: write_search(runs, [replace(ROWS[0], config_hash="x")], "other"),
    ),
    "confirm data --top 1": (
        "the data must be that of data, its splits had digest gone",
        lambda runs: (
            write_search(runs, ROWS, "data"),
            write_manifest(runs / "data", replace(manifest_of(), data_digest="gone")),
        )[0],
    ),
    "confirm speed --top 1": (
        "must maximise a metric dev/..., speed has time/step_s",
        lambda runs: (
            write_search(runs, ROWS, "speed"),
            write_manifest(runs / "speed", replace(manifest_of(), metric="time/step_s")),
        )[0],
    ),
    "confirm searched --top 1 --seeds 0,2 --name begun": (
        "a confirmation must go on as it began, begun began with other seeds, configurations",
        lambda runs: write_request(runs / "begun", asked()),
    ),
}


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


def finished(runs: Path, val: bool) -> Confirmation:
    request = asked()
    write_search(runs, [*ROWS, *PRUNED])
    write_request(runs / "searched-confirm", request)
    outcomes = [Outcome(item, {0: 0.5 + 0.01 * item.trial, 1: 0.51}) for item in request.configurations]
    found = Confirmation("searched-confirm", request, outcomes, "uri")
    if val:
        found = found.with_val({label: {0: 0.4, 1: 0.45} for label in found.to_validate()})
    write_confirmation(runs / "searched-confirm", found)
    return found


LINE = ["confirm", "searched", "--top", "2", "--seeds", "0,1"]


def test_a_finished_confirmation_is_shown_and_nothing_is_trained_or_evaluated_again(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(runs, val=True)
    monkeypatch.setattr(module, "_run", lambda *_: pytest.fail("it ran again"))
    assert run([*LINE, "--json"]) == 0
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert shown["chosen"] == "trial 2"
    assert shown["outcomes"][0]["val"] == {"0": 0.4, "1": 0.45}
    assert "on val, which decided nothing" in captured.err


def test_one_that_was_interrupted_before_the_validation_goes_on_from_its_choice(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finished(runs, val=False)
    seen: list[Confirmation | None] = []

    def goes_on(task: Any, known: Confirmation | None, *_: Any) -> Confirmation:
        seen.append(known)
        return found

    monkeypatch.setattr(module, "_run", goes_on)
    assert run(LINE) == 0
    assert seen == [found]


def test_the_manifest_that_the_tests_write_is_one(runs: Path) -> None:
    write_search(runs, ROWS)
    assert read_manifest(runs / "searched").config == manifest_of().config
