"""The report of an ablation as a whole: what it says first, what it does without, and that it stands alone."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invented.ablations import EVERY, ODD, PLAIN, STRONG, made_ablation, made_request
from PIL import Image

from harness.ablation.results import RESULTS, Ablation
from harness.cli.main import run
from harness.reporting.ablation.comparison import cautions
from harness.reporting.ablation.overview import lead
from harness.reporting.ablation.record import read_record
from harness.reporting.ablation.report import ablation_document
from harness.reporting.ablation.trainings import pictures, same_seed, take_apart
from harness.reporting.document import Document, Figure, Note
from harness.reporting.next_steps import ablate_command
from harness.reporting.reports import report_on
from harness.run_folder import OVERLAYS, checkpoint_folder
from harness.statistics.power import DELTAS
from trainers.figure import COLUMNS, GAP, HEADER

SEEDS = (0, 1, 2)


def notes(document: Document, kind: str) -> str:
    blocks = [block for section in document.sections for block in section.blocks]
    return "\n".join(block.text for block in blocks if isinstance(block, Note) and block.kind == kind)


def titles(document: Document) -> list[str]:
    return [section.title for section in document.sections]


def picture_of(folder: Path, ablation: Ablation, shade: int) -> None:
    """Give every run a picture as the trainer draws it, of two images: the columns have shades of grey of their own."""
    for number, _ in enumerate(ablation.request.runs):
        sheet = np.full((HEADER + 2 * (20 + GAP), GAP + len(COLUMNS) * (30 + GAP), 3), 255, np.uint8)
        for column in range(len(COLUMNS)):
            for row in range(2):
                top, left = HEADER + row * (20 + GAP), GAP + column * (30 + GAP)
                sheet[top : top + 20, left : left + 30] = shade + 10 * column + number
        path = checkpoint_folder(folder / "trials", number) / OVERLAYS
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "first"
    ablation = made_ablation(folder, failed=[(ODD, 2)])
    picture_of(folder, ablation, 40)
    return report_on(folder)[0].parent


def test_the_page_asks_nothing_of_any_other_file_or_host(written: Path) -> None:
    page = (written / "report.html").read_text()
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)", page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for pair in addresses for address in pair if address)
    assert "://" not in page


def test_names_of_variants_are_escaped_in_every_format(written: Path) -> None:
    assert "<b>" not in re.sub(r"<b>(Note|Missing|Caution)\.</b>", "", (written / "report.html").read_text())
    assert r"odd\_100\% \textbar{} \textless{}b\textgreater{}" in (written / "tables" / "comparison.tex").read_text()
    assert r"odd_100% \| \<b\>" in (written / "report.md").read_text()


def test_every_figure_has_both_looks_and_its_numbers(written: Path) -> None:
    names = {path.name.removesuffix(".csv") for path in (written / "figures").glob("*.csv")}
    assert names >= {"forest", "seeds", "class-differences", "learning-curves", "losses", "pseudo-label-miou", "health",
                     "predictions"}  # fmt: skip
    pictures = {path.name for path in (written / "figures").glob("*.png")}
    assert pictures == {f"{name}-{theme}.png" for name in names for theme in ("light", "dark")}


def test_a_latex_table_prints_minus_signs_within_intervals(written: Path) -> None:
    lines = (written / "tables" / "comparison.tex").read_text().splitlines()
    row = next(line for line in lines if line.startswith(r"odd\_"))
    assert re.search(r"\[\$-\$0\.\d{4}, ", row)
    assert not re.search(r"(?<!\$)-0\.", row)


def test_a_failed_training_is_in_the_table_of_failures_with_its_step_and_reason(written: Path) -> None:
    rows = (written / "tables" / "failures.csv").read_text().splitlines()
    assert rows[1] == f"8,{ODD},2,failed,{2 * EVERY},DivergedError: the loss is nan | at step 41 <b>"


def test_the_lead_tells_what_is_better_over_how_many_seeds(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a")
    gain = ablation.compare("val/miou")[STRONG].difference
    assert lead(ablation) == (
        f"strong ({gain:+.4f}) is better than plain in val/miou, over 3 paired seeds; 1 variant lies within the noise "
        "of seeds."
    )


def test_the_lead_claims_nothing_where_all_is_within_noise(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", failed=[(STRONG, seed) for seed in SEEDS])
    assert lead(ablation).startswith(
        "No variant differs from plain by more than the noise of seeds over 3 paired seeds"
    )


def test_one_seed_has_no_intervals_and_the_report_says_so(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", (0,))
    document = ablation_document(ablation, tmp_path / "a")
    assert lead(ablation).startswith("One seed each: strong is furthest from plain")
    assert "there are no intervals and no verdicts" in notes(document, "caution")
    assert "What seeds do can be told from two seeds on" in notes(document, "missing")
    assert {table.name: table for table in document.tables}["comparison"].bold == frozenset()


def test_without_a_complete_base_nothing_is_compared_and_all_sections_stand(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", (0, 1), failed=[(PLAIN, 0), (PLAIN, 1)])
    document = ablation_document(ablation, tmp_path / "a")
    assert lead(ablation).startswith("No variant can be compared yet")
    assert {"Comparison", "Differences and their noise", "Seeds", "Classes", "Failures"} <= {*titles(document)}
    assert "No variant has a seed in common with the base." in notes(document, "missing")


def test_an_ablation_without_any_complete_training_has_a_report(tmp_path: Path) -> None:
    runs = [(name, 0) for name in (PLAIN, STRONG, ODD)]
    ablation = made_ablation(tmp_path / "a", (0,), failed=runs[:1], missing=runs[1:])
    assert report_on(tmp_path / "a")[0].exists()
    assert "No complete training has a value of val/miou." in notes(
        ablation_document(ablation, tmp_path / "a"), "missing"
    )


def test_lost_confusion_matrices_cost_the_interval_over_images_alone(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", unseen=[(STRONG, seed) for seed in SEEDS])
    document = ablation_document(ablation, tmp_path / "a")
    [figure] = [figure for figure in document.figures if figure.name == "forest"]
    assert {(row[0], row[1]) for row in figure.data.rows} == {
        (STRONG, "seed"), (STRONG, "seeds"), (ODD, "seed"), (ODD, "seeds"), (ODD, "images"),
    }  # fmt: skip
    assert "No interval over images for strong" in notes(document, "missing")


def test_missing_trainings_are_counted_and_the_command_that_trains_them_is_given(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", missing=[(ODD, 2)])
    document = ablation_document(ablation, tmp_path / "a")
    assert "Not all trainings are over" in notes(document, "remark")
    command = ablate_command(ablation, tmp_path / "a", SEEDS)
    assert command.startswith("s4 ablate made_up.yaml --preset digits_css --seeds 0,1,2 --set schedule.steps=60 ")


def test_a_report_of_some_variants_shows_these_alone_and_its_commands_ask_for_no_others(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", request=made_request(SEEDS, only=[STRONG]))
    document = ablation_document(ablation, tmp_path / "a")
    shown = {table.name: [row[0] for row in table.rows] for table in document.tables}
    assert (shown["comparison"], shown["scores"], shown["variants"]) == ([PLAIN, STRONG],) * 3
    assert notes(document, "missing") == "No picture (`overlays.png`) of plain, strong."
    assert " --seeds 0,1,2 --only strong " in ablate_command(ablation, tmp_path / "a", SEEDS)


@pytest.mark.parametrize(("vary_data", "said"), [(False, True), (True, False)])
def test_seeds_on_the_same_split_are_a_caution(tmp_path: Path, vary_data: bool, said: bool) -> None:
    ablation = made_ablation(tmp_path / "a", request=made_request(SEEDS, vary_data=vary_data))
    assert any("train on the same labelled images" in text for text in cautions(ablation)) == said


def test_pictures_put_the_columns_of_variants_side_by_side(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a")
    picture_of(tmp_path / "a", ablation, 40)
    record = read_record(ablation, tmp_path / "a")
    runs = same_seed(record)
    assert [(run.seed, run.variant) for run in runs] == [(0, PLAIN), (0, STRONG), (0, ODD)]
    tiles = take_apart(record.trial_folder(runs[1]) / OVERLAYS)
    assert tiles is not None
    assert [row["prediction"].shape for row in tiles] == [(20, 30, 3)] * 2
    assert {int(row["prediction"].max()) for row in tiles} == {40 + 10 * COLUMNS.index("prediction") + 1}


def test_pictures_are_of_the_seed_that_most_variants_have(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", failed=[(STRONG, 0)])
    picture_of(tmp_path / "a", ablation, 40)
    assert {run.seed for run in same_seed(read_record(ablation, tmp_path / "a"))} == {1}


def test_a_picture_of_another_kind_is_left_out_and_named(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a")
    picture_of(tmp_path / "a", ablation, 40)
    Image.new("RGB", (101, 77), "red").save(checkpoint_folder(tmp_path / "a" / "trials", 1) / OVERLAYS)
    section = pictures(read_record(ablation, tmp_path / "a"))
    figures = [block for block in section.blocks if isinstance(block, Figure)]
    assert [row[0] for row in figures[0].data.rows] == [PLAIN, ODD]
    assert [block.text for block in section.blocks if isinstance(block, Note)] == [
        "No picture (`overlays.png`) with seed 0 of strong."
    ]


def test_s4_report_shows_an_unfinished_ablation_and_writes_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation = made_ablation(tmp_path / "first", (0,), missing=[(ODD, 0)])
    (tmp_path / "first" / RESULTS).unlink()
    monkeypatch.setattr("harness.reporting.reports.report_on", lambda folder: [folder / "drawn.html"])
    assert run(["report", "first", "--storage", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(tmp_path / "first" / "drawn.html")
    assert (told["winner"], told["variants"][1]["mean"]) == (STRONG, ablation.scores(STRONG, "val/miou")[0])
    assert [run["state"] for run in told["outcomes"]] == ["COMPLETE", "COMPLETE", "MISSING"]


def test_one_configuration_by_itself_says_how_far_its_seeds_scatter(tmp_path: Path) -> None:
    made = made_request((0, 1, 2))
    only = replace(made, variants=made.variants[:1], runs=tuple(item for item in made.runs if item.variant == PLAIN))
    ablation = made_ablation(tmp_path / "noise", request=only)
    document = ablation_document(ablation, tmp_path / "noise")
    assert document.lead.startswith("plain reaches val/miou")
    titles = [section.title for section in document.sections]
    assert "Differences and their noise" not in titles
    assert ablate_command(ablation, tmp_path / "noise", (0, 1, 2, 3)).startswith("s4 noise digits_css --seeds 4 ")
    (needed,) = [table for table in document.tables if table.name == "seeds-needed"]
    assert [row[0] for row in needed.rows] == list(DELTAS)


def test_a_report_of_two_seeds_says_that_it_decides_nothing(tmp_path: Path) -> None:
    document = ablation_document(made_ablation(tmp_path / "a", (0, 1)), tmp_path / "a")
    assert "This decides nothing: 2 of at least 3 seeds; give more --seeds." in notes(document, "caution")
    document = ablation_document(made_ablation(tmp_path / "b", SEEDS), tmp_path / "b")
    assert "decides nothing" not in notes(document, "caution")
