"""`s4 show`: what a run is, from its folder alone, however it ended."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from invented.ablations import CONFIRMATION, PLAN, STRONG, made_ablation, made_request
from invented.searches import SEARCH, made_info, made_search, made_training

from harness.ablation.request import Confirms, write_request
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.one_driver import sole_driver
from harness.reporting.next_steps import ablate_command, begin_command
from harness.reporting.shown import lines, read_shown
from harness.run_folder import RunInfo, write_run
from harness.scaling.session import ScaleRequest, make_request
from harness.tracking.outbox import Outbox
from harness.tracking.stores import OUTBOX
from harness.tuning.config import SearchConfig
from search_spaces import load_space
from trainers.overrides import parse_settings

SETTINGS = parse_settings([
    "schedule.steps=40", "augment.labelled.jitter=0.25", "model.pool_norm=true", "augment.weak.crop=[24, 16]",
    "optimizer.lr=0.00001", "loss.class_weights=null", "data.dev=32",
])  # fmt: skip


def test_a_search_is_shown_with_its_best_trial(tmp_path: Path) -> None:
    shown = read_shown(made_search(tmp_path / "s"))
    assert (shown.kind, shown.state, shown.planned, shown.again) == ("search", "finished", len(SEARCH), None)
    assert shown.counts == {"COMPLETE": 3, "PRUNED": 2, "FAIL": 1}
    [best] = shown.best
    assert (best.title, best.value, best.where) == ("trial 1", 0.625, "at step 120")
    assert set(best.values) == set(load_space("css_quick").paths)
    words = [line.split() for line in lines(shown)]
    assert ["best", "trial", "1,", "dev/miou", "0.6250", "at", "step", "120"] in words
    assert ["css.label_strategy", "mix"] in words
    assert ["set", "by", "hand", "schedule.steps", "120"] in words


def test_a_search_that_ended_early_says_how_to_go_on(tmp_path: Path) -> None:
    shown = read_shown(made_search(tmp_path / "s", ended=False))
    assert (shown.state, shown.planned) == ("interrupted", len(SEARCH) + 10)
    assert shown.again == f"s4 tune --resume --name s --storage {tmp_path}"


def test_a_training_is_shown(tmp_path: Path) -> None:
    done, killed = read_shown(made_training(tmp_path / "t")), read_shown(made_training(tmp_path / "k", 60))
    assert (done.state, [best.title for best in done.best]) == ("finished", ["the training"])
    assert (killed.state, killed.counts, killed.best) == ("interrupted", {"INTERRUPTED": 1}, [])


def test_what_a_driver_is_at_is_running_and_what_it_left_open_was_killed(tmp_path: Path) -> None:
    folder = made_training(tmp_path / "t", 60)
    outbox = Outbox(folder / OUTBOX)
    outbox.append({"op": "open", "experiment": "s4", "kind": "train", "name": "t", "search_id": "1", "tags": {}})
    outbox.close()
    assert read_shown(folder).state == "killed"
    with sole_driver(folder):
        shown = read_shown(folder)
    assert (shown.state, shown.counts, shown.again) == ("running", {"RUNNING": 1}, None)
    assert str(shown.driver).startswith("process ")


def test_an_ablation_is_shown_with_the_variant_that_leads(tmp_path: Path) -> None:
    made_ablation(tmp_path / "a", missing=[("plain", 2)])
    shown = read_shown(tmp_path / "a")
    assert (shown.state, shown.planned, shown.counts) == ("interrupted", 9, {"COMPLETE": 8})
    assert (shown.task["seeds"], shown.task["plan"]) == ([0, 1, 2], "made_up")
    [best] = shown.best
    assert (best.title, best.metric, best.values) == (f"variant {STRONG}", "val/miou", {"loss.lambda_u": 2.0})
    assert shown.again == shown.command


@pytest.mark.parametrize("kind", ["search", "train", "ablation", "confirm", "scale"])
def test_a_run_that_was_killed_before_its_first_trial_is_shown(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    if kind in ("ablation", "confirm"):
        request = made_request(plan=CONFIRMATION if kind == "confirm" else PLAN)
        if kind == "confirm":
            request = replace(request, info=replace(request.info, kind="confirm"), confirms=Confirms("s", {}, {}, 0))
        write_request(folder, request)
    else:
        options = {"options": SearchConfig().model_dump(mode="json"), "space": load_space("css").text}
        scale = make_request(CssExperiment.of("digits_css"), "weak", (1, 2), 20, 5, 10, 3).as_plain()
        asked: Mapping[str, Any] = {"search": options, "scale": scale}.get(kind, {})
        write_run(folder, made_info(kind, {}, asked))  # type: ignore[arg-type]
    shown = read_shown(folder)
    assert (shown.kind, shown.state, shown.counts, shown.best) == (kind, "interrupted", {}, [])
    assert (shown.again is None) == (kind == "scale")
    assert "none began" in "\n".join(lines(shown))


def test_a_measurement_is_finished_once_it_is_written(tmp_path: Path) -> None:
    request = make_request(CssExperiment.of("digits_css"), "weak", (1, 2), 20, 5, 10, 3)
    (tmp_path / "m").mkdir()
    write_run(tmp_path / "m", made_info("scale", {}, request.as_plain()))
    (tmp_path / "m" / "scale.json").write_text("{}")
    shown = read_shown(tmp_path / "m")
    assert (shown.state, shown.counts, shown.again) == ("finished", {"COMPLETE": 2}, None)
    assert shown.command is not None
    assert shown.command.startswith("s4 scale digits_css --workers 1,2 --mode weak --steps 20")


def test_an_own_experiment_has_no_command(tmp_path: Path) -> None:
    folder = made_training(tmp_path / "t")
    write_run(folder, replace(made_info("train", {}, {}), trainer="Moons", config={"lr": 1.0}, preset="moons"))
    shown = read_shown(folder)
    assert (shown.command, shown.preset) == (None, "moons")
    assert any("in Python, with an experiment of the class Moons" in line for line in lines(shown))


def test_json_holds_the_same_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_search(tmp_path / "s", ended=False)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run(["show", "s", "--storage", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(asdict(read_shown(folder))))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_that_does_not_exist_is_refused_with_a_near_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_training(tmp_path / "first")
    assert run(["show", "frist", "--storage", str(tmp_path)]) == 2
    assert "did you mean first?" in capsys.readouterr().err


def begun_by(command: str, target: str, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return with what a command calls a function, which is not run."""
    called: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(*given: Any, **named: Any) -> None:
        called.append((given, named))
        raise KeyboardInterrupt

    monkeypatch.setattr(target, note)
    program, *words = shlex.split(command)
    assert program == "s4"
    run(words)
    return called[0]


