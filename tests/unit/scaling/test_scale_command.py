"""`s4 scale`: what it refuses, in one line, and what its tables, picture and simulation say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from invented.scalings import sample

from harness.cli.main import run
from harness.cli.scale import MEASURING, SIMULATING, scale
from harness.scaling.model import Mode, fit_all, gather_points
from harness.scaling.report import FILES, Scaling, draw_curve, lines, write
from harness.scaling.session import ScaleRequest
from trainers.presets import load_preset


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("harness.cluster.cores", lambda: 2)


WRONG = {
    "scale digits_cs": "got 'digits_cs': did you mean digits_css?",
    "scale --workers 2,1": "--workers must be whole numbers from 1 on, ascending, got '2,1'",
    "scale --workers 1,2,4": "--workers must be at most the 2 CPUs there are, got 4",
    "scale --mode strong --set schedule.labelled_batch=9 --workers 1,2": "got 9 for 2 workers",
    "scale --mode weakly": "--mode",
    "scale --name taken": "a name must be free,",
    "scale --gangs 8": "--gangs must go with --simulate, got none",
    "scale --simulate taken --steps 5": "--steps must be left out with --simulate, which measures nothing, got both",
    "scale digits_css --simulate taken": "PRESET must be left out with --simulate",
    "scale --simulate taken --set seed=1": "--set must be left out with --simulate",
    "scale --simulate nothing": "got 'nothing'",
    "scale --simulate taken": "lacks it: run s4 tune",
    "scale --simulate taken --gangs 8,8": "--gangs must be whole numbers from 1 on, ascending",
    "scale --simulate taken --failures-per-day x": "--failures-per-day must be numbers from 0 on",
    "scale --simulate taken --failures-per-day -1": "--failures-per-day must be numbers from 0 on",
    "scale --simulate search --workers 2,4": "--workers must be one number with --simulate, got 2,4",
    "scale --simulate search --workers-per-gang 4": "must be that of the search, 1, where no --scaling tells",
    "scale --simulate search --workers-per-gang 4 --scaling taken": "--scaling must name a measurement of s4 scale",
    "scale --simulate search --workers-per-gang 4 --scaling weak": "must name a strong scaling with 1 and 4 workers",
}


def write_search(folder: Path) -> None:
    folder.mkdir(parents=True)
    ledger = []
    for number in range(4):
        begun = 10.0 * (number // 2)
        ledger.append(
            {"event": "start", "trial": number, "time": begun, "params": {}, "overrides": {}, "config_hash": ""}
        )
        ledger.append({"event": "end", "trial": number, "time": begun + 10, "state": "COMPLETE", "error": None})
    (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ledger))


def measured(mode: Mode = "weak", counts: tuple[int, ...] = (1, 2), name: str = "made-up") -> Scaling:
    request = ScaleRequest("digits_css", load_preset("digits_css"), mode, counts, 20, 5, 10, 2)
    samples = {
        n: [sample(n, 0.1 + 0.01 * (n - 1) + extra, request.images_of(n), 1e-5, 1e-10) for extra in (0.0, 0.004)]
        for n in counts
    }
    fit = fit_all(mode, samples, {n: request.images_of(n) for n in (8, 64, 512)})
    return Scaling(name, request.as_plain(), "CPU", 1, tuple(gather_points(samples)), fit, "", "uri")


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_answered_in_one_line(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "a-file").touch()
    write_search(tmp_path / "runs" / "search")
    write(tmp_path / "runs" / "weak", measured(counts=(1, 4)))
    before = sorted(tmp_path.rglob("*"))
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert WRONG[line] in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert sorted(tmp_path.rglob("*")) == before


def test_every_option_belongs_to_measuring_or_simulating_or_both() -> None:
    both = {"simulate", "workers", "storage", "as_json", "context"}
    assert {*MEASURING, *SIMULATING} | both == scale.__annotations__.keys() - {"return"}


def test_a_simulation_needs_no_ray_and_repeats_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_search(tmp_path / "runs" / "search")
    line = "scale --simulate search --trials 100 --gangs 2,50 --failures-per-day 0,50 --json"
    assert run(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["check"]["ratio"] == pytest.approx(1)
    assert [(row["gangs"], row["failures_per_worker_day"]) for row in found["rows"]] == [
        (2, 0.0), (2, 50.0), (50, 0.0), (50, 50.0),
    ]  # fmt: skip
    assert found["rows"][0]["hours"] == pytest.approx(100 * 10 / 2 / 3600)
    assert all(row["prediction"] for row in found["rows"])


def test_a_strong_scaling_tells_how_much_faster_more_workers_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_search(tmp_path / "runs" / "search")
    write(tmp_path / "runs" / "strong", measured("strong", (1, 2)))
    line = "scale --simulate search --workers 2 --scaling strong --gangs 1 --failures-per-day 0 --json"
    assert run(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["factor"] == pytest.approx(0.112 / 0.102)
    assert found["rows"][0]["hours"] == pytest.approx(1000 * 10 * 0.112 / 0.102 / 3600)


def test_predictions_are_marked_wherever_they_are_written(tmp_path: Path) -> None:
    write(tmp_path, measured())
    texts = {name: (tmp_path / name).read_text() for name in FILES}
    found = json.loads(texts["scale.json"])
    assert [row["workers"] for row in found["predictions"]] == [8, 64, 512]
    assert all(row["prediction"] for row in found["predictions"])
    assert [line.split(",")[1] for line in texts["scale.csv"].splitlines()[1:]] == ["measured"] * 2 + ["prediction"] * 3
    assert "Predictions, not measured:" in texts["scale.md"]
    assert any(line.startswith("PREDICTIONS, not measured") for line in lines(measured()))


def test_a_point_says_what_the_command_promises(tmp_path: Path) -> None:
    write(tmp_path, measured())
    point = json.loads((tmp_path / "scale.json").read_text())["points"][1]
    assert {"workers", "images_per_s", "efficiency", "bytes_per_step", "communication_s", "input_s",
            "peak_memory_bytes"} <= point.keys()  # fmt: skip
    assert point["bytes_unexplained"] == 0


@pytest.mark.parametrize("found", [measured(), measured("strong", (1, 2, 4))], ids=["weak", "strong"])
def test_the_curve_is_a_picture(found: Scaling, tmp_path: Path) -> None:
    draw_curve(found, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_can_do_without_a_model(tmp_path: Path) -> None:
    alone = {1: [sample(1, 0.1, 16)]}
    asked = ScaleRequest("digits_css", load_preset("digits_css"), "weak", (1,), 20, 5, 10, 1).as_plain()
    found = Scaling("one", asked, "CPU", 1, tuple(gather_points(alone)), None, "only one worker", "uri")
    draw_curve(found, tmp_path / "scale.png")
    assert lines(found)[-1] == "no model: only one worker"


def test_a_machine_that_was_busy_with_other_things_is_named() -> None:
    found = measured()
    assert not any("BUSY" in line for line in lines(found))
    disturbed = replace(found, points=(found.points[0], replace(found.points[1], others_cores=1.4)))
    assert any("BUSY MACHINE: other processes kept up to 1.4 cores" in line for line in lines(disturbed))
