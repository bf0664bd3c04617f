"""`s4 report` writes a page of every kind of run, of own experiments too, finished or killed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from invented.ablations import CONFIRMATION, OTHERS, made_ablation, made_request
from invented.scalings import made_scaling
from invented.searches import HORIZON, SEARCH, made_info, made_search, made_training

from harness.ablation.request import Confirms
from harness.ablation.results import RESULTS
from harness.cli.main import run
from harness.reporting.ablation.record import read_ablation
from harness.reporting.ablation.report import ablation_document
from harness.reporting.record import read_record
from harness.reporting.reports import search_document, to_markdown, training_document
from harness.run_folder import read_run, write_run


def confirmation(folder: Path, killed: bool) -> None:
    request = made_request(plan=CONFIRMATION)
    request = replace(request, info=replace(request.info, kind="confirm"), confirms=Confirms("s", {}, {}, 0))
    made_ablation(folder, request=request, dev_only=OTHERS, missing=[("trial 3", 2)] if killed else [])


def ablation(folder: Path, killed: bool) -> None:
    made_ablation(folder, (0, 1), missing=[("strong", 1)] if killed else [])


def search(folder: Path, killed: bool) -> None:
    made_search(folder, SEARCH[:3] if killed else SEARCH, ended=not killed)


def training(folder: Path, killed: bool) -> None:
    made_training(folder, 60 if killed else HORIZON)


def scaling(folder: Path, killed: bool) -> None:
    scaling = made_scaling(folder)
    write_run(folder, made_info("scale", {}, scaling.request))
    if killed:
        (folder / "scale.json").unlink()


KINDS: dict[str, Callable[[Path, bool], None]] = {
    "confirmation": confirmation, "ablation": ablation, "search": search, "training": training, "scaling": scaling,
}  # fmt: skip


def make_own(folder: Path) -> None:
    """Make it the run of an experiment of one's own, of which less is known."""
    info = replace(read_run(folder), trainer="Moons", preset="moons", config={"seed": 0, "lr": 0.1}, data_digest="")
    write_run(folder, info)


RUNS = [
    *((kind, True, killed) for kind in ("confirmation", "ablation", "search", "training") for killed in (False, True)),
    *((kind, False, killed) for kind in ("confirmation", "scaling") for killed in (False, True)),
]
LIKE_OTHERS = {("confirmation", True, True), ("confirmation", False, False), ("ablation", True, False),
               ("search", True, False), ("training", True, False)}  # fmt: skip
"""Runs whose pages are made as those of others are; the long tests have them."""


@pytest.mark.parametrize(
    ("kind", "own", "killed"),
    [pytest.param(*run, marks=[pytest.mark.long] if run in LIKE_OTHERS else []) for run in RUNS],
)
def test_a_run_has_a_page(
    kind: str, own: bool, killed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    KINDS[kind](tmp_path / "made-up", killed)
    if own:
        make_own(tmp_path / "made-up")
    if killed:
        (tmp_path / "made-up" / RESULTS).unlink(missing_ok=True)
    assert run(["report", "made-up", "--storage", str(tmp_path), "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"]).read_text(encoding="utf-8")
    assert "<h1>made-up</h1>" in page
    if killed:
        assert "Not measured to the end" in page if kind == "scaling" else "Not all tr" in page


@pytest.mark.parametrize("kind", ["confirmation", "ablation", "search", "training"])
def test_a_page_of_an_own_experiment_proposes_calls_in_place_of_commands_that_take_presets_alone(
    kind: str, tmp_path: Path
) -> None:
    KINDS[kind](tmp_path / kind, True)
    make_own(tmp_path / kind)
    (tmp_path / kind / RESULTS).unlink(missing_ok=True)
    if kind in ("search", "training"):
        record = read_record(tmp_path / kind)
        document = search_document(record) if kind == "search" else training_document(record)
    else:
        document = ablation_document(read_ablation(tmp_path / kind), tmp_path / kind)
    text = to_markdown(document, dict.fromkeys([one.name for one in (*document.figures, *document.pictures)], ""))
    for command in ("s4 tune", "s4 train", "s4 ablate", "s4 confirm"):
        assert command not in text
    function = {"confirmation": "confirm", "ablation": "ablate", "training": "train"}.get(kind, kind)
    assert f"harness.{function}(" in text


def test_a_page_of_a_measurement_holds_its_table_its_predictions_and_its_curve(tmp_path: Path) -> None:
    scaling(tmp_path / "m", False)
    assert run(["report", "m", "--storage", str(tmp_path)]) == 0
    text = (tmp_path / "m" / "report" / "report.md").read_text(encoding="utf-8")
    assert "| 2 | 285.8 | 0.911 |" in text
    assert "Predicted, not measured." in text
    assert (tmp_path / "m" / "report" / "figures" / "curve.png").exists()
    assert "s4 scale digits_css --workers 1,2 --mode weak" in text


def test_what_is_no_measurement_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaling(tmp_path / "m", False)
    (tmp_path / "m" / "scale.json").write_text("{}")
    assert run(["report", "m", "--storage", str(tmp_path)]) == 2
    assert "scale.json must be what s4 scale wrote, it is not: 'points'" in capsys.readouterr().err
