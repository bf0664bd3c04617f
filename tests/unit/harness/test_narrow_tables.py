"""Tables in terminals of any width: whole cells, the columns that matter, and what is left out by name."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from harness.ablation.request import make_request
from harness.ablation.results import Ablation, Outcome
from harness.ablation.run import to_table as ablation_table
from harness.cli.main import run
from harness.console import FILE_WIDTH, Console
from harness.experiment import CssExperiment
from harness.planning import training_cost
from harness.planning.training_cost import TrainingCost, plan_training
from harness.reporting.results import Collector, Results, to_table
from harness.run_folder import RunInfo
from harness.showing import show, show_table
from harness.tables import Column, Table, facts_table, table_csv, table_latex, table_markdown
from harness.trials import Trial, TrialState
from search_spaces.ablation import load_plan
from search_spaces.space import load_space

WIDTHS = (80, 100, 160)
LEADERS = ["rank", "trial", "dev/miou", "steps", "state"]
VERDICTS = ["variant", "val/miou", "- baseline", "95 % interval", "p", "verdict"]


def search(space_name: str) -> Results:
    space, collector = load_space(space_name), Collector()
    for number, params in enumerate((space.baseline_params, space.ours_params, space.baseline_params)):
        assert params is not None
        params = {**params, "loss.lambda_u": 0.223456 * (number + 1)}
        trial = Trial(number, params, space.overrides(params), str(number))
        trial.metrics, trial.best = {"step": 900}, {"value": 0.5 + number / 10, "step": 300}
        trial.state = TrialState.COMPLETE
        collector.on_start(trial)
    return Results("s-001", "search", "digits_css", space_name, "dev/miou", 900, 1.0, "x", space.paths,
                   collector.rows(space.paths), ours=True)  # fmt: skip


def ablation() -> Ablation:
    experiment = CssExperiment.of("digits_css")
    info = replace(RunInfo.of("ablation", experiment, "dev/miou", {}), data_digest="d")
    request = make_request(load_plan("css_components"), info, experiment, range(5), False, ())
    assert len(request.tried) == 6
    scores = [0.6 + len(run.variant) / 100 + run.seed * number / 9999 for number, run in enumerate(request.runs)]
    outcomes = [
        Outcome(number, run.variant, run.seed, "COMPLETE", {"dev/miou": score, "val/miou": score})
        for number, (run, score) in enumerate(zip(request.runs, scores, strict=True))
    ]
    return Ablation("a-001", request, outcomes, "val/miou", "x", 9.0, 9.0)


def at_width(width: int, write: Callable[[Console], object]) -> list[str]:
    """The lines that something writes into a terminal."""
    out = io.StringIO()
    write(Console(RichConsole(file=out, width=width, force_terminal=True, color_system=None), None))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def check(lines: list[str], table: Table, width: int, important: list[str]) -> set[str]:
    """Check a table that was written first: its rows are one line each, of whole cells; return the titles left out."""
    rule = next(index for index, line in enumerate(lines) if "──" in line)
    end = lines.index("", rule)
    body, after = lines[rule + 1 : end], "\n".join(lines[end + 1 :])
    said = re.match(r"not shown at (\d+) columns: ([^:]*)\nall columns: s4 report \S+ \| less -S\n", after)
    left_out = set(re.split(r",\s+", said[2])) if said else set()
    assert said is None or int(said[1]) == width
    assert max(map(len, lines[: end + 1])) <= width
    assert max(map(len, said[0].splitlines() if said else [""])) <= width
    assert left_out <= {column.title for column in table.columns} - set(important)
    shown = [index for index, column in enumerate(table.columns) if column.title not in left_out]
    assert [line.split() for line in body] == [
        " ".join(cells[index] for index in shown).split() for cells in table.texts("-")
    ]
    titles = " ".join(lines[1:rule]).split()
    assert sorted(titles) == sorted(" ".join(table.columns[index].title for index in shown).split())
    return left_out


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("space", "parameters"), [("css_quick", 5), ("css", 11)])
def test_a_leaderboard_keeps_its_cells_whole_and_says_what_the_best_trial_set(
    width: int, space: str, parameters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["s4"])
    results = search(space)
    assert len(results.paths) == parameters
    lines = at_width(width, lambda console: show(results, tmp_path / "runs" / "s-001", console))
    left_out = check(lines, to_table(results), width, LEADERS)
    assert bool(left_out) == (width < 160 or parameters == 11)
    set_by_best = dict(line.split() for line in lines if re.match(r"  \w+\.\w+ ", line))
    best = results.best
    assert best is not None
    assert best.number == 2
    assert set_by_best == ({path: Column("").text(value) for path, value in best.values.items()} if left_out else {})
    assert ("values of trial 2, the best:" in lines) == bool(left_out)


@pytest.mark.parametrize("width", WIDTHS)
def test_an_ablations_table_keeps_what_variants_are_judged_by(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["s4"])
    made = ablation()
    lines = at_width(width, lambda console: show_table(made, tmp_path / "runs" / "a-001", console))
    left_out = check(lines, ablation_table(made), width, VERDICTS)
    assert left_out == {80: {"seeds", "std", "dev/miou"}, 100: {"dev/miou"}, 160: set()}[width]


def piped(width: int, write: Callable[[Console], object]) -> list[str]:
    """The lines that something writes into a pipe."""
    out = io.StringIO()
    write(Console(RichConsole(file=out, width=width), None))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [*WIDTHS, FILE_WIDTH])
@pytest.mark.parametrize("made", [lambda: to_table(search("css")), lambda: ablation_table(ablation())])
def test_the_rule_is_as_wide_as_the_table_and_nothing_trails_in_a_pipe(width: int, made: Callable[[], Table]) -> None:
    table = made()
    lines = piped(width, lambda console: console.table(table))
    rule = next(index for index, line in enumerate(lines) if "──" in line)
    shown = lines[: rule + 1 + len(table.rows)]
    assert not [line for line in shown if line != line.rstrip()]
    longest = max(len(line) for index, line in enumerate(shown) if index != rule)
    assert len(lines[rule]) == longest <= width


@cache
def counted() -> TrainingCost:
    """The plan of a preset, which takes seconds to count."""
    return plan_training(CssExperiment.of("voc_css_92"), 1, None)


@pytest.mark.parametrize("columns", ["80", "100", "160", "", "wide", "0"])
def test_a_plan_in_a_pipe_is_as_wide_as_asked_for(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(training_cost, "plan_training", lambda *_: counted())
    assert run(["plan", "voc_css_92"]) == 0
    lines = capsys.readouterr().out.splitlines()
    width = int(columns) if columns.isdecimal() and int(columns) else FILE_WIDTH
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]
    table = training_cost.to_table(counted())
    assert " ".join(lines).split() == " ".join([table.caption, *(" ".join(row) for row in table.texts())]).split()


def test_a_file_holds_all_columns() -> None:
    table = to_table(search("css"))
    assert table.exact is not None
    assert table_csv(table).splitlines()[0].split(",") == table.exact.columns
    for text, mark in ((table_markdown(table), " | "), (table_latex(table), " & ")):
        [head] = [line for line in text.splitlines() if "prototype" in line]
        assert len(head.split(mark)) == len(table.columns) == 6 + 11


@pytest.mark.parametrize("width", [8, 12, 30])
def test_the_least_important_columns_go_first_and_one_always_stays(width: int) -> None:
    table = Table("t", "", [Column("a"), Column("bb", weight=1), Column("c"), Column("d")], [["x" * 4, "name", 1, 2]])
    lines = at_width(width, lambda console: console.table(table))
    gone = {8: "a, c, d", 12: "c, d", 30: ""}[width]
    assert " ".join(lines).partition("columns: ")[2] == gone
    assert "".join(lines).replace(" ", "").count("name") == 1


def test_prose_is_broken_between_words_and_never_left_out_for_its_length() -> None:
    words = " ".join(f"word{number}" for number in range(40))
    lines = at_width(40, lambda console: console.table(facts_table("t", "", [[("what", words)], [("n", "1")]])))
    assert max(map(len, lines)) <= 40
    assert " ".join(lines).split() == ["what", *words.split(), "n", "1"]


def test_the_last_column_left_is_broken_where_it_does_not_fit() -> None:
    lines = at_width(8, lambda console: console.table(Table("t", "", [Column("a")], [["x" * 50]])))
    assert max(map(len, lines)) <= 8
    assert "".join(lines).count("x") == 50
