"""Variants that only dev has seen, as in a confirmation: one is chosen there, and it and the baseline alone have a val
score."""

from pathlib import Path

import pytest
from invented.ablations import BASELINE, CHOSEN, CONFIRMATION, OTHERS, made_ablation, made_request

from harness.ablation.results import RESULTS
from harness.reporting.ablation.overview import lead
from harness.reporting.ablation.record import read_ablation, read_record
from harness.reporting.ablation.report import ablation_document
from harness.reporting.document import Document, Note, Section
from harness.reporting.reports import report_on

SEEDS = (0, 1, 2)
LEFT_OUT = "Trained, but not evaluated by val/miou, so without a number here: trial 7, trial 12."


def confirmed(folder: Path, dev_only: tuple[str, ...] = OTHERS) -> Document:
    """Return the report of four variants, of which some have no score on the validation images."""
    request = made_request(SEEDS, plan=CONFIRMATION)
    return ablation_document(made_ablation(folder, request=request, dev_only=dev_only), folder)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return confirmed(tmp_path_factory.mktemp("confirmed") / "a")


def section(document: Document, title: str) -> Section:
    return next(section for section in document.sections if section.title == title)


def notes(section: Section) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Note) and block.kind == "missing"]


def test_the_lead_is_on_the_chosen_variant_alone(document: Document) -> None:
    assert document.lead.startswith("trial 3 (+0.07")
    assert document.lead.endswith("is better than baseline in val/miou, over 3 paired seeds.")


def test_the_lead_claims_nothing_of_variants_without_a_score(tmp_path: Path) -> None:
    request = made_request(SEEDS, plan=CONFIRMATION)
    ablation = made_ablation(tmp_path / "a", request=request, dev_only=(CHOSEN, "trial 7"))
    assert lead(ablation).startswith("No variant with val/miou differs from baseline")


def test_the_overview_names_variants_without_a_score_once(document: Document) -> None:
    assert notes(section(document, "Overview")) == [
        "Trained, but without val/miou, so not compared: trial 7; trial 12."
    ]


@pytest.mark.parametrize("title", ["Comparison", "Differences and their noise", "Seeds", "Classes"])
def test_every_section_of_val_scores_says_whom_it_leaves_out(document: Document, title: str) -> None:
    assert LEFT_OUT in notes(section(document, title))


def test_tables_of_val_call_them_not_evaluated_and_those_of_dev_judge_them(document: Document) -> None:
    tables = {table.name: table for table in document.tables}
    verdicts = {name: [row[-1] for row in tables[name].rows] for name in ("comparison", "noise")}
    assert verdicts["comparison"] == ["the base", "not evaluated", "better", "not evaluated"]
    assert verdicts["noise"] == ["not evaluated", "better", "not evaluated"]
    assert "not evaluated" not in [row[-1] for row in tables["comparison-dev-miou"].rows]
    assert all(None not in row for row in tables["scores-dev-miou"].rows)
    assert tables["scores"].rows[1] == ["trial 7", None, None, None]


def test_classes_and_seeds_show_what_was_evaluated(document: Document) -> None:
    tables = {table.name: table for table in document.tables}
    figures = {figure.name: figure for figure in document.figures}
    assert [column.title for column in tables["classes"].columns] == ["class", BASELINE, CHOSEN]
    assert [column.title for column in tables["class-differences"].columns] == ["class", CHOSEN]
    assert {row[1] for row in figures["class-differences"].data.rows} == {CHOSEN}
    assert {row[0] for row in figures["forest"].data.rows} == {CHOSEN}
    assert {row[0] for row in figures["seeds"].data.rows} == {BASELINE, CHOSEN}


def test_curves_show_every_variant(document: Document) -> None:
    [figure] = [figure for figure in document.figures if figure.name == "learning-curves"]
    assert {row[1] for row in figure.data.rows} == {BASELINE, CHOSEN, *OTHERS}


@pytest.mark.parametrize(
    "dev_only",
    [
        pytest.param(OTHERS, marks=pytest.mark.long),
        (BASELINE, *OTHERS),
        pytest.param((CHOSEN, *OTHERS), marks=pytest.mark.long),
        (BASELINE, CHOSEN, *OTHERS),
    ],
    ids=len,
)
def test_the_report_is_written_whoever_lacks_a_score(tmp_path: Path, dev_only: tuple[str, ...]) -> None:
    document = confirmed(tmp_path / "a", dev_only)
    assert report_on(tmp_path / "a")[0].exists()
    assert {"Comparison", "Seeds", "Classes", "Learning curves"} <= {section.title for section in document.sections}
    if dev_only != OTHERS:
        assert document.lead == (
            "No variant can be compared yet: it takes val/miou of it and of baseline with the same seed."
        )


def test_results_made_again_from_the_ledger_have_the_same_gaps(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", request=made_request(SEEDS, plan=CONFIRMATION), dev_only=OTHERS)
    (tmp_path / "a" / RESULTS).unlink()
    assert read_ablation(tmp_path / "a").to_dict() == ablation.to_dict() | {"tracking_uri": ""}
    assert read_record(ablation, tmp_path / "a").unscored == list(OTHERS)