def test_the_command_of_a_search_begins_the_same_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SearchConfig.of(
        space="css", trials=7, scheduler="none", objective=("dev/miou", "time/step_s:min"), sampler="nsga2",
        constraint=("time/step_s<=0.5",), stop_collapsed=False, max_hours=0.5, seed=3,
    )  # fmt: skip
    experiment = CssExperiment.of("digits_css", SETTINGS)
    asked = {"options": options.model_dump(mode="json"), "space": load_space("css").text}
    info = RunInfo.of("search", experiment, "dev/miou", asked)
    given, named = begun_by(begin_command(tmp_path / "s x", info), "harness.api.search", monkeypatch)
    assert CssExperiment.of(given[0], named["settings"]).base == experiment.base
    asked_again = {name: value for name, value in named.items() if name in SearchConfig.model_fields}
    assert SearchConfig.of(**asked_again) == options
    assert (named["name"], named["storage"]) == ("s x", tmp_path)


def test_the_command_of_a_training_begins_the_same_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = CssExperiment.of("digits_css", SETTINGS, "css_cross")
    info = RunInfo.of("train", experiment, "dev/miou", {"workers": "1:4", "cpus_per_worker": 3})
    given, named = begun_by(begin_command(tmp_path / "t", info), "harness.api.train", monkeypatch)
    assert CssExperiment.of(given[0], named["settings"]).base == experiment.base
    assert (named["workers"], named["cpus_per_worker"]) == ("1:4", 3)


def test_the_command_of_a_measurement_begins_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = make_request(CssExperiment.of("digits_css", SETTINGS), "strong", (1, 2), 3, 4, 5, 6, cpus=2)
    experiment = CssExperiment(request.config, request.preset, request.settings)
    info = RunInfo.of("scale", experiment, "images_per_s", request.as_plain())
    [again, *_], _ = begun_by(begin_command(tmp_path / "m", info), "harness.scaling.session.run_scaling", monkeypatch)
    assert isinstance(again, ScaleRequest)
    assert again == request


def test_the_command_of_an_ablation_sets_what_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation = made_ablation(tmp_path / "a")
    info = replace(ablation.request.info, settings=SETTINGS)
    ablation = replace(ablation, request=replace(ablation.request, info=info))
    command = ablate_command(ablation, tmp_path / "a", (0, 1))
    _, named = begun_by(command, "harness.api.ablate", monkeypatch)
    assert (named["settings"], named["seeds"]) == (SETTINGS, (0, 1))


@pytest.mark.parametrize(
    ("names", "top"), [(("trial 7", "trial 3"), "2"), (("trial 7", "ours"), "1"), (("ours",), "1")]
)
def test_the_spaces_own_values_do_not_count_among_the_best_of_a_confirmation(
    names: tuple[str, ...], top: str, tmp_path: Path
) -> None:
    variants = "".join(f"  {name}: {{loss.lambda_u: {at + 2}.0}}\n" for at, name in enumerate(names))
    request = made_request(plan=f"name: made_up\nsource: none\nvariants:\n  baseline: {{}}\n{variants}")
    ablation = made_ablation(tmp_path / "c", request=replace(request, confirms=Confirms("s", {}, {}, 0)))
    words = shlex.split(ablate_command(ablation, tmp_path / "c", (0, 1)))
    assert words[:5] == ["s4", "confirm", "s", "--top", top]
