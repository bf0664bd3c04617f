"""What a reader trips over in a report: times, settings, colours, labels, commands, and intervals of two seeds."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from invented.ablations import PLAIN, STRONG, made_ablation
from invented.searches import SEARCH, SECOND, Course, made_info, made_search, made_training
from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas

from harness import cluster
from harness.ledger import LEDGER, Ledger, read_times
from harness.reporting.ablation.report import ablation_document
from harness.reporting.document import Commands, Document, Facts, Figure, Note, Text
from harness.reporting.parameters import shade
from harness.reporting.record import read_record
from harness.reporting.reports import search_document, training_document
from harness.reporting.results import summary
from harness.reporting.themes import THEMES, Theme
from harness.run_folder import BEST, write_run
from search_spaces import load_space
from trainers.config import TrainConfig
from trainers.figure import palette
from trainers.overrides import as_setting


def facts(document: Document) -> dict[str, str]:
    blocks = [block for section in document.sections for block in section.blocks if isinstance(block, Facts)]
    return dict(row for block in blocks for row in block.rows)


def commands(document: Document) -> list[str]:
    blocks = [block for section in document.sections for block in section.blocks if isinstance(block, Commands)]
    return [command for block in blocks for command, _ in block.rows]


def texts(document: Document) -> str:
    blocks = [block for section in document.sections for block in section.blocks if isinstance(block, Text | Note)]
    return "\n".join(block.text for block in blocks)


def figure(document: Document, name: str) -> Figure:
    [found] = [one for one in document.figures if one.name == name]
    return found


def painted(figure: Figure, theme: Theme) -> Canvas:
    with rc_context(theme.settings):
        canvas = Canvas(figsize=figure.size, layout="constrained")
        FigureCanvasAgg(canvas)
        figure.draw(canvas, theme)
        canvas.draw_without_rendering()
    return canvas


def test_long_times_are_in_seconds_and_minutes(tmp_path: Path) -> None:
    courses = [replace(course, more={SECOND: 18.2}) for course in SEARCH]
    found = facts(search_document(read_record(made_search(tmp_path / "s", courses))))
    assert (found["A step, median"], found["Start of a trial, median"]) == ("18 s", "100 ms")
    assert not [value for value in found.values() if "e+" in value]


def test_the_terminal_and_the_report_say_the_same_times(tmp_path: Path) -> None:
    record = read_record(made_search(tmp_path / "s", ended=True))
    found = facts(search_document(record))
    results = replace(record.results, rows=[replace(row, start_s=0.1, report_s=0.02) for row in record.results.rows])
    [line] = [line for line in summary(results) if line.startswith("overhead")]
    assert line.split(": ")[1].startswith(found["Start of a trial, median"])
    assert f" {found['A report, median']} a report" in line
    assert summary(results)[0].endswith(f" in {found['Wall clock']}")


def test_settings_stand_one_a_line_as_set_takes_them(tmp_path: Path) -> None:
    folder = made_training(tmp_path / "t")
    settings = {"schedule.steps": 120, "data.classes": ("sky", "road"), "loss.lambda_u": 1e-5}
    write_run(folder, made_info("train", settings, {}))
    [table] = [one for one in training_document(read_record(folder)).tables if one.name == "settings"]
    assert ["=".join(map(str, row)) for row in table.rows] == [as_setting(*pair) for pair in settings.items()]


def test_a_line_that_never_moves_is_a_sentence(tmp_path: Path) -> None:
    document = training_document(read_record(made_training(tmp_path / "t")))
    assert "The same at every report: classes without prototype (0)." in texts(document)
    assert figure(document, "health").data.columns == ["step", "health/teacher_student_gap"]


def test_the_colours_of_classes_are_named_below_predictions(tmp_path: Path) -> None:
    folder = made_training(tmp_path / "t")
    (folder / "predictions.png").write_bytes(b"png")
    legend = figure(training_document(read_record(folder)), "class-colours")
    classes = TrainConfig().data.classes
    rows = [[name, *colour] for name, colour in zip(classes, palette(len(classes)).tolist(), strict=False)]
    assert legend.data.rows == rows
    [drawn] = painted(legend, THEMES[0]).legends
    assert [text.get_text() for text in drawn.get_texts()] == list(classes)


def test_the_best_settings_and_what_began_a_search_are_commands_at_its_top(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s")
    (folder / BEST).write_text("preset: digits_css\n")
    document = search_document(read_record(folder))
    [first] = [block for block in document.sections[0].blocks if isinstance(block, Commands)]
    began, best = (command for command, _ in first.rows)
    assert began.startswith("s4 tune digits_css --trials 6")
    assert "--set schedule.steps=120 --name s" in began
    assert best == f"s4 train {folder / BEST}"


def test_pages_of_mlflow_are_those_of_the_run(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a")
    for document, name in (
        (search_document(read_record(made_search(tmp_path / "s"))), "s"),
        (training_document(read_record(made_training(tmp_path / "t"))), "t"),
        (ablation_document(ablation, tmp_path / "a"), "a"),
    ):
        assert f"s4 ui {name}" in commands(document)


def test_devices_and_versions_are_those_that_the_last_session_wrote_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.Node("n", "address", {"GPU": 2.0}, False, 1)
    monkeypatch.setattr(cluster, "cluster_nodes", lambda: cluster.ClusterNodes((node, node)))
    monkeypatch.setattr("ray.cluster_resources", lambda: {"GPU": 4.0, "accelerator_type:H100": 2.0})
    folder = made_search(tmp_path / "s")
    ledger = Ledger(folder / LEDGER, "dev/miou")
    ledger.begin_session(cluster.machine(cluster.WorkerResources(use_gpu=True)))
    ledger.close()
    found = facts(search_document(read_record(folder)))
    assert found["Devices"] == "4 GPUs (H100) on 2 hosts"
    assert found["Software"].startswith("torch 2.")


def test_a_report_names_the_cards_that_a_search_held(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s")
    ledger = Ledger(folder / LEDGER, "dev/miou")
    ledger.spent(3600.0, 7200.0, {"H100": 5400.0, "A100": 1800.0})
    ledger.close()
    assert facts(search_document(read_record(folder)))["Devices held"] == "2 device-hours (0.5 on A100, 1.5 on H100)"


def test_a_ledger_without_a_machine_has_none(tmp_path: Path) -> None:
    assert read_times(made_search(tmp_path / "s") / LEDGER).machine == {}
    (tmp_path / "l").write_text(json.dumps({"event": "session", "trial": None, "time": 1.0}) + "\n")
    assert read_times(tmp_path / "l").machine == {}


def test_categories_below_a_slice_do_not_run_into_each_other(tmp_path: Path) -> None:
    courses = [Course(values=(0.1 * number,) * 6) for number in range(8)]
    record = read_record(made_search(tmp_path / "s", courses, space=load_space("css")))
    canvas = painted(figure(search_document(record), "slices"), THEMES[0])
    for panel in canvas.axes:
        labels = [label for label in panel.get_xticklabels() if label.get_text()]
        boxes = sorted([label.get_window_extent() for label in labels], key=lambda box: box.x0)
        level = all(label.get_rotation() == 0 for label in labels)
        assert not level or all(one.x1 <= other.x0 + 1 for one, other in pairwise(boxes)), panel.get_title()


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
@pytest.mark.parametrize("good", [0.0, 0.5, 1.0])
def test_the_lines_of_the_worst_trials_are_seen_on_the_paper(theme: Theme, good: float) -> None:
    ink = [0.8 * over + 0.2 * under for over, under in
           zip(colormaps[theme.ramp](shade(good))[:3], to_rgb(theme.paper), strict=True)]  # fmt: skip
    light, dark = sorted([luminance(ink), luminance(to_rgb(theme.paper))], reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 2


def luminance(colour: Sequence[float]) -> float:
    """Of WCAG 2."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_two_seeds_decide_nothing_and_their_intervals_are_not_drawn(tmp_path: Path) -> None:
    document = ablation_document(made_ablation(tmp_path / "a", (0, 1)), tmp_path / "a")
    assert document.lead == (
        f"Two seeds each: {STRONG} is furthest from {PLAIN}, by +0.0922 val/miou, and whether that is more than the "
        "noise of seeds nobody can say."
    )
    assert "This decides nothing: 2 of at least 3 seeds" in texts(document)
    [table] = [one for one in document.tables if one.name == "comparison"]
    assert [row[-1] for row in table.rows] == ["the base", "undecided: 2 seeds", "undecided: 2 seeds"]
    assert not table.bold
    forest = figure(document, "forest")
    [panel] = painted(forest, THEMES[0]).axes
    low, high = panel.get_xlim()
    seen = [float(row[3]) for row in forest.data.rows if row[1] == "seed"]
    assert high - low < 1.5 * (max([*seen, 0.0]) - min([*seen, 0.0]))


def test_three_seeds_keep_their_verdicts(tmp_path: Path) -> None:
    document = ablation_document(made_ablation(tmp_path / "a"), tmp_path / "a")
    [table] = [one for one in document.tables if one.name == "comparison"]
    assert [row[-1] for row in table.rows] == ["the base", "better", "within noise"]
